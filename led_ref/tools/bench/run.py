"""`led-ref bench`: how fast and how large, on this machine, measured. Each case runs in a process of its own.

Up to three processes of a case take turns: one that measures the machine's own speeds, led_ref, and with `--against
transformers` the other side. What disturbs the machine for a while therefore disturbs all of them.

    cases.py                what is measured, and on what
    worker.py               the process of one side; led_ref_side.py and transformers_side.py prepare its case
    machine.py              the machine's speeds and memory
    limits.py               how fast a case could be at those speeds
    report.py               the figures as a table; plot.py: as a picture
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, Self

from led_backends.processors import VARIABLES
from led_ref.config import LEDConfig
from led_ref.costs.operations import LED_BASE
from led_ref.errors import InputError, LEDError
from led_ref.tools.bench import plot as bench_plot
from led_ref.tools.bench import report as bench_report
from led_ref.tools.bench.cases import CASES, Case
from led_ref.tools.bench.limits import full_attention, limits
from led_ref.tools.bench.machine import machine, steering
from led_ref.tools.bench.transformers_side import has_case
from led_ref.tools.doctor import blas, versions
from led_ref.tools.random_weights import write_random_checkpoint
from led_ref.tools.terminal import has_bars, print_json, say
from led_ref.weights.find_files import resolve


def run_bench(options: argparse.Namespace) -> int:
    """Measure, and print a table; with --json one object (report.py has its fields)."""
    runs = options.runs or (1 if options.quick else 3)
    _check(options)
    with _threads(options.threads):
        report = _measure_all(options, runs)
    if options.plot is not None:
        bench_plot.save(report, options.plot)
    if options.json:
        print_json(report)
    else:
        print(bench_report.as_text(report))
    return 0


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Within this context the default number of threads is `count`, here and in the processes that are started here."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, str(count)) if count is not None else {})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def _measure_all(options: argparse.Namespace, runs: int) -> dict[str, Any]:
    """The report: the machine, and each chosen case."""
    if options.model is None and not options.quiet:
        say("writing random weights of led-base's size ...")
    with model_folder(options.model) as folder:
        config = LEDConfig.from_pretrained(folder)
        cases = chosen_cases(options.only, is_quick=options.quick, config=config)
        report: dict[str, Any] = {
            "schema": bench_report.SCHEMA,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "steering": steering(),
            "versions": versions(*(("torch", "transformers") if options.against else ())),
            "blas": blas(),
            "model": _called(options.model),
            "runs": runs,
            "against": options.against,
            "full_attention": [full_attention(config, case.tokens) for case in cases if case.work == "encode"],
            "cases": [],
        }
        with Worker("machine", "-", folder) as probes:
            for case in _shown(cases, is_quiet=options.quiet):
                known = {earlier["case"]: earlier[options.against] for earlier in report["cases"] if options.against}
                theirs = known.get(case.like)
                against = options.against if theirs is None and has_case(case) else None
                report["cases"].append(measure(case, folder, config, runs, against, theirs, probes))
    return report


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be measured, before a model is made."""
    if options.runs is not None and options.runs < 1:
        raise InputError(f"--runs is {options.runs}; give at least 1.")
    for name in options.only or ():
        if name not in CASES:
            raise InputError(f"There is no case {name!r}. Choose among {', '.join(CASES)}.")
    for library in ("torch", "transformers"):
        if options.against == "transformers" and importlib.util.find_spec(library) is None:
            raise InputError(f"{library} is not installed. To compare: pip install 'led-ref[peer]'")
    if options.plot is not None:
        bench_plot.check(options.plot)
        if options.only and not any(CASES[name].work == "encode" for name in options.only):
            raise InputError("--plot draws the encode cases, and none is chosen. Add some: --only encode-1k encode-4k")


@contextmanager
def model_folder(model: str | None) -> Iterator[Path]:
    """The folder of the named model, or a temporary one with random weights of led-base's size."""
    if model is not None:
        yield resolve(model)
        return
    with TemporaryDirectory(prefix="led-ref-bench-") as folder:
        write_random_checkpoint(Path(folder), LED_BASE)
        yield Path(folder)


