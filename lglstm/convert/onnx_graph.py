"""Caffe nets as ONNX graphs of standard operators.

EMITTERS has one function per layer type: (graph, layer, names of its bottoms) -> names of its tops.
The layer comes with shapes in which an axis that may vary (batch, and height and width of a graph
for any size) is None.

Tensors that are the last value of a Caffe blob carry its name, so `score` and `lg_lstm3_local` can
be asked for; weights carry the keys of the net description.

Every runtime has gaps. What follows is written so that ONNX Runtime, onnx.reference and OpenCV all
compute the same: no pad below zero, no Unsqueeze, averages over padded maps by a Pad of
their own (OpenCV divides by other counts), no groups in transposed convolutions but depthwise ones
and no LRN (onnx.reference mistakes channels for images in both).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper

from lglstm.caffe_files import Layer, Net, read_net
from lglstm.caffe_files.layer_types import (
    LayerError,
    Shape,
    axis_of,
    crop_offsets,
    pooled,
    slice_sizes,
)
from lglstm.caffe_files.net import Weights
from lglstm.common.errors import InputError
from lglstm.common.lg_lstm_shapes import DIRECTIONS, grid_bounds
from lglstm.convert.description import LABELS, PHOTO, parsing_net
from lglstm.convert.onnx_nodes import IR_VERSION, LAST, OPSET, Graph
from lglstm.convert.onnx_photo import photo_to_input, scores_to_labels

_FIX_SIZE = "the net is bound to its size, so convert it without --any-size"


_RESTS = (1, 2, 3, 5, 7, 31)
"""Pixels more than the net's own size, none of which lines up with any stride."""

FreeShape = tuple[int | None, ...]
"""A shape with None for each axis that may vary."""

Emitter = Callable[[Graph, Layer, list[str]], list[str]]
"""From a layer and the names of its bottoms to nodes in the graph and the names of its tops."""


# --- Convolution and pooling ----------------------------------------------------------------------


