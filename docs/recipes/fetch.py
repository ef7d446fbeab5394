"""Fetch the packages that have the documents: SHA256SUMS names them -> WORK/apt, WORK/unpacked.

    python docs/recipes/fetch.py WORK

It works in an apt folder of its own: the machine's lists, sources and installed packages stay as they are, and root is not
needed. The mirror is the one that the machine's apt uses; Debian's key signs the lists, and each package must have the SHA-256
that stands in docs/recipes/SHA256SUMS, too: so the same documents come out everywhere. What is there already is not fetched
again, and an interrupted run goes on.

    doc-rfc-*                          9,154 RFCs with abstract, title and links as JSON; component non-free of Debian 12
    packages with manual pages         22,000 pages
    mandoc                             renders them; it is unpacked, not installed
    Packages, Translation-en           sections and descriptions of Debian's packages (main)
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SUMS = Path(__file__).parent / "SHA256SUMS"
SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What is unpacked: documents alone, and mandoc itself.
WANTED = (
    "./usr/share/doc/RFC/*.json",
    "./usr/share/doc/RFC/*.txt",
    "./usr/share/doc/RFC/*.txt.gz",
    "./usr/share/man/man*",
)
AT_ONCE = 40  # packages of one call of apt-get


def sums() -> dict[str, str]:
    """The SHA-256 of each file by its name."""
    lines = SUMS.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def package_and_version(file: str) -> str:
    """What apt-get calls the package of a file.

    Example:
        >>> package_and_version("cron_1%3a3.0_amd64.deb")
        'cron=1:3.0'
    """
    package, version, _ = file.split("_")
    return f"{package}={version.replace('%3a', ':')}"


def has_sum(path: Path, digest: str) -> bool:
    """Whether a file is there, and is the right one."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def mirror() -> str:
    """The address of the archive that the machine's apt uses for this suite."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        address, suite, component = line.split()
        if (suite, component) == (SUITE, "main"):
            return address
    sys.exit(
        f"apt has no {SUITE} main on this machine. Run this on Debian 12, or in a container of it (debian:{SUITE})."
    )


def apt_options(apt: Path) -> list[str]:
    """The options that keep apt-get in a folder of its own."""
    for folder in ("lists/partial", "cache/archives/partial", "debs"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {SUITE} main non-free\n")
    settings = {
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Acquire::Languages": "en",
        "APT::Update::Post-Invoke-Success": "",
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def unpack(debs: list[Path], folder: Path) -> None:
    """Take the documents out of packages. The mark in front of a package says that it was unpacked wholly."""
    folder.mkdir(exist_ok=True)
    for deb in debs:
        mark = folder / f".{deb.name}.done"
        if mark.exists():
            continue
        wanted = ["./usr/bin/mandoc"] if deb.name.startswith("mandoc_") else [*WANTED]
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as tar:
            # A pattern that a package has nothing for makes tar fail; what it has is unpacked all the same.
            subprocess.run(
                ["tar", "-x", "-C", str(folder), "--wildcards", *wanted],
                stdin=tar.stdout, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        mark.touch()


def batches(names: list[str]) -> Iterator[list[str]]:
    """The names, some at a time."""
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]


def main(work: Path) -> None:
    """Fetch, check, unpack."""
    apt, wanted = work.resolve() / "apt", sums()
    options, debs = apt_options(apt), apt / "debs"
    if not list((apt / "lists").glob("*Translation-en*")):
        subprocess.run(["apt-get", "update", "-qq", *options], check=True)
    missing = [name for name, digest in wanted.items() if not has_sum(debs / name, digest)]
    for some in batches(missing):
        named = [package_and_version(name) for name in some]
        subprocess.run(["apt-get", "download", "-qq", *options, *named], cwd=debs, check=True)
    wrong = [name for name in missing if not has_sum(debs / name, wanted[name])]
    if wrong:
        sys.exit(f"{wrong[0]} has another SHA-256 than {SUMS.name} says. Remove it and fetch it again.")
    unpack([debs / name for name in wanted], work / "unpacked")
    print(f"{len(wanted)} packages, {len(missing)} of them fetched now")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
