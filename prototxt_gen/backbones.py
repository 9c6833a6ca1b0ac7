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
    match options:
        case LargeFOV():
            return largefov(n, options)
        case CoCNN():
            return co_cnn(n, options)
        case Demo():
            return small(n, options)
    raise TypeError(f"no backbone for {type(options).__name__}")


# ---------------------------------------------------------------------------------- LargeFOV


def largefov(n: NetSpec, options: LargeFOV) -> Features:
    """DeepLab-LargeFOV: VGG-16 without the strides of pool4 and pool5, and a wide fc6 ([3])."""
    lr = options.pretrained_lr_mult
    scaled = lambda filters: max(1, round(filters * options.width))  # noqa: E731

    def conv(bottom: Top, filters: int, dilation: int = 1) -> tuple[Top, Top]:
        return conv_relu(bottom, scaled(filters), 3, options, dilation=dilation, lr=lr)

    def fc(bottom: Top, kernel: int, dilation: int = 1) -> tuple[Top, Top]:
        new = dict(lr=1.0, filler=options.fc_filler, std=options.fc_std)
        start = dict(lr=lr) if options.fc_pretrained else new
        filters = scaled(options.fc_channels)
        return conv_relu(bottom, filters, kernel, options, dilation=dilation, **start)

    n.conv1_1, n.relu1_1 = conv(n.data, 64)
    n.conv1_2, n.relu1_2 = conv(n.relu1_1, 64)
    n.pool1 = max_pool(n.relu1_2, stride=2, pad=1)
    n.conv2_1, n.relu2_1 = conv(n.pool1, 128)
    n.conv2_2, n.relu2_2 = conv(n.relu2_1, 128)
    n.pool2 = max_pool(n.relu2_2, stride=2, pad=1)
    n.conv3_1, n.relu3_1 = conv(n.pool2, 256)
    n.conv3_2, n.relu3_2 = conv(n.relu3_1, 256)
    n.conv3_3, n.relu3_3 = conv(n.relu3_2, 256)
    n.pool3 = max_pool(n.relu3_3, stride=2, pad=1)
    n.conv4_1, n.relu4_1 = conv(n.pool3, 512)
    n.conv4_2, n.relu4_2 = conv(n.relu4_1, 512)
    n.conv4_3, n.relu4_3 = conv(n.relu4_2, 512)
    n.pool4 = max_pool(n.relu4_3, stride=1, pad=1)
    n.conv5_1, n.relu5_1 = conv(n.pool4, 512, dilation=2)
    n.conv5_2, n.relu5_2 = conv(n.relu5_1, 512, dilation=2)
    n.conv5_3, n.relu5_3 = conv(n.relu5_2, 512, dilation=2)
    n.pool5 = max_pool(n.relu5_3, stride=1, pad=1)
    if options.lg_lstm_after == "pool5":
        return Features(n.pool5, scaled(512))
    if options.pool5a:
        n.pool5a = L.Pooling(n.pool5, pool=P.Pooling.AVE, kernel_size=3, stride=1, pad=1)
    n.fc6, n.relu_fc6 = fc(n.pool5a if options.pool5a else n.pool5, 3, options.fc6_dilation)
    n.drop6 = L.Dropout(n.relu_fc6, dropout_ratio=options.dropout, in_place=True)
    if options.lg_lstm_after == "fc6":
        return Features(n.drop6, scaled(options.fc_channels))
    n.fc7, n.relu_fc7 = fc(n.drop6, 1)
    n.drop7 = L.Dropout(n.relu_fc7, dropout_ratio=options.dropout, in_place=True)
    return Features(n.drop7, scaled(options.fc_channels))


# ------------------------------------------------------------------------------------ Co-CNN


