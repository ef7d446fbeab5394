"""A case that is ready to run: what led_ref's side and transformers' side of a bench have in common."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from led_ref.tools.bench.machine import MemoryWatch, seconds

# What one run measured: {"seconds": of the run, or of one of its steps}.
Run = Callable[[], dict[str, float]]

# Length of the document that is encoded before the clock starts, so that libraries, threads and weights are in memory.
WARM_UP_TOKENS = 64


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
