"""What the summarizer reads in each stage: WORK/*.jsonl.gz -> WORK/stages/STAGE.jsonl.gz, STAGE-heldout.jsonl.gz, WORK/test.

    python docs/recipes/stages.py WORK          after rfcs.py, man_pages.py, descriptions.py

    first     beginnings of documents, up to some 400 tokens; and pieces of RFCs with the paragraph that says most of them
    short     up to 1,024 tokens
    medium    up to 4,096
    long      up to 8,192

The document itself shows its kind: an RFC begins with its header, half of the manual pages with their title, the others with
their first section; a description has neither. A piece of an RFC has no header; its target is the paragraph that was taken
out of it (the gap sentences of PEGASUS): so the decoder reads far more text than there are abstracts.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from splits import Record, read_lines, share, write_lines

WORDS_OF_TARGET = 150  # an abstract goes on to the end of the sentence before
PIECE = range(900, 1_500)  # characters of a piece of an RFC
PIECES = 3  # of each RFC
WORDS_OF_GAP = range(20, 90)
# Characters of RFCs and manual pages; the share of descriptions; whether there are pieces. A token has 3.3 to 4.2 characters.
STAGES = {
    "first": ({"rfcs": 1_500, "man_pages": 1_300}, 1.0, True),
    "short": ({"rfcs": 4_200, "man_pages": 3_300}, 0.5, False),
    "medium": ({"rfcs": 16_000, "man_pages": 13_000}, 0.05, False),
    "long": ({"rfcs": 33_000, "man_pages": 26_000}, 0.02, False),
}
HELD_OUT = {"rfcs": 60, "man_pages": 60, "descriptions": 60}


def cut(text: str, characters: int) -> str:
    """The beginning of a text, up to the last word that is whole."""
    return text if len(text) <= characters else text[:characters].rsplit(maxsplit=1)[0]


def whole_sentences(text: str, words: int) -> str:
    """As many sentences as have so many words together; at least one, which is cut if it is longer.

    Example:
        >>> whole_sentences("It is one. It is two. It is three.", 7)
        'It is one. It is two.'
    """
    kept: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text):
        if kept and sum(len(one.split()) for one in kept) + len(sentence.split()) > words:
            break
        kept.append(sentence)
    return " ".join(" ".join(kept).split()[: 2 * words])


def pieces(record: Record) -> Iterator[Record]:
    """Pieces of a document, each with the paragraph that shares most words with the rest as its summary."""
    lines = record["text"].split("\n")
    blocks: list[list[str]] = [[]]
    for line in lines:
        if sum(map(len, blocks[-1])) > PIECE.start:
            blocks.append([])
        blocks[-1].append(line)
    usable = [block for block in blocks[1:] if sum(map(len, block)) in range(PIECE.start, 2 * PIECE.stop)]
    usable.sort(key=lambda block: share(block[0] + record["id"]))
    for number, block in enumerate(usable[:PIECES]):
        prose = [i for i, line in enumerate(block) if len(line.split()) in WORDS_OF_GAP]
        if len(block) < 3 or not prose:
            continue
        best = max(prose, key=lambda i: _overlap(block[i], " ".join(block[:i] + block[i + 1 :])))
        yield {
            "id": f"{record['id']}#{number}",
            "text": cut("\n".join(block[:best] + block[best + 1 :]), PIECE.stop),
            "summary": block[best],
        }


def _overlap(one: str, other: str) -> float:
    """F1 of the words that two texts share."""
    first, second = (Counter(re.findall(r"\w+", text.lower())) for text in (one, other))
    return 2 * (first & second).total() / max(1, first.total() + second.total())


def examples(record: Record, kind: str, stage: str) -> Iterator[Record]:
    """What a stage reads of a record, each with id, text and summary."""
    limits, share_of_descriptions, has_pieces = STAGES[stage]
    if kind == "descriptions":
        if share(f"{stage} {record['id']}") < share_of_descriptions:
            yield {"id": record["id"], "text": record["text"], "summary": record["summary"]}
        return
    text = record["text"]
    if kind == "man_pages" and re.search(r"\w", record["title"]) and share(f"title {record['id']}") < 0.5:
        text = f"{record['title']}\n{text}"
    if record["summary"]:
        summary = whole_sentences(record["summary"], WORDS_OF_TARGET)
        yield {"id": record["id"], "text": cut(text, limits[kind]), "summary": summary}
    if kind == "rfcs" and has_pieces:
        yield from pieces(record)


def of_split(records: Iterable[Record], kind: str, stage: str, split: str) -> Iterator[Record]:
    """The examples of a split; of the held-out ones some, those with the lowest hash."""
    chosen = [record for record in records if record["split"] == split and (split == "train" or record["summary"])]
    if split != "train":
        chosen = sorted(chosen, key=lambda record: share(record["id"]))[: HELD_OUT[kind]]
        whole = [{**record} for record in chosen]
        for record in whole:
            yield from (found for found in examples(record, kind, stage) if "#" not in found["id"])
        return
    for record in chosen:
        yield from examples(record, kind, stage)


def main(work: Path) -> None:
    """Write the files of all stages."""
    (work / "stages").mkdir(exist_ok=True)
    sources = {kind: list(read_lines(work / f"{kind}.jsonl.gz")) for kind in HELD_OUT}
    for stage in STAGES:
        for split, name in (("train", stage), ("validation", f"{stage}-heldout")):
            found = (one for kind in sources for one in of_split(sources[kind], kind, stage, split))
            print(f"{name}: {write_lines(work / 'stages' / f'{name}.jsonl.gz', found):,}", flush=True)
    (work / "test").mkdir(exist_ok=True)
    for kind, records in sources.items():
        held_out = (one for one in records if one["split"] == "test" and one["summary"])
        print(f"test {kind}: {write_lines(work / 'test' / f'{kind}.jsonl.gz', held_out):,}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