def _convolution(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    blobs = [g.weight(layer, blob) for blob in layer.blobs]
    return [g.op("Conv", x[0], *blobs, group=layer.options["group"], **_window(layer))]


def _window(layer: Layer) -> dict[str, Any]:
    options = layer.options
    return {
        "kernel_shape": options["kernel"],
        "strides": options["stride"],
        "pads": options["pad"] * 2,
        "dilations": options["dilation"],
    }


def _deconvolution(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    group = layer.options["group"]
    weight = g.weights[layer.blobs["weight"]]
    if group == 1 or (len(weight) == group and weight.shape[1] == 1):
        top = g.op("ConvTranspose", x[0], g.weight(layer, "weight"), group=group, **_window(layer))
    else:
        size = len(weight) // group
        key = layer.blobs["weight"]
        tops = [
            g.op("ConvTranspose", part, g.constant(f"{key}:{i}", array), **_window(layer))
            for i, (part, array) in enumerate(
                zip(g.split(x[0], 1, [size] * group), np.split(weight, group), strict=True)
            )
        ]
        top = g.op("Concat", *tops, axis=1)
    if "bias" in layer.blobs:
        top = g.op("Add", top, g.weight(layer, "bias", (layer.options["num_output"], 1, 1)))
    return [top]


def _pooling(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    options = layer.options
    maximum = options["pool"] == "MAX"
    if options["global_pooling"] and not options["mask"]:
        return [g.op("GlobalMaxPool" if maximum else "GlobalAveragePool", x[0])]
    sizes = layer.bottom_shapes[0][2:]
    if options["mask"]:
        return _pooling_with_mask(g, layer, x)
    if None in sizes:
        return _pooling_of_any_size(g, layer, x)
    begin, end = options["pad"], _pad_behind(options, sizes)
    window = {"kernel_shape": options["kernel"], "strides": options["stride"]}
    if maximum:
        return [g.op("MaxPool", x[0], pads=begin + end, **window)]
    # An average counts the pad's zeros, but nothing beyond the pad.
    more = [max(0, e - b) for e, b in zip(end, begin, strict=True)]
    return [g.op("AveragePool", _padded(g, x[0], begin), pads=[0, 0, *more], **window)]


def _padded(g: Graph, x: str, pad: Sequence[int]) -> str:
    """The map with a frame of zeros, `pad` rows and columns on each side."""
    return g.op("Pad", x, g.ints(0, 0, *pad, 0, 0, *pad)) if any(pad) else x


def _pad_behind(options: dict, sizes: Sequence[int]) -> list[int]:
    """The pad behind the map that makes Caffe's number of windows fit exactly."""
    return [
        max(0, (pooled(options, i, n) - 1) * options["stride"][i] + options["kernel"][i] - n - p)
        for i, (n, p) in enumerate(zip(sizes, options["pad"], strict=True))
    ]


def _pooling_with_mask(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    """Maxima, and where in its map each was found; ONNX counts on through all maps."""
    options = layer.options
    height, width = (_fixed(size) for size in layer.bottom_shapes[0][2:])
    kernel = options["kernel"] or [height, width]
    end = _pad_behind(options | {"kernel": kernel}, (height, width))
    # Of a whole map there is one window; onnx.reference finds its place if the stride is not 1.
    stride = kernel if options["global_pooling"] else options["stride"]
    window = {"kernel_shape": kernel, "strides": stride}
    top, where = g.maxima(x[0], pads=options["pad"] + end, **window)
    inside = g.op("Mod", where, g.ints(height * width))
    return [top, g.op("Cast", inside, to=TensorProto.FLOAT)]


def _pooling_of_any_size(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    options = layer.options
    kernel, stride, pad = (options[name] for name in ("kernel", "stride", "pad"))
    window = {"kernel_shape": kernel, "strides": stride}
    if options["pool"] == "AVE":
        if stride != [1, 1]:
            raise LayerError("an average with a stride depends on the map's size")
        return [g.op("AveragePool", _padded(g, x[0], pad), **window)]
    if options["ceil"] and any(p + s > k for k, s, p in zip(kernel, stride, pad, strict=True)):
        raise LayerError("its last window depends on the map's size")
    # Rounding up is rounding down with stride - 1 more behind the map.
    end = [p + (s - 1 if options["ceil"] else 0) for p, s in zip(pad, stride, strict=True)]
    return [g.op("MaxPool", x[0], pads=pad + end, **window)]


def _lrn(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    """Divide by (k + alpha mean x²)^beta, the mean over neighboring channels or a window."""
    size, alpha, beta, k = (layer.options[name] for name in ("size", "alpha", "beta", "k"))
    square = g.op("Mul", x[0], x[0])
    if layer.options["region"] == "ACROSS_CHANNELS":
        channels = np.arange(layer.bottom_shapes[0][1])
        near = np.abs(channels[:, None] - channels) <= size // 2
        name = f"lrn:{len(channels)}:{size}:{alpha!r}"
        weight = g.constant(name, (near * np.float32(alpha / size))[:, :, None, None])
        bias = g.constant(f"{name}:{k!r}", np.full(len(channels), k, np.float32))
        base = g.op("Conv", square, weight, bias, kernel_shape=[1, 1])
    else:
        padded = _padded(g, square, [size // 2] * 2)
        mean = g.op("AveragePool", padded, kernel_shape=[size, size])
        base = g.op("Add", g.op("Mul", mean, g.number(alpha)), g.number(1.0))
    return [g.op("Mul", x[0], g.op("Pow", base, g.number(-beta)))]


# --- Layers with weights --------------------------------------------------------------------------


def _inner_product(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    axis = axis_of(layer.options["axis"], layer.bottom_shapes[0])
    flat = x[0] if len(layer.bottom_shapes[0]) == 2 else g.op("Flatten", x[0], axis=axis)
    blobs = [g.weight(layer, blob) for blob in layer.blobs]
    top = g.op("Gemm", flat, *blobs, transB=int(not layer.options["transpose"]))
    return [top] if axis == 1 else _to_shape(g, layer, top)


def _batch_norm(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    if layer.options["use_global_stats"] is False:
        return [_normalized(g, layer, x[0])]
    mean, variance, total = (g.weights[key] for key in layer.blobs.values())
    factor = np.float32(0 if total[0] == 0 else 1 / total[0])
    ones = g.constant(f"ones:{len(mean)}", np.ones_like(mean))
    zeros = g.constant(f"zeros:{len(mean)}", np.zeros_like(mean))
    statistics = [
        g.constant(f"{layer.blobs[name]}:unscaled", array * factor)
        for name, array in (("mean", mean), ("variance", variance))
    ]
    return [
        g.op("BatchNormalization", x[0], ones, zeros, *statistics, epsilon=layer.options["eps"])
    ]


def _normalized(g: Graph, layer: Layer, x: str) -> str:
    """Each channel by its mean and variance in the batch."""
    axes = [i for i in range(len(layer.bottom_shapes[0])) if i != 1]
    centered = g.op("Sub", x, g.op("ReduceMean", x, axes=axes))
    variance = g.op("ReduceMean", g.op("Mul", centered, centered), axes=axes)
    return g.op(
        "Div", centered, g.op("Sqrt", g.op("Add", variance, g.number(layer.options["eps"])))
    )


def _scale(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    top = g.op("Mul", x[0], _aligned(g, layer, x, "weight"))
    if "bias" in layer.blobs:
        top = g.op("Add", top, _aligned(g, layer, x[:1], "bias"))
    return [top]


def _bias(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    return [g.op("Add", x[0], _aligned(g, layer, x, "bias"))]


def _aligned(g: Graph, layer: Layer, x: list[str], blob: str) -> str:
    """The second bottom, or else the blob, with axes of 1 behind, to meet the first from `axis`."""
    axes = len(layer.bottom_shapes[0])
    axis = axis_of(layer.options["axis"], layer.bottom_shapes[0])
    if len(x) == 1:
        shape = g.weights[layer.blobs[blob]].shape
        return g.weight(layer, blob, shape and (*shape, *[1] * (axes - axis - len(shape))))
    covered = len(layer.bottom_shapes[1])
    if not covered or axis + covered == axes:
        return x[1]
    behind = axes - axis - covered
    return g.op("Reshape", x[1], g.ints(*[0] * covered, *[1] * behind))  # 0: as it was


def _prelu(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    shape = g.weights[layer.blobs["weight"]].shape or (1,)
    return [
        g.op(
            "PRelu",
            x[0],
            g.weight(layer, "weight", (*shape, *[1] * len(layer.bottom_shapes[0][2:]))),
        )
    ]


# --- Elementwise ----------------------------------------------------------------------------------


def _simple(kind: str) -> Emitter:
    return lambda g, layer, x: [g.op(kind, x[0])]


def _relu(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    slope = layer.options["negative_slope"]
    return [g.op("LeakyRelu", x[0], alpha=slope) if slope else g.op("Relu", x[0])]


def _power(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    power, scale, shift = (layer.options[name] for name in ("power", "scale", "shift"))
    top = x[0]
    for kind, value, neutral in (("Mul", scale, 1), ("Add", shift, 0), ("Pow", power, 1)):
        if value != neutral:
            top = g.op(kind, top, g.number(value))
    return [top]


def _eltwise(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    operation, coefficients = layer.options["operation"], layer.options["coeff"]
    if operation == "MAX":
        return [g.op("Max", *x)]
    if operation == "SUM":
        x = [
            name if c == 1 else g.op("Mul", name, g.number(c))
            for name, c in zip(x, coefficients, strict=True)
        ]
        return [g.op("Sum", *x)]
    top = x[0]
    for other in x[1:]:
        top = g.op("Mul", top, other)
    return [top]


def _clip(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    return [g.op("Clip", x[0], *(g.number(layer.options[name]) for name in ("min", "max")))]


# --- Layers that move numbers ---------------------------------------------------------------------


def _concat(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    return [g.op("Concat", *x, axis=layer.options["axis"])]


def _slice(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    axis = axis_of(layer.options["axis"], layer.bottom_shapes[0])
    size = _fixed(layer.bottom_shapes[0][axis])
    return g.split(x[0], axis, slice_sizes(layer.options, size))


def _crop(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    whole, wanted = layer.bottom_shapes
    first = axis_of(layer.options["axis"], whole)
    offsets = crop_offsets(layer.options, len(whole), first)
    starts, axes = g.ints(*offsets), g.ints(*range(first, len(whole)))
    if None in wanted[first:]:
        ends = g.op("Add", starts, g.op("Shape", x[1], start=first))
    else:
        ends = g.ints(*(a + n for a, n in zip(offsets, wanted[first:], strict=True)))
    return [g.op("Slice", x[0], starts, ends, axes)]


def _to_shape(g: Graph, layer: Layer, x: str) -> list[str]:
    """Reshape to the layer's top; at most one varying axis besides an unchanged batch."""
    bottom: Sequence[int | None] = layer.bottom_shapes[0]
    top: list[int | None] = list(layer.top_shapes[0])
    if top.count(None) > 1 and top[0] is None and bottom[0] is None:
        top[0] = 0
    if top.count(None) > 1:
        raise LayerError("its top depends on the map's size")
    return [g.op("Reshape", x, g.ints(*(-1 if size is None else size for size in top)))]


def _reshape(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    return _to_shape(g, layer, x[0])


def _tile(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    axis = axis_of(layer.options["axis"], layer.bottom_shapes[0])
    repeats = [1] * len(layer.bottom_shapes[0])
    repeats[axis] = layer.options["tiles"]
    return [g.op("Tile", x[0], g.ints(*repeats))]


def _softmax(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    return [g.op("Softmax", x[0], axis=layer.options["axis"])]


def _fixed(size: int | None) -> int:
    if size is None:
        raise LayerError("it depends on the map's size")
    return size


# --- LG-LSTM --------------------------------------------------------------------------------------


def _transition(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    """N+1 LSTMs with rows u, o, c, zero memory: m' = u c."""
    d, lstms = layer.options["num_output"], layer.options["neighbors"] + 1
    channels = g.weights[layer.blobs["weight"]].shape[-1]
    blobs = [g.weight(layer, "weight", (lstms * 3 * d, channels, 1, 1))]
    if "bias" in layer.blobs:
        blobs.append(g.weight(layer, "bias", (lstms * 3 * d,)))
    gates = g.op("Conv", x[0], *blobs)
    hidden, memory = [], []
    for u, o, c in _gates(g, gates, lstms, gates_of_set=3, d=d):
        memory.append(g.op("Mul", u, c))
        hidden.append(g.op("Tanh", g.op("Mul", o, memory[-1])))
    return _lg_lstm_tops(g, layer, hidden, memory)


def _lg_lstm(g: Graph, layer: Layer, x: list[str]) -> list[str]:
    """Eq. (1) and (4); W H = W_local [h_s h_e] + W_global f, the latter once per image."""
    d, n = layer.options["num_output"], layer.options["neighbors"]
    gates = _products(g, layer, x)
    sets = 1 if layer.options["share_spatial"] else n
    *spatial, depth = _gates(g, gates, sets + 1, gates_of_set=4, d=d)
    per_lstm = spatial * (n // sets) + [depth]
    # u c is the same for LSTMs that share their weights.
    fresh = {gate: g.op("Mul", gate[0], gate[3]) for gate in dict.fromkeys(per_lstm)}
    hidden, memory = [], []
    memories = g.split(x[1], 1, [d] * (n + 1))
    for gate, m in zip(per_lstm, memories, strict=True):
        _, f, o, _ = gate
        memory.append(g.op("Add", g.op("Mul", f, m), fresh[gate]))
        hidden.append(g.op("Tanh", g.op("Mul", o, memory[-1])))
    return _lg_lstm_tops(g, layer, hidden, memory)


def _products(g: Graph, layer: Layer, x: list[str]) -> str:
    """W H of all sets of weights, spatial ones first: (B, (S+1) 4 d, H, W)."""
    d, n = layer.options["num_output"], layer.options["neighbors"]
    name = "+".join(dict.fromkeys(layer.blobs.values()))
    spatial, depth = (g.weights[layer.blobs[blob]] for blob in ("spatial", "depth"))
    weight = np.concatenate([spatial.reshape(-1, spatial.shape[-1]), depth])
    from_global, from_local = np.split(weight, [weight.shape[1] - (n + 1) * d], axis=1)
    blobs = [g.constant(f"{name}:local", from_local[:, :, None, None])]
    if layer.options["bias_term"]:
        biases = [g.weights[layer.blobs[blob]].ravel() for blob in ("spatial_bias", "depth_bias")]
        blobs.append(g.constant(f"{name}:bias", np.concatenate(biases)))
    products = g.op("Conv", x[0], *blobs)
    if grid := layer.options["global_grid"]:
        whole = g.constant(f"{name}:global", from_global.reshape(-1, d, grid, grid))
        products = g.op("Add", products, g.op("Conv", x[2], whole))
    return products


def _gates(g: Graph, x: str, sets: int, gates_of_set: int, d: int) -> list[tuple[str, ...]]:
    """Cut (B, sets * gates_of_set * d, H, W) into gates: tanh for c, a set's last, else sigmoid."""
    result: list[tuple[str, ...]] = []
    sigmoids = gates_of_set - 1
    parts = g.split(x, 1, [sigmoids * d, d] * sets)
    for linear, c in zip(parts[::2], parts[1::2], strict=True):
        gates = g.split(g.op("Sigmoid", linear), 1, [d] * sigmoids)
        result.append((*gates, g.op("Tanh", c)))
    return result


def _lg_lstm_tops(g: Graph, layer: Layer, hidden: list[str], memory: list[str]) -> list[str]:
    """Hidden cells move to the neighbor that receives them."""
    directions = DIRECTIONS[layer.options["neighbors"]]
    arrivals = [_moved(g, h, dy, dx) for h, (dy, dx) in zip(hidden, directions, strict=False)]
    tops = [g.op("Concat", *arrivals, hidden[-1], axis=1), g.op("Concat", *memory, axis=1)]
    grid = layer.options["global_grid"]
    return tops + ([_grid_max(g, hidden[-1], grid, layer.top_shapes[0])] if grid else [])


def _moved(g: Graph, x: str, dy: int, dx: int) -> str:
    """What comes from row + dy, column + dx: a row or column of zeros enters, another leaves."""
    enter = [max(-dy, 0), max(-dx, 0), 0, 0, max(dy, 0), max(dx, 0)]
    padded = g.op("Pad", x, g.ints(0, 0, *enter))
    starts, ends = zip(*((max(d, 0), -1 if d < 0 else LAST) for d in (dy, dx)), strict=True)
    return g.op("Slice", padded, g.ints(*starts), g.ints(*ends), g.ints(2, 3))


def _grid_max(g: Graph, x: str, grid: int, shape: Sequence[int | None]) -> str:
    """Maximum in each cell of a grid x grid partition, see `grid_bounds`."""
    for axis in (2, 3):
        if grid == 1:
            cells = [x]
        elif (length := shape[axis]) is not None:
            cells = g.split(x, axis, np.diff(grid_bounds(length, grid)).tolist())
        else:
            sizes = _cell_sizes(g, x, axis, grid)
            cells = g.split_by(x, axis, sizes, grid)
        largest = [g.op("ReduceMax", cell, axes=[axis]) for cell in cells]
        x = g.op("Concat", *largest, axis=axis) if grid > 1 else largest[0]
    return x


def _cell_sizes(g: Graph, x: str, axis: int, grid: int) -> str:
    """The sizes of the cells of an axis whose length is known only when the graph runs."""
    length = g.op("Shape", x, start=axis, end=axis + 1)
    twice = g.op("Mul", g.ints(*(2 * i for i in range(grid + 1))), length)
    edges = g.op("Div", g.op("Add", twice, g.ints(grid)), g.ints(2 * grid))
    ends = g.op("Slice", edges, g.ints(1), g.ints(LAST))
    return g.op("Sub", ends, g.op("Slice", edges, g.ints(0), g.ints(-1)))


EMITTERS: dict[str, Emitter] = {
    "AbsVal": _simple("Abs"),
    "BatchNorm": _batch_norm,
    "Bias": _bias,
    "Clip": _clip,
    "Concat": _concat,
    "Convolution": _convolution,
    "Crop": _crop,
    "Deconvolution": _deconvolution,
    "Dropout": lambda g, layer, x: x,
    "ELU": lambda g, layer, x: [g.op("Elu", x[0], alpha=layer.options["alpha"])],
    "Eltwise": _eltwise,
    "Flatten": _reshape,
    "InnerProduct": _inner_product,
    "LGLSTM": _lg_lstm,
    "LGLSTMTransition": _transition,
    "LRN": _lrn,
    "PReLU": _prelu,
    "Pooling": _pooling,
    "Power": _power,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": _simple("Sigmoid"),
    "Silence": lambda g, layer, x: [],
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": lambda g, layer, x: x * len(layer.tops),
    "TanH": _simple("Tanh"),
    "Tile": _tile,
}

SUPPORTED = {"Input", *EMITTERS}
"""The layer types that can go to ONNX."""


def to_onnx(
    net: Net,
    weights: Weights,
    *,
    any_size: bool = False,
    preprocessing: bool = False,
    labels: bool = False,
    extra_outputs: Sequence[str] = (),
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """The net as an ONNX model, checked by onnx.checker; the batch is free if the net's is.

    any_size: height and width are free as well; refused, with the layer that is in the way, for
        nets that are bound to a size. Outputs of the input's size have it whatever it is: where
        Caffe's are larger, since strides leave a rest, rows and columns behind the input are cut.
    preprocessing: the input is `photo` (batch, H, W, 3), uint8 RGB at the net's size; the graph
        reverses the channels and subtracts the mean.
    labels: the input is `photo` of any size, which the graph stretches to the net's, and the output
        `labels` (batch, H, W), uint8: the best class of each of its pixels.
    extra_outputs: blobs to return besides the net's outputs, to compare them.
    Raises InputError naming the layer and its line.
    """
    if sum(array.nbytes for array in weights.values()) > 2_000_000_000:
        raise InputError(f"{net.path}: its weights exceed the 2 GB that one ONNX file can hold")
    layers = _with_free_axes(net, any_size)
    takes_photo = preprocessing or labels
    if takes_photo:
        _check_names_are_free(net)
    try:
        graph, names = _emitted(net, weights, layers, takes_photo, labels)
    except InputError:
        if any_size or layers == list(net.layers):
            raise
        layers = list(net.layers)  # a net that is bound to its batch
        graph, names = _emitted(net, weights, layers, takes_photo, labels)
    if any_size:
        names |= _cut_to_input(graph, net, names)
    returned = [LABELS] if labels else net.outputs
    outputs = [*returned, *(blob for blob in extra_outputs if blob not in returned)]
    _name_by_blob(graph, net, names, outputs)
    model = _model(graph, net, layers, outputs, _inputs(net, layers, takes_photo, labels))
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model, full_check=True)
    return model


def _check_names_are_free(net: Net) -> None:
    """Refuse a net with blobs that are called as what is added around it."""
    blobs = {*net.inputs, *(top for layer in net.layers for top in layer.tops)}
    for name in (PHOTO, LABELS):
        if name in blobs:
            raise InputError(
                f"{net.path}: has a blob {name}, the name of an input or output that would be "
                "added; rename it, or convert without"
            )


def _emitted(
    net: Net, weights: Weights, layers: Sequence[Layer], takes_photo: bool, labels: bool
) -> tuple[Graph, dict[str, str]]:
    """The nodes of all layers, and the tensor that is each blob's last value.

    Raises InputError for a layer that does not allow an axis to be free.
    """
    graph = Graph(weights)
    names = {blob: blob for blob in net.inputs}
    if takes_photo:
        names |= photo_to_input(graph, net, any_photo=labels)
    for layer in layers:
        try:
            tops = EMITTERS[layer.type](graph, layer, [names[blob] for blob in layer.bottoms])
        except LayerError as error:
            where = f'{net.path}: line {layer.line}: layer "{layer.name}" of type {layer.type}'
            raise InputError(f"{where}: {error}; {_FIX_SIZE}") from None
        names.update(zip(layer.tops, tops, strict=True))
    if labels:
        found = parsing_net(net)
        if found is None or found[1] > 256:
            raise InputError(
                f"{net.path}: label maps need one photo in and one map of at most 256 scores out; "
                f"this net has the inputs {list(net.inputs)} and the outputs {list(net.outputs)}"
            )
        names[LABELS] = scores_to_labels(graph, names[net.outputs[0]], found[1])
    return graph, names


def _with_free_axes(net: Net, any_size: bool) -> list[Layer]:
    """The layers with None for each axis that changes when the batch, and the size if free, do."""
    try:
        other = read_net(
            net.path,
            size=_other_size(net) if any_size else None,
            batch_factor=3,
            advice=_FIX_SIZE,
            stages=net.stages,
        )
    except InputError:
        if any_size:
            raise
        return list(net.layers)  # a net that is bound to its batch
    layers = []
    for layer, changed in zip(net.layers, other.layers, strict=True):
        for key in layer.blobs.values():
            if net.weights[key] != other.weights[key]:
                if not any_size:
                    return list(net.layers)
                raise InputError(
                    f'{net.path}: line {layer.line}: layer "{layer.name}" of type {layer.type} has '
                    f"weights for one input size; {_FIX_SIZE}"
                )
        layers.append(
            dataclasses.replace(
                layer,
                bottom_shapes=_free(layer.bottom_shapes, changed.bottom_shapes),
                top_shapes=_free(layer.top_shapes, changed.top_shapes),
            )
        )
    return layers


def _cut_to_input(g: Graph, net: Net, names: dict[str, str]) -> dict[str, str]:
    """Cut outputs that are of the input's size at the net's own size to that of any input.

    Unit (0, 0) of a net lies on pixel (0, 0), so what is too much lies behind the last pixels.
    Raises InputError where an output is too small for its input: nothing could be said of the rest.
    """
    spatial = {blob: shape[2:] for blob, shape in net.inputs.items() if len(shape) == 4}
    if len(spatial) != 1:
        return {}
    (data, own) = next(iter(spatial.items()))
    outputs = [blob for blob in net.outputs if _map_size(net, blob) == own]
    cut: dict[str, str] = {}  # and what is wrong with it
    for more in _RESTS:
        size = own[0] + more, own[1] + more
        with contextlib.suppress(InputError):  # a size at which the net does not run at all
            other = read_net(net.path, size=size, stages=net.stages)
            for blob in outputs:
                made = _map_size(other, blob)
                if made is None or made[0] < size[0] or made[1] < size[1]:
                    fault = f"{made and list(made)} for an input of {list(size)}"
                    cut[blob] = cut.get(blob) or fault
                elif made != size:
                    cut.setdefault(blob, "")
    for blob, fault in cut.items():
        if fault:
            raise InputError(
                f"{net.path}: {blob} has the size {fault}, so it does not reach the last pixels; "
                f"{_FIX_SIZE}"
            )
    axes, starts = g.ints(2, 3), g.ints(0, 0)
    return {
        blob: g.op("Slice", names[blob], starts, g.op("Shape", names[data], start=2, end=4), axes)
        for blob in cut
    }


def _map_size(net: Net, blob: str) -> Shape | None:
    """Height and width of a blob of four axes."""
    made = [
        shape
        for layer in net.layers
        for top, shape in zip(layer.tops, layer.top_shapes, strict=True)
        if top == blob
    ]
    return made[-1][2:] if made and len(made[-1]) == 4 else None


def _other_size(net: Net) -> tuple[int, int]:
    """Another size that lines up with strides up to 32, as 321 does with 353."""
    height, width = next(shape for shape in net.inputs.values() if len(shape) == 4)[2:]
    return height + 32, width + 64


def _free(shapes: Sequence[Shape], others: Sequence[Shape]) -> tuple[Shape, ...]:
    """The shapes with None, which a Layer's own never have, for each axis that differs."""
    free: tuple[FreeShape, ...] = tuple(
        tuple(a if a == b else None for a, b in zip(shape, other, strict=True))
        for shape, other in zip(shapes, others, strict=True)
    )
    return cast("tuple[Shape, ...]", free)


def _name_by_blob(g: Graph, net: Net, names: dict[str, str], outputs: Sequence[str]) -> None:
    """Give each tensor that is a blob's last value the blob's name, and drop what nobody uses."""
    made = {name for node in g.nodes for name in node.output}
    renamed: dict[str, str] = {}
    for blob in sorted(names, key=lambda blob: blob not in outputs):  # outputs first
        if blob not in net.inputs and names[blob] in made and names[blob] not in renamed:
            renamed[names[blob]] = blob
    for node in g.nodes:
        for ends in (node.input, node.output):
            ends[:] = [renamed.get(name, name) for name in ends]
    for blob in outputs:  # two blobs of one tensor: behind Split and Dropout
        now = renamed.get(names[blob], names[blob])
        if now != blob:
            g.nodes.append(helper.make_node("Identity", [now], [blob]))
    needed = set(outputs)
    kept = []
    for node in reversed(g.nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    for index, node in enumerate(reversed(kept)):
        node.name = f"{node.name}{index:04d}_{node.op_type}"
    g.nodes = kept[::-1]
    g.constants = {name: value for name, value in g.constants.items() if name in needed}


def _inputs(
    net: Net, layers: list[Layer], takes_photo: bool, any_photo: bool
) -> list[onnx.ValueInfoProto]:
    """The graph's inputs; an axis that is free for the layers that take an input is named."""
    infos = []
    for blob, shape in net.inputs.items():
        seen = [
            bottom
            for layer in layers
            for name, bottom in zip(layer.bottoms, layer.bottom_shapes, strict=True)
            if name == blob
        ]
        free = seen[0] if seen else shape
        names = ("batch", "channels", "height", "width")
        dims = [names[i] if size is None else size for i, size in enumerate(free)]
        if takes_photo:
            size = ["photo_height", "photo_width"] if any_photo else dims[2:]
            dims = [dims[0], *size, 3]
            infos.append(helper.make_tensor_value_info(PHOTO, TensorProto.UINT8, dims))
        else:
            infos.append(helper.make_tensor_value_info(blob, TensorProto.FLOAT, dims))
    return infos


def _model(
    g: Graph,
    net: Net,
    layers: list[Layer],
    outputs: Sequence[str],
    inputs: list[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    shapes = {blob: shape for x in layers for blob, shape in zip(x.tops, x.top_shapes, strict=True)}
    graph = helper.make_graph(
        g.nodes,
        net.name,
        inputs,
        [_output(blob, shapes.get(blob), inputs) for blob in outputs],
        list(g.constants.values()),
    )
    return helper.make_model(
        graph,
        producer_name="lglstm convert",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def _output(
    blob: str, shape: FreeShape | None, inputs: list[onnx.ValueInfoProto]
) -> onnx.ValueInfoProto:
    """A blob as the graph's output; label maps, which are no blob, have the photo's size."""
    if shape is None:
        dims = [dim.dim_param or dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
        return helper.make_tensor_value_info(blob, TensorProto.UINT8, dims[:3])
    named = [
        f"{blob}_{i}" if size is None and i else size or "batch" for i, size in enumerate(shape)
    ]
    return helper.make_tensor_value_info(blob, TensorProto.FLOAT, named)
