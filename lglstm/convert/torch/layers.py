"""Caffe's stock layers as PyTorch modules, with Caffe's rules where PyTorch's own differ.

LAYERS maps a layer type of the description to a function (options, shapes of its weights) ->
module. A module's parameters have the names of the Caffe blobs and are called with the bottoms.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lg_lstm import LGLSTM, LGLSTMTransition

Shapes = dict[str, list[int]]
Tops: TypeAlias = Tensor | tuple[Tensor, ...]


class Function(nn.Module):
    """A layer without weights."""

    def __init__(self, function: Callable[..., Tops], note: str = ""):
        super().__init__()
        self.function, self.note = function, note

    def extra_repr(self) -> str:
        return self.note

    def forward(self, *bottoms: Tensor) -> Tops:
        return self.function(*bottoms)


class Pooling(nn.Module):
    """Caffe's pooling: sizes are rounded up, and an average counts the pad but nothing beyond.

    kernel, stride, pad: height and width; a kernel of None is the whole map.
    """

    def __init__(
        self, pool: str, kernel: list[int] | None, stride: list[int], pad: list[int], ceil: bool
    ):
        super().__init__()
        self.pool, self.kernel, self.stride, self.pad, self.ceil = pool, kernel, stride, pad, ceil

    def extra_repr(self) -> str:
        return f"{self.pool}, kernel={self.kernel}, stride={self.stride}, pad={self.pad}"

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel or list(x.shape[-2:])
        if self.pool == "MAX":
            return F.max_pool2d(x, kernel, self.stride, self.pad, ceil_mode=self.ceil)
        return F.avg_pool2d(x, kernel, self.stride, self.pad, self.ceil, count_include_pad=True)


class InnerProduct(nn.Module):
    """weight (out, in), or (in, out) when transposed, over all axes from `axis` on."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, shapes: Shapes, axis: int, transpose: bool):
        super().__init__()
        self.axis, self.transpose = axis, transpose
        parameters(self, shapes)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(
            x.flatten(self.axis), self.weight.T if self.transpose else self.weight, self.bias
        )


class BatchNorm(nn.Module):
    """Normalizes by stored statistics; these are sums, to be divided by `scale_factor`."""

    mean: Tensor
    variance: Tensor
    scale_factor: Tensor

    def __init__(self, shapes: Shapes, eps: float):
        super().__init__()
        self.eps = eps
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        factor = torch.where(self.scale_factor == 0, 0, 1 / self.scale_factor)
        mean, variance = self.mean * factor, self.variance * factor
        return F.batch_norm(x, mean, variance, eps=self.eps)


class Scale(nn.Module):
    """x times the weight, or times the second bottom, and plus a bias if there is one."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, shapes: Shapes, axis: int):
        super().__init__()
        self.axis = axis
        parameters(self, shapes)

    def forward(self, x: Tensor, *second: Tensor) -> Tensor:
        x = x * along(x, second[0] if second else self.weight, self.axis)
        return x if self.bias is None else x + along(x, self.bias, self.axis)


class Bias(nn.Module):
    """x plus the bias, or plus the second bottom."""

    bias: Tensor

    def __init__(self, shapes: Shapes, axis: int):
        super().__init__()
        self.axis = axis
        parameters(self, shapes)

    def forward(self, x: Tensor, *second: Tensor) -> Tensor:
        return x + along(x, second[0] if second else self.bias, self.axis)


class PReLU(nn.Module):
    """Caffe's PReLU: a weight for each channel, or one for all."""

    weight: Tensor

    def __init__(self, shapes: Shapes):
        super().__init__()
        parameters(self, shapes)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight.reshape(-1))


