"""What a net costs without running it: weights, multiply-adds, memory.

The shapes are those of `layer_types`; a test holds them against Caffe's own, which would have to
allocate gigabytes to tell them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from lglstm.caffe_files.layer_types import (
    IGNORED,
    LAYER_TYPES,
    LayerError,
    Shape,
    UnsupportedLayer,
    check_connections,
    is_fixed,
    layer_type,
    shapes_of,
)
from lglstm.caffe_files.schema import LayerParameter, NetParameter
from lglstm.common.errors import InputError


@dataclass(frozen=True)
class MeasuredLayer:
    """A layer of a net with its shapes and costs.

    type: the layer type; for Python layers the type that they implement.
    message: what the prototxt says. options: see `layer_types`.
    blobs: the shapes of its learnable blobs, in Caffe's order.
    multiply_adds: of the matrix products in one forward pass over the batch.
    workspace: values held beside the blobs while training (column buffers, gates, masks).
    """

    type: str
    message: LayerParameter
    options: dict
    bottoms: tuple[Shape, ...]
    tops: tuple[Shape, ...]
    blobs: tuple[Shape, ...]

    @property
    def name(self) -> str:
        return self.message.name

    @property
    def is_fixed(self) -> bool:
        """Whether the layer has weights that are never learned, such as bilinear up-sampling."""
        return is_fixed(self.message)

    @property
    def param_names(self) -> list[str]:
        """The name that each learnable blob is shared by, or one of its own."""
        given = [param.name for param in self.message.param]
        names = given + [""] * (len(self.blobs) - len(given))
        return [name or f"{self.name}[{i}]" for i, name in enumerate(names)]

    @property
    def multiply_adds(self) -> int:
        return _MULTIPLY_ADDS.get(self.type, _nothing)(self)

    @property
    def workspace(self) -> int:
        return _WORKSPACE.get(self.type, _nothing)(self)


def measure(net: NetParameter, source: object = "") -> list[MeasuredLayer]:
    """Every layer of a net in order, data layers and measures of a test included.

    source: where the net is from, for messages; by default its name. Raises InputError that names
    the layer for one of unknown type or with bottoms that don't fit.
    """
    shapes: dict[str, Shape] = {}
    layers = []
    for message in net.layer:
        try:
            layer = _measured(message, shapes)
        except LayerError as error:
            where = f'{source or f"net {net.name}"}: layer "{message.name}" of type {message.type}'
            raise InputError(
                f"{where}: {error}; correct the prototxt, or generate it again with `lglstm models "
                "generate`"
            ) from None
        shapes |= zip(message.top, layer.tops, strict=True)
        layers.append(layer)
    return layers


def _measured(message: LayerParameter, shapes: dict[str, Shape]) -> MeasuredLayer:
    kind = layer_type(message)
    check_connections(kind, message, shapes)
    bottoms = [shapes[name] for name in message.bottom]
    if kind in IGNORED:
        return MeasuredLayer(kind, message, {}, tuple(bottoms), ((),) * len(message.top), ())
    if kind not in LAYER_TYPES:
        raise UnsupportedLayer("this type cannot be measured")
    options = LAYER_TYPES[kind].options(message)
    tops, blobs = shapes_of(kind, options, message, bottoms)
    # The training layer counts its batches in a blob, so that snapshots know the data position.
    position = {"position": (1,)} if kind == "SegData" and message.param else {}
    shapes_of_blobs = (*blobs.values(), *position.values())
    if len(message.param) > len(shapes_of_blobs):
        raise LayerError(f"it has {len(message.param)} params for {len(shapes_of_blobs)} blobs")
    return MeasuredLayer(kind, message, options, tuple(bottoms), tuple(tops), shapes_of_blobs)


# --- Multiply-adds ----------------------------------------------------------------------------


def _nothing(layer: MeasuredLayer) -> int:
    return 0


def _convolution_products(layer: MeasuredLayer) -> int:
    batch, _, *size = layer.tops[0]
    return batch * prod(layer.blobs[0]) * prod(size)


def _deconvolution_products(layer: MeasuredLayer) -> int:
    batch, _, *size = layer.bottoms[0]
    return batch * prod(layer.blobs[0]) * prod(size)


def _inner_products(layer: MeasuredLayer) -> int:
    return prod(layer.tops[0]) * layer.blobs[0][1]


def _gate_rows(layer: MeasuredLayer) -> int:
    """Products at one position, each of all inputs: the rows of the weight matrices."""
    step = 2 if layer.options["bias_term"] else 1
    return sum(prod(shape[:-1]) for shape in layer.blobs[::step])


def _positions(layer: MeasuredLayer) -> int:
    batch, _, height, width = layer.bottoms[0]
    return batch * height * width


def _transition_products(layer: MeasuredLayer) -> int:
    return _positions(layer) * _gate_rows(layer) * layer.bottoms[0][1]


def _lg_lstm_products(layer: MeasuredLayer) -> int:
    """The global hidden cells are multiplied once per image, the local ones at every position."""
    batch, local = layer.bottoms[0][:2]
    once = layer.options["global_grid"] ** 2 * layer.options["num_output"]
    return _gate_rows(layer) * (_positions(layer) * local + batch * once)


_MULTIPLY_ADDS: dict[str, Callable[[MeasuredLayer], int]] = {
    "Convolution": _convolution_products,
    "Deconvolution": _deconvolution_products,
    "InnerProduct": _inner_products,
    "LGLSTM": _lg_lstm_products,
    "LGLSTMTransition": _transition_products,
}


# --- Workspace --------------------------------------------------------------------------------


def _unrolled(layer: MeasuredLayer) -> int:
    """Caffe unrolls one image into columns, except for a plain 1×1 convolution."""
    options = layer.options
    if options["kernel"] == options["stride"] == [1, 1] and options["pad"] == [0, 0]:
        return 0
    return layer.bottoms[0][1] * prod(options["kernel"]) * prod(layer.tops[0][2:])


def _rolled_up(layer: MeasuredLayer) -> int:
    return layer.tops[0][1] * prod(layer.options["kernel"]) * prod(layer.bottoms[0][2:])


def _positions_of_maxima(layer: MeasuredLayer) -> int:
    return prod(layer.tops[0]) if layer.options["pool"] == "MAX" else 0


def _gates(layer: MeasuredLayer) -> int:
    """The gates and their gradient."""
    return 2 * _positions(layer) * _gate_rows(layer)


def _copy_of_bottom(layer: MeasuredLayer) -> int:
    """Which values were kept, the probabilities, or the difference."""
    return prod(layer.bottoms[0])


_WORKSPACE: dict[str, Callable[[MeasuredLayer], int]] = {
    "Convolution": _unrolled,
    "Deconvolution": _rolled_up,
    "Dropout": _copy_of_bottom,
    "EuclideanLoss": _copy_of_bottom,
    "LGLSTM": _gates,
    "LGLSTMTransition": _gates,
    "Pooling": _positions_of_maxima,
    "SoftmaxWithLoss": _copy_of_bottom,
}
