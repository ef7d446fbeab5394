"""What `led-ref bench` measures: the cases, and what both sides of a comparison have in common.

Each side of a case is measured in a process of its own (worker.py). The weights are random and of led-base's exact size
(161,844,480 parameters) unless the user names a model: speed does not depend on their values, as long as the search does
not end early, which min_new_tokens ensures.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.tools.bench.machine import MemoryWatch, seconds

# Decoding steps that a run of a decode case times. Two more go before them: the first also computes the document's keys and
# values, and the two sides start their clocks at places that differ by less than one step.
TIMED_STEPS = 16
UNTIMED_STEPS = 2

# How much of led_ref's own source the tokenizers read, in characters.
TEXT_LENGTH = 400_000

# Length of the document that is encoded before the clock starts, so that libraries, threads and weights are in memory.
WARM_UP_TOKENS = 64

# What one run measured: {"seconds": of the run, or of one of its steps}.
Run = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Args:
        name: what `--only` calls it.
        work: load, start, tokenize, encode, decode, generate or train.
        how: the variant: of the start, the tokenizer's engine, or the cross-attention.
        tokens: of the document.
        beams: of the search.
        new_tokens: generated tokens; in training those of a target.
        documents: in a training step.
        is_quick: whether it is part of `--quick`.
        like: the case with the same work for transformers, which has one variant of cross-attention: its figures are reused.
    """

    name: str
    work: str
    how: str = ""
    tokens: int = 0
    beams: int = 0
    new_tokens: int = 0
    documents: int = 1
    is_quick: bool = False
    like: str = ""


def _cases() -> Iterator[Case]:
    for how in ("help", "import", "class"):
        yield Case(f"start-{how}", "start", how=how, is_quick=True)
    yield Case("load", "load", is_quick=True)
    for how in ("python", "rust"):
        yield Case(f"tokenize-{how}", "tokenize", how=how, is_quick=True)
    for thousands in (1, 2, 4, 8, 16):
        yield Case(f"encode-{thousands}k", "encode", tokens=1024 * thousands, is_quick=thousands in (1, 4))
    steps = UNTIMED_STEPS + TIMED_STEPS
    for thousands in (4, 16):
        for beams in (1, 4):
            name = f"decode-{thousands}k-{beams}beam{'s' * (beams > 1)}"
            yield Case(name, "decode", "cached", 1024 * thousands, beams, steps, is_quick=thousands == 4)
    yield Case("decode-16k-4beams-folded", "decode", "folded", 16384, 4, steps, like="decode-16k-4beams")
    yield Case("generate-1k-4beams", "generate", "cached", 1024, 4, 32, is_quick=True)
    yield Case("generate-16k-4beams", "generate", "cached", 16384, 4, 128)
    yield Case("generate-16k-4beams-folded", "generate", "folded", 16384, 4, 128, like="generate-16k-4beams")
    for thousands in (1, 4, 16):
        yield Case(f"train-{thousands}k", "train", "base", 1024 * thousands, new_tokens=128)
    yield Case("train-small", "train", "small", 1024, new_tokens=24, documents=8)


CASES: dict[str, Case] = {case.name: case for case in _cases()}


# ---- what both sides are given --------------------------------------------------------------------------------------


def document(case: Case, vocab_size: int) -> tuple[HostArray, HostArray]:
    """Random ids (1, T) and the mask that makes the first of them global, int64."""
    ids_1T = np.random.default_rng(0).integers(4, vocab_size, (1, case.tokens))
    global_1T = np.zeros_like(ids_1T)
    global_1T[:, 0] = 1
    return ids_1T, global_1T


def train_batch(case: Case, vocab_size: int) -> dict[str, HostArray]:
    """The arguments of a training step: documents (B, T), each with its first token global, and labels (B, U), all random."""
    rng = np.random.default_rng(0)
    ids_BT = rng.integers(4, vocab_size, (case.documents, case.tokens))
    global_BT = np.zeros_like(ids_BT)
    global_BT[:, 0] = 1
    labels_BU = rng.integers(4, vocab_size, (case.documents, case.new_tokens))
    return {
        "input_ids": ids_BT,
        "attention_mask": np.ones_like(ids_BT),
        "global_attention_mask": global_BT,
        "labels": labels_BU,
    }


def train_folder(case: Case, folder: Path) -> Path:
    """The model of a training case: the small one is the bundled model, for both sides."""
    if case.how == "small":
        from led_ref.api import bundled_model

        return bundled_model()
    return folder


def encoder_states(case: Case, d_model: int) -> HostArray:
    """Random encoder states (1, T, D), float32: a decode case need not encode a document first."""
    return np.random.default_rng(0).standard_normal((1, case.tokens, d_model), dtype=np.float32)


def text() -> str:
    """The text for the tokenizers: led_ref's own source, prose and code, every line of it different."""
    files = sorted(Path(__file__).parents[2].rglob("*.py"))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)[:TEXT_LENGTH]


def tokenizer_folder(folder: Path) -> Path:
    """The folder itself if it holds a vocabulary, else the bundled model's."""
    if (folder / "vocab.json").exists() or (folder / "tokenizer.json").exists():
        return folder
    from led_ref.api import bundled_model

    return bundled_model()


def step_seconds(ticks: list[float]) -> float:
    """The median step of a run, from the times at which its steps ended."""
    steps = [after - before for before, after in pairwise(ticks)]
    return median(steps[-TIMED_STEPS:])


# ---- a case that is ready to run -------------------------------------------------------------------------------------


class Prepared:
    """A case that is ready to run.

    Args:
        run: runs it once.
        memory: measures this process from the moment when it held interpreter, libraries and weights. None for a case that
            takes its memory in another process.
        peak: if `memory` is None, the most that the other process took, in bytes.
        facts: what else is known, such as how many tokens a text has.
    """

    def __init__(self, run: Run, memory: MemoryWatch | None = None, peak: int = 0, **facts: Any) -> None:
        self.run = run
        self.memory = memory
        self._peak = peak
        self.facts = facts

    def taken(self) -> dict[str, int | None]:
        """The memory that was taken, in bytes: at most, and above what was taken before the runs."""
        if self.memory is None:
            return {"peak": self._peak, "above": None}
        return {"peak": self.memory.peak(), "above": self.memory.above()}


def timed(work: Callable[[], Any]) -> Run:
    """A run that measures the time of some work."""
    return lambda: {"seconds": seconds(work)}


def prepare_start(program: str) -> Prepared:
    """A case that starts a new Python for one line of program. That Python reports its memory once, untimed."""
    command = [sys.executable, "-c"]
    last_words = "import sys; from led_ref.tools.bench.machine import peak_memory; sys.stderr.write(str(peak_memory()))"
    whole = f"try:\n    {program}\nexcept SystemExit:\n    pass\n{last_words}"
    said = subprocess.run([*command, whole], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).stderr

    def start() -> None:
        subprocess.run([*command, program], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return Prepared(timed(start), peak=int(said.split()[-1]))


def prepare_tokenize(text: str, make_tokenizer: Callable[[], Any], **facts: Any) -> Prepared:
    """A case that tokenizes a text. Each run makes a new tokenizer, which has no word in its cache."""
    memory = MemoryWatch()
    tokens = len(make_tokenizer().encode(text))

    def run() -> dict[str, float]:
        tokenizer = make_tokenizer()
        return {"seconds": seconds(lambda: tokenizer.encode(text))}

    return Prepared(run, memory, tokens=tokens, **facts)
