"""Loading pycaffe, and types for the objects that it hands out, since it declares none itself.

Only what this project uses is described; the arrays are views of Caffe's own memory.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lglstm.common.checkout import setup_advice
from lglstm.common.errors import InputError

Message = Any
"""A protobuf message of `caffe.proto.caffe_pb2`, whose fields only exist at run time."""

MISSING = (
    "this needs Caffe with the LG-LSTM layers, which is not installed for this Python; run "
    "`make setup` in a checkout of the project (docs/install.md there) and use its .venv/bin, or "
    "use the project's Docker image"
)


class Blob(Protocol):
    """A blob as pycaffe shows it: float32 values and their gradients, both written in place."""

    @property
    def data(self) -> NDArray[np.float32]: ...
    @property
    def diff(self) -> NDArray[np.float32]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def count(self) -> int: ...
    def reshape(self, *shape: int) -> None: ...


class CaffeLayer(Protocol):
    """A layer of a net: its type and its learnable blobs."""

    type: str
    blobs: Sequence[Blob]


class CaffeNet(Protocol):
    """A `caffe.Net`: blobs and parameters by name, layers by index."""

    blobs: Mapping[str, Blob]
    params: Mapping[str, Sequence[Blob]]
    layers: Sequence[CaffeLayer]
    outputs: Sequence[str]
    bottom_names: Mapping[str, Sequence[str]]
    top_names: Mapping[str, Sequence[str]]
    blob_loss_weights: Mapping[str, float]
    _layer_names: Sequence[str]

    def forward(self) -> Mapping[str, np.ndarray]: ...
    def reshape(self) -> None: ...
    def _forward(self, first: int, last: int) -> float: ...
    def before_forward(self, hook: Callable[[int], None]) -> None: ...
    def after_forward(self, hook: Callable[[int], None]) -> None: ...
    def after_backward(self, hook: object) -> None: ...


class Solver(Protocol):
    """A `caffe.Solver` with its nets."""

    net: CaffeNet
    test_nets: Sequence[CaffeNet]
    iter: int
    lr: float

    def solve(self) -> None: ...
    def step(self, iterations: int) -> None: ...
    def snapshot(self) -> None: ...
    def restore(self, state: str) -> None: ...
    def add_callback(self, *callbacks: object) -> None: ...


def load_caffe() -> ModuleType:
    """Import pycaffe without its page of log lines per net; errors still show.

    Raises InputError when it is not installed.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        import caffe
    except ImportError as error:
        reason = why_missing(error)
        if reason is None:
            raise
        raise InputError(reason) from error
    return caffe


def require_caffe() -> None:
    """Raise InputError when pycaffe is not installed, without loading it."""
    if importlib.util.find_spec("caffe") is None:
        raise InputError(MISSING)


def why_missing(error: ImportError) -> str | None:
    """What to say of an import that failed for want of pycaffe; None if it failed otherwise."""
    if (error.name or "").partition(".")[0] != "caffe":
        return None
    if isinstance(error, ModuleNotFoundError):
        return MISSING
    return f"Caffe is installed, but cannot be loaded ({error}); {setup_advice()}"
