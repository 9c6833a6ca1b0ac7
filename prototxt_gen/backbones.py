"""The convolutional nets below the LG-LSTM layers: LargeFOV, Co-CNN and the demo's.

Each function reads like the layer tables of its paper: it adds its layers to the NetSpec `n`, on
top of `n.data`, and returns the map that feeds the transition or the prediction.
"""

# ruff: noqa: C408 (dict(…) reads like the keyword arguments of NetSpec)
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from caffe import layers as L
from caffe import params as P
from caffe.net_spec import NetSpec, Top

from lglstm.prototxt_gen.options import CoCNN, Demo, LargeFOV, ModelOptions


@dataclass(frozen=True)
class Features:
    """What a backbone hands on.

    top, channels: the feature map (B, channels, h, w).
    label_scores: (B, classes, h, w), the image's label probabilities at every position, or None.
    label_probabilities: (B, classes), or None.
    """

    top: Top
    channels: int
    label_scores: Top | None = None
    label_probabilities: Top | None = None


def backbone(n: NetSpec, options: ModelOptions) -> Features:
    """Add the convolutional part of the family of `options`."""
    build = {LargeFOV: largefov, CoCNN: co_cnn, Demo: small}
    return build[type(options)](n, options)


# ---------------------------------------------------------------------------------- LargeFOV


def largefov(n: NetSpec, options: LargeFOV) -> Features:
    """DeepLab-LargeFOV: VGG-16 without the strides of pool4 and pool5, wide fc6 (facts of [3])."""
    lr = options.pretrained_lr_mult
    scale = lambda channels: max(1, round(channels * options.width))  # noqa: E731
    top = n.data
    # (stage, convolutions, filters, dilation, stride of its pooling)
    for stage, convs, filters, dilation, stride in (
        (1, 2, 64, 1, 2),
        (2, 2, 128, 1, 2),
        (3, 3, 256, 1, 2),
        (4, 3, 512, 1, 1),
        (5, 3, 512, 2, 1),
    ):
        for i in range(1, convs + 1):
            top = conv_relu(
                n, f"{stage}_{i}", top, scale(filters), 3, options, dilation=dilation, lr=lr
            )
        n[f"pool{stage}"] = top = L.Pooling(
            top, pool=P.Pooling.MAX, kernel_size=3, stride=stride, pad=1
        )
    if options.lg_lstm_after == "pool5":
        return Features(top, scale(512))
    if options.pool5a:
        n.pool5a = top = L.Pooling(top, pool=P.Pooling.AVE, kernel_size=3, stride=1, pad=1)
    new = dict(lr=1.0, filler=options.fc_filler, std=options.fc_std)
    fc = dict(lr=lr) if options.fc_pretrained else new
    filters = scale(options.fc_channels)
    for i, kernel, dilation in ((6, 3, options.fc6_dilation), (7, 1, 1)):
        top = conv_relu(n, i, top, filters, kernel, options, prefix="fc", dilation=dilation, **fc)
        n[f"drop{i}"] = top = L.Dropout(top, dropout_ratio=options.dropout, in_place=True)
        if options.lg_lstm_after == f"fc{i}":
            break
    return Features(top, filters)


# ------------------------------------------------------------------------------------ Co-CNN


def co_cnn(n: NetSpec, options: CoCNN) -> Features:
    """Co-CNN: encoder over four resolutions, image-label branch, decoder with cross-layer sums.

    Every convolution has stride 1 and keeps its map's size; the image's label probabilities, when
    that branch is there, are concatenated to the map of every resolution on the way up.
    """
    channels, kernel = options.channels, options.kernel
    sizes = co_cnn_sizes(options.input_size)
    encoder = []  # the last map of each resolution but the coarsest, for the cross-layer sums
    image = top = scaled_image(n, options)
    for stage in (1, 2, 3, 4):
        if stage > 1:
            encoder.append(top)
            n[f"pool{stage - 1}"] = top = L.Pooling(
                top, pool=P.Pooling.MAX, kernel_size=3, stride=2
            )
        first = options.first_channels if stage == 1 else channels
        top = conv_relu(n, f"{stage}_1", top, first, kernel, options)
        top = conv_relu(n, f"{stage}_2", top, channels, kernel, options)

    probabilities = image_label(n, top, options) if options.image_label else None

    def with_labels(name: str, top: Top, size: tuple[int, int]) -> Top:
        if probabilities is None:
            return top
        n[f"{name}_labels"] = L.Concat(top, tiled(n, probabilities, size))
        return n[f"{name}_labels"]

    top = conv_relu(n, "4_3", with_labels("conv4_2", top, sizes[3]), channels, kernel, options)
    for stage in (3, 2, 1):
        size = sizes[stage - 1]
        top = upsampled(n, f"up{stage}", top, encoder[stage - 1], options)
        top = conv_relu(n, f"{stage}_1", top, channels, kernel, options, prefix="decoder")
        n[f"sum{stage}"] = L.Eltwise(top, encoder[stage - 1], operation=P.Eltwise.SUM)
        top = with_labels(f"sum{stage}", n[f"sum{stage}"], size)
        top = conv_relu(n, f"{stage}_2", top, channels, kernel, options, prefix="decoder")

    label_scores = tiled(n, probabilities, sizes[0]) if probabilities else None
    if options.lg_lstm_after == "decoder1":
        return Features(top, channels, label_scores, probabilities)
    if options.image_skip:
        skip = conv_relu(n, "_image", image, channels, kernel, options)
        n.sum_image = L.Eltwise(top, skip, operation=P.Eltwise.SUM)
        top = with_labels("sum_image", n.sum_image, sizes[0])
    top = conv_relu(n, "_last", top, options.last_channels, 3, options)
    return Features(top, options.last_channels, label_scores, probabilities)


