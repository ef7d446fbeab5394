"""The browser that the other two scripts here drive: one of the machine's, or one that `make browser` fetches.

    python tests/browser/chromium.py        fetch it into .venv/chromium, and say where it is

A Chromium without a window is published on npm, compressed, with the libraries and a font that a bare machine lacks
(@sparticuz/chromium, MIT; x86-64 Linux). It is fetched by npm itself, and its sha256 is checked before anything of it
runs. Elsewhere give both scripts a Chromium of yours: --chromium /usr/bin/chromium.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@sparticuz/chromium@147.0.0"
SHA256 = "18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b"
FOLDER = Path(sys.prefix) / "chromium"
# Without these Chromium asks hosts of its maker for updates at every start.
QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def launch(play, given: str | None = None):
    """A browser of playwright's: the Chromium that is given, or the fetched one."""
    if given:
        return play.chromium.launch(executable_path=given, args=QUIET)
    program = FOLDER / "chromium"
    if not program.is_file():
        sys.exit(f"There is no Chromium. Fetch one: python {__file__}, or name yours: --chromium /usr/bin/chromium")
    # The package's own libraries and font: a bare machine has none.
    libraries = os.pathsep.join(filter(None, [str(FOLDER / "lib"), os.environ.get("LD_LIBRARY_PATH")]))
    surroundings = {**os.environ, "LD_LIBRARY_PATH": libraries, "FONTCONFIG_FILE": str(FOLDER / "fonts.conf")}
    return play.chromium.launch(executable_path=str(program), args=QUIET, env=surroundings)


def fetch() -> None:
    """Fetch the package, check it, and unpack what is needed of it.

    Raises:
        SystemExit: if npm is missing, the package cannot be had, or is not the one that we know.
    """
    import brotli

    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(["npm", "pack", "--silent", "--pack-destination", folder, PACKAGE], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"npm could not fetch {PACKAGE}: {error}. Install npm, or name a Chromium of yours: --chromium")
        (packed,) = Path(folder).glob("*.tgz")
        content = packed.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        sys.exit(f"{PACKAGE} has the sha256 {found}, and not {SHA256}. Nothing of it was unpacked.")
    FOLDER.mkdir(exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        part = lambda name: brotli.decompress(package.extractfile(f"package/bin/{name}.br").read())  # noqa: E731
        for name in ("al2023.tar", "fonts.tar"):
            with tarfile.open(fileobj=io.BytesIO(part(name))) as inner:
                inner.extractall(FOLDER, filter="data")
        # Written last: where it is, all the rest is.
        program = part("chromium")
    (FOLDER / "fonts.conf").write_text(fonts_conf(), encoding="utf-8")
    (FOLDER / "chromium").write_bytes(program)
    (FOLDER / "chromium").chmod(0o755)


def fonts_conf() -> str:
    """The machine's fonts, the package's, and matplotlib's: the last have mathematical letters and a monospaced face."""
    import matplotlib

    ours = (FOLDER / "fonts", Path(matplotlib.get_data_path()) / "fonts" / "ttf")
    folders = "".join(f"  <dir>{folder}</dir>\n" for folder in ("/usr/share/fonts", *ours))
    # Without this line code would be set in letters of unequal width, and lines be measured shorter than they are.
    fixed = "  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>\n"
    head = '<?xml version="1.0"?>\n<!DOCTYPE fontconfig SYSTEM "fonts.dtd">\n'
    return f"{head}<fontconfig>\n{folders}{fixed}  <cachedir>{FOLDER / 'font-cache'}</cachedir>\n</fontconfig>\n"


if __name__ == "__main__":
    if not (FOLDER / "chromium").is_file():
        fetch()
    print(FOLDER / "chromium")
