"""Folders for what is needed only while a command runs, swept when their maker was killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lglstm.common.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".lglstm-scratch-"
_NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")
_LOCK = "lock"
_EMPTY_SECONDS = 60  # between making a folder and its lock, a process needs less


@contextmanager
def scratch_folder(parent: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """Yield a new folder in `parent`, or in the system's for temporary files; remove it afterwards.

    First removes those there that killed processes of this user left. Raises InputError where the
    folder cannot be made, or the block cannot write: on a full disk, say.
    """
    place = Path(parent or tempfile.gettempdir())
    try:
        sweep_scratch(place)
        folder, handle = _made(place)
        try:
            yield folder
        finally:
            if fcntl is None:
                os.close(handle)  # Windows removes no file that is open
            with contextlib.suppress(OSError):
                _remove(folder)
            if fcntl is not None:
                os.close(handle)
    except OSError as error:
        other = "choose another --output" if parent else "name another folder in TMPDIR"
        raise InputError(
            f"{place}: cannot be written ({error.strerror or error}); free some space there, or "
            f"{other}"
        ) from error


def sweep_scratch(place: Path) -> None:
    """Remove our folders in `place` whose makers are gone, and nothing else.

    The maker of a folder holds a lock on a file in it, which the system releases when it dies.
    """
    if fcntl is None:
        return  # nobody can tell whether the maker is gone
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_left(entry)


def _remove_if_left(entry: os.DirEntry[str]) -> None:
    status = entry.stat(follow_symlinks=False)
    if status.st_uid != os.getuid():
        return
    try:
        handle = os.open(os.path.join(entry.path, _LOCK), os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - status.st_mtime > _EMPTY_SECONDS:
            os.rmdir(entry.path)  # killed before it made the lock; never a folder that holds files
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(Path(entry.path))
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """The lock goes last: a folder without it, left by a kill in between, would never be swept."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink()
    shutil.rmtree(folder)


def _made(place: Path) -> tuple[Path, int]:
    """A new folder, and the handle that locks it until it is closed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is None:
            return folder, handle
        with contextlib.suppress(OSError):  # without locks on this file system nothing is swept
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / _LOCK).exists():
            return folder, handle
        os.close(handle)  # swept in the moment before it was locked