def co_cnn_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The four resolutions: Caffe rounds up what a 3×3 pooling of stride 2 leaves."""
    sizes = [size]
    for _ in range(3):
        size = tuple(-(-(length - 3) // 2) + 1 for length in size)
        sizes.append(size)
    return sizes


def image_label(n: NetSpec, top: Top, options: CoCNN) -> Top:
    """Predict which labels the image shows: (B, classes) probabilities."""
    conv_relu(n, "_labels", top, options.image_label_conv, 1, options)
    n.fc_labels = L.InnerProduct(
        n.conv_labels,
        num_output=options.image_label_fc,
        weight_filler=filler(options),
        param=learning_rates(options),
    )
    n.relu_fc_labels = L.ReLU(n.fc_labels, in_place=True)
    n.drop_fc_labels = L.Dropout(
        n.relu_fc_labels, dropout_ratio=options.image_label_dropout, in_place=True
    )
    n.label_scores = L.InnerProduct(
        n.drop_fc_labels,
        num_output=options.num_classes,
        weight_filler=filler(options),
        param=learning_rates(options),
    )
    n.label_probabilities = L.Softmax(n.label_scores)
    return n.label_probabilities


def tiled(n: NetSpec, probabilities: Top, size: tuple[int, int]) -> Top:
    """Repeat (B, classes) at every position of a map: (B, classes, h, w); made once per size."""
    name = "labels_{}x{}".format(*size)
    if name not in n.tops:
        if "label_column" not in n.tops:
            n.label_column = L.Reshape(probabilities, shape=dict(dim=[0, 0, 1, 1]))
        n[f"{name}_rows"] = L.Tile(n.label_column, axis=2, tiles=size[0])
        n[name] = L.Tile(n[f"{name}_rows"], axis=3, tiles=size[1])
    return n[name]


def upsampled(n: NetSpec, name: str, top: Top, like: Top, options: CoCNN) -> Top:
    """Double a map's size and cut it to the size of `like`.

    Kernel 3, stride 2, no padding is the pooling turned round: position i of the coarse map lands
    on the center 2i + 1 of the window that it was pooled from.
    """
    fixed = options.upsampling == "bilinear"
    n[f"{name}_whole"] = L.Deconvolution(
        top,
        convolution_param=dict(
            num_output=options.channels,
            group=options.channels,
            kernel_size=3,
            stride=2,
            bias_term=False,
            weight_filler=dict(type="bilinear"),
        ),
        param=[dict(lr_mult=0, decay_mult=0) if fixed else dict(lr_mult=1, decay_mult=1)],
    )
    n[name] = L.Crop(n[f"{name}_whole"], like, axis=2)
    return n[name]


# -------------------------------------------------------------------------------------- demo


def small(n: NetSpec, options: Demo) -> Features:
    """The demo's net: 3×3 convolutions; the first ones are followed by a pooling by 2."""
    top = scaled_image(n, options)
    for i, filters in enumerate(options.widths, start=1):
        top = conv_relu(n, i, top, filters, 3, options)
        if i <= options.poolings:
            n[f"pool{i}"] = top = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=3, stride=2, pad=1)
    return Features(top, options.widths[-1])


def extra_convolutions(n: NetSpec, features: Features, options: ModelOptions) -> list[Features]:
    """Stack the 3×3 convolutions that stand in for LG-LSTM layers; return every one's output."""
    filters = options.extra_conv_filters or options.local_channels
    outputs = []
    top = features.top
    for i in range(1, options.extra_convs + 1):
        top = conv_relu(n, i, top, filters, 3, options, prefix="extra")
        outputs.append(Features(top, filters, features.label_scores, features.label_probabilities))
    return outputs


# -------------------------------------------------------------------------- shared by all nets


def scaled_image(n: NetSpec, options: CoCNN | Demo) -> Top:
    """The image times `input_scale`: a net from scratch need not bear pixels in the hundreds."""
    if options.input_scale == 1:
        return n.data
    n.scaled = L.Power(n.data, scale=options.input_scale)
    return n.scaled


def conv_relu(
    n: NetSpec,
    suffix: object,
    bottom: Top,
    filters: int,
    kernel: int,
    options: ModelOptions,
    *,
    prefix: str = "conv",
    dilation: int = 1,
    lr: float = 1.0,
    filler: str = "",
    std: float | None = None,
) -> Top:
    """Add `conv<suffix>` and its ReLU; the padding keeps the map's size."""
    name = f"{prefix}{suffix}"
    dilated: dict[str, Any] = dict(dilation=dilation) if dilation > 1 and kernel > 1 else {}
    n[name] = L.Convolution(
        bottom,
        num_output=filters,
        kernel_size=kernel,
        pad=dilation * (kernel // 2),
        weight_filler=weight_filler(
            filler or options.conv_filler, options.conv_std if std is None else std
        ),
        param=learning_rates(options, lr),
        **dilated,
    )
    n[f"relu{suffix}" if prefix == "conv" else f"relu_{name}"] = top = L.ReLU(
        n[name], in_place=True
    )
    return top


def filler(options: ModelOptions) -> dict[str, Any]:
    """How the weights of a new convolution start."""
    return weight_filler(options.conv_filler, options.conv_std)


def weight_filler(kind: str, std: float) -> dict[str, Any]:
    return dict(type="gaussian", std=std) if kind == "gaussian" else dict(type=kind)


def learning_rates(options: ModelOptions, lr: float = 1.0) -> list[dict[str, float]]:
    """The `param` entries of a layer's weights and bias, relative to the solver's rates."""
    return [
        dict(lr_mult=lr, decay_mult=1),
        dict(lr_mult=lr * options.bias_lr_mult, decay_mult=options.bias_decay_mult),
    ]
