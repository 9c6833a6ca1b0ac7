"""Caffe's fillers: how weights start that no file brings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lglstm.caffe_files.layer_types import Shape

if TYPE_CHECKING:
    from lglstm.caffe_files.schema import Message

FIXED = ("constant", "bilinear")
"""The fillers without chance."""


def fill(filler: Message, shape: Shape, rng: np.random.Generator) -> np.ndarray | None:
    """Weights by a FillerParameter, float32; None for a type that is not implemented here.

    They have Caffe's distributions, not its numbers: its random generator is another.
    """
    values = _values(filler, shape, rng)
    return None if values is None else np.asarray(values, np.float32)


def _values(filler: Message, shape: Shape, rng: np.random.Generator) -> np.ndarray | None:
    if filler.type == "constant":
        return np.full(shape, filler.value)
    if filler.type == "bilinear":
        return bilinear(shape)
    if filler.type == "uniform":
        return rng.uniform(filler.min, filler.max, shape)
    if filler.type == "gaussian" and filler.sparse < 0:
        return rng.normal(filler.mean, filler.std, shape)
    if filler.type == "xavier":
        bound = math.sqrt(3 / _inputs(filler, shape))
        return rng.uniform(-bound, bound, shape)
    if filler.type == "msra":
        return rng.normal(0, math.sqrt(2 / _inputs(filler, shape)), shape)
    return None


def _inputs(filler: Message, shape: Shape) -> float:
    """The count by which xavier and msra scale: of inputs, of outputs, or the mean of both."""
    count = math.prod(shape)
    fan_in, fan_out = count / shape[0], count / shape[1] if len(shape) > 1 else count
    return (fan_in, fan_out, (fan_in + fan_out) / 2)[filler.variance_norm]


def bilinear(shape: Shape) -> np.ndarray:
    """The weights of Caffe's bilinear filler, an upsampling Deconvolution's."""
    size = shape[-1]
    factor = (size + 1) // 2
    center = (size - 1) / (2 * factor)
    ramp = 1 - np.abs(np.arange(size) / factor - center)
    return np.broadcast_to(np.outer(ramp, ramp), shape).astype(np.float32)
