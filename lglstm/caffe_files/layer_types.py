"""What each Caffe layer type needs to be known of: options, blobs and shapes.

One entry of LAYER_TYPES per type holds three functions:

- `options(layer)`: the layer's message as a plain dict, defaults filled in, in one spelling
  (`kernel: [h, w]`, whichever way the prototxt wrote it). It is JSON, so that it can travel with
  weights into a file.
- `blobs(options, bottoms)`: name and shape of each learnable blob, in Caffe's order.
- `tops(options, bottoms)`: the shapes of the tops, by Caffe's own rules; a shape that does not fit
  raises LayerError.

Shapes are tuples of ints.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lglstm.caffe_files.schema import LayerParameter, message_class
from lglstm.common.lg_lstm_shapes import DIRECTIONS, LGLSTMShapes, Shape

if TYPE_CHECKING:
    from lglstm.caffe_files.schema import Message

Shapes = list[Shape]

MAX_COUNT = 2**31 - 1
"""Numbers that a blob of Caffe's can hold."""


class LayerError(Exception):
    """What is wrong with one layer; the reader adds the layer's name, the line and what to do."""


class UnsupportedLayer(LayerError):
    """A layer that is in order, but that nothing here converts."""


class LayerType(NamedTuple):
    options: Callable[[LayerParameter], dict]
    blobs: Callable[[dict, Shapes], dict[str, Shape]]
    tops: Callable[[dict, Shapes], Shapes]


def is_fixed(layer: LayerParameter) -> bool:
    """Whether a layer has weights that never learn (lr_mult 0), such as bilinear up-sampling."""
    return bool(layer.param) and not any(param.lr_mult for param in layer.param)


def axis_of(axis: int, shape: Shape) -> int:
    """A possibly negative axis as a plain index."""
    if not -len(shape) <= axis < len(shape):
        raise LayerError(f"its axis {axis} does not exist in a bottom of shape {list(shape)}")
    return axis % len(shape)


def _map(bottoms: Shapes) -> Shape:
    """The first bottom's shape, which must be that of maps: (N, C, H, W)."""
    if len(bottoms[0]) != 4:
        raise LayerError(f"its bottom has the shape {list(bottoms[0])}, not 4 axes")
    return bottoms[0]


def _no_options(layer: LayerParameter) -> dict:
    return {}


def _no_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    return {}


def _same(options: dict, bottoms: Shapes) -> Shapes:
    return [bottoms[0]]


def _fields(message: Message, *names: str) -> dict:
    return {name: getattr(message, name) for name in names}


def _float(value: float) -> float:
    """A float32 option by its shortest decimal, so that 0.1 stays 0.1 in JSON."""
    return float(str(np.float32(value)))


def _count(shape: Shape) -> int:
    return math.prod(shape)


# --- Convolution, Deconvolution, Pooling ----------------------------------------------------------


def _pair(parameters: Message, name: str, default: int | None, h: str, w: str) -> list[int]:
    """A spatial option given once, once per axis, or as *_h and *_w: always [h, w]."""
    if parameters.HasField(h) or parameters.HasField(w):
        return [getattr(parameters, h), getattr(parameters, w)]
    value = getattr(parameters, name)
    values = [value] if isinstance(value, int) else list(value)
    if not values and default is None:
        raise LayerError(f"it has no {name}")
    if len(values) > 2:
        raise UnsupportedLayer(
            f"it has {len(values)} values of {name}; only 2-D maps are supported"
        )
    values = values or [default]
    return values * 2 if len(values) == 1 else values


