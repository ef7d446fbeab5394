"""Fuzz the readers of files: damage a file at random, use its folder, and see that nothing but a LEDError comes of it.

    python tests/fuzz/run.py --mutants 10000 --seed 20      (make fuzz)
    python tests/fuzz/run.py --only 20:137                  one mutant again, with its traceback

A mutant is told by its seed and number. For each, every use of its scene must end within `SECONDS`, in a result or in a
LEDError with a message of at most MAX_MESSAGE characters; it must not touch a path outside the folder, run a program,
open a connection or unpickle; and the process may not grow by more than twice the file and `MEMORY`.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS), str(TESTS / "weights")]

from fuzz.scenes import Scene, scenes, write  # noqa: E402

from led_ref.errors import MAX_MESSAGE, LEDError  # noqa: E402

SECONDS = 10
MEMORY = 200 * 1000**2
# Modules may be imported on the way, from here alone.
_PYTHON = tuple({os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, TESTS.parent)})
_FORBIDDEN = (
    "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.kill", "os.putenv", "socket.",
    "pickle.", "webbrowser.", "urllib.", "code.__new__", "shutil.unpack_archive",
)  # fmt: skip
_ON_PATHS = ("open", "os.", "shutil.", "tempfile.", "ctypes.dlopen")


class Hang(BaseException):
    """A use took more than SECONDS."""


@dataclass
class Watch:
    """The events of this process while a folder is in use; an audit hook, which nothing removes, so it is switched off."""

    folder: str = ""
    found: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if not self.folder:
            return
        if event.startswith(_FORBIDDEN):
            self.found.append(f"{event}{arguments!r}"[:200])
        elif event.startswith(_ON_PATHS):
            for path in arguments[: 2 if event != "open" else 1]:
                if isinstance(path, str | bytes | os.PathLike) and not self._is_allowed(
                    event, os.fsdecode(path), arguments
                ):
                    self.found.append(f"{event} {path!r}"[:200])

    def _is_allowed(self, event: str, path: str, arguments: tuple[Any, ...]) -> bool:
        if isinstance(arguments[-1], int) and arguments[-1] >= 0 and event != "open":  # a name in an open folder
            path = os.path.join(f"/proc/self/fd/{arguments[-1]}", path)
        place = os.path.realpath(path)
        if place == self.folder or place.startswith(self.folder + os.sep):
            return True
        reads = event in ("os.listdir", "os.scandir", "ctypes.dlopen") or (
            arguments[1] in ("r", "rb", None) and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if event == "open"
            else False
        )
        return reads and place.startswith((*_PYTHON, f"/proc/{os.getpid()}"))


WATCH = Watch()
sys.addaudithook(WATCH)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Record the events outside the folder; end with Hang after SECONDS."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    WATCH.folder = os.path.realpath(folder)
    try:
        yield
    finally:
        WATCH.folder = ""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _kilobytes(name: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return next((int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)), 0)


@contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """MemoryError at the end if the process was larger than at the start by more than `most` bytes; Linux only."""
    reset = Path("/proc/self/clear_refs")
    if os.access(reset, os.W_OK):
        reset.write_text("5")  # the peak is now
    before = _kilobytes("VmRSS")
    yield
    grown = (_kilobytes("VmHWM") - before) * 1024
    if os.access(reset, os.W_OK) and grown > most:
        raise MemoryError(f"it took {grown / 1e6:.0f} MB, more than {most / 1e6:.0f}")


def use(scene: Scene, name: str, folder: Path) -> str:
    """Use a folder in one way: "result", or the class of the LEDError. AssertionError for anything else."""
    size = (folder / scene.file).stat().st_size
    WATCH.found.clear()
    started, said = time.monotonic(), "a result"
    try:
        with warnings.catch_warnings(), bounded_memory(2 * size + MEMORY), watched(folder):
            warnings.simplefilter("ignore")
            scene.uses[name](folder)
        outcome = "result"
    except LEDError as error:
        outcome, said = type(error).__name__, str(error)
    except Hang:
        raise AssertionError(f"it ran for {time.monotonic() - started:.0f} seconds") from None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise AssertionError(f"{type(error).__name__}: {str(error)[:200]}") from error
    finally:
        shutil.rmtree(folder / "new", ignore_errors=True)
    assert 0 < len(said) <= MAX_MESSAGE, f"a message of {len(said)} characters"
    assert not WATCH.found, f"events outside the folder: {WATCH.found[:5]}"
    return outcome


def mutant(found: dict[str, Scene], seed: int, number: int) -> tuple[str, bytes]:
    """The scene and the damaged content of one mutant."""
    rng = random.Random(seed * 1_000_003 + number)
    name = list(found)[number % len(found)]
    scene = found[name]
    return name, scene.mutate(rng, scene.files[scene.file])


def fuzz(seed: int, numbers: Sequence[int], folder: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Try the mutants of these numbers; how often each scene had each outcome, and a line for each failure."""
    (folder / "made").mkdir()
    found = scenes(folder / "made")
    for scene in found.values():  # sound, each use has a result; and what is imported on the way is imported
        write(folder / "sound", scene.files)
        for way in scene.uses.values():
            way(folder / "sound")
        shutil.rmtree(folder / "sound")
    outcomes: Counter[tuple[str, str]] = Counter()
    failures = []
    for number in numbers:
        name, content = mutant(found, seed, number)
        scene, place = found[name], folder / "mutant"
        write(place, {**scene.files, scene.file: content})
        for way in scene.uses:
            try:
                outcomes[name, use(scene, way, place)] += 1
            except AssertionError as error:
                outcomes[name, "FAILED"] += 1
                failures.append(f"{seed}:{number} {name}, {way}: {error}")
                if len(numbers) == 1:
                    traceback.print_exception(error)
        shutil.rmtree(place)
    return outcomes, failures


def main() -> int:
    """Fuzz, and print the outcomes by kind of file. 1 if a mutant failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--only", help="SEED:NUMBER of one mutant")
    options = parser.parse_args()
    seed, numbers = options.seed, range(options.mutants)
    if options.only:
        seed, number = map(int, options.only.split(":"))
        numbers = range(number, number + 1)
    with tempfile.TemporaryDirectory() as folder:
        outcomes, failures = fuzz(seed, numbers, Path(folder))
    classes = sorted({outcome for _, outcome in outcomes})
    print(f"{len(numbers)} mutants, seed {seed}; uses by outcome")
    print(f"{'':<28}" + "".join(f"{name:>18}" for name in classes))
    for scene in dict.fromkeys(name for name, _ in outcomes):
        print(f"{scene:<28}" + "".join(f"{outcomes[scene, name]:>18}" for name in classes))
    print("\n".join(failures) or "no failure")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
