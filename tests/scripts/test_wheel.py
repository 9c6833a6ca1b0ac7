"""The wheel: what is in it, and what it does where there is neither Caffe nor a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lglstm import __version__
from lglstm.caffe_files import random_weights, read_net, write_caffemodel

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = {  # of the package that lie elsewhere in git: folder -> where the wheel has it
    "data_prep": "lglstm/data_prep",
    "layers": "lglstm/layers",
    "models": "lglstm/models",
    "prototxt_gen": "lglstm/prototxt_gen",
    "pytorch/lg_lstm_torch": "lglstm/convert/torch",
}
PYTHONS = ("3.11", "3.12", "3.13")
Run = Callable[..., str]
pytestmark = pytest.mark.slow


def build(checkout: Path, wheels: Path) -> Path:
    """Build the wheel of a checkout without a network."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-q", "-w", wheels, checkout], check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    return wheel


def copy_checkout(destination: Path, links: bool) -> Path:
    """Copy what git would hold; without links as Windows checks it out: a file with the target."""
    skipped = shutil.ignore_patterns(
        ".*", "__pycache__", "build", "dist", "data", "runs", "*.egg-info", "node_modules",
        "weights.safetensors",
    )  # fmt: skip
    destination.mkdir(parents=True)
    for name in ("lglstm", *PARTS, "tests", "scripts", "docs"):
        shutil.copytree(REPOSITORY / name, destination / name, symlinks=True, ignore=skipped)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, destination)
    (destination / "models/demo/weights.safetensors").write_bytes(b"for a checkout only")
    for link in sorted((destination / "lglstm").rglob("*")):
        if link.is_symlink() and not links:
            target = os.readlink(link)
            link.unlink()
            link.write_text(target)
    return destination


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return build(copy_checkout(folder / "checkout", links=True), folder / "wheels")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs git's list of files")
def test_the_wheel_holds_one_package_with_all_that_belongs_to_it(wheel: Path) -> None:
    names = set(contents(wheel))
    tops = {name.partition("/")[0] for name in names}
    assert tops - {f"lg_lstm-{__version__}.dist-info"} == {"lglstm"}
    inside = {path for path in names if path.endswith((".py", ".prototxt"))}
    tracked = subprocess.run(
        ["git", "ls-files", "lglstm", *PARTS],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    sources = {path for path in tracked.stdout.split() if path.endswith((".py", ".prototxt"))}
    assert inside == {place_in_wheel(path) for path in sources}
    assert "lglstm/models/horse/deploy.prototxt" in names
    assert "lglstm/models/horse/labels.json" in names
    assert "lglstm/common/label_sets/horse.json" in names
    assert not [name for name in names if name.endswith(".safetensors")], "a wheel is small"
    assert "lglstm/evaluation/paper_tables.toml" in names
    assert "lglstm/convert/web/index.html" in names


def place_in_wheel(path: str) -> str:
    for folder, place in PARTS.items():
        if path.startswith(f"{folder}/"):
            return place + path.removeprefix(folder)
    return path


def test_a_checkout_without_links_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout", links=False)
    assert (checkout / "lglstm/layers").read_text() == "../layers"
    assert (checkout / "lglstm/convert/torch").read_text() == "../../pytorch/lg_lstm_torch"
    assert contents(build(checkout, tmp_path / "wheels")) == contents(wheel)


@pytest.fixture(scope="module", params=PYTHONS)
def lglstm(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The command of an environment with the wheel and what it needs, but without Caffe."""
    folder = tmp_path_factory.mktemp(f"python{request.param}")
    pip = [folder / "bin/python", "-m", "pip", "install", "-q"]
    if request.param == f"{sys.version_info.major}.{sys.version_info.minor}":
        venv.create(folder, with_pip=True)
        lend_packages(Path(sysconfig.get_path("purelib", vars={"base": str(folder)})))
        subprocess.run([*pip, "--no-deps", wheel], check=True)
        return folder / "bin/lglstm"
    python = python_of_version(request.param)
    if python is None:
        pytest.skip(f"needs Python {request.param}")
    subprocess.run([python, "-m", "venv", folder], check=True)
    installed = subprocess.run(
        [*pip, "--retries", "0", wheel, "onnx", "onnxruntime", "safetensors"],
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"needs a package index: {installed.stderr.splitlines()[-1]}")
    return folder / "bin/lglstm"


def python_of_version(version: str) -> Path | None:
    """A Python program of this version; pyenv's commands exist for versions that it has not."""
    for name in (f"python{version}", *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")):
        program = shutil.which(name)
        if program and subprocess.run([program, "-c", ""], capture_output=True).returncode == 0:
            return Path(program)
    return None


def lend_packages(packages: Path) -> None:
    """Link the packages of this environment into another, all but Caffe and this project."""
    for source in Path(sysconfig.get_path("purelib")).iterdir():
        if not source.name.startswith(("caffe", "lglstm", "lg_lstm", "__editable__")):
            target = packages / source.name
            if not target.exists():
                target.symlink_to(source)


@pytest.fixture
def run(lglstm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def run(*arguments: str, status: int = 0) -> str:
        done = subprocess.run([lglstm, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status, f"{arguments}: {done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


def write_weights(path: Path) -> None:
    net = read_net(REPOSITORY / "models/demo/deploy.prototxt")
    weights = random_weights(net, seed=1)
    layers = [(x.message, [weights[key] for key in x.blobs.values()]) for x in net.layers]
    write_caffemodel(path, net.name, layers)


def test_the_wheel_is_useful_without_caffe(run: Run, tmp_path: Path) -> None:
    assert "init-weights" in run("--help")
    assert "horse_vgg16" in run("models", "list")
    run("models", "options", "horse")
    run("models", "summary", "horse")
    run("models", "draw", "horse", "-o", "horse.svg")
    run("table", "5")

    write_weights(tmp_path / "demo.caffemodel")
    run("convert", "demo", "demo.caffemodel", "--list")
    run("convert", "demo", "demo.caffemodel", "--to", "safetensors", "-o", "demo.safetensors")
    for target in ("npz", "hdf5"):
        run("convert", "demo", "demo.caffemodel", "--to", target)
    run("convert", "demo", "demo.caffemodel", "--to", "onnx", "--no-verify")
    run("convert", "demo", "demo.safetensors", "--to", "caffemodel", "-o", "back.caffemodel")

    Image.new("RGB", (60, 40), (90, 140, 60)).save(tmp_path / "photo.png")
    by_file = run("predict", "demo.onnx", "photo.png", "--json", "-o", "by_file")
    by_model = ["predict", "demo", "photo.png", "--weights", "demo.safetensors"]
    by_model = run(*by_model, "--backend", "onnx", "--json", "-o", "by_model")
    (one,), (other,) = json.loads(by_file), json.loads(by_model)
    assert one["areas"] == other["areas"] and sum(one["areas"].values()) == pytest.approx(1)

    run("data", "synthetic", "drawn", "--train", "6", "--test", "4")
    lists = [f"--{split}=drawn/ImageSets/{split}.txt" for split in ("train", "test")]
    run("data", "horse-cow", "drawn", "data/horse", "--whole", "--workers", "2", *lists)
    run("data", "check", "data/horse", "--workers", "2")
    run("data", "show", "data/horse/train.txt", "--augmented")
    # The model's own list is looked for here, not beside the installed package.
    run("evaluate", "horse", "--predictions", "data/horse/labels")

    (tmp_path / "run.csv").write_text(
        "iteration,lr,total_loss,seconds,data_seconds\n0,0.1,4,0.5,0.1\n1,0.1,2,0.5,0.1\n"
    )
    run("plot", "run.csv", "-o", "curve.png")


def test_doctor_sends_to_a_checkout_for_caffe(lglstm: Path, tmp_path: Path) -> None:
    done = subprocess.run([lglstm, "doctor", "--json"], cwd=tmp_path, capture_output=True)
    missing = json.loads(done.stdout)["missing"]
    assert done.returncode == 1
    assert [problem["name"] for problem in missing] == ["Caffe", "caffe command"]
    assert all("in a checkout of the project" in problem["remedy"] for problem in missing)


NEEDS_CAFFE = [
    ["train", "horse"],
    ["predict", "demo", "photos", "--weights", "demo.caffemodel", "--backend", "caffe"],
    ["evaluate", "demo", "--weights=demo.caffemodel", "--list=list.txt", "--backend=caffe"],
    ["convert", "demo", "demo.caffemodel", "--to", "reference"],
    ["bench", "stack"],
    ["demo"],
]


@pytest.mark.parametrize("arguments", NEEDS_CAFFE, ids=" ".join)
def test_what_needs_caffe_says_so_in_one_sentence(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    write_weights(tmp_path / "demo.caffemodel")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "photos/a.png")
    (said,) = run(*arguments, status=1).splitlines()
    assert said.startswith("error: ")
    assert "a checkout" in said, "there is no make here"
