"""How long matrix products take inside Caffe's layers, and which they are: see blas_clock.c.

The parent compiles the clock and starts a worker with `environment(…)`; the worker, in which Caffe
then calls the clock in place of BLAS and oneDNN, reads it through `Clock`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

VARIABLE = "BLAS_CLOCK"
SOURCE = Path(__file__).with_suffix(".c")

BLAS, ONEDNN = 0, 1
NAMES = {BLAS: "BLAS", ONEDNN: "ONEDNN"}
NOT_TRANSPOSED, TRANSPOSED = 111, 112  # CBLAS's numbers


class Product(NamedTuple):
    """C (m, n) = A (m, k) B (k, n), or added to C, row-major; `calls` times.

    library: whose function was called, BLAS or ONEDNN. transpose_a, transpose_b: NOT_TRANSPOSED
    or TRANSPOSED.
    """

    library: int
    transpose_a: int
    transpose_b: int
    m: int
    n: int
    k: int
    lda: int
    ldb: int
    ldc: int
    adds: int
    calls: int

    @property
    def flop(self) -> int:
        """Operations of all `calls` products."""
        return 2 * self.m * self.n * self.k * self.calls


def compiled(folder: Path) -> Path | None:
    """The clock as a library in `folder`; None without a C compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    library = folder / "libblas_clock.so"
    command: list[str | Path] = [
        compiler,
        "-O2",
        "-shared",
        "-fPIC",
        "-o",
        library,
        SOURCE,
        "-ldl",
        "-lpthread",
    ]
    done = subprocess.run(command, capture_output=True)
    return library if done.returncode == 0 else None


def environment(library: Path | None, paths: Mapping[int, str]) -> dict[str, str]:
    """Variables of a worker in which products are timed; paths: of BLAS and, if used, oneDNN."""
    if library is None:
        return {}
    variables = {"LD_PRELOAD": str(library), VARIABLE: str(library)}
    return variables | {f"BLAS_CLOCK_{NAMES[key]}": path for key, path in paths.items()}


class Clock:
    """Read in the process that was started with `environment`."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._library.blas_clock_seconds.restype = ctypes.c_double
        self.seconds = self._library.blas_clock_seconds
        self.record = self._library.blas_clock_record

    @staticmethod
    def here() -> Clock | None:
        """The clock of this process, if it was started with one."""
        return Clock(os.environ[VARIABLE]) if VARIABLE in os.environ else None

    def products(self) -> list[Product]:
        """The products noted since recording began."""
        width = len(Product._fields)
        noted = ctypes.POINTER(ctypes.c_int)()
        kinds = self._library.blas_clock_products(ctypes.byref(noted))
        return [Product(*noted[i * width : (i + 1) * width]) for i in range(kinds)]
