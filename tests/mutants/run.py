"""Plant each bug of mutants.py by itself, and see whether the property tests notice, and whether the vectors do.

    python tests/mutants/run.py                     all that has not been run since its file or the tests changed
    python tests/mutants/run.py --only pre-norm     one (or more), whatever is known already
    python tests/mutants/run.py --markdown          write docs/mutation_testing.md and docs/data/kill_matrix.json, run nothing

A bug is planted in a copy of the package and its tests in a temporary folder; the checkout is never touched. There
    (a) the property tests run until one fails because a value is not what it should be, and
    (b) what the copy computes is compared with the conformance vectors, as by `led-ref vectors check` (ask_vectors.py).
Each must kill it, by a value: a crash does not count (verdict.py). Before anything is planted the unharmed copy must pass
both. Results are kept in build/mutants.json, so that a run that was broken off goes on where it was.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from matrix import write_documents
from mutants import AREAS, ROOT, Mutant, all_mutants

HERE = Path(__file__).resolve().parent
RESULTS = ROOT / "build" / "mutants.json"
VECTORS = Path("tests/vectors/v1")
PATIENCE = 600  # seconds for one run; a mutant that never ends is noted as a crash

# The tests that state properties or compare with a definition, those first that are about the area of the bug.
PROPERTIES = {
    "model": ["tests/model/test_attention_properties.py", "tests/model/test_model_properties.py"],
    "search": ["tests/generation/test_search_properties.py", "tests/generation/test_search.py"],
    "tokenizer": [
        "tests/tokenizer/test_tokenizer_properties.py",
        "tests/tokenizer/test_bpe.py",
        "tests/tokenizer/test_engines.py",
    ],
}

# Those of the backward pass and of training; they judge the bugs of their own area alone.
OF_TRAINING = [
    "tests/model/test_gradients.py",
    "tests/model/test_encoder_backward.py",
    "tests/model/test_head_gradients.py",
    "tests/model/test_dropout.py",
    "tests/backends/test_backward_operations.py",
    "tests/training/test_optimizers.py",
    "tests/training/test_accumulator.py",
    "tests/training/test_lora.py",
    "tests/training/test_trainer.py",
]
# By the name of the file with the bug: which of them is asked first.
ASKED_FIRST = {
    "numpy_backward": "test_backward_operations", "dropout": "test_dropout", "heads": "test_head_gradients",
    "optimizers": "test_optimizers", "schedules": "test_optimizers", "clipping": "test_optimizers",
    "accumulator": "test_accumulator", "lora": "test_lora", "trainer": "test_trainer", "step": "test_trainer",
}  # fmt: skip


def property_tests(area: str, file: str = "") -> list[str]:
    """All files of PROPERTIES, those of one area in front; of training, its own, those about `file` in front."""
    if area == "training":
        first = ASKED_FIRST.get(Path(file).stem, "test_gradients")
        return sorted(OF_TRAINING, key=lambda path: Path(path).stem != first)
    return PROPERTIES[area] + [file for other, files in PROPERTIES.items() if other != area for file in files]


# ---- one copy -------------------------------------------------------------------------------------------------------


def copy_of(origin: Path, folder: Path) -> Path:
    """What the tests need: the package, the backend, the tests, the settings. Large files of numbers are linked."""
    ignored = shutil.ignore_patterns("__pycache__", "mutants", "peer", "*.safetensors")
    for part in ("led_ref", "backends", "tests"):
        shutil.copytree(origin / part, folder / part, ignore=ignored)
    shutil.copy(origin / "pyproject.toml", folder)
    for path in ("led_ref", str(VECTORS)):
        for weights in (origin / path).rglob("*.safetensors"):
            (folder / weights.relative_to(origin)).symlink_to(weights.resolve())
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Import from the copy; seeded examples that are not made smaller; BLAS in one thread."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (folder, folder / "backends", HERE))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LED_REF_HYPOTHESIS": "mutants",
        "OPENBLAS_NUM_THREADS": "1",
        "VERDICT": str(folder / "verdict.json"),
    }


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of the copy. A run beyond all patience counts as crashed."""
    command = [sys.executable, *arguments]
    try:
        return subprocess.run(
            command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, -1, "", f"no end after {PATIENCE} s")


# ---- the two judges -------------------------------------------------------------------------------------------------


