"""Nodes and constants of an ONNX graph under construction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lglstm.caffe_files import Layer
from lglstm.caffe_files.net import Weights

OPSET = 17  # of 2022: read by every current runtime, ONNX Runtime's browser build included
IR_VERSION = 8

LAST = np.iinfo(np.int64).max
"""As the end of a Slice: up to and with the last."""


class Graph:
    """Nodes and constants under construction, and the weights to take constants from.

    part: what the names of the next nodes begin with; empty for those of the net itself.
    """

    def __init__(self, weights: Weights):
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.part = ""
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        (name,) = self._node(kind, inputs, 1, attributes)
        return name

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        if len(sizes) == 1:
            return [x]
        return self.split_by(x, axis, self.ints(*sizes), len(sizes))

    def split_by(self, x: str, axis: int, sizes: str, count: int) -> list[str]:
        """Split into `count` parts whose sizes are a tensor."""
        return self._node("Split", (x, sizes), count, {"axis": axis})

    def maxima(self, x: str, **attributes: Any) -> list[str]:
        """The tops of a MaxPool: maxima and their places."""
        return self._node("MaxPool", (x,), 2, attributes)

    def _node(
        self, kind: str, inputs: Sequence[str], outputs: int, attributes: dict[str, Any]
    ) -> list[str]:
        names = [f"{kind}:{self._count + i}" for i in range(1, outputs + 1)]
        self._count += outputs
        self.nodes.append(helper.make_node(kind, list(inputs), names, self.part, **attributes))
        return names

    def constant(self, name: str, value: np.ndarray) -> str:
        """A named constant; the same name is the same constant."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(f"ints:{','.join(map(str, values))}", np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"number:{value!r}", np.array(value, np.float32))

    def double(self, value: float) -> str:
        return self.constant(f"double:{value!r}", np.array(value, np.float64))

    def weight(self, layer: Layer, blob: str, shape: Sequence[int] | None = None) -> str:
        """A blob of the layer as a constant, in another shape if one is given."""
        key = layer.blobs[blob]
        array = self.weights[key]
        if shape is None or tuple(shape) == array.shape:
            return self.constant(key, array)
        return self.constant(f"{key}:{'x'.join(map(str, shape))}", array.reshape(shape))
