"""The one finder of models: names from any folder, paths, and an installed package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lglstm.common import models
from lglstm.common.errors import InputError
from lglstm.common.models import WEIGHTS, find_model, find_weights, known_models

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.prefix, "bin", "lglstm")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_model(root: Path, name: str, *forms: str) -> Path:
    folder = root / "models" / name
    folder.mkdir(parents=True)
    for form in forms or ("deploy",):
        shutil.copy(REPOSITORY / "models/demo" / f"{form}.prototxt", folder)
    return folder


def test_a_name_is_found_in_the_checkout_from_any_folder(elsewhere: Path) -> None:
    found = find_model("horse", "solver")
    assert found.file == REPOSITORY / "models/horse/solver.prototxt"
    assert (found.name, found.root) == ("horse", REPOSITORY)
    assert not found.is_packaged


def test_a_model_of_the_current_folder_comes_first(elsewhere: Path) -> None:
    mine = make_model(elsewhere, "horse")
    found = find_model("horse")
    assert (found.file, found.root) == (mine / "deploy.prototxt", elsewhere)
    # It has no solver, so this one is the checkout's.
    assert find_model("horse", "solver").root == REPOSITORY


@pytest.mark.parametrize("given", ["nets/mine", "nets/mine/", "nets/mine/deploy.prototxt"])
def test_a_path_leads_to_a_folder_or_a_file(elsewhere: Path, given: str) -> None:
    make_model(elsewhere, "mine")
    (elsewhere / "models").rename(elsewhere / "nets")
    found = find_model(given)
    assert found.file.samefile(elsewhere / "nets/mine/deploy.prototxt")
    assert (found.name, found.root) == ("mine", elsewhere)


def test_a_file_with_a_name_of_its_own_gives_the_model_its_name(elsewhere: Path) -> None:
    shutil.copy(REPOSITORY / "models/demo/deploy.prototxt", elsewhere / "ponies.prototxt")
    assert find_model("ponies.prototxt").name == "ponies"


def test_other_files_of_a_model(elsewhere: Path) -> None:
    assert find_model("horse").form("train") == REPOSITORY / "models/horse/train.prototxt"
    make_model(elsewhere, "mine")
    with pytest.raises(InputError, match=r"models/mine/test\.prototxt: does not exist; generate"):
        find_model("mine").form("test")


def test_what_is_not_there_is_said_with_the_nearest_name(elsewhere: Path) -> None:
    with pytest.raises(InputError, match="no model 'hors'; did you mean horse"):
        find_model("hors")
    (elsewhere / "nets/horse").mkdir(parents=True)
    with pytest.raises(InputError, match=r"nets/horse/deploy\.prototxt: there is no such file"):
        find_model("nets/horse")
    make_model(elsewhere, "mine")
    assert {"mine", "horse", "atr"} <= set(known_models())


def test_weights_are_the_models_own_or_those_that_are_named(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "checkout", lambda: elsewhere)
    for name in ("horse", "horse_small", "cow", "atr"):
        make_model(elsewhere, name)
    horse = find_model("horse")
    assert horse.weights is None
    message = "horse: there are no trained weights in its folder; name a file with --weights"
    for have, advice in ((None, ""), ("atr", "atr"), ("horse_small", "horse_small")):
        if have:
            (elsewhere / "models" / have / WEIGHTS).touch()
            advice = f", or take a model that has some: {advice}"
        with pytest.raises(InputError) as error:
            find_weights(None, horse)
        assert str(error.value) == message + advice
    own = elsewhere / "models/horse_small" / WEIGHTS
    assert (
        find_weights("horse_small", horse) == own == find_weights(None, find_model("horse_small"))
    )
    assert find_weights("runs/a.caffemodel", horse) == Path("runs/a.caffemodel")
    Path("horse_small").touch()
    assert find_weights("horse_small", horse) == Path("horse_small"), "a file comes first"


def test_models_of_an_installed_package_have_their_data_in_the_current_folder(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = elsewhere / "site-packages/lglstm"
    make_model(package, "pony", "deploy", "solver")
    here = elsewhere / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(models, "PACKAGE", package)
    monkeypatch.setattr(models, "checkout", lambda: None)
    found = find_model("pony", "solver")
    assert found.file == package / "models/pony/solver.prototxt"
    assert found.root == here
    assert found.is_packaged
    with pytest.raises(InputError, match="copy models/pony/weights.safetensors from a checkout"):
        find_weights(None, found)
    own = here / "models/pony" / WEIGHTS
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_weights(None, found).resolve() == own


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "summary", "demo", "--json"],
        ["models", "draw", "demo", "--output", "demo.png"],
        ["predict", "demo", "photo.png", "--weights", "none.caffemodel"],
        ["evaluate", "demo", "--weights", "none.caffemodel", "--list", "none.txt"],
        ["convert", "demo", "none.caffemodel", "--to", "npz"],
        ["train", "demo", "--weights", "none.caffemodel"],
        ["init-weights", "horse", "--from", "none.npz"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_finds_a_model_by_name_from_any_folder(
    elsewhere: Path, arguments: list[str]
) -> None:
    """What is missing is the weights file, if anything; never the model."""
    pytest.importorskip("caffe", reason="needs Caffe: make setup")
    shutil.copy(REPOSITORY / "docs/demo.png", elsewhere / "photo.png")
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    if arguments[0] == "models":
        assert done.returncode == 0, done.stderr
        assert not done.stdout.startswith("{") or json.loads(done.stdout)["model"] == "demo"
    else:
        assert done.returncode == 1
        assert "none." in done.stderr, done.stderr
