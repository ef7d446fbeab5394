"""LED's tokenizer, text to ids and back: GPT-2's byte-level BPE with BART's special tokens. In reading order.

unicode_ranges.py   the table of letters, numbers and white space
bpe.py              text -> words -> bytes -> pieces: byte-pair encoding, merges by rank
specials.py         special tokens: found in raw text, and their names, ids and positions: `<s> A </s></s> B </s>`
engine.py           encoding with offsets, in Python and by the `tokenizers` library
decoding.py         the bytes of every id, and text from ids
batch.py            validation of texts, truncation and padding
files.py            vocab.json, merges.txt, special_tokens_map.json, tokenizer.json
tokenizer.py        LEDTokenizer: all of them, with transformers' names
"""

from led_ref.tokenizer.batch import BatchEncoding
from led_ref.tokenizer.specials import AddedToken
from led_ref.tokenizer.tokenizer import LEDTokenizer

__all__ = ["AddedToken", "BatchEncoding", "LEDTokenizer"]
