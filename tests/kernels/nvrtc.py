"""NVIDIA's run-time compiler (NVRTC), asked to compile kernels and to say what they take. It needs no GPU.

The library comes from PyPI (`make kernels` installs the extra `kernels`): it is the same one that CuPy calls. Nothing of
CuPy is used here, only NVRTC's public C functions.
"""

import ctypes
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = (75, 80, 90, 100)  # Turing, Ampere, Hopper, Blackwell
WANTED = "Run `make kernels`, or: pip install 'led-ref[kernels]' (Linux and Windows)."


class CompilerError(RuntimeError):
    """NVRTC does not compile it, or is not there; the message has the compiler's own."""


@dataclass(frozen=True)
class Taken:
    """What one kernel takes, in the compiler's words (ptxas -v). spills: bytes stored and loaded; stack: bytes."""

    registers: int
    shared: int
    spills: int
    stack: int


@functools.cache
def _folder() -> Path:
    try:
        import nvidia
    except ImportError as error:
        raise CompilerError(f"NVRTC is not installed. {WANTED}") from error
    for folder in nvidia.__path__:
        if (Path(folder) / "cu13" / "include" / "cuda_fp16.h").exists():
            return Path(folder) / "cu13"
    raise CompilerError(f"CUDA's headers (cuda_fp16.h) are not installed. {WANTED}")


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    libraries = sorted((_folder() / "lib").glob("libnvrtc*.so*"), key=lambda path: "builtins" not in path.name)
    libraries = [path for path in libraries if ".alt." not in path.name]
    if not libraries:
        raise CompilerError(f"NVRTC is not installed. {WANTED}")
    return [ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL) for path in libraries][-1]  # the built-ins before the compiler


def version() -> str:
    """Of the compiler: "13.0"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compile_kernels(source: str, names: Sequence[str], architecture: int) -> dict[str, Taken]:
    """Compile for one architecture, as CuPy's RawModule would, and read the report.

    Raises:
        CompilerError: if it does not compile, with the compiler's log; or if NVRTC is not installed.
    """
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    try:
        for name in names:
            nvrtc.nvrtcAddNameExpression(program, name.encode())
        options = [f"-arch=sm_{architecture}", "-std=c++17", "--ptxas-options=-v", f"-I{_folder() / 'include'}"]
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * 4)(*map(str.encode, options)))
        log = _log(program)
        if status:
            raise CompilerError(f"NVRTC {version()} does not compile it for sm_{architecture}:\n{log}")
        report = read_report(log)
        lowered = {}
        for name in names:
            mangled = ctypes.c_char_p()
            nvrtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(mangled))
            lowered[name] = (mangled.value or b"").decode()
        return {name: report[mangled] for name, mangled in lowered.items()}
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _log(program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _nvrtc().nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    _nvrtc().nvrtcGetProgramLog(program, text)
    return text.value.decode()


_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def read_report(log: str) -> dict[str, Taken]:
    """What ptxas -v says, by mangled name. A kernel without its lines is an error: a budget must not pass unread."""
    found = {}
    for part in re.split(r"(?=ptxas info\s*: Compiling entry)", log):
        if entry := _ENTRY.search(part):
            stack, used, shared = _STACK.search(part), _USED.search(part), _SHARED.search(part)
            if not (stack and used):
                raise CompilerError(f"The compiler's report on {entry[1]} has another form than expected:\n{part}")
            spills = int(stack[2]) + int(stack[3])
            found[entry[1]] = Taken(int(used[1]), int(shared[1]) if shared else 0, spills, int(stack[1]))
    return found
