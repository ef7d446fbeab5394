"""A pytest plugin: what killed a mutant. Loaded by `pytest -p verdict` in the copy in which the bug is planted.

The run stops at the first test that failed because a value was not what it should be (an AssertionError). A test that
failed in another way is noted as a crash, and the run goes on: a crash says that something is broken, not that a number
is wrong, and an implementation in another language would crash elsewhere or not at all.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

found: dict[str, Any] = {"killed_by": None, "crashed": []}


def is_about_a_value(error: BaseException) -> bool:
    """An AssertionError, or several failures of one property with an AssertionError among them."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_about_a_value(part) for part in error.exceptions)
    return isinstance(error, AssertionError)


def pytest_sessionstart(session: pytest.Session) -> None:
    """It must be the copy that is tested, not the installed package."""
    import led_backends
    import led_ref

    for package in (led_ref, led_backends):
        assert package.__file__ is not None
        assert Path(package.__file__).is_relative_to(Path.cwd()), package.__file__


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Look at each failure's own exception, which the report holds as text only."""
    report = yield
    if report.failed and call.excinfo is not None and found["killed_by"] is None:
        if is_about_a_value(call.excinfo.value):
            found["killed_by"] = item.nodeid
            item.session.shouldstop = "killed"
        else:
            found["crashed"] = [*found["crashed"], f"{item.nodeid}: {call.excinfo.typename}"]
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot even be imported."""
    if report.failed:
        found["crashed"] = [*found["crashed"], report.nodeid]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave the verdict where run.py looks for it."""
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        Path(os.environ["VERDICT"]).write_text(json.dumps(found), encoding="utf-8")
