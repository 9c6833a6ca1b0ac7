"""What this machine can do at best: matrix products by Caffe's own BLAS, and copying memory."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.blas_clock import Product

SQUARE = 2048
"""Side of the square matrices whose product tells the machine's rate."""

COPIED = 256 * 2**20
"""Bytes of the block that is copied: many times any cache."""

FEW = 3
"""Both take a tenth of a second or less: one alone would tell of a moment only."""

ROW_MAJOR, AS_IT_STANDS = 101, 111


class Machine:
    """A competitor that does nothing but products and copies, in turns with the others."""

    def __init__(self, threads: int, square: int = SQUARE, copied: int = COPIED) -> None:
        self._sgemm = caffe_sgemm()
        self._sgemm.argtypes = [ctypes.c_int] * 6 + [ctypes.c_float, ctypes.c_void_p, ctypes.c_int]
        self._sgemm.argtypes += [ctypes.c_void_p, ctypes.c_int, ctypes.c_float]
        self._sgemm.argtypes += [ctypes.c_void_p, ctypes.c_int]
        self._square = Product(
            AS_IT_STANDS, AS_IT_STANDS, square, square, square, square, square, square, 0, 1
        )
        self._parts = [np.ones((2, copied // threads // 4), np.float32) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)
        self.load([])

    def blas_path(self) -> str:
        """The path of the library that Caffe multiplies with."""
        return path_of(self._sgemm)

    def rates(self) -> dict[str, int]:
        """What the seconds of `run` are worth: operations and bytes (read and written)."""
        copied = 2 * sum(part[0].nbytes for part in self._parts)
        replayed = sum(product.flop for product in self._products)
        return {"square": self._square.flop, "copy": copied, "replay": replayed}

    def load(self, products: list[Product]) -> None:
        """Take the products to repeat, those of a layer for instance."""
        self._products = products
        sizes = [_sizes(product) for product in [self._square, *products]]
        rng = np.random.default_rng(0)
        self._operands = [
            rng.standard_normal(max(size), np.float32) * 0.01 for size in zip(*sizes, strict=True)
        ]

    def run(self) -> dict[str, float]:
        """Seconds for the square product and the copy, medians of a few, and for the products."""
        return {
            "square": median(_seconds(lambda: self._multiply(self._square)) for _ in range(FEW)),
            "copy": median(_seconds(self._copy) for _ in range(FEW)),
            "replay": _seconds(lambda: [self._multiply(product) for product in self._products]),
        }

    def _multiply(self, p: Product) -> None:
        a, b, c = (operand.ctypes.data for operand in self._operands)
        for _ in range(p.count):
            self._sgemm(
                ROW_MAJOR, p.transpose_a, p.transpose_b, p.m, p.n, p.k,
                1.0, a, p.lda, b, p.ldb, float(p.adds), c, p.ldc,
            )  # fmt: skip

    def _copy(self) -> None:
        def copy(part: np.ndarray) -> None:  # ctypes lets other threads run meanwhile
            ctypes.memmove(part[0].ctypes.data, part[1].ctypes.data, part[0].nbytes)

        list(self._pool.map(copy, self._parts))


def caffe_sgemm() -> Any:
    """The cblas_sgemm that Caffe calls, found in what Caffe's library is linked with."""
    import caffe

    return ctypes.CDLL(caffe._caffe.__file__).cblas_sgemm


def path_of(function: Any) -> str:
    """The file of the library that a C function is in, links followed."""

    class Info(ctypes.Structure):
        _fields_ = [
            ("path", ctypes.c_char_p),
            ("base", ctypes.c_void_p),
            ("name", ctypes.c_char_p),
            ("address", ctypes.c_void_p),
        ]

    info = Info()
    ctypes.CDLL(None).dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info))
    return os.path.realpath(os.fsdecode(info.path))


def caffe_version() -> str:
    """Caffe's version and its BLAS, in a process that has imported Caffe."""
    import caffe

    return f"{caffe.__version__} with {Path(path_of(caffe_sgemm())).name}"


def describe(threads: int) -> dict[str, object]:
    """What the figures depend on: processor, threads, versions."""
    model = re.search(r"^model name\s*:\s*(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    known = ("avx2", "avx512f", "avx512_vnni", "amx_tile")
    return {
        "cpu": model.group(1) if model else platform.processor(),
        "vector_instructions": [f for f in known if flags and f in flags.group(1).split()],
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _sizes(p: Product) -> tuple[int, int, int]:
    """Values that the three matrices take with their leading dimensions."""
    rows_a = p.m if p.transpose_a == AS_IT_STANDS else p.k
    rows_b = p.k if p.transpose_b == AS_IT_STANDS else p.n
    return rows_a * p.lda, rows_b * p.ldb, p.m * p.ldc


def _seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
