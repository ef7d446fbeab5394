"""A scene of killed_runs.py with few documents: the only process is killed, and nothing is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_a_killed_process_loses_nothing(tmp_path):
    """LED_REF_HYPOTHESIS=long kills the client and the scheduler of a cluster, too."""
    is_long = os.environ.get("LED_REF_HYPOTHESIS") == "long"
    names = ["process", "client", "scheduler"] if is_long else ["process"]
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("", "backends", "tests"))
    scenes = ("--documents", "200", "--kills", "1", "--seed", "31", "--scenes", *names, "--json")
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "many" / "killed_runs.py", tmp_path / "runs", *scenes],
        env=os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["scene"], one["problem"]) for one in found] == [(name, "") for name in names], done.stderr
    kills = sum(one["kills"] for one in found)
    assert sum(one["runs"] for one in found) > kills >= len(names)  # a kill may come too late
