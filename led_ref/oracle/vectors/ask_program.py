"""Run any program on the conformance vectors: it reads a folder of cases and writes a folder of answers.

    my-led --in {in} --out {out}

`{in}` becomes a folder of vectors without the answers: index.json (with the cases to answer, and the "dtype" of the
computation), `L2.inputs.safetensors` and so on, models.safetensors, vocab.json, merges.txt. For each case the program
writes one file into the folder `{out}`, named after the case's id:

    L2-window-plain.safetensors      the outputs as tensors, under the names of the index' "outputs"
    L2-window-plain.json             or {"outputs": {"out": [[...], ...]}}; a text (U8) is the list of its bytes
                                     or {"refused": "why"}, or {"unsupported": "why"} for missing operations

If a program crashes, hangs or writes nonsense, the case fails, and led_ref goes on. After such a call the first case
without an answer has failed and the others are asked again, so that one bad case costs only one.
"""

import json
import math
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from led_ref.errors import InputError, LEDError
from led_ref.files.staging import naming, to_write
from led_ref.oracle.vectors.format import Answer, Array, Case, Suite, file_name, read_suite
from led_ref.oracle.vectors.run_program import run_program
from led_ref.weights.safetensors_file import read_safetensors, write_safetensors
from led_ref.weights.stored_tensor import from_numpy

# After so many consecutive calls without any answer, the remaining cases fail.
_PATIENCE = 3
_LARGEST_JSON = 100_000_000
_LARGEST_TENSORS = 500_000_000  # led-base's hidden states and logits in float64, twice


def parse_command(command: str) -> list[str]:
    """The words of a command that names `{in}` and `{out}`.

    Raises:
        InputError: if one of them is missing, quotes do not match, or the program does not exist.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--cmd {command!r} cannot be split into words ({error}). Close the quotes.") from None
    for place in ("{in}", "{out}"):
        if not any(place in word for word in words):
            raise InputError(
                f"--cmd {command!r} does not have {place}. Write the program with both folders, as in "
                "'my-led --in {in} --out {out}'."
            )
    if shutil.which(words[0]) is None:
        raise InputError(f"--cmd names {words[0]!r}, which is not found. Give the program's path.")
    return words


def ask_program(
    words: Sequence[str], suite: Suite, dtype: str, *, timeout: float,
    checkpoints: Mapping[str, str | Path] | None = None,
) -> dict[str, Answer]:  # fmt: skip
    """A program's answers, by case id; one for every case of the suite.

    Args:
        words: from `parse_command`.
        suite: the cases.
        dtype: the dtype of the program's computation.
        timeout: maximum seconds of one call.
        checkpoints: model name -> folder, for models that are not among the files.
    """
    checkpoints = dict(checkpoints or {})
    answers = {
        case.id: Answer(unsupported=f"needs the checkpoint {case.needs}: name its folder with --checkpoint")
        for case in suite.cases
        if case.needs is not None and case.model not in checkpoints
    }
    in_vain = 0
    while waiting := [case for case in suite.cases if case.id not in answers]:
        # A folder for each call: what a program has left in one, and made undeletable, is not met again.
        with tempfile.TemporaryDirectory(prefix="led-ref-vectors-", ignore_cleanup_errors=True) as place:
            questions, results = Path(place) / "in", Path(place) / "out"
            questions.mkdir()
            results.mkdir()
            write_questions(questions, suite, waiting, dtype, checkpoints)
            call = [word.replace("{in}", str(questions)).replace("{out}", str(results)) for word in words]
            ended = run_program(call, timeout, Path(place))
            found = {case.id: answer for case in waiting if (answer := read_answer(results, case)) is not None}
        answers |= found
        missing = [case.id for case in waiting if case.id not in found]
        in_vain = 0 if found else in_vain + 1
        if ended == "" or in_vain == _PATIENCE:
            reason = ended or "the program wrote no answer"
            answers |= {case_id: Answer(failed=reason) for case_id in missing}
        elif missing:
            answers[missing[0]] = Answer(failed=ended)
    return answers


def write_questions(
    folder: Path, suite: Suite, cases: Sequence[Case], dtype: str, checkpoints: Mapping[str, str | Path]
) -> None:
    """Write a program's folder: the index with these cases, without tolerances, and the files of their inputs."""
    asked = {case.id for case in cases}
    models = json.loads(json.dumps(suite.index["models"]))
    for name, path in checkpoints.items():
        models[name]["folder"] = str(Path(path).resolve())
    entries = [
        {**entry, "outputs": dict.fromkeys(entry["outputs"]), "answers": 0}
        for entry in suite.index["cases"]
        if entry["id"] in asked
    ]
    names = {file_name(case.level, "inputs") for case in cases} | set(suite.index["files"]) - {
        name for name in suite.index["files"] if name.endswith((".inputs.safetensors", ".outputs.safetensors"))
    }
    for name in sorted(names):
        shutil.copy(suite.folder / name, folder / name)
    kept = ("format", "levels", "results", "flags")
    index = {**{key: suite.index[key] for key in kept}, "dtype": dtype, "models": models, "files": {}, "cases": entries}
    (folder / "index.json").write_text(json.dumps(index, indent=1), encoding="ascii")


