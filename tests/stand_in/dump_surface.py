"""Write cupy_surface.json: what CuPy offers, so that the stand-in can refuse what it does not.

Run it where CuPy can be imported; no GPU is needed, since nothing is computed:

    python -m venv somewhere && somewhere/bin/pip install cupy-cuda13x && somewhere/bin/python tests/stand_in/dump_surface.py

Recorded are names, parameters and types, none of the code. `cupy_stand_in.py` says what is made of them.
"""

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# The parts of CuPy whose functions are recorded, by the prefix of their names.
PARTS = {
    "": "cupy",
    "linalg.": "cupy.linalg",
    "lib.stride_tricks.": "cupy.lib.stride_tricks",
    "cupyx.": "cupyx",
    "cupyx.scipy.special.": "cupyx.scipy.special",
}
# Modules and classes of which only the names are recorded.
MODULES = ("cuda", "cuda.runtime", "cuda.memory")
CLASSES = ("cuda.Device", "cuda.Stream", "cuda.Event", "cuda.Graph", "cuda.MemoryPool", "RawModule", "RawKernel")


def parameters(function: Any) -> list[list[Any]] | None:
    """[name, kind, has a default] of each parameter; from the first line of the docstring where Cython hides them."""
    try:
        found = inspect.signature(function).parameters.values()
        return [[p.name, int(p.kind), p.default is not p.empty] for p in found if p.name != "self"]
    except (TypeError, ValueError):
        pass
    first = (inspect.getdoc(function) or "").split("\n")[0]
    match = re.fullmatch(r"[\w.]+\((.*)\)(?: -> .*)?", first)
    return None if match is None else [_parameter(text) for text in _split(match[1]) if text not in ("self", "/")]


def _split(text: str) -> list[str]:
    """A parameter list at its commas, but for those inside brackets and strings."""
    return [part.strip() for part in re.findall(r"(?:[^,(\['\"]|\([^)]*\)|\[[^]]*\]|'[^']*'|\"[^\"]*\")+", text)]


def _parameter(text: str) -> list[Any]:
    """`int axis=-1` -> ["axis", 1, True]; the kinds are those of inspect.Parameter."""
    name, _, default = text.partition("=")
    kind = 4 if name.startswith("**") else 2 if name.startswith("*") else 1
    return [name.strip("* ").split(" ")[-1], kind, bool(default)]


def surface() -> dict[str, Any]:
    """Everything that is recorded, ready for JSON."""
    import cupy
    import numpy

    functions: dict[str, Any] = {}
    for prefix, module in PARTS.items():
        part = importlib.import_module(module)
        for name in dir(part):
            found = getattr(part, name)
            if name.startswith("_") or not callable(found) or isinstance(found, type):
                continue
            if isinstance(found, cupy.ufunc):
                functions[prefix + name] = {"ufunc": " ".join(found.types)}
            else:
                functions[prefix + name] = {"params": parameters(found)}
    methods = {name: getattr(cupy.ndarray, name) for name in dir(cupy.ndarray) if not name.startswith("_")}
    public = {name: getattr(cupy, name) for name in dir(cupy) if not name.startswith("_")}
    return {
        "cupy": cupy.__version__,
        "numpy": numpy.__version__,
        "functions": functions,
        "methods": {name: parameters(found) for name, found in methods.items() if callable(found)},
        "properties": sorted(name for name, found in methods.items() if not callable(found)),
        "flags": [name for name in dir(cupy._core.flags.Flags) if not name.startswith("_")],
        "numpy_types": sorted(
            name for name, v in public.items() if isinstance(v, type) and v.__module__.startswith("numpy")
        ),
        "constants": {name: str(v) for name, v in public.items() if isinstance(v, float)},
        "modules": {name: _names(cupy, name) for name in MODULES},
        "classes": {name: _names(cupy, name) for name in CLASSES},
    }


def _names(root: Any, dotted: str) -> list[str]:
    for name in dotted.split("."):
        root = getattr(root, name)
    return [name for name in dir(root) if not name.startswith("_")]


if __name__ == "__main__":
    recorded = surface()
    lines = [f"{json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in recorded.items()]
    (HERE / "cupy_surface.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"CuPy {recorded['cupy']}: {len(recorded['functions'])} functions, {len(recorded['methods'])} methods")
