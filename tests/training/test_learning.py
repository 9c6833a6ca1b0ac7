"""Every family of nets learns from its default initial weights: narrow forms, drawn animals.

What is tested is the start, so everything that decides it is the model's own: fillers, scales,
learning rates, solver. Only channels, maps and the number of images are smaller.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import caffe
import cv2
import numpy as np
import pytest
from models_help import tiny_solver

from lglstm.common.images import write_label
from lglstm.common.labels import LABEL_SETS
from lglstm.data_prep.synthetic import draw_example
from lglstm.prototxt_gen.options import CoCNN, ModelOptions
from lglstm.prototxt_gen.registry import find

IMAGES, SIZE = 40, 65
LABELS = LABEL_SETS["horse"]
LAST = 50  # iterations over which the loss at the end is averaged

NARROW_LARGEFOV = {
    "input_size": (SIZE, SIZE),
    "width": 1 / 4,
    "fc_pretrained": False,
    "fc6_dilation": 3,
    "hidden": 32,
}
NARROW_CO_CNN = {
    "input_size": (33, 33),
    "first_channels": 16,
    "channels": 24,
    "last_channels": 32,
    "image_label_conv": 12,
    "image_label_fc": 64,
    "hidden": 16,
}


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of drawn animals with their label maps."""
    folder = tmp_path_factory.mktemp("animals")
    lines = []
    for index in range(IMAGES):
        photo, label = draw_example(SIZE, seed=1, index=index)
        cv2.imwrite(str(folder / f"{index}.png"), photo)
        write_label(folder / f"{index}_label.png", label, LABELS.palette)
        lines.append(f"{index}.png {index}_label.png\n")
    (folder / "train.txt").write_text("".join(lines))
    return folder


def narrow(name: str, animals: Path) -> ModelOptions:
    """The model with fewer channels, on the drawn animals."""
    options = find(name).options
    return dataclasses.replace(
        options,
        **(NARROW_CO_CNN if isinstance(options, CoCNN) else NARROW_LARGEFOV),
        label_set=LABELS,
        extra_conv_filters=48 if options.extra_convs else 0,
        weights="",
        train_list=str(animals / "train.txt"),
        test_list=str(animals / "train.txt"),
        train_images=IMAGES,
        test_images=IMAGES,
    )


def give_features(net: caffe.Net) -> None:
    """Give LargeFOV's convolutions weights that, as VGG-16's do, make features in the tens."""
    rng = np.random.default_rng(2)
    for weight, bias in (blobs for name, blobs in net.params.items() if name.startswith("conv")):
        fan_in = np.prod(weight.data.shape[1:])
        weight.data[...] = rng.normal(0, np.sqrt(2 / fan_in), weight.data.shape)
        bias.data[...] = 0


def entropy(labels: np.ndarray) -> float:
    """The loss of always predicting the shares of the classes, in nats per pixel."""
    share = np.bincount(labels.astype(int).ravel(), minlength=256)[: LABELS.num_classes]
    share = share[share > 0] / share.sum()
    return float(-(share * np.log(share)).sum())


def train(options: ModelOptions, iterations: int, folder: Path) -> tuple[float, float, set[int]]:
    """Train; return the last loss, the entropy of the labels, and the classes predicted."""
    solver = tiny_solver(options, folder)
    if not isinstance(options, CoCNN):
        give_features(solver.net)
    losses, labels, predicted = [], [], set()
    for _ in range(iterations):
        solver.step(1)
        losses.append(float(solver.net.blobs[f"loss{options.predictions}"].data))
        labels.append(solver.net.blobs["label"].data.copy())
        if len(losses) > iterations - LAST:
            scores = solver.net.blobs[f"score{options.predictions}"].data
            predicted |= set(np.unique(scores.argmax(axis=1)).tolist())
    return float(np.mean(losses[-LAST:])), entropy(np.concatenate(labels)), predicted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "iterations"), [("horse", 700), ("horse_extra_conv", 400), ("atr_co_cnn", 400)]
)
def test_narrow_forms_learn_from_the_default_initial_weights(name, iterations, animals, tmp_path):
    """LG-LSTM needs longer than plain nets; on Co-CNN, too long for a test."""
    loss, prior, predicted = train(narrow(name, animals), iterations, tmp_path)
    assert loss < 0.85 * prior, f"{name}: loss {loss:.3f}, entropy of the labels {prior:.3f}"
    assert len(predicted) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["horse_extra_conv_paper_init", "atr_co_cnn_paper_init"])
def test_the_papers_initial_weights_do_not_train(name, animals, tmp_path):
    loss, prior, predicted = train(narrow(name, animals), 400, tmp_path)
    assert loss > 0.95 * prior
    assert len(predicted) == 1
