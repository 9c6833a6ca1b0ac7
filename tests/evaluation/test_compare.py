"""The paired bootstrap: its formulas, what it concludes, and `lglstm compare`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lglstm.cli.main import main
from lglstm.common.images import write_label
from lglstm.common.labels import IGNORE, LABEL_SETS
from lglstm.evaluation.compare import bootstrap
from lglstm.evaluation.metrics import Metrics

HORSE = LABEL_SETS["horse"]
IMAGES = 24


def matrices(seed: int, hits: int) -> np.ndarray:
    """A confusion matrix for each image; the more `hits`, the better."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 20, (IMAGES, 5, 5)) + hits * np.eye(5, dtype=int)


def test_a_resample_of_every_image_once_gives_the_metrics_of_the_evaluation() -> None:
    a, b = matrices(1, 40), matrices(2, 50)
    for one in bootstrap(a, b, HORSE.names, samples=200, seed=1):
        for counted, value in ((a, one.baseline), (b, one.other)):
            expected = Metrics(counted.sum(axis=0), HORSE.names).value(one.metric)
            assert value == pytest.approx(100 * expected)
        assert one.low <= one.difference <= one.high
        assert one.high - one.low > 0


@pytest.mark.parametrize("metric", ["mean_iou", "foreground_iou", "pixel_accuracy", "iou.tail"])
def test_resampled_metrics_are_those_of_the_resampled_images(metric: str) -> None:
    """With as many copies of one image as there are images, every resample is the same."""
    a, b = (np.repeat(matrices(seed, 30)[:1], IMAGES, axis=0) for seed in (3, 4))
    (one,) = [d for d in bootstrap(a, b, HORSE.names, 100, 1) if d.metric == metric]
    assert one.low == pytest.approx(one.difference) == pytest.approx(one.high)


def test_a_net_against_itself_and_against_a_clearly_better_one() -> None:
    a = matrices(1, 40)
    for one in bootstrap(a, a, HORSE.names, 100, 1):
        assert (one.low, one.difference, one.high, one.better) == (0, 0, 0, 0)
    for one in bootstrap(a, a + 100 * np.eye(5, dtype=int), HORSE.names, 100, 1):
        assert one.low > 0
        assert one.better == 1


def test_a_class_that_one_image_alone_has_may_be_missing_from_a_resample() -> None:
    a, b = matrices(1, 40), matrices(2, 50)
    for counted in (a, b):
        counted[1:, 4], counted[1:, :, 4] = 0, 0
    (tail,) = [d for d in bootstrap(a, b, HORSE.names, 500, 1) if d.metric == "iou.tail"]
    assert np.isfinite([tail.low, tail.high]).all()


def test_a_class_that_nobody_has_is_left_out() -> None:
    a = matrices(1, 40)
    a[:, 4], a[:, :, 4] = 0, 0
    assert "iou.tail" not in {one.metric for one in bootstrap(a, a, HORSE.names, 100, 1)}


@pytest.fixture
def evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Evaluations `right` (all true) and `wrong` (every fifth row background) of the same list."""
    monkeypatch.chdir(tmp_path)
    rng, lines = np.random.default_rng(5), []
    for index in range(6):
        truth = rng.integers(0, 5, (20, 30)).astype(np.uint8)
        worse = truth.copy()
        worse[::5] = 0
        truth[0] = IGNORE
        for folder, ids in (
            ("labels", truth),
            ("right", worse * 0 + truth % 255),
            ("wrong", worse),
        ):
            write_label(tmp_path / folder / f"{index}.png", ids, HORSE.palette)
        lines.append(f"images/{index}.png labels/{index}.png\n")
        write_label(tmp_path / f"images/{index}.png", truth, HORSE.palette)
    (tmp_path / "test.txt").write_text("".join(lines))
    for name in ("right", "wrong"):
        given = ["--predictions", name, "--list", "test.txt", "--labels", "horse"]
        done = CliRunner().invoke(main, ["evaluate", *given, "-o", f"runs/{name}"])
        assert done.exit_code == 0, done.output
    return tmp_path


def test_command(evaluations: Path) -> None:
    done = CliRunner().invoke(main, ["compare", "runs/wrong", "runs/right", "--samples", "200"])
    assert done.exit_code == 0, done.output
    assert "runs/right against runs/wrong, 6 images" in " ".join(done.output.split())
    given = ["compare", "runs/wrong", "runs/right", "--samples", "200", "--json"]
    first, again = (CliRunner().invoke(main, given).stdout for _ in range(2))
    assert first == again
    (compared,) = json.loads(first)
    iou = compared["differences"][0]
    assert (iou["metric"], iou["other"], iou["better"]) == ("mean_iou", 100, 1)
    assert 0 < iou["low"] <= iou["difference"] <= iou["high"]


def test_evaluations_that_cannot_be_compared(evaluations: Path) -> None:
    def said(*folders: str) -> str:
        done = CliRunner().invoke(main, ["compare", *folders])
        assert done.exit_code == 1, done.output
        return done.stderr

    assert "not a result of `lglstm evaluate`" in said("runs/right", "labels")
    (evaluations / "wrong/3.png").unlink()
    assert "3" in said("runs/right", "runs/wrong")
    other = evaluations / "runs/wrong/evaluation.json"
    contents = json.loads(other.read_text())
    other.write_text(json.dumps(contents | {"label_set": LABEL_SETS["atr"].to_json()}))
    assert "compare evaluations of the same classes" in said("runs/right", "runs/wrong")