def _convolution_options(layer: LayerParameter) -> dict:
    p = layer.convolution_param
    if p.axis != 1:
        raise UnsupportedLayer(f"its axis is {p.axis}; only axis 1 is supported")
    dilation = list(p.dilation) or [1]
    options = {
        "num_output": p.num_output,
        "bias_term": p.bias_term,
        "kernel": _pair(p, "kernel_size", None, "kernel_h", "kernel_w"),
        "stride": _pair(p, "stride", 1, "stride_h", "stride_w"),
        "pad": _pair(p, "pad", 0, "pad_h", "pad_w"),
        "dilation": dilation * 2 if len(dilation) == 1 else dilation,
        "group": p.group,
    }
    if len(options["dilation"]) != 2:
        raise UnsupportedLayer(
            "it has more than two values of dilation; only 2-D maps are supported"
        )
    if min(*options["kernel"], *options["stride"], *options["dilation"], p.num_output, p.group) < 1:
        raise LayerError("its num_output, kernel, stride, dilation and group must be positive")
    if p.num_output % p.group:
        raise LayerError(f"its num_output {p.num_output} is not a multiple of its group {p.group}")
    return options


def _channels(options: dict, bottoms: Shapes) -> int:
    channels = _map(bottoms)[1]
    if channels % options["group"]:
        raise LayerError(
            f"its {channels} channels are not a multiple of its group {options['group']}"
        )
    return channels


