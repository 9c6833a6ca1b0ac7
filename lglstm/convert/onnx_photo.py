"""From photos to a net and from its scores to label maps, inside an ONNX graph.

The same arithmetic as lglstm/common/preprocessing.py. No operator of ONNX averages over areas, but
stretching is linear along each axis: two products with matrices that the graph makes for the size
of its photo, so that it can take any. The names of the nodes begin with
PHOTO and LABELS.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from lglstm.caffe_files import Net
from lglstm.common.errors import InputError
from lglstm.common.preprocessing import MEAN_BGR
from lglstm.convert.description import LABELS, PHOTO
from lglstm.convert.onnx_nodes import Graph


def photo_to_input(g: Graph, net: Net, any_photo: bool) -> dict[str, str]:
    """From the photo to the net's input blob: stretched, if it may have any size, BGR, minus mean.

    Raises InputError for a net that takes no photo.
    """
    if len(net.inputs) != 1 or next(iter(net.inputs.values()))[1:2] != (3,):
        raise InputError(
            f"{net.path}: preprocessing needs one input of three channels; convert without it"
        )
    ((blob, shape),) = net.inputs.items()
    g.part = f"{PHOTO}/"
    planes = g.op("Cast", g.op("Transpose", PHOTO, perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    if any_photo:
        planes = _stretched(g, planes, shape[2], shape[3])
    bgr = g.op("Gather", planes, g.ints(2, 1, 0), axis=1)
    mean = g.constant("mean_bgr", np.array(MEAN_BGR, np.float32)[:, None, None])
    data = g.op("Sub", bgr, mean)
    g.part = ""
    return {blob: data}


def scores_to_labels(g: Graph, scores: str, classes: int) -> str:
    """The best class of each pixel of the photo: scores are stretched bilinearly, then compared.

    scores: (batch, classes, h, w). A tie goes to the lower id. Works class by class, so that memory
    does not grow with their number.
    """
    g.part = f"{LABELS}/"
    batch = g.op("Shape", PHOTO, start=0, end=1)
    size = g.op("Concat", batch, g.ints(1), g.op("Shape", PHOTO, start=1, end=3), axis=0)
    zero = numpy_helper.from_array(np.zeros(1, np.uint8))
    labels = g.op("ConstantOfShape", size, value=zero)
    best = ""
    for k, score in enumerate(g.split(scores, 1, [1] * classes)):
        resized = g.op(
            "Resize",
            score,
            "",
            "",
            size,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        if k:
            better = g.op("Greater", resized, best)
            labels = g.op("Where", better, g.constant(f"id:{k}", np.array(k, np.uint8)), labels)
            resized = g.op("Max", best, resized)
        best = resized
    return g.op("Squeeze", labels, g.ints(1))


def _stretched(g: Graph, planes: str, height: int, width: int) -> str:
    """(batch, 3, H, W) to (batch, 3, height, width)."""
    sizes = [g.op("Shape", planes, start=axis, end=axis + 1) for axis in (2, 3)]
    fits = [
        g.op("LessOrEqual", g.ints(target), size)
        for target, size in zip((height, width), sizes, strict=True)
    ]
    shrinks = g.op("And", *fits)
    down, across = (
        _stretching(g, size, target, shrinks)
        for target, size in zip((height, width), sizes, strict=True)
    )
    narrow = g.op("MatMul", planes, g.op("Transpose", across, perm=[1, 0]))
    return g.op("MatMul", down, narrow)


def _stretching(g: Graph, source: str, target: int, shrinks: str) -> str:
    """(target, source) float32: the share of each source pixel in each target pixel.

    Where the photo shrinks along both axes, its share of the area, else bilinear interpolation
    between centers. In double precision, as positions in a large photo need more than single.
    """
    n = g.op("Cast", source, to=TensorProto.DOUBLE)
    scale = g.op("Div", n, g.double(target))
    pixels = g.op("Range", g.double(0), g.op("Squeeze", n, g.ints(0)), g.double(1))
    index = np.arange(target, dtype=np.float64)[:, None]
    begin = g.op("Mul", g.constant(f"begin:{target}", index), scale)
    end = g.op("Mul", g.constant(f"end:{target}", index + 1), scale)
    last = g.op("Min", g.op("Add", pixels, g.double(1)), end)
    covered = g.op("Sub", last, g.op("Max", pixels, begin))
    area = g.op("Div", g.op("Max", covered, g.double(0)), scale)
    center = g.op("Mul", g.constant(f"center:{target}", index + 0.5), scale)
    at = g.op("Max", g.op("Sub", center, g.double(0.5)), g.double(0))
    at = g.op("Min", at, g.op("Sub", n, g.double(1)))
    distance = g.op("Abs", g.op("Sub", at, pixels))
    linear = g.op("Max", g.op("Sub", g.double(1), distance), g.double(0))
    return g.op("Cast", g.op("Where", shrinks, area, linear), to=TensorProto.FLOAT)
