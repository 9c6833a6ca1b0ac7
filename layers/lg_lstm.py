"""The Python layers `LGLSTM` and `LGLSTMTransition` for Caffe, which compute with NumPy.

They take the place of the C++ layers of the same names in a prototxt:

    layer {
      type: "Python"  name: "lg_lstm1"
      bottom: "transition_local"  bottom: "transition_memory"  bottom: "transition_global"
      top: "lg_lstm1_local"  top: "lg_lstm1_memory"  top: "lg_lstm1_global"
      python_param {
        module: "lglstm.layers.lg_lstm"  layer: "LGLSTM"
        param_str: '{"num_output": 64, "neighbors": 8, "global_grid": 3}'
      }
    }

What they compute, and the shapes of bottoms and tops: `lglstm.layers.equations`.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.lg_lstm_shapes import DIRECTIONS, LGLSTMShapes
from lglstm.common.rules import TRUTH, Rule, check, one_of, parse_object, shown, whole
from lglstm.layers.equations import (
    Array,
    Forward,
    LGLSTMOptions,
    lg_lstm_backward,
    lg_lstm_forward,
    transition_backward,
    transition_forward,
)
from lglstm.layers.python_layer import Blobs, PythonLayer, listed, reports_errors

try:
    import caffe
    from caffe.proto import caffe_pb2
    from google.protobuf import json_format, text_format
except ImportError:  # only `parse_options` serves without Caffe
    pass

WEIGHT_FILLER = {"type": "uniform", "min": -0.1, "max": 0.1}  # sec. 4.1
BIAS_FILLER = {"type": "constant", "value": 0.0}

FILLERS = ("constant", "gaussian", "msra", "positive_unitball", "uniform", "xavier")
"""Caffe's fillers; without bilinear, which fills square filters alone."""

_FILLER = Rule(
    lambda value: isinstance(value, dict),
    'a filler such as {"type": "uniform", "min": -0.1, "max": 0.1}',
)

RULES: dict[str, Rule] = {
    "num_output": Rule(whole(1, 65_536).allows, "a whole number, at least 1, at most 65,536"),
    "neighbors": one_of(*sorted(DIRECTIONS)),
    "global_grid": Rule(whole(0, 1_024).allows, "a whole number, at least 0, at most 1,024"),
    "share_spatial": TRUTH,
    "bias_term": TRUTH,
    "weight_filler": _FILLER,
    "bias_filler": _FILLER,
}
"""Every key of `param_str`: the keys of `lg_lstm_param`."""

EXAMPLE = '{"num_output": 64, "neighbors": 8}'


@dataclass(frozen=True)
class LayerOptions(LGLSTMOptions):
    """What `param_str` says: the layer's shape, and what its weights start from."""

    weight_filler: dict[str, Any] | None = None
    bias_filler: dict[str, Any] | None = None


def parse_options(label: str, text: str) -> LayerOptions:
    """Options from `param_str`; an error names the layer, what was given and what is allowed."""
    given = parse_object(label, text, EXAMPLE)
    check(label, given, RULES)
    return LayerOptions(**given)


def filled(label: str, shape: tuple[int, ...], filler: dict[str, Any]) -> Array:
    """An array filled by Caffe's own filler, from Caffe's seeded generator.

    Python layers cannot call fillers, but a net of one DummyData layer can. So for the same
    `random_seed` the Python layers begin with the same weights as the C++ ones. label: the layer,
    for the InputError that is raised when this is no filler, or one with which Caffe would abort.
    """
    net = caffe_pb2.NetParameter()
    layer = net.layer.add(name="filled", type="DummyData", top=["filled"])
    layer.dummy_data_param.shape.add(dim=shape)
    message = layer.dummy_data_param.data_filler.add()
    try:
        json_format.ParseDict(filler, message)
    except (json_format.ParseError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{label}: {shown(filler)} is not a filler of Caffe; it must be one such as "
            f"{json.dumps(WEIGHT_FILLER)}"
        ) from error
    if fault := _fault_of(message, shape):
        raise InputError(f"{label}: the filler {shown(filler)} is refused: {fault}")
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text_format.MessageToString(net))
        file.flush()
        return caffe.Net(file.name, caffe.TEST).forward()["filled"].copy()


