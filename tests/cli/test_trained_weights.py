"""Trained weights in a model's folder: used when none are named, and fit for being published."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("caffe", reason="needs Caffe: make setup")
pytest.importorskip("safetensors", reason="needs safetensors")
pytest.importorskip("torch", reason="needs torch")

from evaluation_help import COLORS, color_list, color_net, demo_weights

import lglstm
from lglstm.caffe_files import read_net
from lglstm.caffe_files.caffemodel import read_blobs
from lglstm.cli.main import main
from lglstm.common.errors import InputError
from lglstm.common.models import WEIGHTS, find_model, find_weights
from lglstm.convert.read import read_model
from lglstm.evaluation.engines import net_files
from lglstm.evaluation.predictor import Predictor
from release_weights import CARD, SCORES, SECTIONS, add_class_offsets, drawn_scores

ROOT = Path(__file__).resolve().parents[2]
TRAINED = sorted(path.parent.name for path in ROOT.glob(f"models/*/{WEIGHTS}"))
LARGEST = 50_000_000
TEST_SETS = {
    "horse": ("horse-cow", "horse_cow/VOC2010"),
    "cow": ("horse-cow", "horse_cow/VOC2010", "--animal", "cow"),
    "horse_161": ("horse-cow", "horse_cow/VOC2010"),
    "cow_161": ("horse-cow", "horse_cow/VOC2010", "--animal", "cow"),
    "fashionista_241": ("fashionista", "fashionista/fashionista_v0.2.mat"),
    "fashionista_321": ("fashionista", "fashionista/fashionista_v0.2.mat"),
}
"""How `lglstm data` makes the set with whose test list a card states its numbers."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `colors`, its weights in half precision, a photo and a list."""
    folder = tmp_path_factory.mktemp("project")
    model = folder / "models/colors"
    model.mkdir(parents=True)
    deploy, weights = color_net(model)
    line = [
        "convert",
        str(deploy),
        str(weights),
        "--to",
        "pytorch",
        "--precision",
        "float16",
        "--no-verify",
    ]
    result = CliRunner().invoke(main, [*line, "-o", str(model / WEIGHTS)])
    assert result.exit_code == 0, result.output
    weights.unlink()
    color_list(folder / "data")
    cv2.imwrite(str(folder / "photo.png"), COLORS[np.eye(24, 40, dtype=int)])
    return folder


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_commands_take_them_when_no_weights_are_named(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (photo,) = json.loads(run("predict", "colors", "photo.png", "--json"))
    assert photo["areas"]["head"] == pytest.approx(1 / 40, abs=0.01)
    scored = json.loads(run("evaluate", "colors", "--list", "data/test.txt", "--json"))
    assert scored["metrics"]["mean_iou"] == 1
    assert Path(scored["weights"]).name == WEIGHTS
    parsing = lglstm.Parser("colors").parse("photo.png")
    assert list(parsing.areas.values()) == pytest.approx(list(photo["areas"].values()))
    named = lglstm.Parser("models/colors/deploy.prototxt", "colors").parse("photo.png")
    np.testing.assert_array_equal(named.label_map, parsing.label_map)


def test_convert_takes_them_too_and_writes_into_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.glob("models/**/*"))
    report = json.loads(run("convert", "colors", "--to", "npz", "--no-verify", "--json"))
    assert report["output"] == "runs/colors.npz"
    assert "nearest" in run("convert", "colors", "--list")
    assert sorted(folder.glob("models/**/*")) == before


def test_a_model_without_weights_names_others(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "models/bare").mkdir(exist_ok=True)
    (folder / "models/bare/deploy.prototxt").write_text("")
    for line in (["predict", "bare", "photo.png"], ["evaluate", "bare", "--list", "data/test.txt"]):
        result = CliRunner().invoke(main, line)
        assert isinstance(result.exception, InputError) or result.exit_code == 1, result.output
        assert "bare: there are no trained weights in its folder; name a file with --weights" in (
            str(result.exception) + result.output
        )


def test_the_list_of_models_says_who_has_some(monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in run("models", "list").splitlines()[1:]:
        assert line.rstrip().endswith(" MB") == (line.split()[0] in TRAINED), line


def test_class_offsets_become_part_of_the_classifier(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    before, after = demo_weights(tmp_path), tmp_path / "offsets.caffemodel"
    add_class_offsets("demo", str(before), str(color_list(tmp_path / "data")), after)
    photo = np.random.default_rng(1).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    old, new = (
        Predictor(net_files("demo", path)).scores([photo])["score"][0] for path in (before, after)
    )
    layers = [set(read_blobs(path)) for path in (before, after)]
    assert layers[0] == layers[1] and "score1_local" in layers[0]  # what only training needs stays
    added = (new - old).mean(axis=(1, 2))
    np.testing.assert_allclose(
        new - old, np.broadcast_to(added[:, None, None], new.shape), atol=1e-3
    )
    assert abs(added[0]) < 1e-3 and np.abs(added).max() > 0.04
    said = [float(part.split()[1]) for part in capsys.readouterr().out.split(":")[1].split(",")]
    np.testing.assert_allclose(said, added, atol=1e-3)


@pytest.mark.parametrize("name", TRAINED)
def test_published_weights_fit_their_model_and_have_a_card(name):
    model = find_model(name)
    path = find_weights(None, model)
    assert path.stat().st_size < LARGEST
    read = read_model(model.file, path)  # names, shapes and that all numbers are finite
    assert set(read.weights) == set(read_net(model.file).weights)
    assert read.description is not None and read.description.license != "not stated"
    card = (path.parent / CARD).read_text(encoding="utf-8")
    headings = [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]
    assert [section for section in SECTIONS if section not in headings] == []
    assert "…" not in card, "a part of the card has not been filled in"
    tracked = subprocess.run(["git", "ls-files", path], cwd=ROOT, capture_output=True, text=True)
    assert tracked.returncode or tracked.stdout or not (ROOT / ".git").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_published_weights_give_the_stored_scores(name):
    stored = json.loads((find_model(name).folder / SCORES).read_text(encoding="utf-8"))
    scores = drawn_scores(name)
    assert scores.shape == tuple(stored["shape"])
    expected = np.array(stored["scores"]).reshape(scores.shape)
    np.testing.assert_allclose(scores, expected, atol=1e-3 * np.abs(expected).max())
    assert np.ptp(expected) > 0.1, "weights that say nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_published_weights_reach_what_their_card_says(name, shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAFFE_CONVOLUTION_ENGINE", "onednn_bf16")
    command, source, *options = TEST_SETS[name]
    run("data", command, str(shared_data / source), "set", *options)
    line = ("evaluate", name, "--cpu", "--list", "set/test.txt", "--json", "-o", "scored")
    scored = json.loads(run(*line))
    card = (find_model(name).folder / CARD).read_text(encoding="utf-8")
    (stated,) = re.findall(r"Mean IoU (\d\d\.\d\d) % on (\d+)", card)
    assert scored["images"] == int(stated[1])
    assert 100 * scored["metrics"]["mean_iou"] == pytest.approx(float(stated[0]), abs=0.1)
