"""Files are written under a temporary name and renamed: a half-written one never appears."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lglstm.common.errors import InputError


@contextmanager
def atomic_path(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the destination's folder; rename it there when the block succeeds.

    The temporary name keeps the destination's suffix, because writers such as OpenCV and
    matplotlib choose the format by it. When the block raises, the destination stays as it was.
    """
    destination = Path(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{destination.stem}.", suffix=destination.suffix, dir=destination.parent
        )
    except OSError as error:
        raise InputError(
            f"{destination}: cannot be written ({error.strerror}); choose a folder that you may "
            "write to, with free space"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give them what a plain open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(destination)
    except OSError as error:
        raise InputError(
            f"{destination}: cannot be written ({error.strerror or error}); check the free space "
            "and the permissions of its folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(destination: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_path(destination) as temporary:
        temporary.write_text(text, encoding="utf-8")


def inside(root: str | os.PathLike[str], relative: str) -> Path:
    """Join `relative` to `root`; refuse a path that leaves `root` (absolute, `..` or a link)."""
    base = Path(root).resolve()
    path = (base / relative).resolve()
    if not path.is_relative_to(base):
        raise InputError(f"{relative}: lies outside {root}; list only files below that folder")
    return path
