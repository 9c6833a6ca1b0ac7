"""The examples of docs/convert.md run, from top to bottom."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest
from click.testing import CliRunner
from convert_help import ROOT, needs_caffe, write_weights

from lglstm.caffe_files import random_weights, read_net
from lglstm.cli.main import main

for package in ("torch", "onnx", "onnxruntime", "safetensors"):
    pytest.importorskip(package, reason=f"needs {package}: pip install {package}")

BLOCK = re.compile(r"^```(sh|sh npm|python)\n(.*?)^```$", re.M | re.S)


@pytest.mark.slow
@needs_caffe
def test_the_examples_run(tmp_path, monkeypatch):
    blocks = BLOCK.findall((ROOT / "docs" / "convert.md").read_text(encoding="utf-8"))
    assert len(blocks) > 10
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    net = read_net("models/demo/train.prototxt", "TRAIN")
    write_weights(tmp_path / "runs" / "demo.caffemodel", net, random_weights(net, seed=1))
    vendored = (ROOT / "lglstm" / "convert" / "web" / "node_modules").is_dir()
    names: dict = {}
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, "docs/convert.md", "exec"), names)
        elif kind == "sh" or vendored:
            run(block)
    assert tuple(names["scores"].shape[:2]) == (4, 5)
    assert (tmp_path / "runs" / "finetuned.caffemodel").is_file()
    assert not vendored or (tmp_path / "runs" / "demo_page" / "index.html").is_file()


def run(block: str) -> None:
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        if program == "npm":
            assert shutil.which("npm")
            continue
        assert program == "lglstm"
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, (line, result.output)
