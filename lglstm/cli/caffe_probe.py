"""Load Caffe and print what it is as one JSON object, or with --version that alone.

A process of its own, because a Caffe that does not fit its Python or NumPy can end the process
that imports it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import re
import sys
from pathlib import Path

from lglstm.common.convolution_engine import bf16_is_fast, onednn_library

PYTHON_LAYERS = ["lglstm.layers.lg_lstm", "lglstm.layers.seg_data"]


def probe() -> dict[str, object]:
    """Version, place, layer types, libraries and threads of the Caffe that Python finds."""
    import caffe

    mapped = Path("/proc/self/maps").read_text()
    blas = re.search(r"/\S*/libopenblas\S*$", mapped, re.MULTILINE)
    onednn = onednn_library()
    return {
        "version": caffe.__version__,
        "module": str(Path(caffe.__file__).parent),
        "layer_types": list(caffe.layer_type_list()),
        "python_layers": {module: _import_error(module) for module in PYTHON_LAYERS},
        "blas_library": blas.group() if blas else None,
        "blas_kernels": _blas_kernels(blas.group()) if blas else None,
        "onednn_library": onednn,
        "bf16": onednn is not None and bf16_is_fast(onednn),
        "threads": ctypes.CDLL("libgomp.so.1").omp_get_max_threads(),
    }


def _blas_kernels(openblas: str) -> str | None:
    """For which processor OpenBLAS computes; None if it was built for one only."""
    try:
        name = ctypes.CDLL(openblas).openblas_get_corename
    except AttributeError:
        return None
    name.restype = ctypes.c_char_p
    return name().decode()


def _version() -> str:
    import caffe

    return caffe.__version__


def _import_error(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return None


if __name__ == "__main__":
    print(_version() if sys.argv[1:] == ["--version"] else json.dumps(probe()))
