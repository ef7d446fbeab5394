"""A vocabulary of byte-level BPE, trained on the training split alone: WORK/vocabulary/vocab.json, merges.txt, ...

    python docs/recipes/vocabulary.py WORK [SIZE]          after rfcs.py, man_pages.py, descriptions.py

Ids 0 to 3 are LED's: <s>, <pad>, </s>, <unk>; <mask> is the last, as in BART. The library `tokenizers` counts the pairs.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from splits import read_lines
from tokenizers import ByteLevelBPETokenizer

# As LED's own tokenizer has them: <mask> includes the blank in front of it.
_PLAIN = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
NAMED = {
    **{f"{name}_token": {"content": "<s>", **_PLAIN} for name in ("bos", "cls")},
    **{f"{name}_token": {"content": "</s>", **_PLAIN} for name in ("eos", "sep")},
    "pad_token": {"content": "<pad>", **_PLAIN},
    "unk_token": {"content": "<unk>", **_PLAIN},
    "mask_token": {"content": "<mask>", **_PLAIN, "lstrip": True},
}
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
# Characters of each document: enough of all three kinds, and a minute of counting.
SOURCES = {"rfcs": 8_000, "man_pages": 5_000, "descriptions": 2_000}


def texts(work: Path) -> Iterator[str]:
    """Beginnings and summaries of the documents for training."""
    for name, characters in SOURCES.items():
        for record in read_lines(work / f"{name}.jsonl.gz"):
            if record["split"] == "train":
                yield f"{record['summary']}\n{record['text'][:characters]}"


def main(work: Path, size: int = 6_144) -> None:
    """Train the vocabulary, and write its files."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        texts(work), vocab_size=size - 1, min_frequency=2, special_tokens=SPECIALS, show_progress=False
    )
    folder = work / "vocabulary"
    folder.mkdir(exist_ok=True)
    tokenizer.save_model(str(folder))
    path = folder / "vocab.json"
    ids = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**ids, "<mask>": len(ids)}, ensure_ascii=False), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(NAMED, indent=1) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{}\n", encoding="utf-8")
    print(f"{len(ids) + 1:,} tokens")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
