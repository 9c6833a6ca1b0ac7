"""The best classifier for a net's features, against its own objective and against Caffe."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from models_help import IMAGES, load, tiny
from scipy.special import log_softmax

from lglstm.common.errors import InputError
from lglstm.prototxt_gen.options import LargeFOV
from refit_classifier import Classifier, Positions, collect, quality, refit

WEIGHT_DECAY = 0.01


@pytest.fixture
def positions():
    rng = np.random.default_rng(2)
    features, added = rng.normal(size=(400, 6)), rng.normal(size=(400, 3))
    truth = (features @ rng.normal(size=(6, 3)) + rng.normal(size=(400, 3))).argmax(axis=1)
    return Positions(features.astype(np.float32), added.astype(np.float32), truth)


def objective(positions: Positions, weight: np.ndarray, bias: np.ndarray) -> float:
    log_p = log_softmax(positions.features @ weight.T + bias + positions.added, axis=1)
    loss = -log_p[np.arange(len(log_p)), positions.truth].mean()
    return loss + WEIGHT_DECAY / 2 * (weight**2).sum()


def test_no_other_classifier_is_better(positions, monkeypatch):
    monkeypatch.setattr("refit_classifier.CHUNK", 150)
    best = refit(
        positions, Classifier(np.zeros((3, 6), np.float32), np.zeros(3, np.float32)), WEIGHT_DECAY
    )
    least = objective(positions, best.weight, best.bias)
    rng = np.random.default_rng(3)
    for size in (0.003, 0.03, 0.3):
        for _ in range(50):
            weight, bias = rng.normal(size=(3, 6), scale=size), rng.normal(size=3, scale=size)
            assert objective(positions, best.weight + weight, best.bias + bias) > least


def test_scores_are_those_of_the_net(tmp_path):
    """Of an LG-LSTM net, whose global cells add to the classifier's scores."""
    options = tiny(LargeFOV(), tmp_path)
    net = load(options, "test", tmp_path)
    rng = np.random.default_rng(5)
    for name, blobs in net.params.items():
        for blob in blobs if name.startswith("score") else []:
            blob.data[...] = rng.normal(size=blob.data.shape, scale=10)
    weights = tmp_path / "tiny.caffemodel"
    net.save(str(weights))
    found, classifier = collect(tmp_path / "test.prototxt", weights, "train")

    losses = []
    for _ in range(IMAGES):
        net.forward()
        losses.append((float(net.blobs["loss5"].data), (net.blobs["label"].data != 255).sum()))
    loss, counts = np.array(losses).T
    assert len(found.truth) == counts.sum()
    printed = float(quality(found, classifier).removeprefix("loss ").partition(",")[0])
    assert printed == pytest.approx((loss * counts).sum() / counts.sum(), abs=2e-4)
    assert np.ptp(found.added) > 0.01


def test_weights_of_another_net_get_a_sentence(tmp_path):
    options = tiny(LargeFOV(), tmp_path)
    others = {
        "weights of another model": dataclasses.replace(options, hidden=options.hidden + 1),
        "does not hold the layers lg_lstm4": dataclasses.replace(options, lg_lstm_layers=3),
    }
    for words, other in others.items():
        weights = tmp_path / f"{other.hidden}_{other.lg_lstm_layers}.caffemodel"
        load(other, "test", tmp_path).save(str(weights))
        load(options, "test", tmp_path)  # writes test.prototxt
        with pytest.raises(InputError, match=f"{weights.name}.* {words}"):
            collect(tmp_path / "test.prototxt", weights, "train")
