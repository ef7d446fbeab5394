"""From text to ids and back: LED's tokenizer, which is BART's, which is GPT-2's byte-level BPE with other special tokens.

Read the files in this order; each is one rung of the ladder:

    unicode_split.py    text -> words: where a merge may never reach across
    bpe.py              word -> bytes -> pieces: merges by rank, the heart of it
    added_tokens.py     `</s>` and `<mask>` in raw text
    engine.py           the three together, with offsets; decoding; and the same by the `tokenizers` library
    batch.py            truncation and padding
    files.py            vocab.json, merges.txt, special_tokens_map.json, tokenizer.json
    specials.py         the names that special tokens go by, and where they stand: `<s> A </s></s> B </s>`
    texts.py            what may come in
    tokenizer.py        LEDTokenizer: all of it, named as in transformers
"""

from led_ref.tokenizer.added_tokens import AddedToken
from led_ref.tokenizer.batch import BatchEncoding
from led_ref.tokenizer.tokenizer import LEDTokenizer

__all__ = ["AddedToken", "BatchEncoding", "LEDTokenizer"]
