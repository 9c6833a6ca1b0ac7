"""docs/own_classes.md, from top to bottom, on drawn butterflies."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lglstm.common.images import read_label
from lglstm.common.labels import label_set
from lglstm.convert.description import read_description

pytest.importorskip("caffe", reason="needs Caffe: make setup")
for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason=f"needs the package {package}: see docs/convert.md")

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/own_classes.md"
BLOCK = re.compile(r"^```(json|sh|sh npm)\n(.*?)^```$", re.M | re.S)
SIZE = 65


def draw(folder: Path, count: int = 80) -> None:
    """Draw butterflies of any colors, both wings of the same one, and their label maps."""
    rng = np.random.default_rng(0)
    for name in ("photos", "ids"):
        (folder / name).mkdir()
    for k in range(count):
        ground, wings = rng.integers(0, 256, (2, 3)).tolist()
        photo, ids = Image.new("RGB", (SIZE, SIZE), tuple(ground)), Image.new("L", (SIZE, SIZE))
        x, y = rng.integers(26, SIZE - 26, 2).tolist()
        wide, high = rng.integers(10, 20, 2).tolist()
        boxes = {
            2: (x - wide, y - high, x, y + high // 2),
            3: (x, y - high, x + wide, y + high // 2),
            1: (x - 3, y - high, x + 3, y + high),
        }
        for part, box in boxes.items():
            color = tuple(wings) if part > 1 else tuple(255 - value for value in wings)
            ImageDraw.Draw(photo).ellipse(box, color)
            ImageDraw.Draw(ids).ellipse(box, part)
        noisy = np.asarray(photo) + rng.normal(0, 12, (SIZE, SIZE, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"photos/{k:02}.png")
        ids.save(folder / f"ids/{k:02}.png")


@pytest.mark.slow
def test_the_page_leads_from_two_folders_to_a_net_that_names_its_parts(tmp_path):
    draw(tmp_path)
    vendored = (REPOSITORY / "lglstm/convert/web/node_modules").is_dir()
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [kind for kind, _ in blocks] == ["json", "sh", "sh", "sh", "sh", "sh npm"]
    for kind, block in blocks:
        if kind == "json":
            (tmp_path / "butterflies.json").write_text(block)
        elif kind == "sh" or vendored:
            for line in block.splitlines():
                run(line, tmp_path)

    labels = label_set(str(tmp_path / "butterflies.json"))
    (found,) = (tmp_path / "runs/evaluation/butterflies").glob("*/evaluation.json")
    metrics = json.loads(found.read_text())["metrics"]
    assert tuple(metrics["iou"]) == labels.names
    assert metrics["iou"]["left-wing"] > 0.2 and metrics["iou"]["right-wing"] > 0.2
    assert metrics["mean_iou"] > 0.4  # 0.21 is everything background
    (parsed,) = (tmp_path / "runs/predict/butterflies").glob("*/labels/00.png")
    assert read_label(parsed, labels.num_classes).shape == (SIZE, SIZE)
    described = read_description(tmp_path / "runs/butterflies_iter_200.onnx")
    assert described is not None and described.label_set == labels
    if vendored:
        page = json.loads((tmp_path / "runs/butterflies_page/model.json").read_text())
        assert tuple(page["names"]) == labels.names


def run(line: str, folder: Path) -> None:
    program, *arguments = shlex.split(line)
    assert program == "lglstm"
    done = subprocess.run(
        [Path(sys.prefix, "bin", "lglstm"), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (line, done.stdout, done.stderr)