class SoftmaxWithLoss(nn.Module):
    """Cross-entropy of scores (B, C, …) against labels (B, 1, …) of ids, times `weight`.

    Caffe counts no position as more than 87.3, the logarithm of the smallest float, which changes
    the number that is printed but no gradient; here there is no such ceiling.
    """

    def __init__(self, weight: float, ignore_label: int | None, normalization: str, axis: int):
        super().__init__()
        self.weight, self.ignore_label = weight, ignore_label
        self.normalization, self.axis = normalization, axis

    def extra_repr(self) -> str:
        return f"weight={self.weight}, ignore_label={self.ignore_label}, {self.normalization}"

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        scores = scores.movedim(self.axis, 1)
        labels = labels.reshape(len(scores), *scores.shape[2:]).long()
        ignore = -100 if self.ignore_label is None else self.ignore_label
        total = F.cross_entropy(scores, labels, ignore_index=ignore, reduction="sum")
        count = {
            "FULL": labels.numel(),
            "VALID": (labels != ignore).sum(),
            "BATCH_SIZE": len(labels),
            "NONE": 1,
        }[self.normalization]
        return self.weight * total / torch.as_tensor(count, device=scores.device).clamp(min=1)


class EuclideanLoss(nn.Module):
    """Half the squared distance per image, times `weight`."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return self.weight * (x - target).square().sum() / (2 * len(x))


def parameters(module: nn.Module, shapes: Shapes) -> None:
    """Give the module a parameter for each blob; `weight` and `bias` that are absent are None."""
    for name in ("weight", "bias"):
        module.register_parameter(name, None)
    for name, shape in shapes.items():
        module.register_parameter(name, nn.Parameter(torch.zeros(shape)))


def along(x: Tensor, factor: Tensor, axis: int) -> Tensor:
    """`factor` shaped so that its axes meet those of x from `axis` on."""
    if factor.dim() == 0:
        return factor
    axis = axis % x.dim()
    return factor.reshape(factor.shape + (1,) * (x.dim() - axis - factor.dim()))


def _convolution(options: dict, shapes: Shapes) -> nn.Module:
    return nn.Conv2d(
        shapes["weight"][1] * options["group"],
        options["num_output"],
        options["kernel"],
        stride=options["stride"],
        padding=options["pad"],
        dilation=options["dilation"],
        groups=options["group"],
        bias=options["bias_term"],
    )


def _deconvolution(options: dict, shapes: Shapes) -> nn.Module:
    return nn.ConvTranspose2d(
        shapes["weight"][0],
        options["num_output"],
        options["kernel"],
        stride=options["stride"],
        padding=options["pad"],
        dilation=options["dilation"],
        groups=options["group"],
        bias=options["bias_term"],
    )


def _transition(options: dict, shapes: Shapes) -> nn.Module:
    names = ("num_output", "neighbors", "global_grid", "bias_term")
    return LGLSTMTransition(shapes["weight"][2], *(options[name] for name in names))


def _lg_lstm(options: dict, shapes: Shapes) -> nn.Module:
    names = ("num_output", "neighbors", "global_grid", "share_spatial", "bias_term")
    return LGLSTM(*(options[name] for name in names))


def _pooling(options: dict, shapes: Shapes) -> nn.Module:
    return Pooling(*(options[name] for name in ("pool", "kernel", "stride", "pad", "ceil")))


def _relu(options: dict, shapes: Shapes) -> nn.Module:
    slope = options["negative_slope"]
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def _power(options: dict, shapes: Shapes) -> nn.Module:
    power, scale, shift = (options[name] for name in ("power", "scale", "shift"))

    def compute(x: Tensor) -> Tensor:
        x = shift + scale * x
        return x if power == 1 else x**power

    return Function(compute, f"({shift} + {scale} x) ^ {power}")


def _eltwise(options: dict, shapes: Shapes) -> nn.Module:
    operation, coefficients = options["operation"], options["coeff"]

    def compute(*bottoms: Tensor) -> Tensor:
        if operation == "PROD":
            return torch.stack(bottoms).prod(dim=0)
        if operation == "MAX":
            return torch.stack(bottoms).amax(dim=0)
        terms = (a if c == 1 else c * a for c, a in zip(coefficients, bottoms, strict=True))
        return functools.reduce(torch.add, terms)

    return Function(compute, operation)


def _concat(options: dict, shapes: Shapes) -> nn.Module:
    return Function(lambda *bottoms: torch.cat(bottoms, dim=options["axis"]))


def _slice(options: dict, shapes: Shapes) -> nn.Module:
    axis = options["axis"]
    where = options["points"] or options["tops"]
    return Function(lambda x: x.tensor_split(where, dim=axis))


def _crop(options: dict, shapes: Shapes) -> nn.Module:
    def compute(x: Tensor, like: Tensor) -> Tensor:
        first = options["axis"] % x.dim()
        offsets = options["offset"] or [0]
        if len(offsets) == 1:
            offsets = offsets * (x.dim() - first)
        for axis, offset in enumerate(offsets, start=first):
            x = x.narrow(axis, offset, like.shape[axis])
        return x

    return Function(compute)


def _lrn(options: dict, shapes: Shapes) -> nn.Module:
    size, alpha, beta, k = (options[name] for name in ("size", "alpha", "beta", "k"))
    if options["region"] == "ACROSS_CHANNELS":
        return nn.LocalResponseNorm(size, alpha, beta, k)
    return Function(lambda x: x * (1 + alpha * F.avg_pool2d(x * x, size, 1, size // 2)).pow(-beta))


def _reshape(options: dict, shapes: Shapes) -> nn.Module:
    def compute(x: Tensor) -> Tensor:
        old = x.shape
        axis = options["axis"] if options["axis"] >= 0 else len(old) + options["axis"] + 1
        end = len(old) if options["num_axes"] < 0 else axis + options["num_axes"]
        dims = [old[axis + i] if dim == 0 else dim for i, dim in enumerate(options["dims"])]
        return x.reshape(*old[:axis], *dims, *old[end:])

    return Function(compute, str(options["dims"]))


def _tile(options: dict, shapes: Shapes) -> nn.Module:
    axis, tiles = options["axis"], options["tiles"]
    return Function(lambda x: torch.cat([x] * tiles, dim=axis), f"{tiles} times, axis {axis}")


def _image_labels(options: dict, shapes: Shapes) -> nn.Module:
    """1 / (number of classes shown) for each class that a label map (B, 1, H, W) shows."""

    def compute(labels: Tensor) -> Tensor:
        ids = torch.arange(options["num_classes"], device=labels.device)
        shown = (labels.flatten(1)[:, :, None] == ids).any(dim=1).float()
        return shown / shown.sum(dim=1, keepdim=True).clamp(min=1)

    return Function(compute)


def _loss(options: dict, shapes: Shapes) -> nn.Module:
    return SoftmaxWithLoss(**options)


LAYERS: dict[str, Callable[[dict, Shapes], nn.Module]] = {
    "AbsVal": lambda options, shapes: Function(torch.abs),
    "BatchNorm": lambda options, shapes: BatchNorm(shapes, options["eps"]),
    "Bias": lambda options, shapes: Bias(shapes, options["axis"]),
    "Clip": lambda options, shapes: nn.Hardtanh(options["min"], options["max"]),
    "Concat": _concat,
    "Convolution": _convolution,
    "Crop": _crop,
    "Deconvolution": _deconvolution,
    "Dropout": lambda options, shapes: nn.Dropout(options["ratio"]),
    "ELU": lambda options, shapes: nn.ELU(options["alpha"]),
    "Eltwise": _eltwise,
    "EuclideanLoss": lambda options, shapes: EuclideanLoss(options["weight"]),
    "Flatten": lambda options, shapes: nn.Flatten(options["axis"], options["end_axis"]),
    "ImageLabels": _image_labels,
    "InnerProduct": lambda options, shapes: InnerProduct(
        shapes, options["axis"], options["transpose"]
    ),
    "LGLSTM": _lg_lstm,
    "LGLSTMTransition": _transition,
    "LRN": _lrn,
    "PReLU": lambda options, shapes: PReLU(shapes),
    "Pooling": _pooling,
    "Power": _power,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Scale": lambda options, shapes: Scale(shapes, options["axis"]),
    "Sigmoid": lambda options, shapes: nn.Sigmoid(),
    "Silence": lambda options, shapes: Function(lambda *bottoms: ()),
    "Slice": _slice,
    "Softmax": lambda options, shapes: nn.Softmax(options["axis"]),
    "SoftmaxWithLoss": _loss,
    "Split": lambda options, shapes: Function(lambda x: (x,) * options["tops"]),
    "TanH": lambda options, shapes: nn.Tanh(),
    "Tile": _tile,
}