def _fault_of(filler: caffe_pb2.FillerParameter, shape: tuple[int, ...]) -> str | None:
    """Why Caffe would end the process when it fills a blob of this shape, or None if it can."""
    rows = shape[0]
    values = (filler.value, filler.min, filler.max, filler.mean, filler.std)
    faults = {
        f"type must be one of {', '.join(FILLERS)}": filler.type not in FILLERS,
        "its numbers must be finite": not all(map(math.isfinite, values)),
        "std must be above 0": filler.type == "gaussian" and not filler.std > 0,
        "min must not be above max": filler.type == "uniform" and filler.min > filler.max,
        "sparse is for gaussian": filler.type != "gaussian" and filler.sparse != -1,
        f"sparse must be -1 … {rows}, the rows of the blob": not -1 <= filler.sparse <= rows,
    }
    return next((fault for fault, is_there in faults.items() if is_there), None)


class _LGLSTMLayer(PythonLayer):
    """What the two Python layers share; blobs and shapes as in the C++ layers."""

    TYPE: str
    result: Forward

    def check_bottom_count(self, given: int) -> None:
        """Refuse a wrong number of bottoms."""
        raise NotImplementedError

    def check_bottoms(self, bottom: Blobs) -> None:
        """Refuse bottoms of wrong shapes."""
        raise NotImplementedError

    def weight_shapes(self, bottom: Blobs) -> list[tuple[int, ...]]:
        """Shapes of the weights, in the order of their blobs; a bias has one axis less."""
        raise NotImplementedError

    @property
    def shapes(self) -> LGLSTMShapes:
        """The shapes that follow from the options, biases left out."""
        o = self.options
        return LGLSTMShapes(o.num_output, o.neighbors, o.global_grid, o.share_spatial)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.label = f"{self.TYPE} layer (Python)"
        self.options = parse_options(self.label, self.param_str)
        self.check_count("top", len(top), 3 if self.options.global_grid else 2)
        self.check_bottom_count(len(bottom))
        self.check_bottoms(bottom)
        if len(self.blobs) == 0:
            for shape in self.weight_shapes(bottom):
                self.add_blob(shape, self.options.weight_filler or WEIGHT_FILLER)
                if self.options.bias_term:
                    self.add_blob(shape[:-1], self.options.bias_filler or BIAS_FILLER)

    def check_count(self, kind: str, given: int, expected: int) -> None:
        if given != expected:
            rest = " and global" if expected == 3 else f"; there is no global {kind}"
            raise InputError(
                f"{self.label}: with global_grid {self.options.global_grid} the {kind}s are local, "
                f"memory{rest}; given are {given}"
            )

    def add_blob(self, shape: tuple[int, ...], filler: dict[str, Any]) -> None:
        values = filled(self.label, shape, filler)
        self.blobs.add_blob(*shape)
        self.blobs[len(self.blobs) - 1].data[...] = values

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self.check_bottoms(bottom)
        grid = self.options.global_grid
        num, _, height, width = bottom[0].data.shape
        if min(height, width) < grid:
            raise InputError(
                f"{self.label}: a map of {height} x {width} positions cannot be divided into a "
                f"global grid of {grid} x {grid} cells; use a larger map or a smaller global_grid"
            )
        for blob, shape in zip(listed(top), self.shapes.tops(num, height, width), strict=True):
            blob.reshape(*shape)
        pairs = zip(listed(bottom), listed(top), strict=False)
        if any(np.shares_memory(b.data, t.data) for b, t in pairs if b.data.size):
            raise InputError(
                f"{self.label}: it cannot work in place, since its backward pass needs the "
                "bottoms; give the tops other names"
            )

    def weights_and_biases(self) -> tuple[list[Array], list[Array | None]]:
        data = [blob.data for blob in listed(self.blobs)]
        if self.options.bias_term:
            return [*data[::2]], [*data[1::2]]
        return [*data], [None] * len(data)

    def write_tops(self, top: Blobs) -> None:
        for blob, value in zip(
            listed(top), (self.result.local, self.result.memory, self.result.global_), strict=False
        ):
            blob.data[...] = value

    def add_weight_diffs(self, weight_diffs: list[Array], bias_diffs: list[Array]) -> None:
        if self.options.bias_term:
            weight_diffs = [d for pair in zip(weight_diffs, bias_diffs, strict=True) for d in pair]
        for blob, diff in zip(listed(self.blobs), weight_diffs, strict=True):
            blob.diff[...] += diff


