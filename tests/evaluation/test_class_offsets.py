"""Class offsets: they undo a shifted line between classes, and no image chooses its own."""

import itertools
import json

import numpy as np
import pytest
from click.testing import CliRunner

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

from evaluation_help import HORSE, color_list, color_net, demo_weights  # noqa: E402

from lglstm.cli.main import main  # noqa: E402
from lglstm.common.errors import InputError  # noqa: E402
from lglstm.common.images import read_label, write_label  # noqa: E402
from lglstm.evaluation.class_offsets import GRID, best_offsets, cross_fitted  # noqa: E402
from lglstm.evaluation.engines import net_files  # noqa: E402
from lglstm.evaluation.image_list import read_image_list  # noqa: E402
from lglstm.evaluation.metrics import confusion_matrix, iou, mean  # noqa: E402
from lglstm.evaluation.predictor import Predictor  # noqa: E402


def mean_iou(scores, truth, offsets=0):
    predicted = (scores + np.reshape(offsets, (-1, 1))).argmax(axis=0)
    return mean(iou(confusion_matrix(truth, predicted, len(scores))))


def noisy_scores(seed, classes=4, pixels=900):
    """Scores that are often right, of classes of which the last ones are rare."""
    rng = np.random.default_rng(seed)
    shares = 3.0 ** -np.arange(classes)
    truth = rng.choice(classes, pixels, p=shares / shares.sum())
    scores = rng.normal(size=(classes, pixels)) + 2 * (np.arange(classes)[:, None] == truth)
    return scores.astype(np.float32), truth


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """(deploy, weights) of the net that classifies colors."""
    return color_net(tmp_path_factory.mktemp("net"))


@pytest.mark.parametrize("seed", range(3))
def test_of_two_classes_the_best_constant_is_that_of_a_search(seed):
    scores, truth = noisy_scores(seed, classes=2)
    found = best_offsets(scores, truth)
    best = max(mean_iou(scores, truth, [0, constant]) for constant in GRID.astype(np.float32))
    assert found[0] == 0 and mean_iou(scores, truth, found) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_no_single_class_has_a_better_constant(seed):
    scores, truth = noisy_scores(seed)
    found = best_offsets(scores, truth)
    reached = mean_iou(scores, truth, found)
    assert reached > mean_iou(scores, truth)
    for k, constant in itertools.product(range(1, 4), GRID[::5].astype(np.float32)):
        other = found.copy()
        other[k] = constant
        assert mean_iou(scores, truth, other) <= reached + 1e-9


def test_a_shifted_line_between_the_classes_does_not_count():
    """What compares nets: the same scores with a constant added give the same predictions."""
    scores, truth = noisy_scores(7)
    shift = np.float32([0, 0.5, -0.25, 1])[:, None]
    assert mean_iou(scores, truth) - mean_iou(scores + shift, truth) > 0.05
    plain, shifted = best_offsets(scores, truth), best_offsets(scores + shift, truth)
    reached = mean_iou(scores, truth, plain)
    assert mean_iou(scores + shift, truth, shifted) == pytest.approx(reached, abs=0.01)


def test_where_no_pixel_is_labeled_nothing_is_added():
    np.testing.assert_array_equal(best_offsets(np.empty((3, 0), np.float32), np.empty(0, int)), 0)


def test_an_image_has_no_say_in_its_own_constants(tmp_path):
    images = read_image_list(color_list(tmp_path / "data"))
    predictor = Predictor(net_files("demo", demo_weights(tmp_path)))
    before = cross_fitted(predictor, images, HORSE.num_classes)
    spoiled = read_label(images[0].label)
    spoiled[spoiled < 3] = 1  # so that class 1 should be found nearly everywhere
    write_label(images[0].label, spoiled, HORSE.palette)
    after = cross_fitted(predictor, images, HORSE.num_classes)
    assert len(images) == len(after) == 3
    np.testing.assert_array_equal(after[0], before[0])
    assert not np.array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[1], after[2])


def test_the_command_says_what_it_added_and_belongs_to_no_row_of_the_paper(colors, tmp_path):
    listed = color_list(tmp_path / "data")
    out = tmp_path / "out"
    line = ["evaluate", str(colors[0]), "--weights", str(colors[1]), "--list", str(listed)]
    line += ["--labels", "horse", "--cpu", "-o", str(out)]
    plain = CliRunner().invoke(main, line)
    assert plain.exit_code == 0, plain.output
    marks = (out / "predictions/photo0.png").read_bytes()

    done = CliRunner().invoke(main, [*line, "--class-offsets"])
    assert done.exit_code == 0, done.output
    assert "constants were added" in done.stderr and "with each other only" in done.stderr
    written = json.loads((out / "evaluation.json").read_text())
    assert written["row"] is None and "constants were added" in written["warnings"][0]
    assert np.shape(written["class_offsets"]) == (2, HORSE.num_classes)
    assert written["metrics"]["mean_iou"] == 1  # the net is right, and stays right
    assert "constants were added" in (out / "report.html").read_text()
    assert (out / "predictions/photo0.png").read_bytes() != marks  # made anew, marked otherwise

    again = CliRunner().invoke(main, line)
    assert (
        again.exit_code == 0 and json.loads((out / "evaluation.json").read_text())["warnings"] == []
    )


@pytest.mark.parametrize("other", [["--all-layers"], ["--paper", "horse.lg_lstm"]])
def test_what_does_not_go_with_it_is_refused(other):
    done = CliRunner().invoke(main, ["evaluate", "horse_161", "--class-offsets", *other])
    assert done.exit_code == 2 and "--class-offsets is for comparing nets" in done.stderr


def test_one_image_has_no_other_half(colors, tmp_path):
    listed = color_list(tmp_path / "data")
    images = read_image_list(listed)[:1]
    with pytest.raises(InputError, match="at least two"):
        cross_fitted(Predictor(net_files(*colors)), images, HORSE.num_classes)