def _convolution_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    shape = (options["num_output"], _channels(options, bottoms) // options["group"])
    return _with_bias(options, {"weight": (*shape, *options["kernel"])})


def _deconvolution_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    shape = (_channels(options, bottoms), options["num_output"] // options["group"])
    return _with_bias(options, {"weight": (*shape, *options["kernel"])})


def _with_bias(options: dict, blobs: dict[str, Shape]) -> dict[str, Shape]:
    return blobs | ({"bias": (options["num_output"],)} if options["bias_term"] else {})


def _extent(options: dict, axis: int) -> int:
    return options["dilation"][axis] * (options["kernel"][axis] - 1) + 1


def _convolution_tops(options: dict, bottoms: Shapes) -> Shapes:
    _channels(options, bottoms)
    sizes = [
        (size + 2 * options["pad"][i] - _extent(options, i)) // options["stride"][i] + 1
        for i, size in enumerate(bottoms[0][2:])
    ]
    return [_positive((bottoms[0][0], options["num_output"], *sizes))]


def _deconvolution_tops(options: dict, bottoms: Shapes) -> Shapes:
    _channels(options, bottoms)
    sizes = [
        options["stride"][i] * (size - 1) + _extent(options, i) - 2 * options["pad"][i]
        for i, size in enumerate(bottoms[0][2:])
    ]
    return [_positive((bottoms[0][0], options["num_output"], *sizes))]


def _positive(shape: Shape) -> Shape:
    if min(shape) < 1:
        raise LayerError(f"its top would have the shape {list(shape)}; the bottom is too small")
    return shape


def _pooling_options(layer: LayerParameter) -> dict:
    p = layer.pooling_param
    method = {0: "MAX", 1: "AVE"}.get(p.pool)
    if method is None:
        raise UnsupportedLayer(
            "it pools by STOCHASTIC, which Caffe computes on GPUs only, so that a conversion could "
            "not be compared with it; supported are MAX and AVE"
        )
    if layer.top[1:] and method == "AVE":
        raise LayerError("it has a second top, the mask, which only maxima have")
    options = {
        "pool": method,
        "global_pooling": p.global_pooling,
        "ceil": p.round_mode == 0,
        "mask": len(layer.top) > 1,
    }
    if p.global_pooling:
        return options | {"kernel": None, "stride": [1, 1], "pad": [0, 0]}
    if not p.HasField("kernel_size") and not p.HasField("kernel_h"):
        raise LayerError("it has no kernel_size")
    options |= {
        "kernel": _pair(p, "kernel_size", None, "kernel_h", "kernel_w"),
        "stride": _pair(p, "stride", 1, "stride_h", "stride_w"),
        "pad": _pair(p, "pad", 0, "pad_h", "pad_w"),
    }
    if min(*options["kernel"], *options["stride"]) < 1:
        raise LayerError("its kernel and stride must be positive")
    if any(2 * pad > k for pad, k in zip(options["pad"], options["kernel"], strict=True)):
        raise UnsupportedLayer(
            "its pad is more than half its kernel, which other frameworks refuse"
        )
    return options


def _pooling_tops(options: dict, bottoms: Shapes) -> Shapes:
    _map(bottoms)
    if options["global_pooling"]:
        sizes = [1, 1]
    else:
        sizes = [pooled(options, i, bottoms[0][2 + i]) for i in (0, 1)]
        for i, count in enumerate(sizes):
            size, pad = bottoms[0][2 + i], options["pad"][i]
            if (count - 1) * options["stride"][i] >= size + pad:
                raise UnsupportedLayer(
                    f"its last window lies outside of its map of {size}, where Caffe computes no "
                    "number (the smallest float for MAX, NaN for AVE); give it round_mode: FLOOR, "
                    "or a net input of another size"
                )
    return [_positive((*bottoms[0][:2], *sizes))] * (1 + options["mask"])


def pooled(options: dict, axis: int, size: int) -> int:
    """Caffe's pooled size: rounded up, and no window may begin beyond the image and its pad."""
    kernel, stride, pad = (options[name][axis] for name in ("kernel", "stride", "pad"))
    reach = size + 2 * pad - kernel
    count = (-(-reach // stride) if options["ceil"] else reach // stride) + 1
    if pad and (count - 1) * stride >= size + pad:
        count -= 1
    return count


# --- InnerProduct, BatchNorm, Scale, Bias, PReLU --------------------------------------------------


def _inner_product_options(layer: LayerParameter) -> dict:
    if layer.inner_product_param.num_output < 1:
        raise LayerError("its num_output must be positive")
    return _fields(layer.inner_product_param, "num_output", "bias_term", "axis", "transpose")


def _inner_product_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    inputs = _count(bottoms[0][axis_of(options["axis"], bottoms[0]) :])
    shape = (options["num_output"], inputs)
    return _with_bias(options, {"weight": shape[::-1] if options["transpose"] else shape})


def _inner_product_tops(options: dict, bottoms: Shapes) -> Shapes:
    return [(*bottoms[0][: axis_of(options["axis"], bottoms[0])], options["num_output"])]


def _batch_norm_options(layer: LayerParameter) -> dict:
    p = layer.batch_norm_param
    return {
        "eps": _float(p.eps),
        "use_global_stats": p.use_global_stats if p.HasField("use_global_stats") else None,
        "moving_average_fraction": _float(p.moving_average_fraction),
    }


def _batch_norm_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    channels = 1 if len(bottoms[0]) == 1 else bottoms[0][axis_of(1, bottoms[0])]
    return {"mean": (channels,), "variance": (channels,), "scale_factor": (1,)}


def _scale_options(layer: LayerParameter) -> dict:
    return _fields(layer.scale_param, "axis", "num_axes", "bias_term")


def _bias_options(layer: LayerParameter) -> dict:
    return _fields(layer.bias_param, "axis", "num_axes")


def _covered(options: dict, bottoms: Shapes) -> Shape:
    """The part of the bottom's shape that a Scale's or Bias' own blob covers."""
    if options["num_axes"] == 0:
        return ()
    axis = axis_of(options["axis"], bottoms[0])
    if options["num_axes"] < 0:
        return bottoms[0][axis:]
    if axis + options["num_axes"] > len(bottoms[0]):
        raise LayerError(
            f"its num_axes {options['num_axes']} reach beyond a bottom of shape {list(bottoms[0])}"
        )
    return bottoms[0][axis : axis + options["num_axes"]]


def _scale_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    weight = {"weight": _covered(options, bottoms)} if len(bottoms) == 1 else {}
    covered = _covered(options, bottoms) if len(bottoms) == 1 else bottoms[1]
    return weight | ({"bias": covered} if options["bias_term"] else {})


def _bias_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    return {"bias": _covered(options, bottoms)} if len(bottoms) == 1 else {}


def _broadcast_tops(options: dict, bottoms: Shapes) -> Shapes:
    if len(bottoms) == 2 and bottoms[1]:
        axis = axis_of(options["axis"], bottoms[0])
        if bottoms[0][axis : axis + len(bottoms[1])] != bottoms[1]:
            raise LayerError(
                f"its second bottom of shape {list(bottoms[1])} does not match its first, "
                f"{list(bottoms[0])}, at axis {axis}"
            )
    return [bottoms[0]]


def _prelu_options(layer: LayerParameter) -> dict:
    return _fields(layer.prelu_param, "channel_shared")


def _prelu_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    channels = bottoms[0][axis_of(1, bottoms[0])]
    return {"weight": () if options["channel_shared"] else (channels,)}


# --- Elementwise, and layers that move numbers ----------------------------------------------------


def _relu_options(layer: LayerParameter) -> dict:
    return {"negative_slope": _float(layer.relu_param.negative_slope)}


def _elu_options(layer: LayerParameter) -> dict:
    return {"alpha": _float(layer.elu_param.alpha)}


def _power_options(layer: LayerParameter) -> dict:
    return {name: _float(getattr(layer.power_param, name)) for name in ("power", "scale", "shift")}


def _clip_options(layer: LayerParameter) -> dict:
    return {name: _float(getattr(layer.clip_param, name)) for name in ("min", "max")}


def _dropout_options(layer: LayerParameter) -> dict:
    return {"ratio": _float(layer.dropout_param.dropout_ratio)}


def _softmax_tops(options: dict, bottoms: Shapes) -> Shapes:
    axis_of(options["axis"], bottoms[0])
    return [bottoms[0]]


def _softmax_options(layer: LayerParameter) -> dict:
    return {"axis": layer.softmax_param.axis}


def _lrn_options(layer: LayerParameter) -> dict:
    p = layer.lrn_param
    if p.local_size % 2 == 0:
        raise LayerError(f"its local_size {p.local_size} is not odd")
    region = "ACROSS_CHANNELS" if p.norm_region == 0 else "WITHIN_CHANNEL"
    numbers = {name: _float(getattr(p, name)) for name in ("alpha", "beta", "k")}
    return {"size": p.local_size, "region": region} | numbers


def _eltwise_options(layer: LayerParameter) -> dict:
    p = layer.eltwise_param
    operation = {0: "PROD", 1: "SUM", 2: "MAX"}[p.operation]
    coefficients = [_float(value) for value in p.coeff] or [1.0] * len(layer.bottom)
    if len(coefficients) != len(layer.bottom):
        raise LayerError(f"it has {len(p.coeff)} coefficients for {len(layer.bottom)} bottoms")
    return {"operation": operation, "coeff": coefficients}


def _eltwise_tops(options: dict, bottoms: Shapes) -> Shapes:
    if len(set(bottoms)) > 1:
        raise LayerError(f"its bottoms have different shapes, {[list(b) for b in bottoms]}")
    return [bottoms[0]]


def _concat_options(layer: LayerParameter) -> dict:
    p = layer.concat_param
    return {"axis": p.concat_dim if p.HasField("concat_dim") else p.axis}


def _concat_tops(options: dict, bottoms: Shapes) -> Shapes:
    axis = axis_of(options["axis"], bottoms[0])
    if len({(b[:axis], b[axis + 1 :]) for b in bottoms}) > 1:
        raise LayerError(f"its bottoms do not fit together, {[list(b) for b in bottoms]}")
    return [(*bottoms[0][:axis], sum(b[axis] for b in bottoms), *bottoms[0][axis + 1 :])]


def _slice_options(layer: LayerParameter) -> dict:
    p = layer.slice_param
    axis = p.slice_dim if p.HasField("slice_dim") else p.axis
    return {"axis": axis, "points": list(p.slice_point), "tops": len(layer.top)}


def slice_sizes(options: dict, size: int) -> list[int]:
    """How many entries of the sliced axis each top gets."""
    count, points = options["tops"], options["points"]
    if not points:
        if size % count:
            raise LayerError(f"its {size} entries cannot be cut into {count} equal parts")
        points = [size // count * i for i in range(1, count)]
    edges = [0, *points, size]
    sizes = [b - a for a, b in itertools.pairwise(edges)]
    if len(sizes) != count or min(sizes) < 1:
        raise LayerError(f"its slice_points {points} do not cut {size} entries into {count} parts")
    return sizes


def _slice_tops(options: dict, bottoms: Shapes) -> Shapes:
    axis = axis_of(options["axis"], bottoms[0])
    head, tail = bottoms[0][:axis], bottoms[0][axis + 1 :]
    return [(*head, size, *tail) for size in slice_sizes(options, bottoms[0][axis])]


def _split_options(layer: LayerParameter) -> dict:
    return {"tops": len(layer.top)}


def _split_tops(options: dict, bottoms: Shapes) -> Shapes:
    return [bottoms[0]] * options["tops"]


def _crop_options(layer: LayerParameter) -> dict:
    return {"axis": layer.crop_param.axis, "offset": list(layer.crop_param.offset)}


def crop_offsets(options: dict, axes: int, axis: int) -> list[int]:
    """The offset of each cropped axis."""
    offsets = options["offset"] or [0]
    if len(offsets) not in (1, axes - axis):
        raise LayerError(f"it has {len(offsets)} offsets for {axes - axis} cropped axes")
    return offsets * (axes - axis) if len(offsets) == 1 else offsets


def _crop_tops(options: dict, bottoms: Shapes) -> Shapes:
    whole, wanted = bottoms
    axis = axis_of(options["axis"], whole)
    if len(wanted) != len(whole):
        raise LayerError(f"its bottoms have {len(whole)} and {len(wanted)} axes")
    offsets = crop_offsets(options, len(whole), axis)
    ends = [offset + size for offset, size in zip(offsets, wanted[axis:], strict=True)]
    if any(end > size for end, size in zip(ends, whole[axis:], strict=True)):
        raise LayerError(f"it cannot cut {list(wanted)} out of {list(whole)} at offset {offsets}")
    return [(*whole[:axis], *wanted[axis:])]


def _reshape_options(layer: LayerParameter) -> dict:
    p = layer.reshape_param
    return {"dims": list(p.shape.dim), "axis": p.axis, "num_axes": p.num_axes}


def _reshape_tops(options: dict, bottoms: Shapes) -> Shapes:
    shape = bottoms[0]
    axis = options["axis"] if options["axis"] >= 0 else len(shape) + options["axis"] + 1
    end = len(shape) if options["num_axes"] < 0 else axis + options["num_axes"]
    copied = [axis + i for i, dim in enumerate(options["dims"]) if dim == 0]
    if not 0 <= axis <= end <= len(shape) or any(i >= len(shape) for i in copied):
        raise LayerError(f"it cannot give {list(shape)} the shape {options['dims']} at axis {axis}")
    dims = [shape[axis + i] if dim == 0 else dim for i, dim in enumerate(options["dims"])]
    known = _count(tuple(dim for dim in dims if dim > 0)) * _count((*shape[:axis], *shape[end:]))
    if dims.count(-1) == 1 and known and _count(shape) % known == 0:
        dims[dims.index(-1)] = _count(shape) // known
    top = (*shape[:axis], *dims, *shape[end:])
    if min(dims, default=0) < 0 or _count(top) != _count(shape):
        raise LayerError(f"it cannot give {list(shape)} the shape {options['dims']}")
    return [top]


def _flatten_options(layer: LayerParameter) -> dict:
    return _fields(layer.flatten_param, "axis", "end_axis")


def _flatten_tops(options: dict, bottoms: Shapes) -> Shapes:
    shape = bottoms[0]
    start, end = axis_of(options["axis"], shape), axis_of(options["end_axis"], shape) + 1
    if start >= end:
        raise LayerError(f"its axis {options['axis']} lies behind its end_axis")
    return [(*shape[:start], _count(shape[start:end]), *shape[end:])]


def _tile_options(layer: LayerParameter) -> dict:
    if layer.tile_param.tiles < 1:
        raise LayerError(f"its tiles {layer.tile_param.tiles} is not positive")
    return _fields(layer.tile_param, "axis", "tiles")


def _tile_tops(options: dict, bottoms: Shapes) -> Shapes:
    axis = axis_of(options["axis"], bottoms[0])
    head, size, tail = bottoms[0][:axis], bottoms[0][axis], bottoms[0][axis + 1 :]
    return [(*head, size * options["tiles"], *tail)]


# --- Losses ---------------------------------------------------------------------------------------


def _loss_options(layer: LayerParameter) -> dict:
    p = layer.loss_param
    mode = ("FULL", "VALID", "BATCH_SIZE", "NONE")[p.normalization]
    if not p.HasField("normalization") and p.HasField("normalize") and not p.normalize:
        mode = "BATCH_SIZE"
    return {
        "weight": _float(layer.loss_weight[0]) if layer.loss_weight else 1.0,
        "ignore_label": p.ignore_label if p.HasField("ignore_label") else None,
        "normalization": mode,
        "axis": layer.softmax_param.axis,
    }


def _scalar(options: dict, bottoms: Shapes) -> Shapes:
    return [()]


def _image_labels_options(layer: LayerParameter) -> dict:
    """Of our layer that says which classes a label map shows."""
    try:
        given = json.loads(layer.python_param.param_str)
        options = {
            "num_classes": given["num_classes"],
            "ignore_label": given.get("ignore_label", 255),
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LayerError("its param_str lacks num_classes") from None
    if any(type(value) is not int or not 0 <= value <= 256 for value in options.values()):
        raise LayerError("its num_classes and ignore_label must be whole numbers up to 256")
    return options


def _image_labels_tops(options: dict, bottoms: Shapes) -> Shapes:
    return [(_map(bottoms)[0], options["num_classes"])]


# --- LG-LSTM --------------------------------------------------------------------------------------

_LG_LSTM_KEYS = ("num_output", "neighbors", "global_grid", "share_spatial", "bias_term")


def _lg_lstm_options(layer: LayerParameter) -> dict:
    """From lg_lstm_param, or from the JSON of the Python layer."""
    if layer.type == "Python":
        options = _python_options(layer)
    else:
        options = _fields(layer.lg_lstm_param, *_LG_LSTM_KEYS)
    if options["neighbors"] not in DIRECTIONS:
        raise LayerError(f"its neighbors is {options['neighbors']}; allowed are 2, 4 and 8")
    if options["num_output"] < 1:
        raise LayerError("its num_output must be positive")
    return options


def _python_options(layer: LayerParameter) -> dict:
    defaults = message_class("LGLSTMParameter")()
    try:
        given = json.loads(layer.python_param.param_str or "{}")
    except (ValueError, RecursionError) as error:
        raise LayerError(f"its param_str is not JSON ({error})") from None
    known = {*_LG_LSTM_KEYS, "weight_filler", "bias_filler"}
    if not isinstance(given, dict) or not given.keys() <= known:
        raise LayerError(f"its param_str must be a JSON object with keys of {sorted(known)}")
    options = {key: given.get(key, getattr(defaults, key)) for key in _LG_LSTM_KEYS}
    for key, value in options.items():
        if type(value) is not type(getattr(defaults, key)) or not 0 <= value <= MAX_COUNT:
            raise LayerError(f"its param_str has {key} {str(value)[:40]}")
    return options


def _shapes_of(options: dict) -> LGLSTMShapes:
    return LGLSTMShapes(*(options[key] for key in _LG_LSTM_KEYS))


def _transition_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    return _shapes_of(options).transition_blobs(bottoms[0][1])


def _lg_lstm_blobs(options: dict, bottoms: Shapes) -> dict[str, Shape]:
    return _shapes_of(options).layer_blobs()


def _transition_tops(options: dict, bottoms: Shapes) -> Shapes:
    batch, _, height, width = _map(bottoms)
    grid = options["global_grid"]
    if min(height, width) < grid:
        raise LayerError(f"its {height} x {width} map is smaller than its {grid} x {grid} grid")
    return _shapes_of(options).tops(batch, height, width)


def _lg_lstm_tops(options: dict, bottoms: Shapes) -> Shapes:
    tops = _transition_tops(options, bottoms)
    if bottoms != tops:
        raise LayerError(
            f"its bottoms have the shapes {[list(b) for b in bottoms]}, expected "
            f"{[list(t) for t in tops]}"
        )
    return tops


# --- Layers without bottoms -----------------------------------------------------------------------


def _input_options(layer: LayerParameter) -> dict:
    shapes = [list(shape.dim) for shape in layer.input_param.shape]
    if len(shapes) == 1:
        shapes = shapes * len(layer.top)
    if shapes and len(shapes) != len(layer.top):
        raise LayerError(f"it has {len(shapes)} shapes for {len(layer.top)} tops")
    return {"shapes": shapes or None}


def _seg_data_options(layer: LayerParameter) -> dict:
    """Of our paired photo and label layer, only the shapes matter here."""
    try:
        given = json.loads(layer.python_param.param_str)
        height, width = given["input_size"]
        stride = given["label_stride"]
        shapes = [
            [given["batch_size"], 3, height, width],
            [given["batch_size"], 1, -(-height // stride), -(-width // stride)],
        ]
    except (ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError):
        raise LayerError("its param_str lacks batch_size, input_size or label_stride") from None
    if any(type(size) is not int or size > MAX_COUNT for shape in shapes for size in shape):
        raise LayerError(
            f"its batch_size, input_size and label_stride must be whole numbers up to {MAX_COUNT:,}"
        )
    return {"shapes": shapes[: len(layer.top)]}


def _dummy_data_options(layer: LayerParameter) -> dict:
    p = layer.dummy_data_param
    shapes = [list(shape.dim) for shape in p.shape]
    if not shapes:
        legacy = zip(p.num, p.channels, p.height, p.width, strict=False)
        shapes = [list(dims) for dims in legacy]
    shapes = shapes * len(layer.top) if len(shapes) == 1 else shapes
    return {"shapes": shapes or None}


def _input_tops(options: dict, bottoms: Shapes) -> Shapes:
    if options["shapes"] is None:
        raise LayerError("it does not say its shape; convert a deploy net, which has Input layers")
    shapes = [tuple(shape) for shape in options["shapes"]]
    if any(size < 1 for shape in shapes for size in shape):
        raise LayerError(f"its shape {options['shapes']} is not positive")
    return shapes


def _elementwise(options: Callable[[LayerParameter], dict] = _no_options) -> LayerType:
    return LayerType(options, _no_blobs, _same)


_INPUT = LayerType(_input_options, _no_blobs, _input_tops)

LAYER_TYPES: dict[str, LayerType] = {
    "AbsVal": _elementwise(),
    "BatchNorm": LayerType(_batch_norm_options, _batch_norm_blobs, _same),
    "Bias": LayerType(_bias_options, _bias_blobs, _broadcast_tops),
    "Clip": _elementwise(_clip_options),
    "Concat": LayerType(_concat_options, _no_blobs, _concat_tops),
    "Convolution": LayerType(_convolution_options, _convolution_blobs, _convolution_tops),
    "Crop": LayerType(_crop_options, _no_blobs, _crop_tops),
    "Deconvolution": LayerType(_convolution_options, _deconvolution_blobs, _deconvolution_tops),
    "Dropout": _elementwise(_dropout_options),
    "DummyData": LayerType(_dummy_data_options, _no_blobs, _input_tops),
    "ELU": _elementwise(_elu_options),
    "Eltwise": LayerType(_eltwise_options, _no_blobs, _eltwise_tops),
    "EuclideanLoss": LayerType(_loss_options, _no_blobs, _scalar),
    "Flatten": LayerType(_flatten_options, _no_blobs, _flatten_tops),
    "ImageLabels": LayerType(_image_labels_options, _no_blobs, _image_labels_tops),
    "InnerProduct": LayerType(_inner_product_options, _inner_product_blobs, _inner_product_tops),
    "Input": _INPUT,
    "LGLSTM": LayerType(_lg_lstm_options, _lg_lstm_blobs, _lg_lstm_tops),
    "LGLSTMTransition": LayerType(_lg_lstm_options, _transition_blobs, _transition_tops),
    "LRN": _elementwise(_lrn_options),
    "PReLU": LayerType(_prelu_options, _prelu_blobs, _same),
    "Pooling": LayerType(_pooling_options, _no_blobs, _pooling_tops),
    "Power": _elementwise(_power_options),
    "ReLU": _elementwise(_relu_options),
    "Reshape": LayerType(_reshape_options, _no_blobs, _reshape_tops),
    "Scale": LayerType(_scale_options, _scale_blobs, _broadcast_tops),
    "SegData": LayerType(_seg_data_options, _no_blobs, _input_tops),
    "Sigmoid": _elementwise(),
    "Silence": LayerType(_no_options, _no_blobs, lambda options, bottoms: []),
    "Slice": LayerType(_slice_options, _no_blobs, _slice_tops),
    "Softmax": LayerType(_softmax_options, _no_blobs, _softmax_tops),
    "SoftmaxWithLoss": LayerType(_loss_options, _no_blobs, _scalar),
    "Split": LayerType(_split_options, _no_blobs, _split_tops),
    "TanH": _elementwise(),
    "Tile": LayerType(_tile_options, _no_blobs, _tile_tops),
}

# Layers that bring data into a net: their tops are the converted net's inputs.
SOURCES = ("Input", "SegData", "DummyData")
# Measures of a test net; they feed nothing.
IGNORED = ("Accuracy",)

_PYTHON_MODULES = {
    "LGLSTM": "lg_lstm",
    "LGLSTMTransition": "lg_lstm",
    "SegData": "seg_data",
    "ImageLabels": "image_labels",
}

PYTHON_LAYERS = {
    (f"{package}.{module}", layer): layer
    for layer, module in _PYTHON_MODULES.items()
    for package in ("lglstm.layers", "layers")
}
"""The Python layers of this project by module and class, under today's name and that of 0.1."""


def layer_type(layer: LayerParameter) -> str:
    """The layer's type; for Python layers the type that they implement.

    Raises UnsupportedLayer for a Python layer of somebody else.
    """
    if layer.type != "Python":
        return layer.type
    source = (layer.python_param.module, layer.python_param.layer)
    if source not in PYTHON_LAYERS:
        raise UnsupportedLayer(f"the Python layer {'.'.join(source)} is not one of this project's")
    return PYTHON_LAYERS[source]


_MANY = 1 << 20
_BOTTOMS = {
    "Accuracy": (2, 2),
    "Bias": (1, 2),
    "Concat": (1, _MANY),
    "Crop": (2, 2),
    "Eltwise": (2, _MANY),
    "EuclideanLoss": (2, 2),
    "LGLSTM": (2, 3),
    "Scale": (1, 2),
    "Silence": (1, _MANY),
    "SoftmaxWithLoss": (2, 2),
    **dict.fromkeys(SOURCES, (0, 0)),
}


def check_connections(kind: str, layer: LayerParameter, known: Container[str]) -> None:
    """Raise LayerError unless a layer of type `kind` can follow in a net with the blobs `known`."""
    least, most = _BOTTOMS.get(kind, (1, 1))
    if kind in ("Convolution", "Deconvolution") and len(layer.bottom) == len(layer.top) > 1:
        raise UnsupportedLayer("it convolves several bottoms; only layers of one are supported")
    if not least <= len(layer.bottom) <= most:
        raise LayerError(f"it has {len(layer.bottom)} bottoms, expected {least} to {most}")
    for blob in layer.bottom:
        if blob not in known:
            raise LayerError(f'its bottom "{blob}" is not a top of a layer before it')
    for blob in layer.top:
        if blob in known and blob not in layer.bottom:
            raise LayerError(f'its top "{blob}" is already the top of another layer')


def shapes_of(
    kind: str, options: dict, layer: LayerParameter, bottoms: Shapes
) -> tuple[Shapes, dict[str, Shape]]:
    """The shapes of a layer's tops and of its blobs by their names.

    Raises LayerError for another number of tops, and for sizes that Caffe could not hold.
    """
    known = LAYER_TYPES[kind]
    tops, blobs = known.tops(options, bottoms), known.blobs(options, bottoms)
    if len(tops) != len(layer.top):
        raise LayerError(f"it has {len(layer.top)} tops, expected {len(tops)}")
    for shape in (*tops, *blobs.values()):
        if _count(shape) > MAX_COUNT:
            raise LayerError(
                f"it would need a blob of shape {list(shape)}, more than the {MAX_COUNT:,} numbers "
                "that Caffe's hold"
            )
    return tops, blobs
