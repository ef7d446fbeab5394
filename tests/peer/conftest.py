"""What the comparisons with transformers share: one torch thread, no chatter, a table of the worst differences."""

import json
import time
from pathlib import Path

import numpy as np
import pytest


class Worst:
    """Largest absolute difference seen, per line of the table. `compare` asserts that it stays within a tolerance."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[float, float, int]] = {}

    def compare(self, line: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float, about: object = "") -> None:
        __tracebackhide__ = True
        assert ours.shape == theirs.shape, f"{line}: shape {ours.shape}, expected {theirs.shape}\n{about}"
        difference = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
        worst = float(difference.max(initial=0.0))
        at = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape)) if difference.size else ()
        # Written so that a NaN fails too.
        assert worst <= tolerance, f"{line}: differs by {worst:.3g} at {at}, allowed {tolerance:g}\n{about}"
        before, _, count = self.seen.get(line, (0.0, 0.0, 0))
        self.seen[line] = (max(before, worst), tolerance, count + 1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--worst", type=Path, help="write the table of the worst differences into this file, too")


_WORST = pytest.StashKey[Worst]()


@pytest.fixture(scope="session")
def worst(pytestconfig: pytest.Config) -> Worst:
    return pytestconfig.stash.setdefault(_WORST, Worst())


@pytest.fixture(scope="session", autouse=True)
def _quiet_transformers() -> None:
    """One thread, so that runs repeat; no warnings about padding and caches, which are what the tests are about."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    worst = config.stash.get(_WORST, None)
    if worst is None or not worst.seen:
        return
    terminalreporter.section("worst difference from transformers")
    for line, (difference, tolerance, count) in sorted(worst.seen.items()):
        terminalreporter.write_line(f"{line:<50} {difference:9.2e}   allowed {tolerance:.0e}   in {count} arrays")
    if file := config.getoption("--worst"):
        import transformers

        rows = {line: {"difference": d, "allowed": t, "arrays": n} for line, (d, t, n) in sorted(worst.seen.items())}
        report = {"date": time.strftime("%Y-%m-%d"), "transformers": transformers.__version__, "rows": rows}
        file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
