"""The metrics against counts made by hand and against scikit-learn."""

import json
import math

import numpy as np
import pytest

from lglstm.common.errors import InputError
from lglstm.evaluation.metrics import Metrics, confusion_matrix

# Truth and prediction of 2×4 pixels, three classes and one ignored pixel:
TRUTH = np.array([[0, 0, 1, 1], [2, 1, 0, 255]], np.uint8)
PREDICTION = np.array([[0, 1, 1, 1], [0, 1, 0, 2]], np.uint8)
BY_HAND = [[2, 1, 0], [0, 3, 0], [1, 0, 0]]


def metrics_of(pairs, names):
    """The metrics of (truth, prediction) label maps, summed over all of them."""
    matrices = [confusion_matrix(truth, prediction, len(names)) for truth, prediction in pairs]
    return Metrics(sum(matrices, np.zeros((len(names), len(names)), np.int64)), tuple(names))


def test_counts_and_metrics_made_by_hand():
    metrics = metrics_of([(TRUTH, PREDICTION)], ("background", "head", "tail"))
    assert metrics.matrix.tolist() == BY_HAND
    expected = {
        "pixel_accuracy": 5 / 7,
        "foreground_accuracy": 3 / 4,
        "iou.background": 2 / 4,
        "iou.head": 3 / 4,
        "iou.tail": 0,
        "mean_iou": (2 / 4 + 3 / 4 + 0) / 3,
        "foreground_iou": 3 / 5,
        "precision.background": 2 / 3,
        "precision.head": 3 / 4,
        "precision.tail": None,  # never predicted
        "average_precision": (2 / 3 + 3 / 4) / 2,  # the undefined one is dropped
        "recall.tail": 0,
        "average_recall": (2 / 3 + 1 + 0) / 3,
        "f1.background": 4 / 6,
        "f1.head": 6 / 7,
        "f1.tail": 0,
        "average_f1": (4 / 6 + 6 / 7 + 0) / 3,
    }
    for key, number in expected.items():
        assert metrics.value(key) == (number if number is None else pytest.approx(number)), key


def test_absent_class_is_dropped_from_every_average():
    present = Metrics(np.array(BY_HAND), ("background", "head", "tail"))
    wider = Metrics(np.pad(BY_HAND, (0, 1)), ("background", "head", "tail", "hoof"))
    assert wider.averages == present.averages
    assert wider.value("iou.hoof") is None and wider.value("f1.hoof") is None


def test_empty_matrix_has_no_numbers_and_is_valid_json():
    metrics = metrics_of([], ("background", "head"))
    assert all(math.isnan(number) for number in metrics.averages.values())
    parsed = json.loads(json.dumps(metrics.as_dict(), allow_nan=False))
    assert parsed["mean_iou"] is None and parsed["pixels"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [3, 5, 18])
def test_equal_to_scikit_learn(num_classes):
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    rng = np.random.default_rng(num_classes)
    # Uneven classes, the last one absent from the truth, some pixels ignored.
    truth = np.minimum(rng.geometric(0.3, (3, 37, 23)) - 1, num_classes - 2)
    truth[rng.random(truth.shape) < 0.05] = 255
    wrong = rng.random(truth.shape) < 0.4
    prediction = np.where(wrong, rng.integers(0, num_classes, truth.shape), truth % num_classes)
    names = tuple(f"part {k}" for k in range(num_classes))
    metrics = metrics_of(zip(truth, prediction, strict=True), names)

    counted = truth != 255
    t, p = truth[counted], prediction[counted]
    every = {"labels": range(num_classes), "average": None, "zero_division": np.nan}
    assert (metrics.matrix == sklearn.confusion_matrix(t, p, labels=range(num_classes))).all()
    theirs = {
        "iou": sklearn.jaccard_score(t, p, labels=range(num_classes), average=None),
        "precision": sklearn.precision_score(t, p, **every),
        "recall": sklearn.recall_score(t, p, **every),
        "f1": sklearn.f1_score(t, p, **every),
    }
    exact = {"rtol": 1e-12, "atol": 0, "equal_nan": True}
    for key, numbers in theirs.items():
        np.testing.assert_allclose(list(metrics.per_class[key].values()), numbers, **exact)
    averages = {
        "pixel_accuracy": sklearn.accuracy_score(t, p),
        "foreground_accuracy": sklearn.accuracy_score(t[t > 0], p[t > 0]),
        "foreground_iou": sklearn.jaccard_score(t > 0, p > 0),
        "mean_iou": np.nanmean(theirs["iou"]),
        "average_precision": np.nanmean(theirs["precision"]),
        "average_recall": np.nanmean(theirs["recall"]),
        "average_f1": np.nanmean(theirs["f1"]),
    }
    for key, number in averages.items():
        np.testing.assert_allclose(metrics.averages[key], number, **exact, err_msg=key)


def test_matrices_of_images_add_up():
    whole = confusion_matrix(TRUTH, PREDICTION, 3)
    halves = [confusion_matrix(TRUTH[:, k : k + 2], PREDICTION[:, k : k + 2], 3) for k in (0, 2)]
    assert (whole == sum(halves)).all()


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "the truth is 2×3 and the prediction 3×2"),
        (np.full((2, 2), 3), np.zeros((2, 2)), "the truth has class 3, but there are 3 classes"),
        (np.zeros((2, 2)), np.full((2, 2), 255), "the prediction has class 255"),
        (np.zeros((2, 2)), np.full((2, 2), -1), "the prediction has class -1"),
    ],
)
def test_bad_label_maps_are_refused(truth, prediction, message):
    with pytest.raises(InputError, match=message):
        confusion_matrix(truth.astype(int), prediction.astype(int), 3)


def test_names_must_fit_the_matrix():
    with pytest.raises(InputError, match="2 class names for a confusion matrix of 3×3"):
        Metrics(np.zeros((3, 3), int), ("background", "head"))
