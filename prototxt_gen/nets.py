"""Train, test and deploy nets from one function: only data, losses and the last layers differ."""

# ruff: noqa: C408 (dict(…) reads like the keyword arguments of NetSpec)
from __future__ import annotations

import json
from typing import Any

from caffe import layers as L
from caffe.net_spec import NetSpec, Top
from caffe.proto import caffe_pb2

from lglstm.common.labels import IGNORE
from lglstm.layers.seg_options import Augmentation
from lglstm.prototxt_gen.backbones import (
    Features,
    backbone,
    extra_convolutions,
    filler,
    learning_rates,
)
from lglstm.prototxt_gen.lg_lstm import classifier, lg_lstm, transition
from lglstm.prototxt_gen.options import CoCNN, ModelOptions

FORMS = ("train", "test", "deploy")


def build(options: ModelOptions, name: str, form: str) -> caffe_pb2.NetParameter:
    """Return the net of one form.

    train, test: blobs `data` and `label` from SegData, `score1`… (B, classes, h, w) after every
    LG-LSTM layer, each with its `loss1`…; test adds `accuracy` of the last one.
    deploy: input `data` (any batch), output `score` (B, classes, H, W) at the size of the input.
    """
    n = NetSpec()
    data(n, options, form)
    features = backbone(n, options)
    scores = predictions(n, features, options, form)
    if form == "deploy":
        full_size(n, scores[-1], options)
    else:
        losses(n, scores, features, options, form)
    net = n.to_proto()
    net.name = f"{name}_{form}"
    return net


def data(n: NetSpec, options: ModelOptions, form: str) -> None:
    """Add `data` (B, 3, H, W), BGR minus mean, and `label` (B, 1, h, w) unless deployed."""
    if form == "deploy":
        n.data = L.Input(shape=dict(dim=[1, 3, *options.input_size]))
        return
    train = form == "train"
    # The training layer counts its batches in a blob, so that snapshots know the data position.
    position = dict(param=[dict(lr_mult=0, decay_mult=0)]) if train else {}
    n.data, n.label = L.Python(
        module="lglstm.layers.seg_data",
        layer="SegData",
        name=f"{form}_data",
        param_str=json.dumps(data_settings(options, train)),
        ntop=2,
        **position,
    )


def data_settings(options: ModelOptions, train: bool) -> dict[str, Any]:
    """The `param_str` of SegData; the test images come unchanged and in order."""
    settings: dict[str, Any] = dict(
        list=options.train_list if train else options.test_list,
        batch_size=options.batch_size if train else options.test_batch,
        input_size=list(options.input_size),
        label_stride=options.stride,
        num_classes=options.num_classes,
        ignore_label=IGNORE,
        train=train,
    )
    if train:
        swaps = [list(pair) for pair in options.label_set.mirror_swaps]
        settings |= dict(mirror=options.mirror, mirror_swaps=swaps)
        for key in ("box_jitter", "crop", "scale", "rotation", "color"):
            if getattr(options, key) != getattr(Augmentation, key):
                settings[key] = list(getattr(options, key))
        settings |= dict(shuffle=True, seed=options.seed)
    return settings


def predictions(n: NetSpec, features: Features, options: ModelOptions, form: str) -> list[Top]:
    """Add the LG-LSTM layers or what stands in for them; return the score maps, the last one last.

    Deployed nets have the last classifier only: the earlier ones serve training.
    """
    wanted = range(1, options.predictions + 1)
    if form == "deploy":
        wanted = wanted[-1:]
    inputs: dict[int, tuple[Top, Top | None]] = {}
    if options.lg_lstm_layers:
        cells = transition(n, features, options)
        for i in range(1, options.lg_lstm_layers + 1):
            cells = lg_lstm(n, i, cells, options)
            inputs[i] = (cells.local, cells.global_)
    elif options.extra_convs:
        outputs = extra_convolutions(n, features, options)[-options.predictions :]
        inputs = {i: (output.top, None) for i, output in enumerate(outputs, start=1)}
    else:
        inputs[1] = (features.top, None)
    scores = [score(n, i, *inputs[i], features, options, form) for i in wanted]
    if options.lg_lstm_layers:
        n.silence = L.Silence(cells.memory, ntop=0)  # nobody reads the last layer's memory
    return scores


def score(
    n: NetSpec,
    i: int,
    local: Top,
    global_: Top | None,
    features: Features,
    options: ModelOptions,
    form: str,
) -> Top:
    """Add classifier i; Co-CNN's prediction also sums the image's label probabilities onto it."""
    # A net at the size of its input needs no up-sampling: its last score is the output itself.
    blob = "score" if form == "deploy" and options.stride == 1 else f"score{i}"
    if not (isinstance(options, CoCNN) and options.sum_label_scores):
        return classifier(n, i, local, global_, blob, options)
    raw = classifier(n, i, local, global_, f"raw_score{i}", options)
    n[f"score{i}_sum"] = L.Eltwise(raw, features.label_scores)
    n[blob] = L.Convolution(
        n[f"score{i}_sum"],
        name=f"score{i}_mixed",
        num_output=options.num_classes,
        kernel_size=1,
        weight_filler=filler(options),
        param=learning_rates(options, options.score_lr_mult),
    )
    return n[blob]


def losses(
    n: NetSpec, scores: list[Top], features: Features, options: ModelOptions, form: str
) -> None:
    """Add one softmax loss per score map, Co-CNN's image-label loss, and the test accuracy."""
    for i, top in enumerate(scores, start=1):
        weight = 1.0 if i == len(scores) else options.loss_weight
        n[f"loss{i}"] = L.SoftmaxWithLoss(
            top, n.label, loss_weight=weight, loss_param=dict(ignore_label=IGNORE)
        )
    if isinstance(options, CoCNN) and features.label_probabilities:
        n.label_target = L.Python(
            n.label,
            module="lglstm.layers.image_labels",
            layer="ImageLabels",
            param_str=json.dumps(dict(num_classes=options.num_classes, ignore_label=IGNORE)),
        )
        n.loss_labels = L.EuclideanLoss(
            features.label_probabilities, n.label_target, loss_weight=options.image_label_weight
        )
    if form == "test":
        n.accuracy = L.Accuracy(scores[-1], n.label, ignore_label=IGNORE)


def full_size(n: NetSpec, top: Top, options: ModelOptions) -> None:
    """Scale the scores to the input's size: bilinear, corners aligned, s·(h − 1) + 1 pixels.

    The weights come from the filler and never change, so no caffemodel needs to hold them.
    """
    stride, classes = options.stride, options.num_classes
    if stride == 1:
        return
    n.score = L.Deconvolution(
        top,
        convolution_param=dict(
            num_output=classes,
            group=classes,
            kernel_size=2 * stride - 1,
            stride=stride,
            pad=stride - 1,
            bias_term=False,
            weight_filler=dict(type="bilinear"),
        ),
        param=[dict(lr_mult=0, decay_mult=0)],
    )
