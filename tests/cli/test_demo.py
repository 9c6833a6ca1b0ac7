"""The demo as a user walks it, shortened: data, `caffe train`, table, pictures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

from process_help import descendants, is_running, wait_until  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("lglstm")


def small_root(tmp_path: Path) -> Path:
    """A root folder with the demo's models, few iterations and few images."""
    models = tmp_path / "models"
    for name in ("demo", "demo_conv"):
        shutil.copytree(ROOT / "models" / name, models / name)
        for path in (models / name).iterdir():
            text = path.read_text()
            text = text.replace("max_iter: 1000", "max_iter: 20").replace(
                "display: 20", "display: 5"
            )
            path.write_text(text.replace('\\"batch_size\\": 8', '\\"batch_size\\": 2'))
    return tmp_path


def demo(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {key: os.environ[key] for key in os.environ if key != "GLOG_minloglevel"}
    return subprocess.run(
        [PROGRAM, "demo", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_demo_trains_measures_and_shows_and_repeats_itself(tmp_path):
    root = small_root(tmp_path)
    run = demo(root, "--seed", "5", "--json")
    assert run.returncode == 0, run.stderr
    assert "net.cpp" not in run.stderr, "Caffe's log belongs into its file"
    (result,) = json.loads(run.stdout)
    assert result["net"] == "demo" and result["seed"] == 5
    assert list(result["iou"]) == ["background", "head", "body", "leg", "tail"]
    assert 0 < result["mean_iou"] < 1 and 0 < result["pixel_accuracy"] < 1
    for key in ("weights", "sheet", "curve"):
        assert (root / result[key]).stat().st_size > 10_000
    copied = root / "runs/demo.caffemodel"  # where the examples of the documents look for it
    assert copied.read_bytes() == (root / result["weights"]).read_bytes()
    assert len((root / "data/demo/test.txt").read_text().splitlines()) == 100
    again = demo(root, "--seed", "5", "--json")
    assert json.loads(again.stdout)[0]["iou"] == result["iou"], "same seed, same result"


@pytest.mark.slow
def test_demo_killed_outright_leaves_no_training(tmp_path):
    root = small_root(tmp_path)
    for path in root.glob("models/demo/solver.prototxt"):
        path.write_text(path.read_text().replace("max_iter: 20", "max_iter: 100000"))
    process = subprocess.Popen([PROGRAM, "demo"], cwd=root, stdout=subprocess.DEVNULL)
    log = root / "runs/demo/demo-seed1/train.log"
    wait_until(lambda: log.exists() and "Iteration 5 " in log.read_text(), "no training")
    started = descendants(process.pid)
    assert len(started) > 1  # caffe, and those that decode for it
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, started)), "the training goes on")


@pytest.mark.slow
def test_demo_where_one_may_not_write(tmp_path):
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if not os.geteuid() else []
    if drop and subprocess.run([*drop, "true"]).returncode:
        pytest.skip("root may write anywhere, and cannot give that up here")
    root = small_root(tmp_path)
    (root / "data/demo").mkdir(parents=True)
    (root / "data/demo/dataset.json").touch()  # taken for a prepared set
    (root / "runs").mkdir(mode=0o555)
    run = subprocess.run([*drop, PROGRAM, "demo"], cwd=root, capture_output=True, text=True)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "runs/demo" in run.stderr and "Permission denied" in run.stderr


def test_demo_says_where_it_must_be_run(tmp_path):
    run = demo(tmp_path)
    assert run.returncode == 1
    assert "run the demo in the root of a checkout" in run.stderr