def chosen_cases(only: Sequence[str] | None, *, is_quick: bool, config: LEDConfig) -> list[Case]:
    """The cases to measure: those named, else all (or the quick ones) that the model has positions for.

    Raises:
        InputError: for a named case that is too long for the model.
    """
    wanted = [CASES[name] for name in only] if only else [c for c in CASES.values() if c.is_quick or not is_quick]
    positions = (config.max_encoder_position_embeddings, config.max_decoder_position_embeddings)
    fitting = [case for case in wanted if case.tokens <= positions[0] and case.new_tokens < positions[1]]
    missing = [case.name for case in wanted if case not in fitting]
    if missing:
        reason = f"the model has {positions[0]} positions to read and {positions[1]} to write: too few for {', '.join(missing)}"
        if only:
            raise InputError(f"Not measured: {reason}. Choose shorter cases.")
        say(f"left out: {reason}")
    return fitting


def _shown(cases: Sequence[Case], *, is_quiet: bool) -> Iterator[Case]:
    """One case after the other, with a bar on a terminal's standard error; elsewhere a line for each."""
    if is_quiet or not has_bars():
        for case in cases:
            if not is_quiet:
                say(f"bench {case.name} ...")
            yield case
        return
    from tqdm import tqdm

    with tqdm(cases, unit="case", file=sys.stderr, leave=False, ncols=80) as bar:
        for case in bar:
            bar.set_description(case.name)
            bar.refresh()
            yield case


def _called(model: str | None) -> str:
    """The model's name; of a folder, its last part: a report does not show where it lies."""
    if model is None:
        return "random weights of led-base's size"
    return Path(model).name if Path(model).is_dir() else model


# ---- one case -------------------------------------------------------------------------------------------------------


def measure(
    case: Case,
    folder: Path,
    config: LEDConfig,
    runs: int,
    against: str | None,
    theirs: dict[str, Any] | None,
    probes: "Worker",
) -> dict[str, Any]:
    """One case: led_ref, the other side if it takes part, and the machine's speeds take turns, `runs` times.

    Args:
        case: what is measured.
        folder: the model.
        config: its sizes.
        runs: how often.
        against: "transformers" to let it take part.
        theirs: its figures, if another case has measured them (Case.like).
        probes: measures the machine's speeds.
    """
    whos = ["led_ref"] + ([against] if against else [])
    with ExitStack() as stack:
        sides = {who: stack.enter_context(Worker(who, case.name, folder)) for who in whos}
        seconds: dict[str, list[float]] = {who: [] for who in whos}
        speeds = [probes.run()]
        for _ in range(runs):
            for who, side in sides.items():
                seconds[who].append(side.run()["seconds"])
            speeds.append(probes.run())
        figures = {who: bench_report.figures(seconds[who], side.end(), side.facts) for who, side in sides.items()}
    typical = {name: median(probe[name] for probe in speeds) for name in speeds[0]}
    ours, theirs = figures["led_ref"], figures.get(against or "", theirs)
    return {
        "case": case.name,
        "work": case.work,
        "how": case.how,
        "tokens": case.tokens or ours.pop("tokens", 0),
        "beams": case.beams,
        "new_tokens": case.new_tokens,
        "per": "step" if case.work == "decode" else "run",
        "led_ref": ours,
        "transformers": theirs,
        "ratio": bench_report.ratio(ours, theirs),
        "limit": limits(case, config, typical, ours["median_s"]),
    }


class Worker:
    """The process of one side of a case (worker.py), seen from the one that starts it.

    Args:
        who: "led_ref", "transformers" or "machine".
        name: the case; the machine's speeds are no case.
        folder: the model.

    Raises:
        LEDError: when it ends too early, with the last line of its standard error.
    """

    def __init__(self, who: str, name: str, folder: Path) -> None:
        self.who, self.name = who, name
        self._stderr = TemporaryFile()  # noqa: SIM115  a pipe that nobody reads would stop it when full
        self._process = subprocess.Popen(
            [sys.executable, "-m", "led_ref.tools.bench.worker", who, name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
        )
        self.facts: dict[str, Any] = {}

    def run(self) -> dict[str, float]:
        """Let it run once; what it measured."""
        with suppress(BrokenPipeError):  # it has ended; reading its answer will say why
            print("run", file=self._process.stdin, flush=True)
        return self._answer()

    def end(self) -> dict[str, Any]:
        """Let it end; the memory that it took."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise LEDError(f"{self.who} did not come through the case {self.name!r}. {answer['error']}")
            return answer
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise LEDError(
            f"{self.who} did not come through the case {self.name!r}: exit code {code}, {lines[-1]!r}. "
            "-9 most often means that memory ran out: free some, or choose other cases with --only."
        )

    def __enter__(self) -> Self:
        """Wait until the process has prepared the case."""
        try:
            self.facts = self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, whatever happened, and wait for its end."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            with suppress(OSError):  # what was still to be written to it
                assert pipe is not None
                pipe.close()
        self._process.wait()
