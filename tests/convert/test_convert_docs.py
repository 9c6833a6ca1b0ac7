"""The examples of docs/convert.md run, from top to bottom."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from convert_help import ROOT, needs_caffe, write_weights

from lglstm.caffe_files import random_weights, read_net
from lglstm.cli.main import main
from lglstm.data_prep.synthetic import draw_example

for package in ("torch", "onnx", "onnxruntime", "safetensors"):
    pytest.importorskip(package, reason=f"needs the package {package}: see docs/convert.md")

BLOCK = re.compile(r"^```(sh|sh npm|python)\n(.*?)^```$", re.M | re.S)


@pytest.mark.slow
@needs_caffe
def test_the_examples_run(tmp_path, monkeypatch):
    blocks = BLOCK.findall((ROOT / "docs" / "convert.md").read_text(encoding="utf-8"))
    assert len(blocks) > 10
    for name in ("models", "lglstm"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    draw_animals(tmp_path / "data" / "demo")
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
    (label_map,) = names["label_maps"]
    assert label_map.shape == (291, 291) and len(np.unique(label_map)) > 1
    assert (names["by_opencv"] == label_map).mean() > 0.999
    assert (names["by_torch"].numpy() == label_map).mean() > 0.999
    assert (tmp_path / "runs" / "sample_parts.png").is_file()
    assert (tmp_path / "runs" / "finetuned.caffemodel").is_file()
    assert not vendored or (tmp_path / "runs" / "demo_page" / "index.html").is_file()


def draw_animals(folder: Path) -> None:
    """The files of `make demo` that the page names, fewer of them."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    lines = []
    for index in range(6):
        photo, label = draw_example(97, seed=1, index=index)
        for kind, picture in (("images", photo), ("labels", label)):
            cv2.imwrite(str(folder / kind / f"{index}.png"), picture)
        lines.append(f"images/{index}.png labels/{index}.png\n")
    (folder / "test.txt").write_text("".join(lines))


def run(block: str) -> None:
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        if program == "npm":
            assert shutil.which("npm")
            continue
        assert program == "lglstm"
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, (line, result.output)
