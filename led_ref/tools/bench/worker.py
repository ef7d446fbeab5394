"""One case of a bench in a process of its own: told to run, it runs once and says how long that took.

    python -m led_ref.tools.bench.worker led_ref|transformers|machine CASE FOLDER

It answers on standard output with a JSON object a line: what there is to know once all is prepared; the seconds of a run
for each line that it reads; and when there are no more lines, the most memory that it took. Whoever drives it (bench.py)
can so let several of them take turns. Here is led_ref's side; the other is in bench_transformers.py.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

from led_ref.tools.bench import cases as bench_cases
from led_ref.tools.bench.cases import CASES, Case
from led_ref.tools.bench.machine import MemoryWatch, seconds, speed_probe

# What a run measured: {"seconds": of it, or of one of its steps}.
Run = Callable[[], dict[str, float]]

# What is started anew, by how. Python's own start is part of it.
STARTS = {
    "help": "from led_ref.cli.main import main; main(['--help'])",
    "import": "import led_ref",
    "class": "from led_ref import LEDForConditionalGeneration",
}

# Of the document that is read before the clock runs, so that libraries, threads and weights are there.
WARM_UP_TOKENS = 64


class Prepared:
    """A case that is ready to run.

    Args:
        run: runs it once.
        memory: watches this process from the moment when it held interpreter, libraries and weights. None: a case whose
            memory is another process's; then `peak` is it.
        peak: see there, in bytes.
        facts: what else is known, such as how many tokens a text has.
    """

    def __init__(self, run: Run, memory: MemoryWatch | None = None, peak: int = 0, **facts: Any) -> None:
        self.run = run
        self.memory = memory
        self._peak = peak
        self.facts = facts

    def taken(self) -> dict[str, int | None]:
        """The memory that was taken, in bytes: at most, and above what was there before."""
        if self.memory is None:
            return {"peak": self._peak, "above": None}
        return {"peak": self.memory.peak(), "above": self.memory.above()}


def main(arguments: list[str]) -> int:
    """Prepare a case, run it as often as told, say what came out."""
    who, name, folder = arguments
    answers = _standard_output_for_answers_alone()

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        _work(who, name, folder, answer)
    except Exception as error:  # whatever it is, the person who waits for the figures should read it
        answer({"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _work(who: str, name: str, folder: str, answer: Callable[[dict[str, Any]], None]) -> None:
    if who == "machine":
        prepared = Prepared(speed_probe())
    elif who == "transformers":
        from led_ref.tools.bench.transformers_side import prepare as prepare_theirs

        prepared = prepare_theirs(CASES[name], Path(folder))
    else:
        prepared = prepare(CASES[name], Path(folder))
    answer(prepared.facts)
    for _ in sys.stdin:
        gc.collect()  # what an earlier run left behind is not this run's memory, nor its time
        answer(prepared.run())
    answer(prepared.taken())


def _standard_output_for_answers_alone() -> TextIO:
    """Standard output as it was; what anybody else prints from now on goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


# ---- led_ref's side -------------------------------------------------------------------------------------------------


def prepare(case: Case, folder: Path) -> Prepared:
    """A case of led_ref's, ready to run."""
    if case.work == "start":
        return prepare_start(STARTS[case.how])
    if case.work == "tokenize":
        return _tokenize(case, bench_cases.tokenizer_folder(folder))
    from led_ref.classes.led import LEDForConditionalGeneration

    if case.work == "load":
        memory = MemoryWatch()
        LEDForConditionalGeneration.from_pretrained(folder)  # its files are in the system's cache after this
        return Prepared(_timed(lambda: LEDForConditionalGeneration.from_pretrained(folder)), memory)

    model = LEDForConditionalGeneration.from_pretrained(folder)
    if case.work == "encode":
        _warm_up(lambda short: model.encoder(short))
        memory = MemoryWatch()
        ids_1T, global_1T = bench_cases.document(case, model.config.vocab_size)
        return Prepared(_timed(lambda: model.encoder(ids_1T, global_attention_mask=global_1T)), memory)
    _warm_up(lambda short: model.generate(short, num_beams=case.beams, max_new_tokens=2, min_new_tokens=2))
    memory = MemoryWatch()
    settings: dict[str, Any] = {
        "num_beams": case.beams,
        "max_new_tokens": case.new_tokens,
        "min_new_tokens": case.new_tokens,
        "cross_attention": "folded" if case.how == "folded" else "cached",
    }
    if case.work == "generate":
        ids_1T, global_1T = bench_cases.document(case, model.config.vocab_size)
        return Prepared(_timed(lambda: model.generate(ids_1T, global_attention_mask=global_1T, **settings)), memory)
    from led_ref.classes.outputs import LEDEncoderBaseModelOutput

    read = LEDEncoderBaseModelOutput(bench_cases.encoder_states(case, model.config.d_model))

    def write() -> dict[str, float]:
        ticks: list[float] = []
        model.generate(encoder_outputs=read, progress=lambda *_: ticks.append(perf_counter()), **settings)
        return {"seconds": bench_cases.step_seconds(ticks)}

    return Prepared(write, memory)


def prepare_start(program: str) -> Prepared:
    """A Python that is started for a line of program and ends. Its memory is what it says itself, once, untimed."""
    command = [sys.executable, "-c"]
    last_words = "import sys; from led_ref.tools.bench.machine import peak_memory; sys.stderr.write(str(peak_memory()))"
    whole = f"try:\n    {program}\nexcept SystemExit:\n    pass\n{last_words}"
    said = subprocess.run([*command, whole], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).stderr

    def start() -> None:
        subprocess.run([*command, program], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return Prepared(_timed(start), peak=int(said.split()[-1]))


def _tokenize(case: Case, folder: Path) -> Prepared:
    """A text that the tokenizer has not seen: each run gets a new one, which remembers no word."""
    from led_ref.tokenizer import LEDTokenizer

    text = bench_cases.text()
    memory = MemoryWatch()
    tokens = len(LEDTokenizer.from_pretrained(folder, engine=case.how).encode(text))

    def tokenize() -> dict[str, float]:
        tokenizer = LEDTokenizer.from_pretrained(folder, engine=case.how)
        return {"seconds": seconds(lambda: tokenizer.encode(text))}

    return Prepared(tokenize, memory, tokens=tokens)


def _warm_up(work: Callable[[list[list[int]]], Any]) -> None:
    work([[5] * WARM_UP_TOKENS])


def _timed(work: Callable[[], Any]) -> Run:
    return lambda: {"seconds": seconds(work)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
