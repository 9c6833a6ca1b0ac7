"""Output streams that a long job keeps when their reader goes away.

`lglstm train … 2>&1 | head`, a closed terminal, a log on a full disk: what a job says on the way
is worth less than the job.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

STANDARD = (0, 1, 2)
READER_GONE = {errno.EPIPE, errno.EIO, errno.EBADF}  # a pipe, a terminal, a descriptor


class SteadyFile(io.FileIO):
    """A file to write to whose errors end nothing: from the first one on, it swallows everything.

    `error` is that first one.
    """

    error: OSError | None = None

    def write(self, data: object) -> int:
        if self.error is None:
            try:
                return super().write(data)  # type: ignore[arg-type]
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes  # type: ignore[arg-type]


class SteadyStream(io.TextIOWrapper):
    """A text stream over a `SteadyFile`; without `errors`, unknown characters are escaped."""

    def __init__(
        self,
        descriptor: int,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        closefd: bool = True,
    ):
        self._file = SteadyFile(descriptor, "w", closefd=closefd)
        errors = "backslashreplace" if errors in (None, "strict") else errors
        super().__init__(io.BufferedWriter(self._file), encoding, errors, line_buffering=True)

    def loss(self) -> str | None:
        """Why something written is lost, if it is and somebody may have wanted it."""
        self.flush()
        error = self._file.error
        return None if error is None or error.errno in READER_GONE else error.strerror


def outlive_readers() -> None:
    """Let this process and its children go on when nobody reads their output any more.

    A standard descriptor that is closed would be taken by the next file that is opened, which a
    child's messages would then overwrite: it leads to nowhere instead.
    """
    for descriptor in STANDARD:
        _occupy(descriptor)
    sys.stdout, sys.stderr = _steady(sys.stdout, 1), _steady(sys.stderr, 2)


def _occupy(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere == descriptor:
            os.set_inheritable(descriptor, True)
        else:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _steady(stream: TextIO | None, descriptor: int) -> TextIO:
    """The stream made steady; one that does not write to the descriptor is left alone."""
    try:
        is_standard = stream is None or stream.fileno() == descriptor
    except (OSError, ValueError):  # it exists in memory only
        is_standard = False
    if stream is not None and (not is_standard or isinstance(stream, SteadyStream)):
        return stream
    if stream is None:
        return SteadyStream(descriptor, closefd=False)
    return SteadyStream(descriptor, encoding=stream.encoding, errors=stream.errors, closefd=False)
