"""Questions with answers, and descriptions with sections: for the answerer and the classifier.

    python docs/recipes/questions.py WORK          after rfcs.py, man_pages.py, descriptions.py

Written into WORK/stages (for training, and `-heldout` for validation) and WORK/test:

    questions-short    id, question, context, answer, answer_start: up to some 500 tokens around the answer
    questions-long     up to 4,096 tokens, from the beginning of the document
    labels             text, label: the sections of the archive that have at least 100 descriptions

Questions are made of what documents state in a fixed form: an option of a manual page and its explanation, a term or field of
an RFC and its definition. The answer is the explanation's first sentence, or the option that has this explanation. One in five
asks for what another document states, and has no answer: `answer` is empty. The questions for testing are asked in wordings
that no training question has, about documents that no training question is about.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from splits import Record, read_lines, share, write_lines

SHORT, LONG = 1_700, 13_000  # characters of a context
OF_A_DOCUMENT = {"short": 8, "long": 3}
SHARE_OF_LONG = 0.8  # of the documents
WITHOUT_ANSWER = 0.2
LEAST_OF_A_LABEL = 100
HELD_OUT = 150  # questions for validation
WORDINGS = {
    "option": ("What does {} do?", "What is the option {} for?", "What does {} mean?", "Explain the option {}.", "{}?"),
    "which": ("Which option does this: {}?", "How do I get this: {}?", "What do I type for this: {}?"),
    "term": ("What is {}?", "What does {} mean?", "How is {} defined?", "Define {}.", "Explain {}."),
}
TEST_WORDINGS = {
    "option": ("What happens with {}?", "Why would one use {}?"),
    "which": ("By which flag can one do this: {}?",),
    "term": ("What is meant by {}?", "What is the meaning of {}?"),
}
_FLAG = r"-{1,2}[A-Za-z0-9?][\w-]*"
_TAG = re.compile(
    rf"({_FLAG})(?:[ =]?[\[<]?[\w.|:=-]+[\]>]?)?(?:(?:, ?| \| ?| )({_FLAG})\S*(?: ?[\[<]?[A-Z\w]+[\]>]?)?)*\Z"
)
_TAG_AND_TEXT = re.compile(rf"({_FLAG}) (?=[A-Z][a-z])")
_TERM = re.compile(r"(?:[o*+-] )?\"?([A-Za-z][\w()/ -]{1,40}?)\"?: (?=[A-Z])")
_NO_TERMS = re.compile(
    r"(note|example|category|obsoletes|updates|figure|table|reference|e-?mail|phone|fax|uri|url|rfc|request|source|see|section"
    r"|editors?|authors?|contact|title|date|issn|std|bcp|fyi|status|file|input|output|from|to|subject|warning|result)s?\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[A-Z\"'(].{14,220}?(?=[.;:](\s|\Z))")


@dataclass(frozen=True)
class Statement:
    """What a document states: `subject` (an option or a term, at `start`) is explained by `text` (at `text_start`)."""

    kind: str
    subject: str
    start: int
    text: str
    text_start: int


def statements(text: str, source: str) -> list[Statement]:
    """All statements of a document whose subject is explained once."""
    found, lines, start = list[Statement](), text.split("\n"), 0
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        subject, at = None, 0
        if source == "rfcs":
            tag = _TERM.match(line)
            if tag and len(tag[1].split()) <= 5 and not _NO_TERMS.match(tag[1]):
                subject, at = tag, tag.end()
        elif len(line) <= 60 and (tag := _TAG.match(line)):
            subject, at = tag, len(line) + 1
        elif tag := _TAG_AND_TEXT.match(line):
            subject, at = tag, tag.end()
        if subject and (sentence := _SENTENCE.match(f"{line}\n{following}", at)) and "\n" not in sentence[0]:
            kind = "term" if source == "rfcs" else "option"
            found.append(Statement(kind, subject[1], start + subject.start(1), sentence[0], start + at))
        start += len(line) + 1
    counts = Counter(one.subject for one in found)
    return [one for one in found if counts[one.subject] == 1]


def window(text: str, start: int, end: int, characters: int, draw: float) -> tuple[str, int]:
    """A part of a text, whole lines around start to end, and where it begins; `draw` (0 to 1) decides how much is before."""
    if len(text) <= characters:
        return text, 0
    begin = max(0, start - int(draw * (characters - (end - start))))
    begin = text.rfind("\n", 0, begin + 1) + 1 if begin else 0
    return text[begin : begin + characters], begin


def question(one: Statement, text: str, length: str, split: str, key: str) -> Record | None:
    """A question about a statement; None if the answer is not in the part that is read."""
    wordings = WORDINGS if split == "train" else TEST_WORDINGS
    kind = "which" if one.kind == "option" and share(f"kind {key}") < 0.25 else one.kind
    answer, start = (one.subject, one.start) if kind == "which" else (one.text, one.text_start)
    about = one.text[0].lower() + one.text[1:] if kind == "which" else one.subject
    wording = wordings[kind][int(share(f"wording {key}") * len(wordings[kind]))]
    context, begin = text[:LONG], 0
    if length == "short":
        first, last = sorted((one.start, one.text_start))[0], one.text_start + len(one.text)
        context, begin = window(text, first, last, SHORT, share(f"window {key}"))
    if context[start - begin : start - begin + len(answer)] != answer:
        return None
    return {"question": wording.format(about), "context": context, "answer": answer, "answer_start": start - begin}


def questions(record: Record, source: str, length: str, foreign: list[str]) -> Iterator[Record]:
    """Some questions about a document; `foreign` are subjects of other documents."""
    if length == "long" and share(f"long {record['id']}") > SHARE_OF_LONG:
        return
    text = record["text"][: 4 * LONG] if length == "short" else record["text"][:LONG]
    found = sorted(statements(text, source), key=lambda one: share(f"{length} {record['id']} {one.subject}"))
    for one in found[: OF_A_DOCUMENT[length]]:
        key = f"{length} {record['id']} {one.subject}"
        asked = question(one, text, length, record["split"], key)
        if asked is None:
            continue
        if share(f"none {key}") < WITHOUT_ANSWER:
            other = foreign[int(share(f"foreign {key}") * len(foreign))]
            if other.lower() in asked["context"].lower():
                continue
            wordings = (WORDINGS if record["split"] == "train" else TEST_WORDINGS)[one.kind]
            wording = wordings[int(share(f"wording {key}") * len(wordings))]
            asked |= {"question": wording.format(other), "answer": "", "answer_start": -1}
        yield {"id": key, **asked}


def squad(record: Record) -> Record:
    """The answer in SQuAD's form, where no answer is an empty list."""
    answer, start = record.pop("answer"), record.pop("answer_start")
    return {**record, "answers": {"text": [answer] if answer else [], "answer_start": [start] if answer else []}}


