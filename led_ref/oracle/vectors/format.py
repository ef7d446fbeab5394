"""The format of the conformance vectors: inputs and expected outputs of LED, in files that any language can read.

A folder of vectors holds an index.json and, for each level, two safetensors files: `L2.inputs.safetensors` and
`L2.outputs.safetensors`. (tests/vectors/README.md describes the format on a page; schema.json beside it is exact.)

Each level of `LEVELS` builds on the lower ones: the highest passing level says how far an implementation is. L7's
checkpoint is not among the files.

    >>> tensor_name("L1-gelu", "x"), tensor_name("L1-gelu", "y", answer=1)
    ('L1-gelu/x', 'L1-gelu/1/y')

ask_led_ref.py and ask_program.py answer the cases, judge.py judges the answers; tests/vectors/make/ writes the vectors.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.files.json_file import read_json_object
from led_ref.weights.safetensors_file import read_safetensors

Array: TypeAlias = npt.NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]

FORMAT = "led-vectors/1"
LEVELS: Mapping[str, str] = {
    "L0": "tokenizer", "L1": "operations", "L2": "attention", "L3": "layers",
    "L4": "logits, loss and cache", "L5": "search", "L6": "the bundled model", "L7": "a real checkpoint",
    "L8": "gradients and training",
}  # fmt: skip
# The dtypes that a program can compute in. Each has its tolerances.
DTYPES = ("float64", "float32", "float16", "bfloat16")
# Arguments of a case that take the place of a value in its model's configuration.
CONFIG_CHANGES = ("attention_window", "activation_function")


@dataclass(frozen=True)
class Case:
    """One test case: inputs and expected outputs.

    Args:
        id: its name, level first: "L2-window-padding".
        operation: its operation; README.md lists all with inputs, arguments and outputs.
        result: "valid": the outputs must be one of `answers`. "invalid": the inputs must be refused. "acceptable": LED does
            not define the result, or transformers differs from its intention; any of `answers` is right, and no other.
        model: the model, a key of the index' "models"; None: the inputs hold all weights.
        inputs: tensors by name.
        arguments: all other arguments, JSON values.
        answers: tensors by name; none for an invalid case, several for some acceptable ones.
        tolerance: output -> dtype -> largest allowed difference; none for whole numbers, which must be equal.
        may_refuse: whether an acceptable case can also be refused.
        needs: a checkpoint that is not among the files; without it the case is skipped.
        types: the dtypes of the case; empty: every dtype. In half precision a search can decide differently.
        depth: the number of steps of the computation, from which the tolerance is derived.
        flags: the special properties of the case; the index explains each flag.
        comment: a sentence about it, if the flags are not enough.
    """

    id: str
    operation: str
    result: str = "valid"
    model: str | None = None
    inputs: Tensors = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    answers: tuple[Tensors, ...] = ()
    tolerance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    may_refuse: bool = False
    needs: str | None = None
    types: tuple[str, ...] = ()
    depth: int = 1
    flags: tuple[str, ...] = ()
    comment: str = ""

    @property
    def level(self) -> str:
        """L0 ... L8."""
        return self.id.partition("-")[0]


@dataclass(frozen=True)
class Answer:
    """The answer to a case: tensors, or the reason of a refusal, of an unsupported operation or of a failure."""

    outputs: Tensors | None = None
    refused: str | None = None
    unsupported: str | None = None  # the program does not have this operation
    failed: str | None = None  # it crashed, hung, or wrote no readable result


@dataclass(frozen=True)
class Suite:
    """The content of a folder of vectors."""

    folder: Path
    index: Mapping[str, Any]
    cases: tuple[Case, ...]

    def weights(self, model: str) -> Tensors:
        """The weights of a model whose tensors are among the files, by checkpoint key."""
        prefix = f"{model}/"
        tensors = _tensors(self.folder / self.index["models"][model]["weights"])
        return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def tensor_name(case_id: str, name: str, *, answer: int | None = None) -> str:
    """The name of a tensor in its file; answers are numbered from 1."""
    return f"{case_id}/{name}" if answer is None else f"{case_id}/{answer}/{name}"


def file_name(level: str, what: str) -> str:
    """The file of a level's "inputs" or "outputs"."""
    return f"{level}.{what}.safetensors"


