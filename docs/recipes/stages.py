"""What the summarizer reads in each stage: WORK/*.jsonl.gz -> WORK/stages/STAGE.jsonl.gz, STAGE-heldout.jsonl.gz, WORK/test.

    python docs/recipes/stages.py WORK          after rfcs.py, man_pages.py, descriptions.py

    first     pieces of documents with a third of their words masked, to be written whole; and the beginnings of documents
    short     up to 1,024 tokens
    medium    up to 4,096
    long      up to 8,192

The document itself shows its kind: an RFC begins with its header, half of the manual pages with their title, the others with
their first section (in `short` each of them both ways); a description has neither; a piece has `<mask>` in it. In `medium`
and `long` half of the RFCs begin with their title in place of the header, as documents of other authors do.

Pieces are BART's own pre-training (text infilling, section 2 of arXiv 1910.13461). All targets together are 1.5 million tokens,
too few to learn from that the decoder may copy what the encoder reads, and pieces are as many as one likes.
"""

import random
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from splits import Record, read_lines, share, write_lines

WORDS_OF_TARGET = 150  # an abstract goes on to the end of the sentence before
PIECE = range(250, 600)  # characters of a piece
PIECES = {"rfcs": 8, "man_pages": 2, "descriptions": 1}  # of each document
SHARE_OF_MASKED_DESCRIPTIONS = 0.5
MASKED = 0.3  # of the words of a piece
LONGEST_SPAN = 6  # words that one <mask> stands for: 1 to 6
# Characters of RFCs and manual pages; the share of descriptions; whether there are pieces. A token has 3.3 to 4.2 characters.
STAGES = {
    "first": ({"rfcs": 1_000, "man_pages": 1_000}, 1.0, True),
    "short": ({"rfcs": 4_200, "man_pages": 2_400}, 0.25, False),
    "medium": ({"rfcs": 16_000, "man_pages": 13_000}, 0.05, False),
    "long": ({"rfcs": 33_000, "man_pages": 26_000}, 0.02, False),
}
HEADER_LINES = 20  # a title stands among them
HELD_OUT = {"rfcs": 60, "man_pages": 60, "descriptions": 60}


def cut(text: str, characters: int) -> str:
    """The beginning of a text, up to the last word that is whole."""
    return text if len(text) <= characters else text[:characters].rsplit(maxsplit=1)[0]


def from_title(record: Record) -> str:
    r"""The text of an RFC from the line on where its title begins; all of it if no such line is among the first.

    Example:
        >>> from_title({"title": "Echo Protocol", "text": "Network Working Group\nRFC: 862\nEcho Protocol\nIt echoes."})
        'Echo Protocol\nIt echoes.'
    """
    lines, title = record["text"].split("\n"), _letters(record["title"])
    for place, line in enumerate(lines[:HEADER_LINES]):
        letters = _letters(line)
        if len(letters) >= min(12, len(title)) > 0 and (title.startswith(letters) or letters.startswith(title)):
            return "\n".join(lines[place:])
    return record["text"]


def _letters(line: str) -> str:
    """Letters and digits alone, in lower case."""
    return re.sub(r"[\W_]", "", line).lower()


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


def pieces(record: Record, number: int) -> Iterator[Record]:
    """Some pieces of a document, chosen by their hash: `text` has masked words, and `summary` is the piece itself."""
    blocks: list[str] = [""]
    for line in record["text"].split("\n"):
        if len(blocks[-1]) > PIECE.start:
            blocks.append("")
        blocks[-1] += line + "\n"
    whole = [cut(block.strip(), PIECE.stop) for block in blocks if len(block) > PIECE.start]
    whole.sort(key=lambda piece: share(piece + record["id"]))
    for place, piece in enumerate(whole[:number]):
        key = f"{record['id']}#{place}"
        yield {"id": key, "text": masked(piece, random.Random(key)), "summary": piece}


def masked(piece: str, draw: random.Random) -> str:
    """A text in which spans of 1 to LONGEST_SPAN words, MASKED of all words, are one `<mask>` each.

    Example:
        >>> masked("It sends back whatever it is sent, as fast as it can.", random.Random(2))
        'It sends<mask> whatever it is sent, as fast as<mask>'
    """
    words = re.findall(r"\s*\S+", piece)
    kept, at = [], 0
    while at < len(words):
        # A span begins with this probability: then MASKED of the words are in one.
        if draw.random() < MASKED / (1 - MASKED) / ((1 + LONGEST_SPAN) / 2):
            at += draw.randint(1, LONGEST_SPAN)
            kept.append("<mask>")
        if at < len(words):
            kept.append(words[at])
            at += 1
    return "".join(kept)


def examples(record: Record, kind: str, stage: str) -> Iterator[Record]:
    """What a stage reads of a record, each with id, text and summary."""
    limits, share_of_descriptions, has_pieces = STAGES[stage]
    if kind == "descriptions":
        if share(f"{stage} {record['id']}") < share_of_descriptions:
            yield {"id": record["id"], "text": record["text"], "summary": record["summary"]}
        if has_pieces and share(f"pieces {record['id']}") < SHARE_OF_MASKED_DESCRIPTIONS:
            yield from pieces(record, PIECES[kind])
        return
    beginnings = [""]
    if kind == "man_pages" and re.search(r"\w", record["title"]):
        beginnings = [f"{record['title']}\n", ""]
        if stage != "short":
            beginnings = beginnings[:1] if share(f"title {record['id']}") < 0.5 else beginnings[1:]
    text = record["text"]
    if kind == "rfcs" and stage in ("medium", "long") and share(f"header {record['id']}") < 0.5:
        text = from_title(record)
    for beginning in beginnings if record["summary"] else ():
        yield {
            "id": record["id"] + " titled" * bool(beginning),
            "text": cut(beginning + text, limits[kind]),
            "summary": whole_sentences(record["summary"], WORDS_OF_TARGET),
        }
    if has_pieces:
        yield from pieces(record, PIECES[kind])


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
