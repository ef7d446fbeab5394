"""Compile CUDA C for the CPU and call it: the Python side of cuda_on_cpu.h, in the manner of `cupy.RawModule`.

    kernels = load_kernels()                                    # backends/led_backends/kernels.cu, all its kernels
    kernels.get_function("gelu<float>")((3,), (256,), (x, np.int32(600)))
    with kernels.schedule("shuffled", seed=7): ...              # the order in which threads take their turns

Arguments are NumPy arrays and NumPy scalars, and they are checked as CuPy does not check them: each scalar must have the
size and kind of the kernel's parameter. Arrays are copied to guarded memory for the call: reading or writing one element
beyond an array's end is an error that says so, and so is a barrier that some threads miss.

It compiles with g++ (or what CXX says) into a temporary folder, once for each source. No GPU, no CUDA.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
KERNELS_CU = HERE.parents[1] / "backends" / "led_backends" / "kernels.cu"
TYPES = ("float", "__half", "__nv_bfloat16")
# For each of them attend_chunk (queries), linear_few (rows) and window_attend (a head's width) are compiled anew.
QUERIES, ROWS, WIDTHS = (1, 3, 8), (1, 4, 16), (16, 64)
SCHEDULES = ("natural", "reversed", "shuffled")
FORBIDDEN = 1 << 20  # NO_MANS_LAND of cuda_on_cpu.h

# What a GPU takes at most (compute capability 7.5 to 10.0).
MOST_THREADS = 1024
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_SHARED_BYTES = 48 * 1024

# Hidden: two libraries do not share their globals. No contraction of a * b + c: the GPU does it, and the
# bounds allow both. Undefined behaviour stops the program at the spot.
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-shared", "-w", "-U_FORTIFY_SOURCE", "-fvisibility=hidden", "-ffp-contract=off"]
SANITIZE = ["-fsanitize=undefined", "-fno-sanitize=vptr", "-fsanitize-undefined-trap-on-error"]

_SHARED = re.compile(r"\bextern\s+__shared__\s+(\w+)\s+(\w+)\s*\[\s*\]\s*;")
_SHARED_FIXED = re.compile(r"(?:\balignas\(\d+\)\s*)?\b__shared__\s+(\w+)\s+(\w+)\s*((?:\[[^\]]*\])*)\s*;")
_KERNEL = re.compile(
    r"(template\s*<[^>]*>)?\s*(?:extern \"C\"\s*)?__global__\s+void\s+(?:__launch_bounds__\((\w+)[^)]*\)\s*(?://[^\n]*\s*)?)?(\w+)\s*\("
)


class KernelError(AssertionError):
    """A kernel did what a GPU would not survive, or not report."""


def for_the_cpu(source: str) -> str:
    """CUDA source with its shared arrays taken from guarded memory; line numbers stay as they are."""
    source = _SHARED.sub(r"auto *\2 = shim::dynamic_shared<\1>();", source)
    source = _SHARED_FIXED.sub(r"auto &\2 = shim::shared<\1\3, __COUNTER__>();", source)
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", source, flags=re.DOTALL)
    if "__shared__" in code:
        line = next(line for line in code.splitlines() if "__shared__" in line)
        raise ValueError(
            f"cuda_on_cpu.py cannot read {line.strip()!r}; it knows `__shared__ type name[size];`, one by one."
        )
    return source


_GLUE = """
#include "cuda_on_cpu.h"
#line 1 "{file}"
{source}
#line 1 "glue"
struct Listed {{ void (*call)(void **); const char *signature; }};
#define OURS extern "C" __attribute__((visibility("default")))
static const Listed listed[] = {{ {entries} }};
OURS const char *shim_signature(int which) {{ return listed[which].signature; }}
OURS const char *shim_launch(int which, const unsigned *grid, const unsigned *block, size_t shared_bytes, int order,
                                   unsigned seed, void **args) {{
    return shim::launch(listed[which].call, {{grid[0], grid[1], grid[2]}}, {{block[0], block[1], block[2]}}, shared_bytes,
                        shim::Order(order), seed, args);
}}
OURS void *shim_reserve(size_t bytes, int at_end) {{ return new shim::Guarded(bytes, at_end); }}
OURS void *shim_data(void *guarded) {{ return ((shim::Guarded *)guarded)->data; }}
OURS int shim_untouched_around(void *guarded) {{ return ((shim::Guarded *)guarded)->untouched_around(); }}
OURS void shim_free(void *guarded) {{ delete (shim::Guarded *)guarded; }}
"""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="led-ref-kernels-")


@functools.cache
def _library(source: str, names: tuple[str, ...], options: tuple[str, ...]) -> ctypes.PyDLL:
    """Compile, once for each source and list of kernels. PyDLL keeps the GIL: one launch at a time."""
    entries = ", ".join(f"{{shim::Entry<{name}>::call, shim::Entry<{name}>::signature}}" for name in names)
    glued = _GLUE.format(file="kernels.cu", source=for_the_cpu(source), entries=entries)
    stem = Path(_folder().name) / hashlib.sha256(repr((glued, options)).encode()).hexdigest()[:16]
    stem.with_suffix(".cpp").write_text(glued, "utf-8")
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, *FLAGS, *SANITIZE, *options, f"-I{HERE}", f"-I{HERE / 'include'}"]
    command += [str(stem.with_suffix(".cpp")), "-o", str(stem.with_suffix(".so"))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise KernelError(f"The compiler {compiler!r} was not found: install g++, or name another in CXX.") from error
    if done.returncode:
        raise KernelError(f"{compiler} does not compile the kernels:\n{done.stderr[:4000]}")
    library = ctypes.PyDLL(str(stem.with_suffix(".so")))
    for name, restype in (("shim_launch", ctypes.c_char_p), ("shim_signature", ctypes.c_char_p)):
        getattr(library, name).restype = restype
    for name in ("shim_reserve", "shim_data"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("shim_data", "shim_free", "shim_untouched_around"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.shim_reserve.argtypes = [ctypes.c_size_t, ctypes.c_int]
    return library


class Kernels:
    """A compiled source, like `cupy.RawModule(code=..., name_expressions=...)`."""

    def __init__(self, source: str, names: Sequence[str], options: Sequence[str] = ()) -> None:
        self.names = tuple(names)
        self.most_threads = launch_bounds(source)
        self.library = _library(source, self.names, tuple(options))
        self.order, self.seed, self.at_end = "natural", 0, True
        self.launches: list[str] = []  # the names of what ran, for those who count

    def get_function(self, name: str) -> "Kernel":
        """The kernel of that name, one of the names given."""
        if name not in self.names:
            raise KernelError(f"There is no kernel {name!r} in this module. It has: {', '.join(self.names)}.")
        return Kernel(self, name)

    @contextlib.contextmanager
    def schedule(self, order: str, *, seed: int = 0, at_end: bool = True) -> Iterator[None]:
        """In which order threads take turns; at_end False: arrays begin where forbidden memory ends, not the reverse."""
        before = self.order, self.seed, self.at_end
        self.order, self.seed, self.at_end = order, seed, at_end
        try:
            yield
        finally:
            self.order, self.seed, self.at_end = before


class Kernel:
    """One kernel: `kernel(grid, block, args, shared_mem=0)`, as CuPy's."""

    def __init__(self, module: Kernels, name: str) -> None:
        self.module, self.name = module, name
        self.which = module.names.index(name)
        self.signature = module.library.shim_signature(self.which).decode()
        self.max_dynamic_shared_size_bytes = MOST_SHARED_BYTES

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        grid3, block3 = ([int(n) for n in (*sizes, 1, 1, 1)[:3]] for sizes in (grid, block))
        self._check_sizes(grid3, block3, shared_mem)
        if len(args) != len(self.signature):
            raise KernelError(f"{self.name} takes {len(self.signature)} arguments, and {len(args)} were given.")
        arrays = [(n, arg) for n, arg in enumerate(args) if isinstance(arg, np.ndarray)]
        with _guarded(self, arrays) as addresses:
            boxes = [
                ctypes.c_void_p(addresses.get(n, 0)) if letter == "P" else self._scalar(n, letter, args[n])
                for n, letter in enumerate(self.signature)
            ]
            for n, letter in enumerate(self.signature):
                if letter == "P" and not (isinstance(args[n], np.ndarray) or args[n] is None):
                    raise KernelError(f"{self.name}: argument {n} is {args[n]!r}; the kernel takes a pointer there.")
            pointers = (ctypes.c_void_p * len(boxes))(*[ctypes.addressof(box) for box in boxes])
            three = ctypes.c_uint * 3
            order = SCHEDULES.index(self.module.order)
            self.module.launches.append(self.name)
            said = self.module.library.shim_launch(
                self.which,
                three(*grid3),
                three(*block3),
                ctypes.c_size_t(shared_mem),
                order,
                self.module.seed,
                pointers,
            ).decode()
            if said:
                raise KernelError(f"{self.name}: {said}{_where(said, dict(arrays), addresses)}")

    def _check_sizes(self, grid: list[int], block: list[int], shared_mem: int) -> None:
        threads = int(np.prod(block))
        most = self.module.most_threads[self.name.split("<")[0]]
        if not 0 < threads <= most:
            raise KernelError(f"{self.name}: a block of {threads} threads; its launch bounds allow 1 to {most}.")
        if any(not 0 < n <= most for n, most in zip(grid, MOST_BLOCKS, strict=True)):
            raise KernelError(f"{self.name}: a grid of {grid} blocks; a GPU takes 1 to {MOST_BLOCKS}.")
        if not 0 <= shared_mem <= self.max_dynamic_shared_size_bytes:
            raise KernelError(
                f"{self.name}: {shared_mem} bytes of shared memory; without asking for more a GPU gives "
                f"{self.max_dynamic_shared_size_bytes}."
            )

    def _scalar(self, n: int, letter: str, value: Any) -> Any:
        """The value in a box of the parameter's size. CuPy would pass whatever bytes it has."""
        wanted = {"i": "int32", "l": "int64", "f": "float32", "d": "float64", "b": "bool"}[letter]
        found = np.dtype(
            {int: "int64", float: "float64", bool: "bool"}.get(type(value)) or getattr(value, "dtype", "V")
        )
        if isinstance(value, np.ndarray) or found not in (wanted, f"u{wanted}" if letter in "il" else wanted):
            raise KernelError(f"{self.name}: argument {n} is {value!r} ({found}); the kernel takes {wanted}.")
        return ctypes.c_char.from_buffer(bytearray(found.type(value).tobytes()))