@reports_errors
class LGLSTMTransition(_LGLSTMLayer):
    """Python layer `LGLSTMTransition`: bottom x; tops local, memory[, global]."""

    TYPE = "LGLSTMTransition"

    def check_bottom_count(self, given: int) -> None:
        if given != 1:
            raise InputError(f"{self.label}: the bottom is x; given are {given}")

    def weight_shapes(self, bottom: Blobs) -> list[tuple[int, ...]]:
        return [*self.shapes.transition_blobs(bottom[0].data.shape[1]).values()]

    def check_bottoms(self, bottom: Blobs) -> None:
        shape = bottom[0].data.shape
        if len(shape) != 4:
            raise InputError(f"{self.label}: the bottom has shape {shape}; it must be (B, C, H, W)")
        if len(self.blobs) and shape[1] != self.blobs[0].data.shape[2]:
            raise InputError(
                f"{self.label}: the bottom has {shape[1]} channels, but the weights are for "
                f"{self.blobs[0].data.shape[2]}"
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        (weight,), (bias,) = self.weights_and_biases()
        self.result = transition_forward(self.options, bottom[0].data, weight, bias)
        self.write_tops(top)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        (weight,), _ = self.weights_and_biases()
        gradients = transition_backward(
            self.options, self.result, bottom[0].data, weight, *(t.diff for t in listed(top))
        )
        self.add_weight_diffs([gradients.weight], [gradients.bias])
        if propagate_down[0]:
            bottom[0].diff[...] = gradients.x


@reports_errors
class LGLSTM(_LGLSTMLayer):
    """Python layer `LGLSTM`: bottoms and tops local, memory[, global]."""

    TYPE = "LGLSTM"

    def check_bottom_count(self, given: int) -> None:
        self.check_count("bottom", given, 3 if self.options.global_grid else 2)

    def weight_shapes(self, bottom: Blobs) -> list[tuple[int, ...]]:
        return [*self.shapes.layer_blobs().values()]

    def check_bottoms(self, bottom: Blobs) -> None:
        o = self.options
        shapes = [tuple(b.data.shape) for b in listed(bottom)]
        channels = self.shapes.local_inputs
        if len(shapes[0]) != 4 or shapes[0][1] != channels:
            raise InputError(
                f"{self.label}: the bottom local has shape {shapes[0]}; with neighbors "
                f"{o.neighbors} and num_output {o.num_output} it must be (B, {channels}, H, W)"
            )
        if shapes[1] != shapes[0]:
            raise InputError(
                f"{self.label}: the bottom memory has shape {shapes[1]}; it must be that of "
                f"local, {shapes[0]}"
            )
        expected = (shapes[0][0], o.num_output, o.global_grid, o.global_grid)
        if o.global_grid and shapes[2] != expected:
            raise InputError(
                f"{self.label}: the bottom global has shape {shapes[2]}; it must be {expected}"
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        (spatial, depth), (spatial_bias, depth_bias) = self.weights_and_biases()
        local, memory, *rest = (blob.data for blob in listed(bottom))
        global_ = rest[0] if rest else None
        self.result = lg_lstm_forward(
            self.options, local, memory, global_, spatial, depth, spatial_bias, depth_bias
        )
        self.write_tops(top)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        (spatial, depth), _ = self.weights_and_biases()
        global_ = bottom[2].data if len(bottom) == 3 else None
        gradients = lg_lstm_backward(
            self.options,
            self.result,
            bottom[0].data,
            global_,
            spatial,
            depth,
            *(t.diff for t in listed(top)),
        )
        self.add_weight_diffs(
            [gradients.spatial, gradients.depth], [gradients.spatial_bias, gradients.depth_bias]
        )
        for blob, wanted, diff in zip(listed(bottom), propagate_down, gradients[:3], strict=False):
            if wanted:
                blob.diff[...] = diff
