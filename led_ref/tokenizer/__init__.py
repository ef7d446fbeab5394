"""LED's tokenizer, text to ids and back: GPT-2's byte-level BPE with BART's special tokens. In reading order.

unicode_ranges.py   the table of letters, numbers and white space
unicode_split.py    text -> words; a merge never crosses their borders
bpe.py              word -> bytes -> pieces: byte-pair encoding, merges by rank
added_tokens.py     finds `</s>` and `<mask>` in raw text
engine.py           encoding with offsets and decoding, in Python and by the `tokenizers` library
batch.py            truncation and padding
specials.py         the names, ids and positions of special tokens: `<s> A </s></s> B </s>`
files.py            vocab.json, merges.txt, special_tokens_map.json, tokenizer.json
texts.py            validation of input texts
tokenizer.py        LEDTokenizer: all of them, with transformers' names
pieces.py           streaming decoding: text while the ids are generated
"""

from led_ref.tokenizer.added_tokens import AddedToken
from led_ref.tokenizer.batch import BatchEncoding
from led_ref.tokenizer.tokenizer import LEDTokenizer

__all__ = ["AddedToken", "BatchEncoding", "LEDTokenizer"]