def main(work: Path) -> None:
    """Write all files."""
    for folder in ("stages", "test"):
        (work / folder).mkdir(exist_ok=True)
    sources = {name: list(read_lines(work / f"{name}.jsonl.gz")) for name in ("man_pages", "rfcs")}
    for length in OF_A_DOCUMENT:
        asked: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
        for name, records in sources.items():
            foreign = [one.subject for record in records[::9] for one in statements(record["text"][:LONG], name)[:2]]
            for record in records:
                asked[record["split"]] += map(squad, questions(record, name, length, foreign))
        held_out = sorted(asked["validation"], key=lambda one: share(one["id"]))[:HELD_OUT]
        _write(work / "stages" / f"questions-{length}.jsonl.gz", asked["train"])
        _write(work / "stages" / f"questions-{length}-heldout.jsonl.gz", held_out)
        _write(work / "test" / f"questions-{length}.jsonl.gz", asked["test"])
    labelled = [{k: r[k] for k in ("id", "text", "label", "split")} for r in read_lines(work / "descriptions.jsonl.gz")]
    counts = Counter(record["label"] for record in labelled)
    for split, path in (("train", "stages/labels"), ("validation", "stages/labels-heldout"), ("test", "test/labels")):
        kept = [one for one in labelled if one["split"] == split and counts[one["label"]] >= LEAST_OF_A_LABEL]
        _write(work / f"{path}.jsonl.gz", kept)


def _write(path: Path, records: list[Record]) -> None:
    print(f"{path.name}: {write_lines(path, records):,}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
