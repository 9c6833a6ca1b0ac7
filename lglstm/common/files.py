"""Files are written under a temporary name and renamed: a half-written one never appears.

They are on the disk before they get their name: after a power cut, too, either the new file is
there or the one before it. What a killed process leaves is removed by the next that writes there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lglstm.common.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]

_PREFIX = ".lglstm-"
_TEMPORARY = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}(\.[^.]*)?")
_LONGEST_SUFFIX = 30
"""Bytes of a suffix that may be kept: formats have short ones, and names have 255 bytes in all."""

_swept: set[tuple[int, int]] = set()
"""The folders, by device and inode, in which this process has looked for leftovers."""


def check_ordinary(path: PathLike) -> None:
    """Raise OSError unless there is an ordinary file: opening a named pipe would wait for ever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        kind = "a folder" if stat.S_ISDIR(mode) else "not an ordinary file"
        raise OSError(number, f"it is {kind}", os.fspath(path))


@contextmanager
def atomic_path(destination: PathLike, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the destination's folder; rename it there when the block succeeds.

    The temporary name keeps the destination's suffix, because writers such as OpenCV and
    matplotlib choose the format by it. When the block raises, the destination stays as it was.

    sync: wait until file and name are on the disk. Only for one of thousands of files that can be
    made again, and whose readers notice a damaged one, may it be left out.
    """
    destination = Path(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(destination.parent)
        handle, temporary = _make_temporary(destination)
    except OSError as error:
        raise InputError(
            f"{destination}: cannot be written ({error.strerror}); choose a folder that you may "
            "write to, with free space"
        ) from error
    try:
        yield temporary
        # mkstemp makes files private; give them what a plain open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        if sync:
            sync_to_disk(temporary)
        temporary.replace(destination)
        if sync:
            sync_to_disk(destination.parent)
    except OSError as error:
        raise InputError(
            f"{destination}: cannot be written ({error.strerror or error}); check the free space "
            "and the permissions of its folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def write_text(destination: PathLike, text: str, errors: str = "strict") -> None:
    """Write `text` as UTF-8, whole or not at all; `errors` as for `str.encode`."""
    with atomic_path(destination) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=errors)


def sync_to_disk(path: PathLike) -> None:
    """Wait until a file's content, or the names in a folder, would survive a power cut.

    Raises OSError, such as that of a full disk, which some file systems notice only here.
    """
    if fcntl is None and os.path.isdir(path):
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if fcntl else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):  # where it cannot be asked for
            raise
    finally:
        os.close(handle)


def sweep(folder: PathLike) -> None:
    """Remove the temporary files in a folder whose writers are gone, and nothing else.

    The writer of a file holds a lock on it, which the system releases when it dies.
    """
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return  # outside Linux nobody can tell whether the writer is gone
    try:
        with os.scandir(folder) as entries:
            found = [entry.path for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    except OSError:
        return
    for path in found:
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if stat.S_ISREG(os.fstat(handle).st_mode):
                    _lock(handle)
                    os.unlink(path)
            finally:
                os.close(handle)


def inside(root: PathLike, relative: str) -> Path:
    """Join `relative` to `root`; refuse a path that leaves `root` (absolute, `..` or a link)."""
    base = Path(root).resolve()
    path = (base / relative).resolve()
    if not path.is_relative_to(base):
        raise InputError(f"{relative}: lies outside {root}; list only files below that folder")
    return path


def _sweep_once(folder: Path) -> None:
    """Sweep a folder when this process first writes there."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) not in _swept:
        _swept.add((status.st_dev, status.st_ino))
        sweep(folder)


def _make_temporary(destination: Path) -> tuple[int | None, Path]:
    """A new file beside the destination, and the handle that locks it until it is closed.

    There is no handle on Windows, which renames no file that is open.
    """
    suffix = destination.suffix
    if len(os.fsencode(suffix)) > _LONGEST_SUFFIX:
        suffix = ""
    while True:
        handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=suffix, dir=destination.parent)
        if fcntl is None:
            os.close(handle)
            return None, Path(name)
        with contextlib.suppress(OSError):  # without locks on this file system nothing is swept
            _lock(handle)
        if os.path.exists(name):
            return handle, Path(name)
        os.close(handle)  # swept in the moment before it was locked


def _lock(handle: int) -> None:
    """Lock a file until the handle is closed; raise OSError if another has it, or has no locks.

    Not by flock, which HDF5 asks for on the same file, nor by POSIX's locks, which end when any
    handle of this process on the file is closed.
    """
    if not hasattr(fcntl, "F_OFD_SETLK"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    whole = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(handle, fcntl.F_OFD_SETLK, whole)
