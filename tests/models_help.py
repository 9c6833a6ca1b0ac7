"""Tiny versions of the models: the same graphs with fewer channels, on four images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import caffe
import cv2
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from PIL import Image

from lglstm.prototxt_gen.nets import build
from lglstm.prototxt_gen.options import CoCNN, Demo, LargeFOV, ModelOptions
from lglstm.prototxt_gen.solvers import solver

IMAGES = 4

SMALLER = {
    LargeFOV: {"width": 1 / 32, "fc_filler": "xavier", "input_size": (65, 89)},
    CoCNN: {
        "first_channels": 4,
        "channels": 6,
        "last_channels": 8,
        "image_label_conv": 4,
        "image_label_fc": 8,
        "input_size": (30, 22),
    },
    Demo: {"widths": (4, 6, 8), "input_size": (33, 49), "batch_size": 2, "iterations": 2},
}


def tiny(options: ModelOptions, folder: Path) -> ModelOptions:
    """The same graph with fewer channels and smaller maps, on the data set in `folder`."""
    make_data_set(folder, options.num_classes)
    return dataclasses.replace(
        options,
        **SMALLER[type(options)],
        hidden=4,
        conv_filler="xavier",  # weights of 0.001 would leave no signal in so few channels
        extra_conv_filler="xavier",
        weight_decay=0.0,  # what moves has a gradient
        extra_conv_filters=5 if options.extra_convs else 0,
        weights="",
        train_list=str(folder / "train.txt"),
        test_list=str(folder / "train.txt"),
        train_images=IMAGES,
        test_images=IMAGES,
        test_batch=1,
    )


def make_data_set(folder: Path, classes: int) -> None:
    """Write four photos of noise and label maps that show some of the classes."""
    if (folder / "train.txt").exists():
        return
    rng = np.random.default_rng(3)
    lines = []
    for i in range(IMAGES):
        image, label = folder / f"{i}.png", folder / f"{i}_label.png"
        cv2.imwrite(str(image), rng.integers(0, 256, (40, 56, 3), np.uint8))
        ids = rng.integers(0, classes, (5, 7)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        ids[:3] = 255
        Image.fromarray(ids).save(label)
        lines.append(f"{image.name} {label.name}\n")
    (folder / "train.txt").write_text("".join(lines))


def net_file(options: ModelOptions, form: str, folder: Path) -> str:
    """Write a net that reads its images in this process; return the path."""
    net = build(options, "tiny", form)
    for layer in net.layer:
        if layer.python_param.layer == "SegData":
            settings = json.loads(layer.python_param.param_str) | {"workers": 0}
            layer.python_param.param_str = json.dumps(settings)
    path = folder / f"{form}.prototxt"
    path.write_text(text_format.MessageToString(net))
    return str(path)


def load(options: ModelOptions, form: str, folder: Path) -> caffe.Net:
    """Load one form of a net into Caffe, with seeded weights."""
    caffe.set_random_seed(1)
    return caffe.Net(
        net_file(options, form, folder), caffe.TRAIN if form == "train" else caffe.TEST
    )


def tiny_solver(options: ModelOptions, folder: Path) -> caffe.SGDSolver:
    """The model's solver over nets in `folder`."""
    settings = solver(options, "tiny")
    settings.train_net = net_file(options, "train", folder)
    settings.test_net[0] = net_file(options, "test", folder)
    settings.snapshot_prefix = str(folder / "tiny")
    settings.display = 0
    path = folder / "solver.prototxt"
    path.write_text(text_format.MessageToString(settings))
    return caffe.SGDSolver(str(path))


def layers(net: caffe_pb2.NetParameter) -> dict[str, caffe_pb2.LayerParameter]:
    return {layer.name: layer for layer in net.layer}
