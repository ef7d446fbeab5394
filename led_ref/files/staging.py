"""Write a folder or a file so that one rename decides: before it all is as it was, after it all is new.

    with new_file(path) as unfinished:          ./.log.k2j9x0aa.unfinished/log, in a folder that is hidden beside ./log
        write the file `unfinished`             at the end of the block it becomes ./log
    write_into(folder, write, owned=...)        the same for the files of a folder

A process can be killed at any moment. What it was writing lies in its staging folder, which holds a file that is locked
while the process lives; the next writer of the same destination finds it unlocked, and removes the folder.

Two folders change places by one system call: renameat2 with RENAME_EXCHANGE on Linux, renamex_np on macOS. Where there is
none, the old folder is renamed into the staging folder first; a process that is killed just then leaves it there, and the
next writer puts it back.
Source: the manual pages renameat2(2), renamex_np(2), flock(2).
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import ModuleType

from led_ref.errors import InputError, LEDError, WriteError, quoted, reason_of, wrong_type

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_BEFORE = "before"
_LOCK = "lock"
_A_DAY = 86400.0  # without locks, a staging folder of this age is left over
_PATIENCE = 2.0  # seconds to wait for another writer that makes its staging folder; it takes it a moment
LONGEST_NAME = 255  # bytes, in the file systems of Linux, macOS and Windows


def to_write(argument: str, given: object) -> Path:
    """The path of a file or folder to write, if the system takes such a name: asked before the work whose result it gets.

    Args:
        argument: the name of the argument, for messages.
        given: its value.

    Raises:
        InputError: for a name that is too long, holds what no name may, or lies in a file.
        ArgumentTypeError: for what is no text or path.
    """
    if not isinstance(given, str | os.PathLike):
        raise wrong_type(argument, given, "a text or a path")
    path = Path(given)
    try:
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        os.lstat(path)
    except FileNotFoundError:
        pass
    except NotADirectoryError as error:
        file = next((part for part in path.parents if os.path.isfile(part)), path.parent)
        raise InputError(f"{file} is a file. Name a folder in its place for {argument}.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL, half a surrogate pair
        found = f"{argument} is {quoted(str(path), 80)}"
        raise InputError(f"{found}, which cannot be written ({reason_of(error)}). Name another.") from error
    return path


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What the system refuses within the block is a WriteError that names `path`; not that a reader has left a pipe."""
    try:
        yield
    except OSError as error:
        if isinstance(error, LEDError | BlockingIOError | BrokenPipeError):
            raise
        raise WriteError.of(path, error) from error


@contextlib.contextmanager
def staging(target: Path, *, alone: bool = False) -> Iterator[Path]:
    """A new, hidden, locked folder beside `target`, on the same file system; it is removed at the end.

    Raises:
        OSError: if the folder cannot be made. With `alone`, BlockingIOError while another process has one of this target;
            where the system has no locks, that is not noticed.
    """
    parent = _locked(target.parent, patience=_PATIENCE)  # nobody may find the new folder before its file is locked
    try:
        if remove_leftovers(target) and alone and fcntl is not None:
            raise BlockingIOError(errno.EAGAIN, "another process writes it now", str(target))
        place = Path(tempfile.mkdtemp(prefix=f".{_label(target)}.", suffix=".unfinished", dir=target.parent))
        (place / _LOCK).touch()
        lock = _locked(place / _LOCK)
    finally:
        _unlock(parent)
    try:
        yield place
    finally:
        _unlock(lock)
        shutil.rmtree(place, ignore_errors=True)


