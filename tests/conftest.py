"""What the tests of the outer layer share: the bundled model, the command line, and a word on what could not be checked."""

import os
import sys
from pathlib import Path

import pytest

# Helpers that tests of another folder use too: torch_files.py.
sys.path.append(str(Path(__file__).parent / "weights"))


@pytest.fixture(scope="session")
def bundled():
    """The bundled model, loaded once."""
    import led_ref

    return led_ref.load()


@pytest.fixture(scope="session")
def manual_page():
    """led-ref's own manual page."""
    import led_ref

    return (led_ref.bundled_model() / "led-ref.1.txt").read_text(encoding="utf-8")


@pytest.fixture
def command(capsys):
    """`command("tokenize", "--text", "a")` runs the command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        from led_ref.cli import main

        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's own end: --help and wrong usage
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


def pytest_terminal_summary(terminalreporter):
    """Ai2's weights cannot be had everywhere; a run without them says so."""
    if not os.environ.get("LED_BASE_DIR"):
        terminalreporter.write_line(
            "Not run: allenai/led-base-16384 against its known numbers (LED_BASE_DIR names no folder that holds it)."
        )
