"""How far the last classifier of a trained net is from the best one for the features that it reads.

    python scripts/refit_classifier.py fashionista_241 runs/people_16_iter_3648.caffemodel

Keeps all other layers, runs the net over the training and the test list of the model, and minimizes
what the last classifier minimizes, its softmax loss and the solver's weight decay, by L-BFGS over
all training positions. If the loss falls far and the test numbers rise, gradient descent stopped
too early there; the option `score_lr_mult` gives classifiers a higher rate of their own. The part
of the score that comes from the global cells stays the net's. Nothing is written.

All numbers are of score maps, at an eighth of the input, and so differ from `lglstm evaluate`'s.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from scipy.optimize import minimize
from scipy.special import log_softmax

from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.caffe_files.schema import NetParameter
from lglstm.common.errors import InputError
from lglstm.common.labels import IGNORE
from lglstm.common.models import find_model
from lglstm.common.progress import progress_bar
from lglstm.common.pycaffe import load_caffe
from lglstm.evaluation import metrics, sanity
from lglstm.evaluation.weights import load
from lglstm.layers.seg_list import read_list

ROUNDS = 150
"""Of L-BFGS; what it still gains then is in the third digit."""

CHUNK = 40_000
"""Positions of one product, so that memory has a bound."""


@dataclass(frozen=True)
class Classifier:
    """A 1×1 convolution: weight (classes, channels), bias (classes,)."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Positions:
    """The labeled positions of all maps of a list."""

    features: np.ndarray
    """(n, channels): what the classifier reads."""
    added: np.ndarray
    """(n, classes): what is added to its scores."""
    truth: np.ndarray
    """(n,)"""

    def chunks(self) -> list[Positions]:
        starts = range(0, len(self.truth), CHUNK)
        fields = (self.features, self.added, self.truth)
        return [Positions(*(field[i : i + CHUNK] for field in fields)) for i in starts]

    def log_probabilities(self, classifier: Classifier) -> np.ndarray:
        """Shape (n, classes)."""
        scores = self.features @ classifier.weight.T + classifier.bias + self.added
        return log_softmax(scores, axis=1)


def net_over(prototxt: Path, split: str) -> tuple[NetParameter, int]:
    """A net that reads its list `split` one by one, and the number of images in it."""
    net, _ = read_prototxt(prototxt)
    data = net.layer[0].python_param
    options = json.loads(data.param_str) | {"batch_size": 1}
    path = Path(options["list"]).with_name(f"{split}.txt")
    data.param_str = json.dumps(options | {"list": str(path)})
    return net, len(read_list(path))


def collect(prototxt: Path, weights: Path, split: str) -> tuple[Positions, Classifier]:
    """Run the test form of a net over a list; return what its last classifier reads, and it."""
    message, images = net_over(prototxt, split)
    caffe = load_caffe()
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text_format.MessageToString(message))
        file.flush()
        net = caffe.Net(file.name, caffe.TEST)
    if untrained := sanity.untrained_layers(weights, load(net, prototxt, weights)):
        raise InputError(untrained)
    score = [layer for layer in message.layer if layer.type == "SoftmaxWithLoss"][-1].bottom[0]
    with_bias = {name for name, blobs in net.params.items() if len(blobs) == 2}
    layer = [layer for layer in message.layer if layer.name in with_bias][-1]

    found = []
    with progress_bar(f"{split} list") as bar:
        for i in range(images):
            net.forward()
            local = net.blobs[layer.top[0]].data
            maps = (net.blobs[layer.bottom[0]].data, net.blobs[score].data - local)
            truth = net.blobs["label"].data.astype(int).ravel()
            rows = [one[0].reshape(one.shape[1], -1).T[truth != IGNORE] for one in maps]
            found.append((*rows, truth[truth != IGNORE]))
            bar(i + 1, images)
    weight, bias = (blob.data.copy() for blob in net.params[layer.name])
    joined = Positions(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    return joined, Classifier(weight.reshape(weight.shape[:2]), bias)


def refit(positions: Positions, start: Classifier, weight_decay: float) -> Classifier:
    """The classifier with the least mean loss + weight_decay / 2 · |weight|²."""
    count, shape = len(positions.truth), start.weight.shape
    chunks = positions.chunks()

    def split(values: np.ndarray) -> Classifier:
        values = values.astype(np.float32)
        return Classifier(values[: -shape[0]].reshape(shape), values[-shape[0] :])

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        classifier = split(values)
        loss, weight_diff = 0.0, weight_decay * classifier.weight
        bias_diff = np.zeros_like(classifier.bias)
        for chunk in chunks:
            log_p = chunk.log_probabilities(classifier)
            here = np.arange(len(log_p)), chunk.truth
            loss -= float(log_p[here].sum()) / count
            diff = np.exp(log_p) / count
            diff[here] -= 1 / count
            weight_diff = weight_diff + diff.T @ chunk.features
            bias_diff += diff.sum(axis=0)
        loss += weight_decay / 2 * float((classifier.weight**2).sum())
        return loss, np.concatenate([weight_diff.ravel(), bias_diff]).astype(np.float64)

    first = np.concatenate([start.weight.ravel(), start.bias]).astype(np.float64)
    options = {"maxiter": ROUNDS, "maxcor": 20}
    return split(minimize(objective, first, jac=True, method="L-BFGS-B", options=options).x)


def quality(positions: Positions, classifier: Classifier) -> str:
    """Its loss and its metrics in percent, in one line."""
    classes = len(classifier.bias)
    loss, matrix = 0.0, np.zeros((classes, classes), np.int64)
    for chunk in positions.chunks():
        log_p = chunk.log_probabilities(classifier)
        loss -= float(log_p[np.arange(len(log_p)), chunk.truth].sum()) / len(positions.truth)
        matrix += metrics.confusion_matrix(chunk.truth, log_p.argmax(axis=1), classes)
    named = {
        "accuracy": metrics.pixel_accuracy(matrix),
        "mean IoU": metrics.mean(metrics.iou(matrix)),
        "average F-1": metrics.mean(metrics.f1(matrix)),
    }
    return f"loss {loss:.4f}, " + ", ".join(f"{k} {100 * v:.2f}" for k, v in named.items())


def report(model: str, weights: Path, weight_decay: float) -> None:
    prototxt = find_model(model).folder / "test.prototxt"
    training, trained = collect(prototxt, weights, "train")
    test, _ = collect(prototxt, weights, "test")
    best = refit(training, trained, weight_decay)
    for name, classifier in {"as trained": trained, "refitted": best}.items():
        print(f"{name}, training list: {quality(training, classifier)}")
        print(f"{name}, test list: {quality(test, classifier)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a name in models/, whose lists are there")
    parser.add_argument("weights", type=Path, help="its trained weights, a caffemodel as a rule")
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="default: %(default)s")
    given = parser.parse_args()
    try:
        report(given.model, given.weights, given.weight_decay)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
