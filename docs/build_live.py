"""Put what runs in a reader's browser into docs/live/made, beside what fetch_pyodide.py brings. Part of `make docs`.

    python docs/build_live.py

    led_ref-HASH.zip    led_ref and led_backends as they are in the repository, the model's weights left out
    book-HASH.zip       what chapters use beside them: book_tools.py, data of measurements, mutants, vectors
    bundled-HASH.zip    the model
    products-HASH.wasm  the kernel for products of matrices (build_products.py)
    files.json          which files there are, and how many bytes each part has: docs/live/worker.js reads it

docs/built/examples.json has the texts that "Try it" offers: the bundled page, and those of docs/live/examples.json.

A name changes with its content, so that a browser may keep a file for ever.
"""

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from build_products import write_kernel
from fetch_pyodide import FOLDER as PYODIDE

ROOT = Path(__file__).parent.parent
MADE = PYODIDE.parent
BUNDLED = "led_ref/bundled"
IMPORTED_BY_CELLS = ("book_tools", "book_steps", "book_trees", "build_gpu_page", "build_performance")
NEEDED_TO_START = (
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm.gzipped",
    "python_stdlib.zip",
    "pyodide-lock.json",
)


def main() -> int:
    """Write all of it, and remove what was made of older sources. Returns the exit code."""
    code = [file for folder in ("led_ref", "backends/led_backends") for file in sources(folder)]
    parts = {
        "led_ref": [file for file in code if not file.startswith(BUNDLED) or file.endswith(".py")],
        "book": [
            *(f"docs/{module}.py" for module in IMPORTED_BY_CELLS),
            "docs/matplotlibrc",
            *(file for folder in ("docs/data", "tests/mutants", "tests/vectors/v1") for file in sources(folder)),
        ],
        # The model that summarizes alone: no page of the site answers or classifies, so no browser fetches the two others.
        "bundled": [
            file for file in sources(BUNDLED) if not file.endswith(".py") and file.rpartition("/")[0] == BUNDLED
        ],
    }
    archives = {name: write_archive(name, files) for name, files in parts.items()}
    wheels = sorted(PYODIDE.glob("*.whl"))
    numpy = [wheel for wheel in wheels if wheel.name.startswith("numpy-")]
    listed = {
        "python": [*(PYODIDE / name for name in NEEDED_TO_START), *numpy, archives["led_ref"], write_kernel(MADE)],
        "book": [archives["book"]],
        "plots": [wheel for wheel in wheels if wheel not in numpy],
        "bundled": [archives["bundled"]],
    }
    files = {
        part: [{"file": file.relative_to(MADE).as_posix(), "bytes": file.stat().st_size} for file in paths]
        for part, paths in listed.items()
    }
    (MADE / "files.json").write_text(json.dumps(files), encoding="utf-8")
    first = {"title": "led-ref's manual page", "text": (ROOT / BUNDLED / "led-ref.1.txt").read_text(encoding="utf-8")}
    others = json.loads((ROOT / "docs/live/examples.json").read_text(encoding="utf-8"))
    (ROOT / "docs/built").mkdir(exist_ok=True)
    (ROOT / "docs/built/examples.json").write_text(json.dumps([first, *others]), encoding="utf-8")
    for old in set(MADE.glob("*.zip")) - set(archives.values()):
        old.unlink()
    sizes = ", ".join(f"{part} {sum(one['bytes'] for one in found) / 1e6:.1f} MB" for part, found in files.items())
    print(f"docs/live/made: {sizes}")
    return 0


def sources(folder: str) -> list[str]:
    """All files of a folder, from the repository's root."""
    paths = sorted(path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path.relative_to(ROOT).as_posix() for path in paths]


def write_archive(name: str, files: Iterable[str]) -> Path:
    """A zip of these files of the repository, the same bytes for the same contents."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file)  # of 1980: a file's own date would change the hash
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (ROOT / file).read_bytes())
    content = packed.getvalue()
    path = MADE / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.zip"
    path.write_bytes(content)
    return path


if __name__ == "__main__":
    sys.exit(main())