def by_properties(folder: Path, area: str, file: str = "") -> dict[str, Any]:
    """What the property tests say; `by` is the test."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "verdict", "-m", "not peer and not real_vocabulary"]
    return judged(folder, "-m", "pytest", *options, *property_tests(area, file))


def by_vectors(folder: Path) -> dict[str, Any]:
    """What the vectors say; `by` is the case."""
    return judged(folder, str(HERE / "ask_vectors.py"), str(VECTORS))


def judged(folder: Path, *arguments: str) -> dict[str, Any]:
    """{"verdict": "killed" | "crash" | "survived", "by": who noticed, "crashed": who crashed}, from the file it leaves."""
    path = folder / "verdict.json"
    path.unlink(missing_ok=True)
    done = run(folder, *arguments)
    if not path.exists():
        return {"verdict": "crash", "by": (done.stderr or done.stdout).strip()[-300:], "crashed": []}
    found = json.loads(path.read_text("utf-8"))
    crashed = found["crashed"]
    verdict = "killed" if found["killed_by"] else "crash" if crashed else "survived"
    by = found["killed_by"] or (crashed[0] if crashed else "")
    return {"verdict": verdict, "by": by, "reason": found.get("reason", ""), "crashed": crashed[:3]}


# ---- all of them ----------------------------------------------------------------------------------------------------


def fingerprint(mutant: Mutant, judge: str, origin: Path) -> str:
    """Changes with the bug, with the file it is planted in, and with what judges it."""
    digest = hashlib.sha256(f"{mutant.source}\0{mutant.planted}".encode())
    judged_by = [origin / mutant.file]
    if judge == "properties":
        judged_by += [origin / file for file in property_tests(mutant.area, mutant.file)]
    else:
        judged_by += sorted((origin / VECTORS).glob("*.*"))
    for path in judged_by:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def judges() -> list[str]:
    """The property tests; the vectors too, once they are there."""
    return ["properties", *(["vectors"] if (ROOT / VECTORS).is_dir() else [])]


def try_mutant(mutant: Mutant | None, asked: list[str], origin: Path = ROOT, area: str = "model") -> dict[str, Any]:
    """Plant a bug (None: none, and the tests of an area run) in a copy of its own and ask the judges."""
    with tempfile.TemporaryDirectory(prefix="led-ref-mutant-") as name:
        folder = copy_of(origin, Path(name))
        if mutant is not None:
            path = folder / mutant.file
            path.write_text(mutant.apply(path.read_text("utf-8")), "utf-8")
        found = {}
        for judge in asked:
            start = time.monotonic()
            area = mutant.area if mutant else area
            found[judge] = (
                by_properties(folder, area, mutant.file if mutant else "")
                if judge == "properties"
                else by_vectors(folder)
            )
            found[judge]["seconds"] = round(time.monotonic() - start, 1)
            if mutant is not None:
                found[judge]["fingerprint"] = fingerprint(mutant, judge, origin)
        return found


def known_results() -> dict[str, Any]:
    """What earlier runs found, by the mutant's name."""
    known: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    return known


def remember(results: dict[str, Any]) -> None:
    """Keep the results, whole or not at all."""
    RESULTS.parent.mkdir(exist_ok=True)
    partial = RESULTS.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1), "utf-8")
    partial.replace(RESULTS)


def run_all(only: list[str], jobs: int, asked: list[str]) -> int:
    """Run what is not known yet; how many mutants are not killed by all judges."""
    chosen = [mutant for mutant in all_mutants() if not only or mutant.name in only]
    unknown = set(only) - {mutant.name for mutant in chosen}
    if unknown:
        sys.exit(f"There is no mutant {', '.join(sorted(unknown))}; mutants.py lists them.")
    results = known_results()
    # One state of the checkout is judged, even if somebody goes on working in it meanwhile.
    with tempfile.TemporaryDirectory(prefix="led-ref-unharmed-") as name, ThreadPoolExecutor(jobs) as pool:
        origin = copy_of(ROOT, Path(name))
        waiting = []
        for mutant in chosen:
            mutant.apply((origin / mutant.file).read_text("utf-8"))  # out of date? Then now, not in an hour.
            known = results.get(mutant.name, {})
            of_mutant = [j for j in asked if j in mutant.judges]
            old = [j for j in of_mutant if known.get(j, {}).get("fingerprint") == fingerprint(mutant, j, origin)]
            if only or len(old) < len(of_mutant):
                waiting.append((mutant, [j for j in of_mutant if only or j not in old]))
        for judges_of_area, area in sorted(
            {(m.judges, "training" if m.area == "training" else "model") for m, _ in waiting}
        ):
            unharmed = try_mutant(None, [j for j in asked if j in judges_of_area], origin, area)
            print("no bug planted:", _line(unharmed), flush=True)
            if any(found["verdict"] != "survived" for found in unharmed.values()):
                sys.exit("The unharmed package does not pass; nothing can be said about bugs in it.")
        tried = pool.map(lambda entry: try_mutant(*entry, origin), waiting)
        for n, ((mutant, _), found) in enumerate(zip(waiting, tried, strict=True), 1):
            results[mutant.name] = {**results.get(mutant.name, {}), **found}
            remember(results)
            print(f"{n}/{len(waiting)} {mutant.name}: {_line(found)}", flush=True)
    return _summary(chosen, results, asked)


def _summary(chosen: list[Mutant], results: dict[str, Any], asked: list[str]) -> int:
    """Say how many were killed; how many were not that should have been."""
    missed = 0
    for judge in asked:
        judged = [m for m in chosen if judge in m.judges]
        killed = [m.name for m in judged if results[m.name][judge]["verdict"] == "killed"]
        accepted = [m.name for m in judged if judge == "vectors" and m.accepted and m.name not in killed]
        rest = [m.name for m in judged if m.name not in (*killed, *accepted)]
        print(
            f"{judge}: {len(killed)} of {len(judged)} killed; {len(accepted)} let pass, as they should; {len(rest)} missed"
        )
        if rest:
            print("    missed:", ", ".join(rest))
        missed += len(rest)
    return missed


def _line(found: dict[str, Any]) -> str:
    """One result for the eye."""
    parts = []
    for judge, result in found.items():
        parts.append(f"{judge} {result['verdict']} in {result['seconds']} s ({result['by'].rsplit('::', 1)[-1][:90]})")
    return "; ".join(parts)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Plant bugs, and see what notices them.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="run these, known or not")
    parser.add_argument("--area", choices=AREAS, help="run these of one area, known or not")
    parser.add_argument("--judge", choices=["properties", "vectors"], help="ask one judge only")
    parser.add_argument("--jobs", type=int, default=1, choices=[1, 2], help="how many at a time")
    parser.add_argument("--markdown", action="store_true", help="write the page and its data from what is known")
    options = parser.parse_args()
    if options.markdown:
        write_documents(known_results(), judges())
        return 0
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)
    only = options.only or [mutant.name for mutant in all_mutants() if mutant.area == options.area]
    return 1 if run_all(only, options.jobs, [options.judge] if options.judge else judges()) else 0


if __name__ == "__main__":
    sys.exit(main())