# ---- answers --------------------------------------------------------------------------------------------------------


def read_answer(folder: Path, case: Case) -> Answer | None:
    """The answer to a case in a folder of results; None without one."""
    tensors, text = folder / f"{case.id}.safetensors", folder / f"{case.id}.json"
    try:
        if tensors.is_file():
            if tensors.stat().st_size > _LARGEST_TENSORS:
                raise InputError(
                    f"it has {tensors.stat().st_size:,} bytes; no answer has more than {_LARGEST_TENSORS:,}."
                )
            outputs = {
                name: _as_array(name, tensor.dtype, tensor.data) for name, tensor in read_safetensors(tensors).items()
            }
            return Answer(outputs=outputs)
        if text.is_file():
            return _from_json(text)
    except (LEDError, OSError, ValueError, RecursionError) as error:
        return Answer(failed=f"its result cannot be read: {error}")
    return None


def _as_array(name: str, dtype: str, data: Array) -> Array:
    if dtype == "BF16":
        raise InputError(f"{name} is bfloat16, which cannot be read here; write results as float32 or float64.")
    return np.array(data)  # a copy: the file is temporary


def _from_json(path: Path) -> Answer:
    if path.stat().st_size > _LARGEST_JSON:
        raise InputError(f"it has {path.stat().st_size} bytes; write large results as safetensors.")
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or len(values.keys() & {"outputs", "refused", "unsupported"}) != 1:
        raise InputError('it is no object with one of "outputs", "refused" and "unsupported".')
    said: dict[str, Any] = {what: str(values[what]) for what in ("refused", "unsupported") if what in values}
    if said:
        return Answer(**said)
    if not isinstance(values["outputs"], dict):
        raise InputError('its "outputs" are no object of lists.')
    return Answer(outputs={name: _as_numbers(name, value) for name, value in values["outputs"].items()})


def _as_numbers(name: str, value: Any) -> Array:
    """Nested lists of finite numbers as an array; InputError for others (JSON has no NaN)."""
    array = np.asarray(value)  # ValueError for rows of unequal length
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "fiu" or not all(math.isfinite(x) for x in array.reshape(-1).tolist()):
        raise InputError(f"{name} holds something else than finite numbers.")
    return array


def write_answers(questions: str | Path, results: str | Path, *, threads: int = 1) -> int:
    """led_ref as such a program: read a folder of cases, write a folder of answers. Returns the number of cases.

    Args:
        questions: the folder of cases.
        results: where the answers go; made if it does not exist.
        threads: of the CPU.

    Raises:
        LEDError: if the cases cannot be read.
    """
    from led_ref.oracle.vectors.ask_led_ref import LedRef

    suite = read_suite(questions, only_inputs=True, verify=False)
    models = suite.index["models"]
    checkpoints = {
        name: entry["folder"] for name, entry in models.items() if Path(entry.get("folder", "")).is_absolute()
    }
    subject = LedRef(suite, suite.index.get("dtype", "float64"), checkpoints, threads=threads)
    asked = {entry["id"]: tuple(entry["outputs"]) for entry in suite.index["cases"]}
    with naming(to_write("results", results)):
        Path(results).mkdir(parents=True, exist_ok=True)
    for case in suite.cases:
        answer = subject.answer(case)
        path = Path(results) / f"{case.id}.json"
        if answer.outputs is not None:
            tensors = {name: from_numpy(name, np.asarray(answer.outputs[name])) for name in asked[case.id]}
            write_safetensors(path.with_suffix(".safetensors"), tensors)
        elif answer.failed is not None:
            raise InputError(f"{case.id}: {answer.failed}. This is a fault of led_ref; please report it.")
        else:
            what = "unsupported" if answer.refused is None else "refused"
            path.write_text(json.dumps({what: getattr(answer, what)}), encoding="ascii")
    return len(suite.cases)