def _label(target: Path) -> str:
    """What a staging folder is named after: the target, or its beginning and digest: a name has at most 255 bytes."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= 220 else f"{target.name[:50]}.{hashlib.sha256(name).hexdigest()[:16]}"


@contextlib.contextmanager
def new_file(path: Path, place: Path | None = None) -> Iterator[Path]:
    """A path to write a file to; at the end of the block it takes the place of `path`, even if the machine loses its power.

    A device or pipe is written to as it is.

    Args:
        path: the file.
        place: a staging folder of the caller, on the same file system, for many files one after the other; None: one is made,
            and the folder of `path` looked through for leftovers, which takes time where it holds many files.

    Raises:
        WriteError: if the disk does not take the file; the one that was there is unchanged.
    """
    with naming(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
            return
        with staging(path) if place is None else contextlib.nullcontext(place) as folder:
            unfinished = folder / path.name
            yield unfinished
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())  # wait until the disk has the bytes
            os.replace(unfinished, path)
        _sync_folder(path.parent)


def write_into(
    destination: Path,
    write: Callable[[Path], object],
    *,
    owned: Callable[[Collection[str]], Collection[str]],
    check: Callable[[Collection[str]], object] = lambda names: None,
) -> None:
    """Write files into a folder, all or none; the other files of it stay.

    Args:
        destination: the folder; made if needed, in an existing one.
        write: is given a new folder, and writes the files into it.
        owned: is given the names that were written, and says which names belong to them: of these, the destination keeps
            none that was not written anew, or a reader would read old files beside new ones.
        check: is given the names of the destination's files that will be replaced or removed; may raise.

    Raises:
        WriteError: if the disk does not take the files; nothing was changed then.
    """
    with naming(destination), staging(destination) as place:
        new = place / "new"
        new.mkdir()
        write(new)
        written = {path.name for path in new.iterdir()}
        gone = written | set(owned(written))
        if destination.is_dir():
            check(sorted(path.name for path in destination.iterdir() if path.name in gone))
            os.chmod(new, stat.S_IMODE(destination.stat().st_mode))
            for path in destination.iterdir():
                if path.name not in gone:
                    _link(path, new / path.name)
        _take_its_place(new, destination)
    _sync_folder(destination.parent)


def _take_its_place(new: Path, destination: Path) -> None:
    """Rename a folder of a staging folder to its destination; what is there goes to the staging folder.

    If this process works in the destination, it works in the new one afterwards, and not in a folder without a name.
    """
    place = destination.resolve()
    here = Path.cwd()
    _exchange_or_rename(new, destination)
    if here.is_relative_to(place):
        os.chdir(here if here.is_dir() else place)


def _exchange_or_rename(new: Path, destination: Path) -> None:
    if not destination.exists():
        os.rename(new, destination)
    elif not _exchange(new, destination):
        before = new.with_name(_BEFORE)
        os.rename(destination, before)
        try:
            os.rename(new, destination)
        except BaseException:
            os.rename(before, destination)
            raise


def _exchange(a: Path, b: Path) -> bool:
    """Exchange the names of two folders by one system call; False where system or file system have none."""
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    one, other = os.fsencode(a), os.fsencode(b)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return bool(library.renamex_np(one, other, ctypes.c_uint(2)) == 0)  # RENAME_SWAP
    if hasattr(library, "renameat2"):
        here = -100  # AT_FDCWD: relative paths begin at the working directory
        return bool(library.renameat2(here, one, here, other, ctypes.c_uint(2)) == 0)  # RENAME_EXCHANGE
    return False


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of a folder; not every system opens folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _link(old: Path, new: Path) -> None:
    """Give a file a second name, with what is in a folder; copy it where the file system has no hard links."""
    if old.is_dir() and not old.is_symlink():
        new.mkdir()
        for path in old.iterdir():
            _link(path, new / path.name)
        shutil.copystat(old, new)
        return
    try:
        os.link(old, new, follow_symlinks=False)
    except (OSError, AttributeError):  # in a browser Python has no os.link
        shutil.copy2(old, new, follow_symlinks=False)


# ---- leftovers -------------------------------------------------------------------------------------------------------


def remove_leftovers(target: Path) -> int:
    """Remove the staging folders of processes that were killed; put back what such a process had renamed.

    Every writer of the target does so before it writes. Returns how many there are of living processes.
    """
    living = 0
    # Folders of mkdtemp; and files, with or without the number of a process, of an older led_ref.
    pattern = re.compile(rf"\.{re.escape(_label(target))}(\.[a-z0-9_]{{8}}|\.\d+)?\.(unfinished|partial)")
    with contextlib.suppress(OSError):  # a parent that cannot be listed, a file that another writer removes as well
        for place in [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]:
            if place.is_symlink() or not place.is_dir():
                place.unlink(missing_ok=True)
            elif _is_left_over(place):
                if (place / _BEFORE).exists() and not target.exists():
                    os.rename(place / _BEFORE, target)
                shutil.rmtree(place, ignore_errors=True)
            else:
                living += 1
    return living


def _is_left_over(place: Path) -> bool:
    """Whether the writer of a staging folder has ended. Where there are no locks, its age decides."""
    if fcntl is None:
        return time.time() - place.stat().st_mtime > _A_DAY
    if not (place / _LOCK).exists():  # killed before there was a lock, or of an older led_ref
        return True
    lock = _locked(place / _LOCK)
    _unlock(lock)
    return lock is not None


def _locked(path: Path, *, patience: float = 0.0) -> int | None:
    """Lock a file or folder until it is unlocked or the process ends; None if another process has it, or there are no locks."""
    if fcntl is None:
        return None
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except OSError as error:
                if not isinstance(error, BlockingIOError) or time.monotonic() > until:
                    os.close(descriptor)
                    return None
                time.sleep(0.005)
    return None


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
