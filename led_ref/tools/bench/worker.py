"""One side of one case of a bench, in a process of its own.

    python -m led_ref.tools.bench.worker led_ref|transformers|machine CASE FOLDER

It reports on standard output with one JSON object a line: the facts once the case is prepared; the seconds of one run after
each line of its standard input; and at the end of that input the most memory that it took. The process that starts it
(run.py) can therefore let several of them take turns.
"""

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from led_ref.tools.bench import led_ref_side
from led_ref.tools.bench.cases import CASES, Prepared
from led_ref.tools.bench.machine import speed_probe


def main(arguments: list[str]) -> int:
    """Prepare a case, run it once for each line of standard input, and report the figures."""
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
        from led_ref.tools.bench import transformers_side

        prepared = transformers_side.prepare(CASES[name], Path(folder))
    else:
        prepared = led_ref_side.prepare(CASES[name], Path(folder))
    answer(prepared.facts)
    for _ in sys.stdin:
        gc.collect()  # what an earlier run left behind is not this run's memory, nor its time
        answer(prepared.run())
    answer(prepared.taken())


def _standard_output_for_answers_alone() -> TextIO:
    """Standard output as it was; everything else that is printed from now on goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
