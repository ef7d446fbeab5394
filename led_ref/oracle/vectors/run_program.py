"""Run somebody's program within bounds: its time, what it prints, what it writes, and what it starts.

A program under test is one that has faults. It may print without end, fill a disk, or leave processes behind. Of what it
prints the last `KEPT` bytes are kept, its folder (TMPDIR is in it, too) has at most `MOST_BYTES` in `MOST_FILES` files, and
with it ends every process of its group and every other one that has its TMPDIR.
"""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

KEPT = 1 << 16
MOST_BYTES = 1 << 30  # the answers to all vectors are a hundredth of it
MOST_FILES = 100_000
LAST_WORDS = 300

_LOOK_EVERY = 0.1  # seconds between two looks at the folder

# Lines that say where a program failed and not why: a stack's frames and headings, in the form of several languages.
_FRAMES = re.compile(
    r"""
    \s*at\s.*|\s+\.\.\.\ \d+\ more|Node\.js\ v.*  # JavaScript, Java
    |Traceback\ \(most\ recent\ call\ last\):|\s+File\ ".*",\ line\ \d+.*|\s+\[Previous\ line\ repeated.*|[\s~^]+  # Python
    |goroutine\ \d+\ .*|\t.*\.go:\d+.*|[\w./*]+\.\S+\([0-9a-fx,.{}? ]*\)|created\ by\ .*|exit\ status\ \d+  # Go
    |stack\ backtrace:|\s+\d+:\s.*|note:.*RUST_BACKTRACE.*  # Rust
    |Stacktrace:|\s*\[\d+\]\s.*|\s+@\s.*  # Julia
    |\s+from\s.*:\d+:in\s.*  # Ruby
    |\s*\#\d+\s.*  # debuggers, sanitizers, PHP
    """,
    re.VERBOSE,
)


def run_program(words: Sequence[str], timeout: float, folder: Path) -> str:
    """Run a program until its end, its timeout, or until it has written too much.

    Args:
        words: the command.
        timeout: seconds.
        folder: what it may write into; it exists.

    Returns:
        The reason of a failure, with the end of what the program said; "" for success.
    """
    temporary = folder / "tmp"
    temporary.mkdir()
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
    except OSError as error:
        return f"the program could not be started ({error})"
    assert process.stdout is not None
    said = bytearray()
    reader = threading.Thread(target=_keep_the_end, args=(process.stdout, said), daemon=True)
    reader.start()
    try:
        ended = _wait(process, timeout, folder)
    finally:
        _end_all(process, temporary)
        reader.join(5)  # a child that could not be ended may still hold the pipe
    last_words = useful_end(said.decode("utf-8", errors="replace"))
    return f"{ended}; its last words: {last_words}" if ended and last_words else ended


def _wait(process: subprocess.Popen[bytes], timeout: float, folder: Path) -> str:
    """Wait for the end; why it is a failure, or ""."""
    until = time.monotonic() + timeout
    while (left := until - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(min(left, _LOOK_EVERY))
            if code < 0:
                names = {number.value: number.name for number in signal.Signals}
                return f"the program was ended by {names.get(-code, f'signal {-code}')}"
            return _too_much(folder) if code == 0 else f"the program ended with code {code}"
        if too_much := _too_much(folder):
            return too_much
    return f"the program did not end within {timeout:g} s"


def _too_much(folder: Path) -> str:
    """What is wrong with the size of a folder; "" if nothing is."""
    size = files = 0
    for place, folders, names in os.walk(folder):
        files += len(folders) + len(names)
        for name in names:
            with contextlib.suppress(OSError):  # just removed
                size += os.lstat(os.path.join(place, name)).st_size
        if size > MOST_BYTES or files > MOST_FILES:
            return (
                f"the program wrote more into its folder and its TMPDIR than it may: {MOST_BYTES >> 20:,} MiB, {MOST_FILES:,} "
                "files"
            )
    return ""


def _keep_the_end(pipe: IO[bytes], said: bytearray) -> None:
    """Read to the end of a pipe and keep the last bytes, so that the program neither waits nor fills a disk."""
    with contextlib.suppress(OSError, ValueError), pipe:
        while some := os.read(pipe.fileno(), KEPT):
            said += some
            del said[:-KEPT]


def _end_all(process: subprocess.Popen[bytes], temporary: Path) -> None:
    """Kill the program, its process group, and on Linux whatever left the group: such a process has our TMPDIR."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group has ended
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    for _ in range(5):  # one may start another while we look
        if not (left := _that_have(f"TMPDIR={temporary}")):
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _that_have(variable: str) -> list[int]:
    """The processes in whose environment a variable has this value; [] where there is no /proc."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # ended, or another user's
            if os.fsencode(variable) in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def useful_end(said: str, most: int = LAST_WORDS) -> str:
    r"""The last lines that say why a program failed, without the frames of a stack; a long line is cut in its middle.

    Args:
        said: what it printed.
        most: about how many characters.

    Example:
        >>> useful_end('Traceback (most recent call last):\n  File "<stdin>", line 1, in <module>\n    f()\nValueError: no\n')
        'ValueError: no'
    """
    lines, is_code = list[str](), False
    for line in said.split("\n"):
        is_frame = _FRAMES.fullmatch(line.rstrip()) is not None
        is_code = line.lstrip().startswith('File "') if is_frame else is_code and line.startswith("    ")
        if line.strip() and not is_frame and not is_code:
            lines.append(line.strip())
    end: list[str] = []
    for line in reversed(lines or [line.strip() for line in said.split("\n") if line.strip()]):
        if end and sum(map(len, end)) + len(line) > most:
            break
        end.append(line if len(line) <= most else f"{line[: 2 * most // 3]} ... {line[-most // 4 :]}")
    return " / ".join(reversed(end))
