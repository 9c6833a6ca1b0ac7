"""Every command, in folders whose files are named like our packages and Python's modules.

Left out where PYTHONPATH names the folder: a `re.py`, `os.py` or `lglstm/`. Python itself, and the
two lines that an installer writes as the command, find these before any line of ours is run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lglstm as our_package
from lglstm.common import child

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

PROGRAM = Path(sys.prefix, "bin", "lglstm")
PACKAGES = ("benchmarks", "common", "convert", "data_prep", "evaluation", "google", "layers")
PACKAGES += ("prototxt_gen", "training")
MODULES = ("caffe", "click", "cv2", "h5py", "json", "numpy", "random", "socket", "struct", "typing")
TRACE = "imported.txt"
HOSTILE = """
with open({trace!r}, "a") as file:
    print(__file__, file=file)
raise ImportError(f"{{__file__}} was imported")
"""

Command = Callable[..., str]


def make_hostile(folder: Path, *more_packages: str) -> None:
    """Fill a folder with files that, when imported, leave their name in TRACE and raise."""
    text = HOSTILE.format(trace=str(folder / TRACE))
    for name in (*PACKAGES, *more_packages):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
    for name in MODULES:
        (folder / f"{name}.py").write_text(text)


@pytest.fixture(params=["empty", "current and named"])
def lglstm(request: pytest.FixtureRequest, tmp_path: Path) -> Command:
    """The installed command in a hostile folder, without PYTHONPATH and with it on the path."""
    pythonpath = "" if request.param == "empty" else f".:{tmp_path}"
    environment = os.environ | {"PYTHONPATH": pythonpath}
    make_hostile(tmp_path, *([] if pythonpath else ["lglstm"]))

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [PROGRAM, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        trace = tmp_path / TRACE
        assert not trace.exists(), f"{arguments}: imported {trace.read_text()}"
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    return run


def shorten(folder: Path) -> None:
    """Make a generated model train two iterations on two images each."""
    for path in folder.glob("*.prototxt"):
        text = path.read_text()
        text = text.replace("max_iter: 1000", "max_iter: 2")
        path.write_text(text.replace('\\"batch_size\\": 8', '\\"batch_size\\": 2'))


def write_vgg(path: Path) -> None:
    """Write the convolutions of a VGG-16, all zeros, for `init-weights`."""
    channels = {
        1: (3, 64, 2),
        2: (64, 128, 2),
        3: (128, 256, 3),
        4: (256, 512, 3),
        5: (512, 512, 3),
    }
    arrays = {}
    for block, (before, width, count) in channels.items():
        for k in range(1, count + 1):
            shape = (width, before if k == 1 else width, 3, 3)
            arrays[f"conv{block}_{k}_w"] = np.zeros(shape, np.float32)
            arrays[f"conv{block}_{k}_b"] = np.zeros(width, np.float32)
    np.savez_compressed(path, **arrays)


@pytest.mark.slow
def test_no_command_imports_a_file_of_the_folder(lglstm: Command, tmp_path: Path) -> None:
    lglstm("--help")
    lglstm("doctor")
    for words in (["list"], ["options", "demo"], ["summary", "demo"], ["draw", "demo"]):
        lglstm("models", *words)
    lglstm("models", "generate", "demo")
    shorten(tmp_path / "models/demo")

    lglstm("data", "synthetic", "drawn", "--train", "6", "--test", "4")
    lists = [f"--{split}=drawn/ImageSets/{split}.txt" for split in ("train", "test")]
    lglstm("data", "horse-cow", "drawn", "data/demo", "--whole", "--workers", "2", *lists)
    lglstm("data", "check", "data/demo", "--workers", "2")
    net = "models/demo/train.prototxt"
    lglstm("data", "show", "data/demo/train.txt", "--augmented", "--net", net)

    write_vgg(tmp_path / "vgg.npz")
    lglstm(
        "init-weights", "fashionista_largefov", "--from", "vgg.npz", "--output", "init.caffemodel"
    )

    lglstm("train", "demo", "--cpu")
    lglstm("plot", "runs/demo.csv", "--output", "curve.png")
    lglstm("demo", "--seed", "1")  # `caffe train`
    weights = "runs/demo_iter_2.caffemodel"
    lglstm("predict", "demo", "drawn/JPEGImages", "--weights", weights, "--cpu")
    lglstm("evaluate", "demo", "--weights", weights, "--cpu", "--all-layers")
    lglstm("evaluate", "--predictions", "data/demo/labels", "--list", "data/demo/test.txt")
    lglstm("table", "all", "runs")
    lglstm("convert", "demo", weights, "--list")
    lglstm("convert", "demo", weights, "--to", "hdf5")
    lglstm("convert", "demo", weights, "--to", "reference")  # a process with Caffe

    quick = ["--quick", "--repeats", "1", "--threads", "1"]
    lglstm("bench", "stack", "--implementations", "cpp,python", *quick)
    lglstm("bench", "net", "demo", "--task", "image", "--implementations", "stock", *quick)
    lglstm("bench", "data", *quick)
    lglstm("bench", "scale", "--of", "d", *quick)


WHOAMI = """
import json, os, sys
import lglstm
told = {"lglstm": lglstm.__file__, "arguments": sys.argv[1:], "name": __name__}
print(json.dumps(told | {"pythonpath": os.environ["PYTHONPATH"], "more": os.environ["MORE"]}))
"""


def test_a_child_finds_the_users_modules_but_none_in_place_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_hostile(tmp_path, "lglstm")
    (tmp_path / "whoami.py").write_text(WHOAMI)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    told = subprocess.run(
        child.module_command("whoami", "a", "-b"),
        env=child.environment(MORE="yes"),
        capture_output=True,
        check=True,
    )
    assert json.loads(told.stdout) == {
        "lglstm": our_package.__file__,
        "arguments": ["a", "-b"],
        "name": "__main__",
        "pythonpath": str(tmp_path),
        "more": "yes",
    }
    assert not (tmp_path / TRACE).exists()


def test_a_folder_that_was_deleted_is_none_to_import_from(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$1"; "$2" --version', "sh", gone, PROGRAM],
        cwd=gone,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("lglstm, version"), done.stderr
