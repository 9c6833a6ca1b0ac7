"""Fingerprints of files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lglstm.common.errors import InputError
from lglstm.common.files import check_ordinary


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file in hexadecimal; raises OSError when it cannot be read."""
    check_ordinary(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """The SHA-256 of what can be written as JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextmanager
def unchanged(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the SHA-256 of the file that the block reads.

    Raises InputError when the file was written to meanwhile, so that the hash may not be that of
    what was read. A file that cannot be read is left to the block to complain of, and so is a pipe,
    from which nothing may ever come.
    """
    try:
        before = _state(path) if os.path.isfile(path) else None
        digest = sha256_of(path) if before else ""
    except OSError:
        before, digest = None, ""
    yield digest
    if before is None or _state(path) != before:
        raise InputError(
            f"{path}: was written to while it was read; give the same command again when it is "
            "complete"
        )


def _state(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
