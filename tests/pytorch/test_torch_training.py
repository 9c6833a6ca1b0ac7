"""pytorch/train.py: Caffe's losses and weights, whatever the count of processes, and --resume."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs PyTorch: see docs/convert.md")
caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

from caffe.proto import caffe_pb2  # noqa: E402
from google.protobuf import text_format  # noqa: E402
from models_help import IMAGES, net_file, tiny  # noqa: E402

from lglstm.caffe_files import read_blobs  # noqa: E402
from lglstm.data_prep.synthetic import draw_example  # noqa: E402
from lglstm.prototxt_gen.registry import MODELS  # noqa: E402
from lglstm.prototxt_gen.solvers import solver as solver_of  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
ITERATIONS = 12
TOLERANCE = 1e-5  # of losses, relative
WITHOUT_DROPOUT = {"horse": {"dropout": 0.0}, "atr": {"image_label_dropout": 0.0}, "demo": {}}
# Half of the photos are turned, and their corners ignored: no two images have equally many labels.
AUGMENTED = {"rotation": (-40, 40), "crop": (0.6, 1), "color": (0.8, 1.2)}


def draw_animals(folder: Path) -> None:
    """A list of four."""
    folder.mkdir()
    for i in range(IMAGES):
        photo, label = draw_example(size=49, index=i)
        Image.fromarray(photo).save(folder / f"{i}.png")
        Image.fromarray(label).save(folder / f"{i}_label.png")
    (folder / "train.txt").write_text("".join(f"{i}.png {i}_label.png\n" for i in range(IMAGES)))


def write_solver(folder: Path, model: str, weights: Path | None = None, **changes) -> Path:
    """A tiny version of a model, with its data, in a new folder; return the solver file."""
    draw_animals(folder)
    options = tiny(MODELS[model].options, folder)
    settings = {"iterations": ITERATIONS, "lr_step": 0.5, "weight_decay": 0.01, **AUGMENTED}
    settings |= {"base_lr": 0.05} if options.solver_type == "SGD" else {}
    options = dataclasses.replace(options, **settings | changes)
    solver = solver_of(options, "tiny")
    solver.train_net, solver.snapshot_prefix = net_file(options, "train", folder), "tiny"
    solver.ClearField("test_net")
    for field in ("test_iter", "test_interval"):
        solver.ClearField(field)
    solver.display = 0
    if weights:
        solver.weights.append(str(weights))
    file = folder / "solver.prototxt"
    file.write_text(text_format.MessageToString(solver))
    return file


def change(file: Path, **settings) -> None:
    solver = text_format.Parse(file.read_text(), caffe_pb2.SolverParameter())
    solver.MergeFrom(caffe_pb2.SolverParameter(**settings))
    file.write_text(text_format.MessageToString(solver))


def train(solver: Path, *arguments: str, processes: int = 1, status: int = 0) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), str(ROOT / "pytorch" / "train.py")]
    done = subprocess.run(
        [*command, solver.name, *arguments],
        cwd=solver.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    return done.stderr


def losses(solver: Path) -> dict[str, list[float]]:
    """Every column of losses of a training's CSV."""
    with (solver.parent / "tiny_torch.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == list(range(len(rows)))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if "loss" in name}


def weights(solver: Path) -> dict[str, list[np.ndarray]]:
    return read_blobs(solver.parent / f"tiny_torch_iter_{ITERATIONS}.caffemodel")


def of_caffe(file: Path, start: Path) -> tuple[dict[str, list[float]], dict[str, list[np.ndarray]]]:
    """What Caffe makes of the solver: losses times their weights, and the weights at the end.

    Those at the beginning are written to `start`.
    """
    solver = caffe.get_solver(str(file))
    solver.net.save(str(start))
    names = [name for name in solver.net.outputs if solver.net.blob_loss_weights[name]]
    rows = []
    for _ in range(ITERATIONS):
        with contextlib.chdir(file.parent):  # for Caffe's snapshots
            solver.step(1)
        rows.append(
            [float(solver.net.blobs[x].data) * solver.net.blob_loss_weights[x] for x in names]
        )
    end = file.parent / "caffe.caffemodel"
    solver.net.save(str(end))
    by_name = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return by_name | {"total_loss": [sum(row) for row in rows]}, read_blobs(end)


def assert_same_losses(solver: Path, expected: dict[str, list[float]]) -> None:
    found = losses(solver)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=TOLERANCE, err_msg=name)


def assert_same_steps(
    solver: Path, end: dict[str, list[np.ndarray]], start: Path, tolerance: float
) -> None:
    """The weights moved alike, to within a part of the largest move in a blob."""
    first, found = read_blobs(start), weights(solver)
    assert len(found) > 5
    for name, blobs in found.items():
        for blob, other, before in zip(blobs, end[name], first[name], strict=True):
            move = np.abs(other - before).max()
            assert np.abs(blob - other).max() <= tolerance * move, name


@pytest.mark.slow
@pytest.mark.parametrize(("model", "tolerance"), [("horse", 3e-4), ("atr", 3e-4), ("demo", 1e-2)])
def test_losses_and_weights_are_caffes(tmp_path: Path, model: str, tolerance: float) -> None:
    """SGD in several steps, SGD with an image-label branch and fixed upsampling, and Adam.

    Adam divides a gradient by its size, so one that is nearly nothing moves a weight by its error.
    """
    file = write_solver(tmp_path / "caffe", model, **WITHOUT_DROPOUT[model])
    if model == "horse":
        change(file, lr_policy="multistep", stepvalue=[4, 9])
    expected, end = of_caffe(file, tmp_path / "start.caffemodel")
    assert max(expected["total_loss"]) > 1.1 * min(expected["total_loss"]), "it should learn"
    change(file, weights=[str(tmp_path / "start.caffemodel")])
    train(file)
    assert_same_losses(file, expected)
    assert_same_steps(file, end, tmp_path / "start.caffemodel", tolerance)


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    """Corners are ignored, so the processes have different counts of labels."""
    one = write_solver(tmp_path / "one", "horse", batch_size=4, dropout=0.0)
    two = write_solver(tmp_path / "two", "horse", batch_size=2, dropout=0.0)
    train(one)
    train(two, processes=2)
    assert_same_losses(two, losses(one))
    ends = [weights(file) for file in (one, two)]
    for name, blobs in ends[0].items():
        for blob, other in zip(blobs, ends[1][name], strict=True):
            assert np.abs(blob - other).max() <= TOLERANCE * np.abs(blob).max(), name


@pytest.mark.slow
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path) -> None:
    """With dropout, and from the initial weights of the fillers, bit for bit."""
    whole = write_solver(tmp_path / "whole", "horse")
    train(whole)
    parts = write_solver(tmp_path / "parts", "horse")
    change(parts, max_iter=ITERATIONS // 2)
    train(parts)
    change(parts, max_iter=ITERATIONS)
    assert "error: tiny_torch.pth is there already; give --resume" in train(parts, status=1)
    train(parts, "--resume")
    csvs = [file.with_name("tiny_torch.csv").read_text() for file in (whole, parts)]
    assert csvs[0] == csvs[1]
    for name, blobs in weights(whole).items():
        for blob, other in zip(blobs, weights(parts)[name], strict=True):
            assert blob.tobytes() == other.tobytes(), name
