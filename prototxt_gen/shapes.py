"""The arithmetic of a prototxt without running it: shapes, weights, multiply-adds, memory.

Only the layer types that the generators use are known; Caffe itself is the judge of the shapes
(a test compares both), but it would have to allocate gigabytes to tell them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from types import SimpleNamespace

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from lglstm.common.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What a layer makes and needs.

    tops: shapes of its tops.
    params: shapes of its learnable blobs.
    multiply_adds: of the matrix products in one forward pass over the batch.
    workspace: values held beside the blobs while training (column buffers, gates, masks).
    """

    tops: tuple[Shape, ...] = ()
    params: tuple[Shape, ...] = ()
    multiply_adds: int = 0
    workspace: int = 0


@dataclass(frozen=True)
class Layer:
    """A layer of a net with its cost; `proto` is the LayerParameter."""

    proto: caffe_pb2.LayerParameter
    cost: Cost

    @property
    def name(self) -> str:
        return self.proto.name

    @property
    def kind(self) -> str:
        """The layer type; for Python layers the class."""
        python = self.proto.type == "Python"
        return self.proto.python_param.layer if python else self.proto.type

    @property
    def is_fixed(self) -> bool:
        """Whether the layer has weights that are never learned, such as bilinear up-sampling."""
        return bool(self.proto.param) and not any(p.lr_mult for p in self.proto.param)

    @property
    def param_names(self) -> list[str]:
        """The name that each learnable blob is shared by, or one of its own."""
        given = [param.name for param in self.proto.param]
        names = given + [""] * (len(self.cost.params) - len(given))
        return [name or f"{self.name}[{i}]" for i, name in enumerate(names)]


def read_net(path: Path) -> caffe_pb2.NetParameter:
    """Read a prototxt; raise InputError when it is missing or none."""
    net = caffe_pb2.NetParameter()
    try:
        text_format.Parse(path.read_text("utf-8"), net)
    except FileNotFoundError:
        hint = "lglstm models list shows the models, lglstm models generate writes them"
        raise InputError(f"{path}: there is no such file; {hint}") from None
    except (text_format.ParseError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path}: not a net that Caffe reads ({error}); generate it anew"
        ) from error
    return net


def measure(net: caffe_pb2.NetParameter) -> list[Layer]:
    """Return every layer of a net with its shapes and costs, in order."""
    shapes: dict[str, Shape] = {}
    layers = []
    for proto in net.layer:
        name = proto.type if proto.type != "Python" else proto.python_param.layer
        if name not in COSTS:
            raise InputError(f"{net.name}: cannot measure layer {proto.name} of type {name}")
        cost = COSTS[name](proto, [shapes[bottom] for bottom in proto.bottom])
        shapes |= zip(proto.top, cost.tops, strict=True)
        layers.append(Layer(proto, cost))
    return layers


def window(length: int, param: SimpleNamespace) -> int:
    """Outputs of a convolution along an axis."""
    extent = param.dilation * (param.kernel - 1) + 1
    return (length + 2 * param.pad - extent) // param.stride + 1


def geometry(param: caffe_pb2.ConvolutionParameter) -> SimpleNamespace:
    """Kernel, stride, pad and dilation, which the generators give one number for."""
    one = lambda values, default: values[0] if values else default  # noqa: E731
    return SimpleNamespace(
        kernel=one(param.kernel_size, 1),
        stride=one(param.stride, 1),
        pad=one(param.pad, 0),
        dilation=one(param.dilation, 1),
    )


