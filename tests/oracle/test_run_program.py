"""Programs that are asked for vectors and misbehave: what they print, write and leave behind is bounded, and named."""

import re
import shutil
import time

import pytest
from other_processes import ends

from led_ref.oracle.vectors import run_program as running
from led_ref.oracle.vectors.run_program import run_program, useful_end


@pytest.fixture
def run(tmp_path):
    """`run("echo no; exit 3")`: what is said of a shell's program; `$0` is its folder."""

    def run_shell(program, timeout=20, words=("sh", "-c")):
        shutil.rmtree(tmp_path / "tmp", ignore_errors=True)
        return run_program([*words, program, str(tmp_path)], timeout, tmp_path)

    return run_shell


def test_its_end_is_quoted(run):
    assert run("echo fine") == ""
    assert run("echo no; exit 3") == "the program ended with code 3; its last words: no"
    assert run("kill -SEGV $$") == "the program was ended by SIGSEGV"
    assert "could not be started" in run("", words=["/nowhere"])


def test_endless_output_is_read_and_not_kept(run, tmp_path):
    started = time.monotonic()
    assert run("yes 'no news' | head -c 300000000; echo 'the end'; exit 1").endswith("/ no news / the end")
    assert "did not end within 1 s; its last words: more / more" in run("yes more", timeout=1)
    assert time.monotonic() - started < 20
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 1e6


@pytest.mark.parametrize(
    "program",
    [
        "cat /dev/zero > $0/answer",
        "cat /dev/zero > $TMPDIR/notes",
        "i=0; while :; do i=$((i+1)); : > $0/$i; done",
        "head -c 3000000 /dev/zero > $0/answer",  # and ends before anyone looks
    ],
)
def test_a_full_disk_is_prevented(run, tmp_path, monkeypatch, program):
    monkeypatch.setattr(running, "MOST_BYTES", 1 << 21)
    monkeypatch.setattr(running, "MOST_FILES", 99)
    started = time.monotonic()
    assert run(program) == "the program wrote more into its folder and its TMPDIR than it may: 2 MiB, 99 files"
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("start", ["sleep 987", "setsid sleep 987", "setsid setsid sleep 987"])
def test_no_process_is_left(run, tmp_path, start):
    assert run(f"{start} & echo $! > $0/child; sleep 0.3") == ""
    child = int((tmp_path / "child").read_text())
    assert ends(child, 5)


SAID = {
    "ValueError: no such axis": """\
reading L2 ...
Traceback (most recent call last):
  File "/a/port.py", line 12, in <module>
    main()
  File "/a/port.py", line 9, in main
    y = attend(
        ~~~~~~^
  [Previous line repeated 996 more times]
ValueError: no such axis
""",
    "Error: no such axis": """\
    at main (/a/port.mjs:9:7)
Error: no such axis
    at attend (/a/port.mjs:3:11)
    at ModuleJob.run (node:internal/modules/esm/module_job:271:25)

Node.js v22.11.0
""",
    "Caused by: java.io.IOException: full": """\
Exception in thread "main" java.lang.IllegalStateException: no
\tat Port.main(Port.java:5)
Caused by: java.io.IOException: full
\tat Port.attend(Port.java:15)
\t... 1 more
""",
    "no such axis": """\
thread 'main' panicked at src/main.rs:2:5:
no such axis
stack backtrace:
   0: rust_begin_unwind
             at /rustc/90b35a6/library/std/src/panicking.rs:665:5
   1: core::panicking::panic_fmt
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.
""",
    "panic: no such axis": """\
panic: no such axis

goroutine 1 [running]:
main.attend(0xc000012345, 0x5)
\t/a/port.go:7 +0x2c
main.main()
\t/a/port.go:4 +0x1d
exit status 2
""",
    "ERROR: LoadError: no such axis": """\
ERROR: LoadError: no such axis
Stacktrace:
 [1] attend(x::Int64)
   @ Main /a/port.jl:2
""",
    "port.c:7: attend: Assertion `axis < 3' failed.": "port.c:7: attend: Assertion `axis < 3' failed.\n",
    "at the end": "  at the end\n",  # nothing else was said
}


@pytest.mark.parametrize("wanted", SAID, ids=range(len(SAID)))
def test_useful_end_of_a_stack(wanted):
    end = useful_end(SAID[wanted])
    assert end.split(" / ")[-1] == wanted
    assert not any(frame in end for frame in ("port.py", "node:", ".java:", "rustc", ".go:", "port.jl"))


def test_useful_end_is_short():
    end = useful_end("\n".join(f"line {n}" for n in range(999)) + "\n" + "x" * 5000 + "y")
    assert re.fullmatch(r"line 997 / line 998 / x{200} \.\.\. x{74}y", end)
    assert useful_end("\n".join(f"line {n}" for n in range(999))).endswith("line 997 / line 998")
    assert useful_end(" \n") == ""
