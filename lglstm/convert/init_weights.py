"""Initial weights of the LargeFOV nets from a VGG-16 in whatever form people have it.

Read are Caffe's models (old V1 layers too), torchvision's `vgg16` as .pth or .safetensors, and .npz
files with `conv1_1_w`, `conv1_1_b`, …; the result has the layers conv1_1 … conv5_3, fc6 and fc7 for
images in BGR, 0 … 255 minus the mean of `lglstm.common.preprocessing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lglstm.caffe_files import read_blobs, write_caffemodel
from lglstm.caffe_files.schema import LayerParameter
from lglstm.common.errors import InputError
from lglstm.common.files import write_text
from lglstm.common.hashing import sha256_of
from lglstm.common.preprocessing import MEAN_BGR
from lglstm.convert.containers import read_arrays, without_wrappers

Array = NDArray[np.float32]
Weights = dict[str, tuple[Array, Array]]
"""Layer name → (weight, bias)."""

CONVOLUTIONS = [
    f"conv{stage}_{i}"
    for stage, count in enumerate((2, 2, 3, 3, 3), 1)
    for i in range(1, count + 1)
]
LAYERS = [*CONVOLUTIONS, "fc6", "fc7"]

VGG_MEAN_BGR = (103.939, 116.779, 123.68)  # what the authors of VGG-16 subtracted

# torchvision: channels RGB, pixels / 255 minus mean, divided by the deviation
TORCHVISION_MEAN_RGB = (0.485, 0.456, 0.406)
TORCHVISION_STD_RGB = (0.229, 0.224, 0.225)
TORCHVISION_NAMES = {
    f"features.{index}": name
    for index, name in zip(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), CONVOLUTIONS, strict=True
    )
} | {"classifier.0": "fc6", "classifier.3": "fc7"}


@dataclass(frozen=True)
class Step:
    """What happened to one layer: `action` is copied, decimated, or left at its initialization."""

    layer: str
    action: str
    detail: str


@dataclass(frozen=True)
class InitialWeights:
    """Weights for the layers of a net, and what was done to get them."""

    weights: Weights
    steps: list[Step]


def initial_weights(
    source: Path,
    shapes: Mapping[str, tuple[tuple[int, ...], ...]],
    correct_mean: bool = False,
) -> InitialWeights:
    """Turn a VGG-16 file into weights for a net whose learnable shapes are given by layer name.

    correct_mean: let the bias of conv1_1 make up exactly for the mean that the source's images had,
    where it differs from ours (torchvision's always does, and is always corrected).
    Raises InputError when a layer of the source does not fit, naming it and both shapes.
    """
    values = sum(math.prod(shape) for wanted in shapes.values() for shape in wanted)
    weights = read_source(source, correct_mean, values)
    result: Weights = {}
    steps = []
    for layer, wanted in shapes.items():
        if layer not in weights:
            steps.append(Step(layer, "left at its initialization", shape_text(wanted[0])))
            continue
        weight, bias = weights[layer]
        result[layer] = fit(source, layer, weight, bias, wanted)
        before, after = shape_text(weight.shape), shape_text(wanted[0])
        copied = weight.size == result[layer][0].size
        detail = after if before == after else f"{before} → {after}"
        steps.append(Step(layer, "copied" if copied else "decimated", detail))
    if not result:
        raise InputError(f"{source}: has none of the layers of this net ({', '.join(shapes)})")
    return InitialWeights(result, steps)


def read_source(source: Path, correct_mean: bool = False, values: int = 0) -> Weights:
    """Read the VGG-16 layers of a file, for BGR images minus our mean.

    values: how many numbers the net has, for `containers.Allowance`.
    """
    if source.suffix not in READERS:
        raise InputError(f"{source}: give a file that ends in {', '.join(READERS)}")
    weights = READERS[source.suffix](source, values)
    missing = [name for name in CONVOLUTIONS if name not in weights]
    if missing:
        raise InputError(f"{source}: has no {missing[0]}; give the weights of a VGG-16")
    for name, arrays in weights.items():
        if not all(np.isfinite(array).all() for array in arrays):
            raise InputError(
                f"{source}: {name} has values that are not numbers; get the file again"
            )
    _check_first_layer(source, *weights["conv1_1"])
    if source.suffix in (".pth", ".safetensors"):
        weights["conv1_1"] = from_torchvision(*weights["conv1_1"])
    elif correct_mean:
        weights["conv1_1"] = from_mean(*weights["conv1_1"], VGG_MEAN_BGR)
    return weights


def _check_first_layer(source: Path, weight: Array, bias: Array) -> None:
    """Raise InputError unless conv1_1 is a convolution of photos, which its corrections take."""
    if weight.ndim != 4 or weight.shape[1] != 3 or bias.size != len(weight):
        raise InputError(
            f"{source}: conv1_1 has weights {shape_text(weight.shape)} and biases "
            f"{shape_text(bias.shape)}, which are no convolution of photos; give the weights of a "
            "VGG-16"
        )


def from_torchvision(weight: Array, bias: Array) -> tuple[Array, Array]:
    """Turn a first layer for torchvision's images into one for ours.

    With pixel p, torchvision feeds (p / 255 - mean) / std and we feed p minus our mean: the scale
    goes into the weights, the offset into the bias. At the border, where zero padding means
    the mean of either, the two differ.
    """
    mean, std = np.array(TORCHVISION_MEAN_RGB), np.array(TORCHVISION_STD_RGB)
    scaled = weight.astype(np.float64) / (255 * std)[:, None, None]
    return from_mean(scaled[:, ::-1], bias, tuple(255 * mean[::-1]))


def from_mean(weight: NDArray, bias: Array, mean_bgr: tuple[float, ...]) -> tuple[Array, Array]:
    """Turn a first layer for images minus `mean_bgr` into one for images minus our mean."""
    offset = np.array(MEAN_BGR, np.float64) - mean_bgr
    moved = bias.reshape(-1) + np.einsum("oihw,i->o", weight.astype(np.float64), offset)
    return weight.astype(np.float32), moved.astype(np.float32)


def fit(
    source: Path, layer: str, weight: Array, bias: Array, wanted: tuple[tuple[int, ...], ...]
) -> tuple[Array, Array]:
    """Return weight and bias in the shapes of the net: as they are, or fc6 and fc7 decimated."""
    try:
        maps = as_convolution(layer, weight, wanted[0])
        if layer not in ("fc6", "fc7") and maps.shape != wanted[0]:
            raise ValueError
        picked = decimate(maps, wanted[0])
        return picked, decimate(bias.reshape(-1), wanted[1])
    except ValueError:
        raise InputError(
            f"{source}: {layer} has weights {shape_text(weight.shape)} and biases "
            f"{shape_text(bias.shape)}, which do not fit {' and '.join(map(shape_text, wanted))} "
            "of this net; give the weights of a VGG-16"
        ) from None


def as_convolution(layer: str, weight: Array, wanted: tuple[int, ...]) -> Array:
    """Give a fully connected layer's weights the axes (outputs, inputs, height, width)."""
    if layer not in ("fc6", "fc7") or (weight.ndim == 4 and weight.shape[:2] != (1, 1)):
        return weight
    outputs, inputs = weight.shape[-2:]
    if layer == "fc7":
        return weight.reshape(outputs, inputs, 1, 1)
    side = round((inputs / wanted[1]) ** 0.5)
    return weight.reshape(outputs, wanted[1], side, side)


def decimate(array: Array, wanted: tuple[int, ...]) -> Array:
    """Keep every k-th channel of the first axes and evenly spaced taps, ends included, of the rest.

    fc6 (4096, 512, 7, 7) → (1024, 512, 3, 3) keeps outputs 0, 4, 8, … and taps 0, 3, 6. Raises
    ValueError when the axes don't divide so.
    """
    if array.ndim != len(wanted):
        raise ValueError
    for axis, (length, count) in enumerate(zip(array.shape, wanted, strict=True)):
        span = length if axis < 2 else length - 1
        steps = count if axis < 2 else max(1, count - 1)
        if length < count or span % steps or (axis >= 2 and count == 1 < length):
            raise ValueError
        array = np.take(array, np.arange(count) * (span // steps), axis=axis)
    return np.ascontiguousarray(array, np.float32)


def shape_text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "of one number"


# ------------------------------------------------------------------------------------ reading


def read_caffe(source: Path, values: int) -> Weights:
    """Read a .caffemodel, with today's layers or with V1 layers (before 2015)."""
    return {
        name: (blobs[0], blobs[1])
        for name, blobs in read_blobs(source).items()
        if name in LAYERS and len(blobs) == 2
    }


def read_npz(source: Path, values: int) -> Weights:
    """Read an .npz with `<layer>_w` and `<layer>_b` for each layer."""
    arrays = read_arrays(source, "npz", values)
    return {
        name: (arrays[f"{name}_w"], arrays[f"{name}_b"])
        for name in LAYERS
        if f"{name}_w" in arrays and f"{name}_b" in arrays
    }


def read_torchvision(source: Path, values: int) -> Weights:
    """Read torchvision's state dict: safetensors, or a .pth through PyTorch's safe reader."""
    keys = frozenset(f"{key}.weight" for key in TORCHVISION_NAMES)
    tensors = without_wrappers(read_arrays(source, source.suffix[1:], values), keys)
    batch_norm = [name for name in tensors if name.endswith("running_mean")]
    if batch_norm:
        raise InputError(f"{source}: has batch normalization ({batch_norm[0]}); give plain vgg16")
    return {
        name: (tensors[f"{key}.weight"], tensors[f"{key}.bias"])
        for key, name in TORCHVISION_NAMES.items()
        if f"{key}.weight" in tensors and f"{key}.bias" in tensors
    }


READERS: dict[str, Callable[[Path, int], Weights]] = {
    ".caffemodel": read_caffe,
    ".pth": read_torchvision,
    ".safetensors": read_torchvision,
    ".npz": read_npz,
}


# ------------------------------------------------------------------------------------ writing


def write_initial_weights(weights: Weights, destination: Path) -> str:
    """Write the weights as convolutions of a .caffemodel; return its SHA-256, written beside it."""
    layers = [
        (LayerParameter(name=name, type="Convolution"), arrays) for name, arrays in weights.items()
    ]
    write_caffemodel(destination, "vgg16_largefov", layers)
    digest = sha256_of(destination)
    # Names need not be text in any encoding; sha256sum compares their bytes.
    line = f"{digest}  {destination.name}\n"
    write_text(f"{destination}.sha256", line, errors="surrogateescape")
    return digest