def read_suite(
    folder: str | Path, *, levels: Sequence[str] | None = None, only_inputs: bool = False, verify: bool = True
) -> Suite:
    """Read a folder of vectors.

    Args:
        folder: holds index.json.
        levels: the levels to read; None: all.
        only_inputs: leave out the answers (a program's folder has none).
        verify: compare each file with the sha256 of the index.

    Raises:
        MissingFileError: if index.json or a file of it does not exist.
        CheckpointError: if a file contradicts the index, or the index is not one of vectors.
        InputError: for a level that does not exist.
    """
    folder = Path(folder)
    for level in levels or ():
        if level not in LEVELS:
            raise InputError(f"There is no level {level!r}. Choose among {', '.join(LEVELS)}.")
    index = _read_index(folder / "index.json")
    wanted = [entry for entry in index["cases"] if levels is None or entry["id"].partition("-")[0] in levels]
    if verify:
        _verify(folder, index["files"])
    inputs: dict[str, Tensors] = {}
    outputs: dict[str, Tensors] = {}
    for level in dict.fromkeys(entry["id"].partition("-")[0] for entry in wanted):
        inputs[level] = _tensors(folder / file_name(level, "inputs"))
        outputs[level] = {} if only_inputs else _tensors(folder / file_name(level, "outputs"))
    try:
        cases = tuple(_case(entry, inputs, outputs, only_inputs) for entry in wanted)
    except KeyError as error:
        raise CheckpointError(
            f"{folder}: the index names {error}, which does not exist. Fetch the vectors again."
        ) from None
    return Suite(folder, index, cases)


def _case(entry: Mapping[str, Any], inputs: Mapping[str, Tensors], outputs: Mapping[str, Tensors], bare: bool) -> Case:
    """A case from its entry in the index and the level's two files."""
    case_id, level = entry["id"], entry["id"].partition("-")[0]
    answers = () if bare else range(1, entry["answers"] + 1)
    optional = {name: entry[name] for name in ("model", "may_refuse", "needs", "depth", "comment") if name in entry}
    return Case(
        id=case_id, operation=entry["operation"], result=entry["result"], arguments=entry["arguments"],
        inputs={name: inputs[level][tensor_name(case_id, name)] for name in entry["inputs"]},
        answers=tuple(
            {name: outputs[level][tensor_name(case_id, name, answer=n)] for name in entry["outputs"]} for n in answers
        ),
        tolerance={name: allowed for name, allowed in entry["outputs"].items() if allowed is not None},
        types=tuple(entry.get("types", ())), flags=tuple(entry["flags"]), **optional,
    )  # fmt: skip


def _read_index(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"There is no file {path}. Name a folder of vectors, such as tests/vectors/v1.")
    index = read_json_object(path, error_class=CheckpointError, remedy="Fetch the vectors again.")
    if index.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has the format {index.get('format')!r}; this version reads {FORMAT!r}. Fetch the vectors again."
        )
    return index


def _verify(folder: Path, files: Mapping[str, str]) -> None:
    """Check that each file exists and has the sha256 of the index."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise MissingFileError(f"There is no file {path}, which index.json names. Fetch the vectors again.")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise CheckpointError(
                f"{path} has sha256 {found[:12]}..., but index.json says {expected[:12]}...: it was changed or cut off. "
                "Fetch the vectors again."
            )


def _tensors(path: Path) -> dict[str, Array]:
    """All tensors of a safetensors file as NumPy arrays; CheckpointError for bfloat16, which NumPy does not have."""
    stored = read_safetensors(path)
    for name, tensor in stored.items():
        if tensor.dtype == "BF16":
            raise CheckpointError(f"{path}: {name} is bfloat16. Write results as float32 or float64.")
    return {name: np.asarray(tensor.data) for name, tensor in stored.items()}
