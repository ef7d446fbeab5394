"""Questions with answers, and descriptions with sections: for the answerer and the classifier.

    python docs/recipes/questions.py WORK          after rfcs.py, man_pages.py, descriptions.py

Written into WORK/stages (for training, and `-heldout` for validation) and WORK/test:

    questions-tiny     id, question, context, answers: some 40 to 150 tokens around the answer; for training
    questions-middle   some 40 to 500 tokens around it; for training
    questions-pieces   some 200 to 370 tokens, as when a long document is searched in pieces: a third of them without the answer
    questions-short    some 500 tokens around it; for testing
    questions-long     up to 4,096 tokens, from the beginning of the document; for testing
    labels             text, label: the sections of the archive that have at least 100 descriptions; for both

Questions are made of what documents state in a fixed form: an option of a manual page and its explanation, a term or field of
an RFC and its definition. The answer is the explanation's first sentence, or the option that has this explanation. Of these
there are too few to learn from them alone that an answer stands beside the question's own words; so some give the first words
of a sentence, and ask for the rest. One in five asks for what another document states, and has no answer. Pieces have another
kind of question without an answer: the document has it, but elsewhere; most pieces of a long document are such. The questions
for testing are asked in wordings that no training question has, about documents that no training question is about.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from splits import Record, read_lines, share, write_lines

# Of a context, at least and at most.
CHARACTERS = {"tiny": (150, 500), "middle": (150, 1_700), "pieces": (700, 1_330), "short": (1_700, 1_700)}
LONG = 13_000
BEGINNING = 14  # characters of an explanation: what has them may have been cut in the middle of it
OF_A_DOCUMENT = {"tiny": 60, "middle": 60, "pieces": 60, "short": 8, "long": 3}
BEGUN = {"tiny": 4, "middle": 4, "pieces": 2}  # questions of a document that begin a sentence
SHARE_OF_LONG = 0.8  # of the documents
WITHOUT_ANSWER = 0.2
ELSEWHERE = 0.4  # of the pieces are taken from where the answer is not, if the document is long enough
LOWERCASE = 0.4  # of the terms in training questions begin so, as people ask for them
LEAST_OF_A_LABEL = 100
HELD_OUT = {"tiny": 150, "middle": 150, "pieces": 400}  # questions for validation
WORDINGS = {
    "option": (
        "What does {} do?", "What is the option {} for?", "What does {} mean?", "Explain the option {}.", "{}?",
        "When do I need {}?", "What changes if I give {}?", "Describe {}.", "How does {} work?", "What is the effect of {}?",
    ),
    "which": (
        "Which option does this: {}?", "How do I get this: {}?", "What do I type for this: {}?",
        "Is there a flag for this: {}?", "Name the option for this: {}.", "With what switch is this done: {}?",
        "{}: which option is that?", "Find the option: {}.",
    ),
    "term": (
        "What is {}?", "What does {} mean?", "How is {} defined?", "Define {}.", "Explain {}.",
        "What does the document say about {}?", "What does the term {} stand for?", "What is a {}?", "What is the {}?",
        "Describe {}.",
    ),
    "begun": ("What comes after {}?", "How does this go on: {}?", "{} ...?"),
}  # fmt: skip
TEST_WORDINGS = {
    "option": ("What happens with {}?", "Why would one use {}?"),
    "which": ("By which flag can one do this: {}?",),
    "term": ("What is meant by {}?", "What is the meaning of {}?"),
    "begun": ("What follows {}?",),
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
_WHOLE_SENTENCE = re.compile(r"(?:(?<=^)|(?<=[.] ))[A-Z][a-z].{40,220}?(?=[.]\s)", re.MULTILINE)


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


def begun(text: str) -> list[Statement]:
    """Sentences whose first two to four words stand nowhere else in the text: what they are begun with, and their rest."""
    found = []
    for sentence in _WHOLE_SENTENCE.finditer(text):
        words = 2 + int(3 * share(f"words {sentence[0]}"))
        if first := re.match(rf"(?:\S+ ){{{words}}}", sentence[0]):
            subject, rest, at = first[0].rstrip(" ,"), sentence[0][first.end() :], sentence.start()
            if len(rest) >= 14 and text.count(subject) == 1:
                found.append(Statement("begun", subject, at, rest, at + first.end()))
    return found


def window(text: str, start: int, end: int, characters: int, draw: float) -> tuple[str, int]:
    """A part of a text, whole lines around start to end, and where it begins; `draw` (0 to 1) decides how much is before."""
    if len(text) <= characters:
        return text, 0
    begin = max(0, start - int(draw * (characters - (end - start))))
    begin = text.rfind("\n", 0, begin + 1) + 1 if begin else 0
    return text[begin : begin + characters], begin


def elsewhere(one: Statement, text: str, characters: int, key: str) -> str:
    """A part of the text without the statement, one that names its subject if there is one; "" if the text has none."""
    named = [found.start() for found in re.finditer(re.escape(one.subject), text)]
    for at in (named[int(share(f"named {key}") * len(named))], int(share(f"place {key}") * len(text))):
        part, _ = window(text, at, min(at + len(one.subject), len(text)), characters, share(f"window {key}"))
        if one.text[:BEGINNING] not in part and len(part) > characters // 2:
            return part
    return ""


def question(one: Statement, text: str, length: str, split: str, key: str) -> Record | None:
    """A question about a statement; None if the answer is not in the part that is read."""
    wordings = WORDINGS if split == "train" else TEST_WORDINGS
    kind = "which" if one.kind == "option" and share(f"kind {key}") < 0.25 else one.kind
    answer, start = (one.subject, one.start) if kind == "which" else (one.text, one.text_start)
    about = one.text[0].lower() + one.text[1:] if kind == "which" else one.subject
    if kind == "term" and split == "train" and about[1:2].islower() and share(f"small {key}") < LOWERCASE:
        about = about[0].lower() + about[1:]
    wording = wordings[kind][int(share(f"wording {key}") * len(wordings[kind]))]
    context, begin = text[:LONG], 0
    if length != "long":
        first, last = sorted((one.start, one.text_start))[0], one.text_start + len(one.text)
        least, most = CHARACTERS[length]
        characters = max(last - first, int(least + (most - least) * share(f"characters {key}")))
        if (
            length == "pieces"
            and share(f"elsewhere {key}") < ELSEWHERE
            and (part := elsewhere(one, text, characters, key))
        ):
            return {"question": wording.format(about), "context": part, "answer": "", "answer_start": -1}
        context, begin = window(text, first, last, characters, share(f"window {key}"))
    if context[start - begin : start - begin + len(answer)] != answer:
        return None
    return {"question": wording.format(about), "context": context, "answer": answer, "answer_start": start - begin}


def questions(record: Record, source: str, length: str, foreign: list[str]) -> Iterator[Record]:
    """Some questions about a document; `foreign` are subjects of other documents."""
    if length == "long" and share(f"long {record['id']}") > SHARE_OF_LONG:
        return
    text = record["text"][:LONG] if length == "long" else record["text"][: 4 * LONG]
    found = sorted(statements(text, source), key=lambda one: share(f"{length} {record['id']} {one.subject}"))
    others = sorted(begun(text), key=lambda one: share(f"{record['id']} {one.subject}")) if length in BEGUN else []
    for one in found[: OF_A_DOCUMENT[length]] + others[: BEGUN.get(length)]:
        key = f"{length} {record['id']} {one.subject}"
        asked = question(one, text, length, record["split"], key)
        if asked is None:
            continue
        if asked["answer"] and share(f"none {key}") < WITHOUT_ANSWER:
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
        if length in BEGUN:
            held_out = sorted(asked["validation"], key=lambda one: share(one["id"]))[: HELD_OUT[length]]
            _write(work / "stages" / f"questions-{length}.jsonl.gz", asked["train"])
            _write(work / "stages" / f"questions-{length}-heldout.jsonl.gz", held_out)
        else:
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
