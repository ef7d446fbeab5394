"""What the vectors say of the package in the current folder: run by run.py in the copy in which a bug is planted.

As `led-ref vectors check`, but it stops at the first wrong answer, and tells a wrong answer from none: an exception, a
refusal or a missing output is a crash.
"""

import json
import os
import sys
from pathlib import Path

from led_ref.oracle.vectors.ask_led_ref import LedRef
from led_ref.oracle.vectors.format import read_suite
from led_ref.oracle.vectors.judge import FAILED, judge

DTYPE = "float64"


def main(folder: str) -> None:
    """Ask case after case, and leave {"killed_by": id or null, "reason": ..., "crashed": [ids]} in $VERDICT."""
    suite = read_suite(folder, verify=False)
    subject = LedRef(suite, DTYPE)
    killed_by, reason, crashed = None, "", []
    for case in suite.cases:
        answer = subject.answer(case)
        verdict = judge(case, answer, DTYPE)
        if verdict.status != FAILED:
            continue
        expected = set().union(*case.answers)
        if answer.outputs is not None and case.result != "invalid" and expected <= set(answer.outputs):
            killed_by, reason = case.id, verdict.reason
            break
        crashed.append(case.id)
    found = {"killed_by": killed_by, "reason": reason, "crashed": crashed}
    Path(os.environ["VERDICT"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
