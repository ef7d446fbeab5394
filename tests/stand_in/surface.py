"""What CuPy offers, as dump_surface.py recorded it, and the refusal of all else."""

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "cupy_surface.json").read_text(encoding="utf-8"))
FUNCTIONS: dict[str, Any] = RECORDED["functions"]
METHODS: dict[str, Any] = RECORDED["methods"]

# What functions with **kwargs take in truth; read off CuPy's documentation. All others take no keyword at all here.
KEYWORDS = {
    "einsum": {"dtype", "optimize"},
    "meshgrid": {"indexing", "sparse", "copy"},
    "pad": {"constant_values", "stat_length", "end_values", "reflect_type"},
}
UFUNC_KEYWORDS = {"out", "dtype", "casting"}


class NotModelledError(NotImplementedError):
    """CuPy has it, the stand-in does not: teach the stand-in, or do without."""


def check_call(name: str, recorded: list[list[Any]] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that do not fit the recorded signature, as the call itself would."""
    if recorded is None:
        return
    try:
        _signature(json.dumps(recorded)).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"cupy's {name}(): {error}") from None
    if any(kind == inspect.Parameter.VAR_KEYWORD for _, kind, _ in recorded):
        unknown = set(kwargs) - {parameter for parameter, _, _ in recorded} - KEYWORDS.get(name, set())
        if unknown:
            raise TypeError(f"cupy's {name}() did not understand the keywords {sorted(unknown)}")


@cache
def _signature(recorded: str) -> inspect.Signature:
    parameters = [
        inspect.Parameter(name, inspect._ParameterKind(kind), default=None if optional else inspect.Parameter.empty)
        for name, kind, optional in json.loads(recorded)
    ]
    # Cython's docstrings list what comes after *args as if it could be given by position.
    late = False
    for i, parameter in enumerate(parameters):
        if late and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            parameters[i] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        late = late or parameter.kind is inspect.Parameter.VAR_POSITIONAL
    return inspect.Signature(parameters)


def check_ufunc(name: str, ufunc: np.ufunc, operands: list[Any], dtype: Any) -> None:
    """Refuse a ufunc's call for types that CuPy's ufunc of that name has no loop for."""
    chars = _loop(ufunc, tuple(map(_type_of, operands)), None if dtype is None else np.dtype(dtype))
    if not _has_loop(name, chars):
        raise TypeError(f"cupy's ufunc {name} has no loop {chars}; it has {FUNCTIONS[name]['ufunc']}")


@cache
def _loop(ufunc: np.ufunc, given: tuple[Any, ...], dtype: np.dtype | None) -> str:
    """The types in which NumPy computes for the types that are given, as CuPy writes them: "ff->f"."""
    outs = (None,) * ufunc.nout
    wanted = {} if dtype is None else {"signature": ((None,) * ufunc.nin + (dtype,) * ufunc.nout)}
    loop = ufunc.resolve_dtypes((*given, *outs), **wanted)
    return _chars(loop[: ufunc.nin]) + "->" + _chars(loop[ufunc.nin :])


def _type_of(operand: Any) -> Any:
    """Of Python's own numbers the class: they take the type of what they meet. Of all else the dtype."""
    if type(operand) in (int, float, complex):
        return type(operand)
    return np.dtype(bool) if isinstance(operand, bool) else operand.dtype


def _chars(dtypes: tuple[np.dtype, ...]) -> str:
    return "".join(dtype.char for dtype in dtypes).replace("q", "l").replace("Q", "L")


@cache
def _has_loop(name: str, chars: str) -> bool:
    """Whether CuPy has that loop, or one that its operands can be cast to safely and that gives the same type."""
    ins, outs = chars.split("->")
    for loop in FUNCTIONS[name]["ufunc"].replace("q", "l").replace("Q", "L").split():
        loop_ins, loop_outs = loop.split("->")
        if loop_outs == outs and all(np.can_cast(a, b) for a, b in zip(ins, loop_ins, strict=True)):
            return True
    return False