def convolution(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    batch, channels, *size = bottoms[0]
    param = layer.convolution_param
    shape = geometry(param)
    out = tuple(window(length, shape) for length in size)
    weight = (param.num_output, channels // param.group, shape.kernel, shape.kernel)
    products = batch * prod(weight) * prod(out)
    # Caffe unrolls one image into columns, except for a plain 1×1 convolution.
    plain = shape.kernel == shape.stride == 1 and shape.pad == 0
    columns = 0 if plain else channels * shape.kernel**2 * prod(out)
    bias = ((param.num_output,),) if param.bias_term else ()
    return Cost(((batch, param.num_output, *out),), (weight, *bias), products, columns)


def deconvolution(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    batch, channels, *size = bottoms[0]
    param = layer.convolution_param
    shape = geometry(param)
    out = tuple(shape.stride * (length - 1) + shape.kernel - 2 * shape.pad for length in size)
    weight = (channels, param.num_output // param.group, shape.kernel, shape.kernel)
    products = batch * prod(weight) * prod(size)
    columns = param.num_output * shape.kernel**2 * prod(size)
    bias = ((param.num_output,),) if param.bias_term else ()
    return Cost(((batch, param.num_output, *out),), (weight, *bias), products, columns)


def pooling(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    batch, channels, *size = bottoms[0]
    param = layer.pooling_param

    def pooled(length: int) -> int:
        count = ceil((length + 2 * param.pad - param.kernel_size) / param.stride) + 1
        # The last window must start inside the image or its padding at the near side.
        overhangs = param.pad and (count - 1) * param.stride >= length + param.pad
        return count - 1 if overhangs else count

    top = (batch, channels, *map(pooled, size))
    is_max = param.pool == caffe_pb2.PoolingParameter.MAX
    return Cost((top,), workspace=prod(top) if is_max else 0)


def inner_product(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    batch, inputs = bottoms[0][0], prod(bottoms[0][1:])
    outputs = layer.inner_product_param.num_output
    bias = ((outputs,),) if layer.inner_product_param.bias_term else ()
    return Cost(((batch, outputs),), ((outputs, inputs), *bias), batch * outputs * inputs)


def lstm_param(layer: caffe_pb2.LayerParameter) -> caffe_pb2.LGLSTMParameter:
    """The settings of an LG-LSTM layer of either engine."""
    if layer.type != "Python":
        return layer.lg_lstm_param
    settings = json.loads(layer.python_param.param_str)
    settings["weight_filler"] = caffe_pb2.FillerParameter(**settings["weight_filler"])
    return caffe_pb2.LGLSTMParameter(**settings)


def lstm_cost(
    param: caffe_pb2.LGLSTMParameter, maps: Shape, weights: list[Shape], inputs: list[int]
) -> Cost:
    """Cost of transition and LG-LSTM layers.

    maps: (B, h, w). weights: shapes (…, rows, K). inputs: how many of the K columns are products
    at every position, and how many once per image.
    """
    batch, height, width = maps
    rows = sum(prod(shape[:-1]) for shape in weights)
    positions = batch * height * width
    local = (batch, (param.neighbors + 1) * param.num_output, height, width)
    grid = (batch, param.num_output, param.global_grid, param.global_grid)
    params = [
        blob for shape in weights for blob in ((shape, shape[:-1]) if param.bias_term else (shape,))
    ]
    return Cost(
        (local, local, grid) if param.global_grid else (local, local),
        tuple(params),
        positions * rows * inputs[0] + batch * rows * inputs[1],
        2 * positions * rows,  # the gates and their gradient
    )


def transition(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    batch, channels, height, width = bottoms[0]
    param = lstm_param(layer)
    weight = (param.neighbors + 1, 3 * param.num_output, channels)
    return lstm_cost(param, (batch, height, width), [weight], [channels, 0])


def lg_lstm(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    batch, channels, height, width = bottoms[0]
    param = lstm_param(layer)
    once = param.global_grid**2 * param.num_output
    depth = (4 * param.num_output, once + channels)
    spatial = (1 if param.share_spatial else param.neighbors, *depth)
    return lstm_cost(param, (batch, height, width), [spatial, depth], [channels, once])


def same(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    return Cost((bottoms[0],))


def dropout(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    return Cost((bottoms[0],), workspace=prod(bottoms[0]))  # which values were kept


def softmax_loss(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    return Cost(((),), workspace=prod(bottoms[0]))  # the probabilities


def euclidean_loss(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    return Cost(((),), workspace=prod(bottoms[0]))  # the difference


def concat(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    batch, _, *size = bottoms[0]
    return Cost(((batch, sum(bottom[1] for bottom in bottoms), *size),))


def tile(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    top = list(bottoms[0])
    top[layer.tile_param.axis] *= layer.tile_param.tiles
    return Cost((tuple(top),))


def reshape(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    dims = layer.reshape_param.shape.dim
    return Cost((tuple(dim or bottoms[0][i] for i, dim in enumerate(dims)),))


def crop(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    axis = layer.crop_param.axis
    return Cost((bottoms[0][:axis] + bottoms[1][axis:],))


def network_input(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    return Cost((tuple(layer.input_param.shape[0].dim),))


def seg_data(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    settings = json.loads(layer.python_param.param_str)
    batch, (height, width) = settings["batch_size"], settings["input_size"]
    stride = settings["label_stride"]
    label = (batch, 1, ceil(height / stride), ceil(width / stride))
    position = ((1,),) if layer.param else ()  # batches served; the training layer keeps it
    return Cost(((batch, 3, height, width), label), position)


def image_labels(layer: caffe_pb2.LayerParameter, bottoms: list[Shape]) -> Cost:
    return Cost(((bottoms[0][0], json.loads(layer.python_param.param_str)["num_classes"]),))


COSTS: dict[str, Callable[[caffe_pb2.LayerParameter, list[Shape]], Cost]] = {
    "Accuracy": lambda layer, bottoms: Cost(((),)),
    "Bias": same,
    "Concat": concat,
    "Convolution": convolution,
    "Crop": crop,
    "Deconvolution": deconvolution,
    "Dropout": dropout,
    "Eltwise": same,
    "EuclideanLoss": euclidean_loss,
    "ImageLabels": image_labels,
    "InnerProduct": inner_product,
    "Input": network_input,
    "LGLSTM": lg_lstm,
    "LGLSTMTransition": transition,
    "Pooling": pooling,
    "Power": same,
    "ReLU": same,
    "Reshape": reshape,
    "SegData": seg_data,
    "Silence": lambda layer, bottoms: Cost(),
    "Softmax": same,
    "SoftmaxWithLoss": softmax_loss,
    "Tile": tile,
}
