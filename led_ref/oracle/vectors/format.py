"""Conformance vectors: what goes into an LED and what must come out, in files that any language can read.

A folder of vectors holds an index.json and, for each level, two safetensors files: `L2.inputs.safetensors` and
`L2.outputs.safetensors`. (tests/vectors/README.md describes the format on a page; schema.json beside it is exact.)

    L0 tokenizer   L1 operations   L2 attention   L3 layers   L4 logits, loss, cache   L5 search   L6 the bundled model
    L7 a real checkpoint, which everyone fetches for themselves

A level is worth little before those under it pass, and that is what they are for: they say how far an implementation is.

    >>> tensor_name("L1-gelu", "x"), tensor_name("L1-gelu", "y", answer=1)
    ('L1-gelu/x', 'L1-gelu/1/y')

This file is the format: what a case is, and how a folder is read. Around it: make/text.py, make/steps.py,
make/layers.py, make/search.py, make/whole.py (the cases), make/write.py (rounding, tolerances, files),
vectors_subject.py and vectors_program.py (who answers), vectors_check.py (who judges).
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from led_ref.errors import CheckpointError, InputError, MissingFileError
from led_ref.json_file import read_json_object
from led_ref.weights.safetensors_file import read_safetensors

Array: TypeAlias = npt.NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]

FORMAT = "led-vectors/1"
LEVELS: Mapping[str, str] = {
    "L0": "tokenizer",
    "L1": "operations",
    "L2": "attention",
    "L3": "layers",
    "L4": "logits, loss and cache",
    "L5": "search",
    "L6": "the bundled model",
    "L7": "a real checkpoint",
}
# What a program may compute in. Tolerances are stated for each.
DTYPES = ("float64", "float32", "float16", "bfloat16")
RESULTS = ("valid", "invalid", "acceptable")


@dataclass(frozen=True)
class Case:
    """One question and its answer.

    Args:
        id: its name, level first: "L2-window-padding".
        operation: what is computed; README.md lists them with inputs, arguments and outputs.
        result: "valid": the answer must be given. "invalid": the inputs must be refused. "acceptable": LED leaves it
            open, or transformers does something else than it means; each of `answers` is right, and no other.
        model: whose weights are used, a key of the index' "models"; None: all that is needed is among the inputs.
        inputs: tensors by name.
        arguments: everything else, JSON values.
        answers: tensors by name; none for an invalid case, several for some acceptable ones.
        tolerance: output -> dtype -> largest allowed difference; no entry for whole numbers, which must be equal.
        may_refuse: of an acceptable case: whether refusing is right as well.
        needs: a checkpoint that is not among the files; without it the case is not asked.
        types: what the case is stated for; empty: every type. In half precision a search may well decide otherwise.
        depth: of how many steps the computation consists: what the tolerance was derived from.
        flags: what is special about it; the index explains each flag.
        comment: a sentence, where the flags do not say it all.
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
        """L0 ... L7."""
        return self.id.partition("-")[0]


@dataclass(frozen=True)
class Answer:
    """What somebody made of a case: tensors, or a refusal with its reason, or neither with the reason."""

    outputs: Tensors | None = None
    refused: str | None = None
    unsupported: str | None = None  # the program says that it does not do this
    failed: str | None = None  # it crashed, hung, or wrote nothing that can be read


@dataclass(frozen=True)
class Suite:
    """A folder of vectors, read."""

    folder: Path
    index: Mapping[str, Any]
    cases: tuple[Case, ...]

    def weights(self, model: str) -> Tensors:
        """The weights of a model whose tensors are among the files, by checkpoint key."""
        prefix = f"{model}/"
        tensors = _tensors(self.folder / self.index["models"][model]["weights"])
        return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def tensor_name(case_id: str, name: str, *, answer: int | None = None) -> str:
    """Under which name a tensor stands in its file; answers are counted from 1."""
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
        levels: which levels to read; None: all.
        only_inputs: leave the answers out (what a program is handed has none).
        verify: compare each file with the sha256 that the index gives.

    Raises:
        MissingFileError: if there is no index.json, or a file that it names is missing.
        CheckpointError: if a file is not what the index says, or the index is not one of vectors.
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
            f"{folder}: the index names {error}, which is not there. Fetch the vectors again."
        ) from None
    return Suite(folder, index, cases)


def _case(entry: Mapping[str, Any], inputs: Mapping[str, Tensors], outputs: Mapping[str, Tensors], bare: bool) -> Case:
    """A case as the index and the level's two files give it."""
    case_id, level = entry["id"], entry["id"].partition("-")[0]
    answers = () if bare else range(1, entry["answers"] + 1)
    return Case(
        id=case_id,
        operation=entry["operation"],
        result=entry["result"],
        model=entry.get("model"),
        inputs={name: inputs[level][tensor_name(case_id, name)] for name in entry["inputs"]},
        arguments=entry["arguments"],
        answers=tuple(
            {name: outputs[level][tensor_name(case_id, name, answer=n)] for name in entry["outputs"]} for n in answers
        ),
        tolerance={name: allowed for name, allowed in entry["outputs"].items() if allowed is not None},
        may_refuse=entry.get("may_refuse", False),
        needs=entry.get("needs"),
        types=tuple(entry.get("types", ())),
        depth=entry.get("depth", 1),
        flags=tuple(entry["flags"]),
        comment=entry.get("comment", ""),
    )


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
    """Each file is there and is the one that the index was written with."""
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
    """All tensors of a safetensors file as NumPy arrays; a copy of the few that NumPy has no type for is refused."""
    stored = read_safetensors(path)
    for name, tensor in stored.items():
        if tensor.dtype == "BF16":
            raise CheckpointError(f"{path}: {name} is bfloat16. Write results as float32 or float64.")
    return {name: np.asarray(tensor.data) for name, tensor in stored.items()}


_SAFETENSORS_NAMES = {"float64": "F64", "float32": "F32", "int64": "I64", "uint8": "U8"}


def safetensors_bytes(tensors: Tensors) -> bytes:
    """A safetensors file: the tensors in the order given, wide types first so that each lies at a multiple of its size."""
    header: dict[str, Any] = {}
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    start, raw = 0, []
    for name, array in ordered:
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        stop = start + len(data)
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, stop],
        }
        start = stop
        raw.append(data)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(raw)
