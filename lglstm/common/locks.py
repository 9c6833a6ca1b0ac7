"""One process at a time writes into a folder, or to files with a common prefix.

with locked(folder):                    # runs/evaluation/horse
    ...
with locked_prefix("runs/horse"):       # runs/horse_iter_100.caffemodel, runs/horse.csv, …
    ...

The system holds the lock (flock) and releases it when the process ends, in whatever way: the file
that a killed process leaves locks nothing, and the next one takes it over. Windows has no such
lock: there, whoever starts two processes must give them different folders.
"""

from __future__ import annotations

import errno
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lglstm.common.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

FILE = ".lglstm.lock"

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What flock says on file systems that have no locks: there we cannot do better than before."""

_OWNER_BYTES = 2000
_OWNER_SECONDS = 1.0  # between locking its file and naming itself there, a process needs less


@contextmanager
def locked(folder: str | os.PathLike[str], advice: str = "give another --output") -> Iterator[None]:
    """Keep other processes of ours out of a folder, which is made, while the block runs.

    advice: what else than waiting the user can do. Raises InputError, which names the process that
    is there, or says why the folder cannot be written to.
    """
    with _held(Path(folder) / FILE, os.fspath(folder), advice):
        yield


@contextmanager
def locked_prefix(prefix: str | os.PathLike[str], advice: str) -> Iterator[None]:
    """As `locked`, for the files whose paths begin with `prefix`."""
    path = Path(prefix)
    with _held(path.with_name(f".{path.name}{FILE}"), os.fspath(prefix), advice):
        yield


@contextmanager
def _held(file: Path, place: str, advice: str) -> Iterator[None]:
    if fcntl is None:
        with _writable(place):
            file.parent.mkdir(parents=True, exist_ok=True)
        yield
        return
    handle = _lock(file, place, advice)
    try:
        yield
    finally:
        # Removed while it is still locked: who waits for the old file sees that it is gone.
        file.unlink(missing_ok=True)
        os.close(handle)


def _lock(file: Path, place: str, advice: str) -> int:
    """The open lock file, ours until it is closed."""
    while True:
        handle = _open(file, place)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
            raise InputError(
                f"{place}: {owner} is writing there; wait until it ends, or {advice}"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(handle)
                raise InputError(f"{place}: cannot be locked ({error.strerror})") from error
        if _is_still(file, handle):
            _sign(handle)
            return handle
        os.close(handle)  # its owner ended, and took the file away, after we had opened it


def _open(file: Path, place: str) -> int:
    with _writable(place):
        file.parent.mkdir(parents=True, exist_ok=True)
        # Never through a link, and never a pipe: a stranger's folder may hold either.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(file, flags, 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EEXIST, f"{file.name} there is not a file")
    return handle


@contextmanager
def _writable(place: str) -> Iterator[None]:
    """Say of what the system refuses in the block that `place` cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{place}: cannot be written ({error.strerror}); choose a folder that you may write "
            "to, with free space"
        ) from error


def _is_still(file: Path, handle: int) -> bool:
    """Whether the path still leads to the file that was opened."""
    try:
        return os.path.samestat(os.stat(file, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    """Write who we are; on a full disk the lock holds all the same, without a name."""
    program = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    text = f"process {os.getpid()} on {socket.gethostname()} ({shlex.join(program)})"
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode("utf-8", "backslashreplace")[:_OWNER_BYTES], 0)
    except OSError:
        pass


def _owner(handle: int) -> str:
    """The other process, as it named itself."""
    deadline = time.monotonic() + _OWNER_SECONDS
    while True:
        text = os.pread(handle, _OWNER_BYTES, 0).decode("utf-8", "replace")
        if text or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown.replace(f" on {socket.gethostname()} (", " (", 1) or "another process"
