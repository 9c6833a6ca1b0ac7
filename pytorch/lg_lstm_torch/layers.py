"""Caffe's stock layers as PyTorch modules, with Caffe's rules where PyTorch's own differ.

LAYERS maps a layer type of the description to a function (options, shapes of its weights) ->
module. A module's parameters have the names of the Caffe blobs and are called with the bottoms.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lg_lstm import LGLSTM, LGLSTMTransition

Shapes = dict[str, list[int]]
Tops: TypeAlias = Tensor | tuple[Tensor, ...]


class Function(nn.Module):
    """A layer without weights: a function of the bottoms, with the layer's options as keywords.

    The function is one of a module's, never a closure, so that nets can be pickled.
    """

    def __init__(self, function: Callable[..., Tops], **options: Any):
        super().__init__()
        self.function, self.options = function, options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    def _get_name(self) -> str:
        return self.function.__name__

    def forward(self, *bottoms: Tensor) -> Tops:
        return self.function(*bottoms, **self.options)


class Pooling(nn.Module):
    """Caffe's pooling: sizes are rounded up, and an average counts the pad but nothing beyond.

    kernel, stride, pad: height and width; a kernel of None is the whole map. mask: whether to
    return where in its map each maximum was found, too.
    """

    def __init__(
        self,
        pool: str,
        kernel: list[int] | None,
        stride: list[int],
        pad: list[int],
        ceil: bool,
        mask: bool,
    ):
        super().__init__()
        self.pool, self.kernel, self.stride, self.pad, self.ceil = pool, kernel, stride, pad, ceil
        self.mask = mask

    def extra_repr(self) -> str:
        return f"{self.pool}, kernel={self.kernel}, stride={self.stride}, pad={self.pad}"

    def forward(self, x: Tensor) -> Tops:
        kernel = self.kernel or list(x.shape[-2:])
        if self.mask:
            top, where = F.max_pool2d(
                x, kernel, self.stride, self.pad, ceil_mode=self.ceil, return_indices=True
            )
            return top, where.to(top.dtype)
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
        weight = self.weight.T if self.transpose else self.weight
        flat = x.flatten(self.axis)
        if flat.shape[-1] != weight.shape[1]:
            raise ValueError(
                f"a bottom of shape {list(x.shape)} has {flat.shape[-1]} values from axis "
                f"{self.axis} on, but this layer has weights for {weight.shape[1]}; give the net "
                "inputs of its own size"
            )
        return F.linear(flat, weight, self.bias)


class BatchNorm(nn.Module):
    """Normalizes by stored statistics; these are sums, to be divided by `scale_factor`.

    In training mode, or always if `use_global_stats` is False and never if it is True, by the
    batch's own, which in training mode join the stored ones.
    """

    mean: Tensor
    variance: Tensor
    scale_factor: Tensor

    def __init__(
        self, shapes: Shapes, eps: float, use_global_stats: bool | None, moving_average: float
    ):
        super().__init__()
        self.eps, self.use_global_stats = eps, use_global_stats
        self.moving_average = moving_average
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        stored = not self.training if self.use_global_stats is None else self.use_global_stats
        if stored:
            factor = torch.where(self.scale_factor == 0, 0, 1 / self.scale_factor)
            mean, variance = self.mean * factor, self.variance * factor
            return F.batch_norm(x, mean, variance, eps=self.eps)
        if self.training:
            self._store(x.detach())
        return F.batch_norm(x, None, None, training=True, eps=self.eps)

    @torch.no_grad()
    def _store(self, x: Tensor) -> None:
        """Add the statistics of a batch to the sums, as Caffe does."""
        axes = [axis for axis in range(x.dim()) if axis != 1]
        count = x.numel() // self.mean.numel()
        self.scale_factor.mul_(self.moving_average).add_(1)
        self.mean.mul_(self.moving_average).add_(x.mean(axes))
        unbiased = max(1, count) / max(1, count - 1)
        self.variance.mul_(self.moving_average).add_(unbiased * x.var(axes, correction=0))


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

    across_processes: divide by the mean of the processes' counts of valid labels, so that the mean
    of their losses is the loss of all their images; see `Net.count_across_processes`.
    """

    def __init__(self, weight: float, ignore_label: int | None, normalization: str, axis: int):
        super().__init__()
        self.weight, self.ignore_label = weight, ignore_label
        self.normalization, self.axis = normalization, axis
        self.across_processes = False

    def extra_repr(self) -> str:
        return f"weight={self.weight}, ignore_label={self.ignore_label}, {self.normalization}"

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        images = math.prod(scores.shape[: self.axis % scores.dim()])  # as Caffe counts them
        scores = scores.movedim(self.axis, 1)
        labels = labels.reshape(len(scores), *scores.shape[2:]).long()
        ignore = -100 if self.ignore_label is None else self.ignore_label
        total = F.cross_entropy(scores, labels, ignore_index=ignore, reduction="sum")
        if self.normalization == "VALID":
            return self.weight * total / self._valid(labels != ignore)
        count = {"FULL": labels.numel(), "BATCH_SIZE": images, "NONE": 1}[self.normalization]
        return self.weight * total / max(1, count)

    def _valid(self, valid: Tensor) -> Tensor:
        count = valid.sum()
        if not self.across_processes:
            return count.clamp(min=1)
        torch.distributed.all_reduce(count)
        return count.clamp(min=1) / torch.distributed.get_world_size()


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


# --- The functions of layers without weights ------------------------------------------------------


def power(x: Tensor, power: float, scale: float, shift: float) -> Tensor:
    x = shift + scale * x
    return x if power == 1 else x**power


