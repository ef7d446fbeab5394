"""RawModule and RawKernel of the stand-in: every launch is checked against the kernel's own text, then a twin computes.

CuPy checks nothing of a launch. A Python int is handed over as 8 bytes and a Python float as a double, whatever the
kernel declares; an array is a bare pointer, so its strides and its type are forgotten; a grid of 0 blocks becomes 1. All
of these run and give rubbish. Here the kernel's declaration is read from its source, and what does not fit is an error.

What a kernel computes is said by its twin, a function over NumPy arrays that writes where the kernel writes:

    register_twin("gelu", lambda launch, numbers, count: ...)      # kernel_twins.py

The kernels themselves are run in tests/kernels, on the CPU, against the same definitions.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from stand_in.device_array import ndarray
from stand_in.graphs import done
from stand_in.ledger import LEDGER

MOST_THREADS = 1024
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
DTYPES = {
    "float": "float32", "double": "float64", "__half": "float16", "half": "float16", "int": "int32",
    "long long": "int64", "bool": "bool", "unsigned": "uint32", "unsigned int": "uint32", "signed char": "int8",
    "unsigned char": "uint8",
}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """A kernel's template arguments, ("float", "4"), its grid and its block."""

    kernel: str
    of: tuple[str, ...]
    grid: tuple[int, ...]
    block: tuple[int, ...]


Twin = Callable[..., None]
TWINS: dict[str, tuple[Twin, frozenset[str]]] = {}


class CUDADriverError(RuntimeError):
    """As cupy.cuda.driver.CUDADriverError."""


def register_twin(name: str, twin: Twin, *, strided: Sequence[str] = ()) -> None:
    """`twin(launch, *arguments)` computes what the kernel of that name does.

    `strided` names the pointers to what need not be dense, because the kernel gets the strides. The twin checks that
    they are the right ones.
    """
    TWINS[name] = twin, frozenset(strided)


class RawKernel:
    """One kernel."""

    def __init__(
        self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", **more: Any
    ) -> None:
        if unknown := set(more) - {"translate_cucomplex", "enable_cooperative_groups", "jitify"}:
            raise TypeError(f"RawKernel() got unexpected keywords {sorted(unknown)}")
        self.name = name
        plain, _, arguments = name.partition("<")
        self.plain = plain.strip()
        self.of = tuple(argument.strip() for argument in arguments.rstrip("> ").split(",")) if arguments else ()
        self.parameters = kernel_parameters(code, self.plain, self.of)
        self.most_threads = _launch_bound(code, self.plain)
        self.max_dynamic_shared_size_bytes = 48 << 10
        self.attributes = {"max_threads_per_block": self.most_threads}

    def compile(self, log_stream: Any = None) -> None:
        """CuPy compiles at the first call, else; here there is nothing to compile."""

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        self._check_size(grid, block, shared_mem)
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, not {len(args)}")
        if self.plain not in TWINS:
            raise NotImplementedError(f"no twin for the kernel {self.plain!r}: register_twin(name, function)")
        twin, strided = TWINS[self.plain]
        found = [
            _argument(self.name, *declared, given, dense=declared[0] not in strided)
            for declared, given in zip(self.parameters, args, strict=True)
        ]
        LEDGER.launch(self.name)
        with np.errstate(all="ignore"):
            done(twin, Launch(self.name, self.of, grid, block), *found)

    def _check_size(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> None:
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError(f"grid and block of {self.name} are tuples, not {grid!r} and {block!r}")
        if any(not isinstance(n, int | np.integer) or n < 1 for n in (*grid, *block)):
            raise ValueError(f"{self.name} is launched with grid {grid}, block {block}: CuPy makes a 0 a 1")
        if any(n > most for n, most in zip(grid, MOST_BLOCKS, strict=False)):
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: grid {grid} of {self.name} is more than {MOST_BLOCKS}")
        if math.prod(block) > self.most_threads:
            raise CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: {self.name} is launched with {math.prod(block)} threads to a block and made "
                f"for at most {self.most_threads}"
            )
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {shared_mem} bytes of shared memory for {self.name}")