@contextlib.contextmanager
def _guarded(kernel: Kernel, arrays: list[tuple[int, np.ndarray]]) -> Iterator[dict[int, int]]:
    """Each array's bytes in guarded memory, by the argument's number; copied back at the end. What overlaps stays together."""
    library = kernel.module.library
    extents = {n: np.lib.array_utils.byte_bounds(array) for n, array in arrays if array.size}
    groups: list[tuple[int, int]] = []
    for low, high in sorted(extents.values()):
        if groups and low < groups[-1][1]:
            low, high = groups[-1][0], max(high, groups.pop()[1])
        groups.append((low, high))
    reserved = [(low, high, library.shim_reserve(high - low, kernel.module.at_end)) for low, high in groups]
    try:
        moved = {}
        for low, high, guarded in reserved:
            ctypes.memmove(library.shim_data(guarded), low, high - low)
            for n, (start, _) in extents.items():
                if low <= start < high:
                    moved[n] = library.shim_data(guarded) + start - low
        yield moved
        for low, high, guarded in reserved:
            if not library.shim_untouched_around(guarded):
                raise KernelError(f"{kernel.name}: wrote just outside one of its arrays.")
            ctypes.memmove(low, library.shim_data(guarded), high - low)
    finally:
        for _, _, guarded in reserved:
            library.shim_free(guarded)


