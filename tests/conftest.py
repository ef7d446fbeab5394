"""What the tests share: the bundled model, the command line, how many examples a property is tried on, and a word on what
could not be checked.

Property tests (hypothesis) run in one of three profiles, named by LED_REF_HYPOTHESIS:
    ci        (unless another is named) 100 examples, the same ones in every run
    long      5,000 examples, other ones in every run; a failure prints how to repeat it
    mutants   as ci, but a failure is not made smaller: tests/mutants/run.py wants to know only that there is one
    few       10 examples: for a second run of the same properties on another machine

`--backend stand-in` runs the suites with the model on a strict stand-in for CuPy (tests/stand_in/), `--backend cupy` with it
on a GPU.
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings

settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, database=None)
settings.register_profile("long", max_examples=5000, deadline=None, derandomize=False, database=None, print_blob=True)
settings.register_profile("mutants", settings.get_profile("ci"), phases=(Phase.explicit, Phase.generate))
settings.register_profile("few", settings.get_profile("mutants"), max_examples=10)
PROFILE = os.environ.get("LED_REF_HYPOTHESIS", "ci")
settings.load_profile(PROFILE)
if PROFILE == "long":
    os.environ.setdefault("LED_REF_EXAMPLES", "5000")  # tests/tokenizer/vocabularies.py

# Helpers that tests of another folder use too: torch_files.py, head_cases.py, measure.py, make/, docs/build_gpu_page.py.
sys.path += [str(Path(__file__).parent / folder) for folder in ("weights", "model", "gpu", "vectors", "../docs")]


def pytest_addoption(parser):
    parser.addoption("--backend", choices=("numpy", "stand-in", "cupy"), default="numpy", help="what the model runs on")


def pytest_configure(config):
    if config.getoption("--backend") != "numpy":
        from stand_in.running import on_cupy, on_the_stand_in

        running = on_cupy() if config.getoption("--backend") == "cupy" else on_the_stand_in()
        running.__enter__()
        config.add_cleanup(lambda: running.__exit__(None, None, None))


def pytest_collection_modifyitems(config, items):
    """On another machine, what is about the CPU is not chosen; pytest says how many tests that are."""
    if config.getoption("--backend") != "numpy":
        from stand_in.running import OF_THE_CPU

        left_out = [item for item in items if any(part in item.nodeid for part in OF_THE_CPU)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


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
        from led_ref.cli.main import main

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
