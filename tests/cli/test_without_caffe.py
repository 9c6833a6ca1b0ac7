"""A Python without pycaffe: what needs it says so in one sentence, all else works."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lglstm.common.images import write_label
from lglstm.common.labels import label_set
from lglstm.common.pycaffe import MISSING

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import sys
sys.modules["caffe"] = None  # what an import finds where it is not installed
from lglstm.cli.main import main
main()
"""


def lglstm(*arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One photo with its true label map in a list, and predictions of it."""
    ids = np.tile(np.arange(5, dtype=np.uint8).repeat(8), (30, 1))
    for folder in ("labels", "predictions"):
        write_label(tmp_path / folder / "a.png", ids, label_set("horse").palette)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((30, 40, 3), np.uint8))
    (tmp_path / "test.txt").write_text("images/a.png labels/a.png\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "demo"),
        ("predict", "demo", "{data}/images", "--weights", "none.caffemodel", "--backend", "caffe"),
        (
            "evaluate",
            "demo",
            "--weights",
            "none.caffemodel",
            "--list",
            "{data}/test.txt",
            "--backend",
            "caffe",
        ),
        ("demo",),
        ("bench", "net", "demo", "--quick", "--repeats", "1", "--implementations", "stock"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_caffe_says_so(arguments: tuple[str, ...], data: Path) -> None:
    run = lglstm(*(argument.format(data=data) for argument in arguments))
    assert run.returncode == 1, run.stderr
    assert run.stderr == f"error: {MISSING}\n"
    for file in ("docs/install.md", "Dockerfile"):
        assert (ROOT / file).is_file()  # what the sentence names


@pytest.mark.slow
def test_tables_evaluations_and_curves_need_no_caffe(data: Path) -> None:
    given = ("--predictions", data / "predictions", "--list", data / "test.txt")
    out = data / "runs/a"
    by_name = lglstm("evaluate", *given, "--labels", "horse", "-o", out, "--json")
    assert by_name.returncode == 0, by_name.stderr
    assert json.loads(by_name.stdout)["metrics"]["mean_iou"] == 1
    assert (out / "report.html").is_file()
    by_model = lglstm("evaluate", "horse", *given, "-o", out)
    assert by_model.returncode == 0, by_model.stderr
    table = lglstm("table", "5", data / "runs", "--json")
    assert table.returncode == 0, table.stderr
    ours = {row["row"]: row["ours"] for block in json.loads(table.stdout) for row in block["rows"]}
    assert ours["horse.lg_lstm"]["mean_iou"] == 100
    (data / "run.csv").write_text("iteration,lr,total_loss\n0,0.1,2\n1,0.1,1\n")
    plot = lglstm("plot", "run.csv", folder=data)
    assert plot.returncode == 0, plot.stderr
    assert (data / "runs/curve.png").is_file()  # never into the folder itself


def test_the_python_interface_says_so_too(data: Path) -> None:
    shutil.copy(ROOT / "models/demo/deploy.prototxt", data)
    code = (
        "import sys; sys.modules['caffe'] = None\n"
        "import lglstm\n"
        "from lglstm.common.errors import InputError\n"
        "try:\n    lglstm.Parser('deploy.prototxt', 'none.caffemodel', backend='caffe')\n"
        "except InputError as error:\n    print(error)\n"
    )
    folder = ["-c", code.replace("'deploy.prototxt'", repr(str(data / "deploy.prototxt")))]
    run = subprocess.run([sys.executable, *folder], cwd=data, capture_output=True, text=True)
    assert run.stdout == f"{MISSING}\n", run.stderr