def co_cnn(n: NetSpec, options: CoCNN) -> Features:
    """Co-CNN: encoder over four resolutions, image-label branch, decoder with cross-layer sums.

    Every convolution has stride 1 and keeps its map's size; the image's label probabilities, when
    that branch is there, are concatenated to the map of every resolution on the way up.
    """
    channels = options.channels
    sizes = co_cnn_sizes(options.input_size)
    probabilities: Top | None = None

    def conv(bottom: Top, filters: int = channels) -> tuple[Top, Top]:
        return conv_relu(bottom, filters, options.kernel, options)

    def with_labels(name: str, top: Top, size: tuple[int, int]) -> Top:
        if probabilities is None:
            return top
        n[f"{name}_labels"] = L.Concat(top, tiled(n, probabilities, size))
        return n[f"{name}_labels"]

    image = scaled_image(n, options)
    n.conv1_1, n.relu1_1 = conv(image, options.first_channels)
    n.conv1_2, n.relu1_2 = conv(n.relu1_1)
    n.pool1 = max_pool(n.relu1_2, stride=2)
    n.conv2_1, n.relu2_1 = conv(n.pool1)
    n.conv2_2, n.relu2_2 = conv(n.relu2_1)
    n.pool2 = max_pool(n.relu2_2, stride=2)
    n.conv3_1, n.relu3_1 = conv(n.pool2)
    n.conv3_2, n.relu3_2 = conv(n.relu3_1)
    n.pool3 = max_pool(n.relu3_2, stride=2)
    n.conv4_1, n.relu4_1 = conv(n.pool3)
    n.conv4_2, n.relu4_2 = conv(n.relu4_1)
    if options.image_label:
        probabilities = image_label(n, n.relu4_2, options)
    n.conv4_3, n.relu4_3 = conv(with_labels("conv4_2", n.relu4_2, sizes[3]))

    n.up3 = upsampled(n, "up3", n.relu4_3, n.relu3_2, options)
    n.decoder3_1, n.relu_decoder3_1 = conv(n.up3)
    n.sum3 = L.Eltwise(n.relu_decoder3_1, n.relu3_2, operation=P.Eltwise.SUM)
    n.decoder3_2, n.relu_decoder3_2 = conv(with_labels("sum3", n.sum3, sizes[2]))
    n.up2 = upsampled(n, "up2", n.relu_decoder3_2, n.relu2_2, options)
    n.decoder2_1, n.relu_decoder2_1 = conv(n.up2)
    n.sum2 = L.Eltwise(n.relu_decoder2_1, n.relu2_2, operation=P.Eltwise.SUM)
    n.decoder2_2, n.relu_decoder2_2 = conv(with_labels("sum2", n.sum2, sizes[1]))
    n.up1 = upsampled(n, "up1", n.relu_decoder2_2, n.relu1_2, options)
    n.decoder1_1, n.relu_decoder1_1 = conv(n.up1)
    n.sum1 = L.Eltwise(n.relu_decoder1_1, n.relu1_2, operation=P.Eltwise.SUM)
    n.decoder1_2, n.relu_decoder1_2 = conv(with_labels("sum1", n.sum1, sizes[0]))
    top = n.relu_decoder1_2

    label_scores = tiled(n, probabilities, sizes[0]) if probabilities else None
    if options.lg_lstm_after == "decoder1":
        return Features(top, channels, label_scores, probabilities)
    if options.image_skip:
        n.conv_image, n.relu_image = conv(image)
        n.sum_image = L.Eltwise(top, n.relu_image, operation=P.Eltwise.SUM)
        top = with_labels("sum_image", n.sum_image, sizes[0])
    n.conv_last, n.relu_last = conv_relu(top, options.last_channels, 3, options)
    return Features(n.relu_last, options.last_channels, label_scores, probabilities)


def co_cnn_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The four resolutions: Caffe rounds up what a 3×3 pooling of stride 2 leaves."""
    sizes = [size]
    for _ in range(3):
        height, width = (-(-(length - 3) // 2) + 1 for length in size)
        size = height, width
        sizes.append(size)
    return sizes


def image_label(n: NetSpec, top: Top, options: CoCNN) -> Top:
    """Predict which labels the image shows: (B, classes) probabilities."""
    n.conv_labels, n.relu_labels = conv_relu(top, options.image_label_conv, 1, options)
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
    """Double a map's size and cut it to the size of `like`: `<name>_whole` and its cut.

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
    return L.Crop(n[f"{name}_whole"], like, axis=2)


# -------------------------------------------------------------------------------------- demo


def small(n: NetSpec, options: Demo) -> Features:
    """The demo's net: 3×3 convolutions; the first ones are followed by a pooling by 2."""
    top = scaled_image(n, options)
    for i, filters in enumerate(options.widths, start=1):
        n[f"conv{i}"], top = conv_relu(top, filters, 3, options)
        n[f"relu{i}"] = top
        if i <= options.poolings:
            n[f"pool{i}"] = top = max_pool(top, stride=2, pad=1)
    return Features(top, options.widths[-1])


def extra_convolutions(n: NetSpec, features: Features, options: ModelOptions) -> list[Features]:
    """Stack the 3×3 convolutions that stand in for LG-LSTM layers; return every one's output."""
    filters = options.extra_conv_filters or options.local_channels
    outputs = []
    top = features.top
    for i in range(1, options.extra_convs + 1):
        n[f"extra{i}"], top = conv_relu(top, filters, 3, options, filler=options.extra_conv_filler)
        n[f"relu_extra{i}"] = top
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
    bottom: Top,
    filters: int,
    kernel: int,
    options: ModelOptions,
    *,
    dilation: int = 1,
    lr: float = 1.0,
    filler: str = "",
    std: float | None = None,
) -> tuple[Top, Top]:
    """A convolution whose padding keeps the map's size, and its ReLU in place."""
    dilated: dict[str, Any] = dict(dilation=dilation) if dilation > 1 and kernel > 1 else {}
    conv = L.Convolution(
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
    return conv, L.ReLU(conv, in_place=True)


def max_pool(bottom: Top, **stride_and_pad: int) -> Top:
    """The largest of every 3×3 values."""
    return L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=3, **stride_and_pad)


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