def _where(said: str, arrays: dict[int, np.ndarray], addresses: dict[int, int]) -> str:
    """Which argument an address is nearest to, and on which side."""
    found = re.match(r"out of bounds at (0x[0-9a-f]+)", said)
    for n, start in addresses.items() if found else ():
        beyond = int(found[1], 16) - start
        if -FORBIDDEN <= beyond < arrays[n].nbytes + FORBIDDEN:
            item = beyond // arrays[n].itemsize
            return f": element {item} of argument {n}, which has {arrays[n].size}"
    return ""


def kernel_names(source: str) -> list[str]:
    """Every kernel of a source: a template for each type in which numbers are stored, and for each Q, N or K if it has one."""
    names = []
    for template, _, name in _KERNEL.findall(source):
        sizes = [
            f", {size}"
            for letter, drawn in (("Q", QUERIES), ("N", ROWS), ("K", WIDTHS))
            for size in drawn
            if f"int {letter}" in template
        ] or [""]
        names += [f"{name}<{kind}{size}>" for kind in TYPES for size in sizes] if template else [name]
    return names


def launch_bounds(source: str) -> dict[str, int]:
    """The most threads that a block of each kernel may have: what __launch_bounds__ promises the compiler."""
    defined = dict(re.findall(r"^#define (\w+) (\d+)\b", source, flags=re.MULTILINE))
    return {name: int(defined.get(bound, bound or MOST_THREADS)) for _, bound, name in _KERNEL.findall(source)}


def load_kernels(source: str | None = None) -> Kernels:
    """The project's kernels, compiled for this CPU; or those of another source."""
    text = KERNELS_CU.read_text("utf-8") if source is None else source
    return Kernels(text, kernel_names(text))
