"""Names of files where text is needed, since a name may be any bytes."""

from __future__ import annotations

import os


def as_text(name: str) -> str:
    """A file's name as text that can be encoded; bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def utf8_path(path: str) -> str:
    """A path to the same file for a library that takes UTF-8 only.

    Where the path is none, the file is opened for the rest of the process, and named by its handle.
    """
    if as_text(path) == path:
        return path
    return f"/proc/self/fd/{os.open(path, os.O_RDONLY)}"
