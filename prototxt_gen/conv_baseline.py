"""The baseline of the demo: 3×3 convolutions with as many weights as the LG-LSTM layers have."""

from __future__ import annotations

import dataclasses
from math import prod

from lglstm.common.lg_lstm_shapes import LGLSTMShapes
from lglstm.prototxt_gen.options import Demo


def lg_lstm_weights(options: Demo) -> int:
    """Weights of transition, LG-LSTM layers and classifiers on top of the last convolution."""
    shapes = LGLSTMShapes(
        options.hidden,
        options.neighbors,
        options.global_grid,
        options.share_spatial,
        options.bias_term,
    )
    layers, classes = options.lg_lstm_layers, options.num_classes
    transition = sum(map(prod, shapes.transition_blobs(options.widths[-1]).values()))
    layer = sum(map(prod, shapes.layer_blobs().values()))
    stack = layer * (1 if options.share_layers else layers)
    return transition + stack + layers * classes * (shapes.inputs + 1)


def convolution_weights(options: Demo, filters: int) -> int:
    """Weights of as many 3×3 convolutions of `filters` filters, each with its classifier."""
    layers, classes = options.lg_lstm_layers, options.num_classes
    first = filters * (9 * options.widths[-1] + 1)
    others = (layers - 1) * filters * (9 * filters + 1)
    return first + others + layers * classes * (filters + 1)


# The convolutions' own best of 0.002, 0.004 and 0.008; LG-LSTM's is 0.008.
CONV_BASE_LR = 0.004


def conv_baseline(options: Demo) -> Demo:
    """Return the net whose extra convolutions have the number of weights nearest to LG-LSTM's."""
    wanted = lg_lstm_weights(options)
    filters = min(range(1, 1025), key=lambda f: abs(convolution_weights(options, f) - wanted))
    return dataclasses.replace(
        options,
        lg_lstm_layers=0,
        extra_convs=options.lg_lstm_layers,
        extra_conv_filters=filters,
        extra_conv_losses=True,
        base_lr=CONV_BASE_LR,
    )
