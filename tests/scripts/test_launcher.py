"""The script that starts Caffe's programs: where Python starts, and what is left in /tmp."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import caffe_build

pytest.importorskip("caffe", reason="needs Caffe: make setup")

NET = """layer { name: "letter" type: "Python" top: "x"
  python_param { module: "letters" layer: "Letters" param_str: "\u00e4" } }"""
SOLVER = 'train_net: "net.prototxt" max_iter: 1 base_lr: 1 lr_policy: "fixed" snapshot_prefix: "x"'
LAYER = """
import caffe
class Letters(caffe.Layer):
    def setup(self, bottom, top):
        assert self.param_str == "\u00e4"
        print("Python has started")
    def reshape(self, bottom, top):
        top[0].reshape(1)
    def forward(self, bottom, top):
        pass
    def backward(self, top, propagate_down, bottom):
        pass
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    """The launcher of this checkout, with the Caffe that is installed, in a folder `ä`."""
    here, there = Path(sys.prefix), tmp_path / "ä" / ".venv"
    if not (here / "libexec" / "caffe").exists():
        pytest.skip("the caffe program is not installed")
    venv.create(there, symlinks=True)
    (there / "libexec").mkdir()
    shutil.copy(here / "libexec" / "caffe", there / "libexec")
    for library in (here / "lib").glob("libcaffe.so*"):
        shutil.copy(library, there / "lib", follow_symlinks=False)
    (there / caffe_build.SITE_PACKAGES / "here.pth").write_text(
        f"{here / caffe_build.SITE_PACKAGES}"
    )
    (there / "bin" / "caffe").write_text(caffe_build.LAUNCHER)
    (there / "bin" / "caffe").chmod(0o755)
    for name, text in (("net.prototxt", NET), ("solver.prototxt", SOLVER), ("letters.py", LAYER)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in ("LC_ALL", "LC_CTYPE", "LANG", "GLOG_log_dir", "GOOGLE_LOG_DIR"):
        monkeypatch.delenv(name, raising=False)
    return there / "bin" / "caffe"


def run(program: Path, *options: str, **settings: str) -> None:
    done = subprocess.run(
        [program, "train", "-solver", "solver.prototxt", *options],
        env=os.environ | {"PYTHONPATH": ".", "GLOG_minloglevel": "0"} | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert "Python has started" in done.stdout and "Optimization Done" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LANG": "no_SUCH"}, {"LC_ALL": "C.UTF-8"}])
def test_python_starts_from_a_folder_with_letters_beyond_ascii(program, locale):
    run(program, **locale)


@pytest.mark.slow
def test_no_log_is_left_unless_a_folder_for_it_is_named(program, tmp_path):
    for name in ("tmp", "logs", "more"):
        (tmp_path / name).mkdir()
    run(program, LC_ALL="C.UTF-8", TMPDIR=f"{tmp_path}/tmp", TEST_TMPDIR=f"{tmp_path}/tmp")
    assert not os.listdir(tmp_path / "tmp")
    run(program, f"-log_dir={tmp_path}/logs", LC_ALL="C.UTF-8")
    run(program, LC_ALL="C.UTF-8", GLOG_log_dir=f"{tmp_path}/more")
    assert os.listdir(tmp_path / "logs") and os.listdir(tmp_path / "more")