def eltwise(*bottoms: Tensor, operation: str, coeff: list[float]) -> Tensor:
    if operation == "PROD":
        return torch.stack(bottoms).prod(dim=0)
    if operation == "MAX":
        return torch.stack(bottoms).amax(dim=0)
    terms = (a if c == 1 else c * a for c, a in zip(coeff, bottoms, strict=True))
    return functools.reduce(torch.add, terms)


def concat(*bottoms: Tensor, axis: int) -> Tensor:
    return torch.cat(bottoms, dim=axis)


def slices(x: Tensor, axis: int, points: list[int], tops: int) -> tuple[Tensor, ...]:
    return tuple(x.tensor_split(points or tops, dim=axis))


def split(x: Tensor, tops: int) -> tuple[Tensor, ...]:
    return (x,) * tops


def silence(*bottoms: Tensor) -> tuple[Tensor, ...]:
    return ()


def crop(x: Tensor, like: Tensor, axis: int, offset: list[int]) -> Tensor:
    first = axis % x.dim()
    offsets = offset or [0]
    if len(offsets) == 1:
        offsets = offsets * (x.dim() - first)
    for along, start in enumerate(offsets, start=first):
        x = x.narrow(along, start, like.shape[along])
    return x


def lrn_within_channel(x: Tensor, size: int, alpha: float, beta: float) -> Tensor:
    mean = F.avg_pool2d(x * x, size, 1, size // 2)
    return x * (1 + alpha * mean).pow(-beta)


def reshape(x: Tensor, dims: list[int], axis: int, num_axes: int) -> Tensor:
    """Replace `num_axes` axes from `axis` on; a size of 0 is the bottom's, -1 what is left."""
    old = x.shape
    axis = axis if axis >= 0 else len(old) + axis + 1
    end = len(old) if num_axes < 0 else axis + num_axes
    sizes = [old[axis + i] if dim == 0 else dim for i, dim in enumerate(dims)]
    return x.reshape(*old[:axis], *sizes, *old[end:])


def tile(x: Tensor, axis: int, tiles: int) -> Tensor:
    return torch.cat([x] * tiles, dim=axis)


def image_labels(labels: Tensor, num_classes: int, ignore_label: int) -> Tensor:
    """1 / (number of classes shown) for each class that a label map (B, 1, H, W) shows."""
    ids = torch.arange(num_classes, device=labels.device)
    shown = ((labels.flatten(1)[:, :, None] == ids) & (ids != ignore_label)).any(dim=1).float()
    return shown / shown.sum(dim=1, keepdim=True).clamp(min=1)


def _function(function: Callable[..., Tops]) -> Callable[[dict, Shapes], nn.Module]:
    return lambda options, shapes: Function(function, **options)


# --- From options to modules ----------------------------------------------------------------------


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
    names = ("pool", "kernel", "stride", "pad", "ceil")
    mask = options.get("mask", False)  # older files lack it
    return Pooling(**{name: options[name] for name in names}, mask=mask)


def _relu(options: dict, shapes: Shapes) -> nn.Module:
    slope = options["negative_slope"]
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def _batch_norm(options: dict, shapes: Shapes) -> nn.Module:
    # Files of older versions lack the last two.
    use_global_stats = options.get("use_global_stats")
    moving_average = options.get("moving_average_fraction", 0.999)
    return BatchNorm(shapes, options["eps"], use_global_stats, moving_average)


def _lrn(options: dict, shapes: Shapes) -> nn.Module:
    size, alpha, beta, k = (options[name] for name in ("size", "alpha", "beta", "k"))
    if options["region"] == "ACROSS_CHANNELS":
        return nn.LocalResponseNorm(size, alpha, beta, k)
    return Function(lrn_within_channel, size=size, alpha=alpha, beta=beta)


def _loss(options: dict, shapes: Shapes) -> nn.Module:
    return SoftmaxWithLoss(**options)


LAYERS: dict[str, Callable[[dict, Shapes], nn.Module]] = {
    "AbsVal": _function(torch.abs),
    "BatchNorm": _batch_norm,
    "Bias": lambda options, shapes: Bias(shapes, options["axis"]),
    "Clip": lambda options, shapes: nn.Hardtanh(options["min"], options["max"]),
    "Concat": _function(concat),
    "Convolution": _convolution,
    "Crop": _function(crop),
    "Deconvolution": _deconvolution,
    "Dropout": lambda options, shapes: nn.Dropout(options["ratio"]),
    "ELU": lambda options, shapes: nn.ELU(options["alpha"]),
    "Eltwise": _function(eltwise),
    "EuclideanLoss": lambda options, shapes: EuclideanLoss(options["weight"]),
    "Flatten": lambda options, shapes: nn.Flatten(options["axis"], options["end_axis"]),
    "ImageLabels": _function(image_labels),
    "InnerProduct": lambda options, shapes: InnerProduct(
        shapes, options["axis"], options["transpose"]
    ),
    "LGLSTM": _lg_lstm,
    "LGLSTMTransition": _transition,
    "LRN": _lrn,
    "PReLU": lambda options, shapes: PReLU(shapes),
    "Pooling": _pooling,
    "Power": _function(power),
    "ReLU": _relu,
    "Reshape": _function(reshape),
    "Scale": lambda options, shapes: Scale(shapes, options["axis"]),
    "Sigmoid": lambda options, shapes: nn.Sigmoid(),
    "Silence": _function(silence),
    "Slice": _function(slices),
    "Softmax": lambda options, shapes: nn.Softmax(options["axis"]),
    "SoftmaxWithLoss": _loss,
    "Split": _function(split),
    "TanH": lambda options, shapes: nn.Tanh(),
    "Tile": _function(tile),
}
