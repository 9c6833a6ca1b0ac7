"""What a net knows, apart from where it draws the line between the classes.

A net that gives a thin part a little more score everywhere finds more of it, and takes more
background for it; the mean IoU moves with that line although the net knows nothing more. To compare
nets without it, every class gets a constant that is added to its scores, chosen for the highest
mean IoU on one half of the images and used on the other half, both ways: no image has a say in the
constants that it is parsed with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.images import read_pair
from lglstm.common.labels import IGNORE
from lglstm.common.preprocessing import to_label_blob
from lglstm.common.progress import Report, no_report
from lglstm.evaluation import nets
from lglstm.evaluation.image_list import ListedImage
from lglstm.evaluation.metrics import iou, mean
from lglstm.evaluation.predictor import Prediction, Predictor

GRID = np.linspace(-3, 3, 121)
"""The constants that are tried for a class, for scores that are log-odds, as those that a softmax
loss has trained; the background's is 0, since differences count."""

SWEEPS = 8
"""How often all classes are gone through at most; two or three times are enough."""

PIXELS = 4_000_000
"""About how many pixels of all images together have a say, so that memory has a bound."""

Sample = tuple[np.ndarray, np.ndarray]
"""Some pixels of an image: their scores, (C, n), and their true classes, (n,)."""


def cross_fitted(
    predictor: Predictor,
    images: Sequence[ListedImage],
    num_classes: int,
    report: Report = no_report,
) -> list[np.ndarray]:
    """The offsets of each image, (C,) float32: the best ones of the half that it is not in.

    Runs the net on all images. Raises InputError for fewer than two.
    """
    if len(images) < 2:
        raise InputError(
            "class offsets are chosen on one half of the images for the other, so at least two "
            "are needed; leave out --class-offsets"
        )

    samples = sample(predictor, images, num_classes, report)
    middle = len(samples) // 2  # crops of one photo are neighbors, so the list is cut once
    first, second = (fit(half) for half in (samples[:middle], samples[middle:]))
    return [second] * middle + [first] * (len(samples) - middle)


def sample(
    predictor: Predictor,
    images: Sequence[ListedImage],
    num_classes: int,
    report: Report = no_report,
) -> list[Sample]:
    """Run the net on all images; keep of each its share of PIXELS, evenly spread."""
    share = PIXELS / len(images)
    truths: dict[str, np.ndarray] = {}

    def read(image: ListedImage) -> np.ndarray:
        photo, truths[image.name] = read_pair(image.photo, image.label, num_classes)
        return photo

    def finish(image: ListedImage, prediction: Prediction) -> Sample:
        return _sample(prediction.scores[nets.OUTPUT], truths.pop(image.name), share)

    samples = []
    for _, future in predictor.stream(images, read, finish):
        samples.append(future.result())
        report(len(samples), len(images), "choosing the class offsets")
    return samples


def fit(samples: Sequence[Sample]) -> np.ndarray:
    """The `best_offsets` of some images together."""
    scores, truths = zip(*samples, strict=True)
    return best_offsets(np.concatenate(scores, axis=1), np.concatenate(truths).astype(np.int64))


def best_offsets(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The constants of GRID, float32 (C,), that give the highest mean IoU when added to the scores.

    scores: (C, N) of N pixels. truth: (N,) their classes. One class after the other gets its best
    constant while the others keep theirs, until none changes: a maximum, not surely the highest.
    Without any pixel all are 0.
    """
    offsets = np.zeros(len(scores), np.float32)
    if not len(truth):
        return offsets
    for _ in range(SWEEPS):
        before = offsets.copy()
        for k in range(1, len(scores)):
            offsets[k] = _best_offset(scores, truth, offsets, k)
        if np.array_equal(offsets, before):
            break
    return offsets


def _best_offset(scores: np.ndarray, truth: np.ndarray, offsets: np.ndarray, k: int) -> float:
    """The best constant of class k, the nearest to the present one if several are.

    A pixel is of class k from the constant on that lifts it over the best of the others, so one
    count of pixels by that constant gives the confusion matrices for the whole grid.
    """
    classes = len(scores)
    others = scores + offsets[:, None]
    others[k] = -np.inf
    rival = others.argmax(axis=0)
    needed = others[rival, np.arange(len(truth))] - scores[k]
    step = np.searchsorted(GRID, needed)  # len(GRID): none is enough
    cells = (step * classes + truth) * classes + rival
    counts = np.bincount(cells, minlength=(len(GRID) + 1) * classes**2)
    counts = counts.reshape(len(GRID) + 1, classes, classes)
    taken = counts[:-1].cumsum(axis=0)
    matrices = counts.sum(axis=0) - taken
    matrices[..., k] += taken.sum(axis=2)
    means = mean(iou(matrices))
    best = np.flatnonzero(means == np.nanmax(means))
    return float(GRID[best[np.abs(GRID[best] - offsets[k]).argmin()]])


def _sample(scores: np.ndarray, label: np.ndarray, pixels: float) -> Sample:
    """About so many pixels of one image, on a grid.

    scores: (C, h, w), at the net's input size. label: (H, W), the truth at the photo's size.
    """
    height, width = scores.shape[1:]
    stride = max(1, round((height * width / pixels) ** 0.5))
    truth = to_label_blob(label, (height, width), stride)[0].astype(np.uint8)
    counted = truth != IGNORE
    return scores[:, ::stride, ::stride][:, counted], truth[counted]
