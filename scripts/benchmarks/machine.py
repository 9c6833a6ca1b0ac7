"""What this machine can do at best: matrix products by Caffe's own libraries, copying memory."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.blas_clock import BLAS, NOT_TRANSPOSED, ONEDNN, TRANSPOSED, Product
from benchmarks.timing import seconds_of

SQUARE = 2048
"""Side of the square matrices whose product tells the machine's rate."""

COPIED = 256 * 2**20
"""Bytes of the block that is copied: many times any cache."""

FEW = 3
"""Both take a tenth of a second or less: one alone would tell of a moment only."""

ROW_MAJOR = 101


class Machine:
    """Nothing but products and copies, measured in turns with the implementations."""

    def __init__(self, threads: int, square: int = SQUARE, copied: int = COPIED) -> None:
        self._multiply = {BLAS: _blas(caffe_function("cblas_sgemm"))}
        if caffe_function("dnnl_sgemm"):
            self._multiply[ONEDNN] = _onednn(caffe_function("dnnl_sgemm"))
        self._squares = [
            Product(
                library, NOT_TRANSPOSED, NOT_TRANSPOSED, m=square, n=square, k=square,
                lda=square, ldb=square, ldc=square, adds=0, calls=1,
            )
            for library in self._multiply
        ]  # fmt: skip
        self._parts = [np.ones((2, copied // threads // 4), np.float32) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)
        self.load([])

    def libraries(self) -> dict[int, str]:
        """The paths of what Caffe multiplies with: BLAS and, where it is linked with it, oneDNN."""
        names = {BLAS: "cblas_sgemm", ONEDNN: "dnnl_sgemm"}
        return {library: path_of(caffe_function(names[library])) for library in self._multiply}

    def rates(self) -> dict[str, int]:
        """What the seconds of `run` are worth: operations and bytes (read and written)."""
        copied = 2 * sum(part[0].nbytes for part in self._parts)
        replayed = sum(product.flop for product in self._products)
        return {"square": self._squares[0].flop, "copy": copied, "replay": replayed}

    def load(self, products: list[Product]) -> None:
        """Take the products to repeat, those of a layer for instance."""
        self._products = products
        sizes = [_sizes(product) for product in [*self._squares, *products]]
        rng = np.random.default_rng(0)
        self._operands = [
            rng.standard_normal(max(size), np.float32) * 0.01 for size in zip(*sizes, strict=True)
        ]

    def run(self) -> dict[str, float]:
        """Seconds for the square product by the faster library, the copy, and the products."""
        return {
            "square": min(
                median(seconds_of(partial(self._repeat, [product])) for _ in range(FEW))
                for product in self._squares
            ),
            "copy": median(seconds_of(self._copy) for _ in range(FEW)),
            "replay": seconds_of(partial(self._repeat, self._products)),
        }

    def _repeat(self, products: list[Product]) -> None:
        a, b, c = (operand.ctypes.data for operand in self._operands)
        for product in products:
            multiply = self._multiply[product.library]
            for _ in range(product.calls):
                multiply(product, a, b, c)

    def _copy(self) -> None:
        def copy(part: np.ndarray) -> None:  # ctypes lets other threads run meanwhile
            ctypes.memmove(part[0].ctypes.data, part[1].ctypes.data, part[0].nbytes)

        list(self._pool.map(copy, self._parts))


Multiply = Callable[[Product, int, int, int], Any]


def _blas(sgemm: Any) -> Multiply:
    whole, real, matrix = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    sgemm.argtypes = [whole] * 6 + [real, matrix, whole, matrix, whole, real, matrix, whole]

    def multiply(p: Product, a: int, b: int, c: int) -> None:
        shape = (p.transpose_a, p.transpose_b, p.m, p.n, p.k)
        sgemm(ROW_MAJOR, *shape, 1, a, p.lda, b, p.ldb, p.adds, c, p.ldc)

    return multiply


def _onednn(sgemm: Any) -> Multiply:
    whole, real, matrix = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
    sgemm.argtypes = [ctypes.c_char] * 2 + [whole] * 3
    sgemm.argtypes += [real, matrix, whole, matrix, whole, real, matrix, whole]
    letter = {NOT_TRANSPOSED: b"N", TRANSPOSED: b"T"}

    def multiply(p: Product, a: int, b: int, c: int) -> None:
        shape = (letter[p.transpose_a], letter[p.transpose_b], p.m, p.n, p.k)
        sgemm(*shape, 1, a, p.lda, b, p.ldb, p.adds, c, p.ldc)

    return multiply


def caffe_function(name: str) -> Any:
    """A function of the libraries that Caffe's is linked with; None if none of them has it."""
    import caffe

    return getattr(ctypes.CDLL(caffe._caffe.__file__), name, None)


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
    """Caffe's version and its BLAS and oneDNN, in a process that has imported Caffe."""
    import caffe

    functions = map(caffe_function, ("cblas_sgemm", "dnnl_sgemm"))
    names = [Path(path_of(function)).name for function in functions if function]
    return f"{caffe.__version__} with {' and '.join(names)}"


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
    rows_a = p.m if p.transpose_a == NOT_TRANSPOSED else p.k
    rows_b = p.k if p.transpose_b == NOT_TRANSPOSED else p.n
    return rows_a * p.lda, rows_b * p.ldb, p.m * p.ldc
