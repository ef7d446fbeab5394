"""Bring KaTeX, which sets the site's equations, into docs/assets/katex. Part of `make docs`; nothing is committed.

    python docs/fetch_katex.py

A reader's browser must not ask another host for it, so it is part of the site. KaTeX itself is published for JavaScript; it is
taken here out of a package on the Python index that carries its files whole (MIT, both), because pip is there anyway and npm
may not be. Only the files that the site uses are unpacked, and the archive is held to a checksum.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "djangocms-katex==1.0.2"
SHA256 = "79774fa17f7d328252f6dd05688799fa7ee49abebb7cbe09f0cbf6f103352ac2"
INSIDE = "djangocms_katex/static/djangocms_katex/vendor/katex/"
WANTED = ("LICENSE", "katex.min.js", "katex.min.css", "fonts/")
KATEX = Path(__file__).parent / "assets" / "katex"


def main() -> int:
    """Fetch and unpack, unless it is there. Returns the exit code."""
    done = KATEX / "package.txt"
    if done.is_file() and done.read_text(encoding="utf-8") == PACKAGE:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, PACKAGE], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != SHA256:
            print(f"{PACKAGE} has the checksum {found}, not {SHA256}. Look at it before you trust it.", file=sys.stderr)
            return 1
        shutil.rmtree(KATEX, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                inside = name.removeprefix(INSIDE)
                if inside != name and inside.startswith(WANTED):
                    path = KATEX / inside
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(name))
    done.write_text(PACKAGE, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