class RawModule:
    """The kernels of one source text."""

    def __init__(
        self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = (), backend: str = "nvrtc",
        translate_cucomplex: bool = False, enable_cooperative_groups: bool = False,
        name_expressions: Sequence[str] | None = None, jitify: bool = False,
    ) -> None:  # fmt: skip
        if code is None:
            raise NotImplementedError("the stand-in needs the source: RawModule(code=...)")
        if not isinstance(options, tuple):
            raise TypeError(f"options is {type(options).__name__}, not tuple")
        self.code, self.name_expressions = code, name_expressions

    def compile(self, log_stream: Any = None) -> None:
        """Nothing to compile."""

    def get_function(self, name: str) -> RawKernel:
        """The kernel; templates by the name expression that the module was made with."""
        if "<" in name and name not in (self.name_expressions or ()):
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: {name} is none of name_expressions {self.name_expressions}")
        return RawKernel(self.code, name)


def kernel_parameters(code: str, name: str, of: tuple[str, ...]) -> list[tuple[str, str, bool]]:
    """(name, C type, is it a pointer) of each parameter, template arguments filled in."""
    heading = (
        rf"(?:template\s*<([^>]*)>\s*)?(?:extern\s+\"C\"\s+)?__global__[^;{{}}]*?\b{re.escape(name)}\s*\(([^)]*)\)\s*{{"
    )
    found = re.search(heading, _bare(code))
    if found is None:
        raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
    formal = [part.split()[-1] for part in (found[1] or "").split(",") if part.strip()]
    if len(formal) != len(of):
        raise CUDADriverError(f"{name} is a template of {formal}, and {of} is given")
    actual = dict(zip(formal, of, strict=True))
    parameters = []
    for text in filter(None, (part.strip() for part in found[2].split(","))):
        *words, parameter = re.findall(r"\w+|\*", text)
        kind = " ".join(actual.get(word, word) for word in words if word not in ("const", "*", "__restrict__"))
        parameters.append((parameter, kind, "*" in words))
    return parameters


@cache
def _bare(code: str) -> str:
    """The source without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", code, flags=re.DOTALL)


def _launch_bound(code: str, name: str) -> int:
    """What __launch_bounds__ promises the compiler: more threads would not start. Names are looked up in #define."""
    found = re.search(rf"__launch_bounds__\((\w+)[^)]*\)\s*{re.escape(name)}\s*\(", _bare(code))
    if found is None:
        return MOST_THREADS
    bound = found[1]
    if not bound.isdigit():
        defined = re.search(rf"#define\s+{bound}\s+(\d+)", code)
        bound = defined[1] if defined else MOST_THREADS
    return int(bound)


def _argument(kernel: str, name: str, kind: str, pointer: bool, given: Any, *, dense: bool) -> Any:
    """What the twin gets: a NumPy array or scalar. Refuses what would be misread, and null pointers."""
    expected = np.dtype("uint16" if "bfloat16" in kind else DTYPES[kind])
    if pointer:
        if not isinstance(given, ndarray):
            raise TypeError(f"{kernel}: {name} is a pointer to {kind} and is given {type(given)}")
        if "bfloat16" in kind:
            if given.dtype.itemsize != 2 or given.dtype == np.float16:
                raise TypeError(f"{kernel}: {name} points to {kind} and is given an array of {given.dtype}")
        elif given.dtype != expected:
            raise TypeError(f"{kernel}: {name} points to {kind} and is given an array of {given.dtype}")
        if dense and not given.flags.c_contiguous:
            raise ValueError(f"{kernel}: {name} is given a view with strides {given.strides}, which a pointer forgets")
        return given._host
    # As CuPy hands them over: Python's int as int64, float as float64, bool as bool; NumPy's scalars as they are.
    if type(given) in (int, float, bool):
        given = {int: np.int64, float: np.float64, bool: np.bool_}[type(given)](given)
    if not isinstance(given, np.generic):
        raise TypeError(f"{kernel}: {name} is {kind} and is given {type(given)}")
    if given.dtype != expected:
        raise TypeError(
            f"{kernel}: {name} is declared {kind} and is given {given.dtype.name}; pass numpy.{expected.name}(...)"
        )
    return given
