"""Nets and data for the tests of evaluation and prediction: tiny, right by construction."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from lglstm.common.images import write_label
from lglstm.common.labels import IGNORE, LABEL_SETS
from lglstm.common.preprocessing import MEAN_BGR

HORSE = LABEL_SETS["horse"]

# Class k is the color (B, G, R) of row k: the net below finds it exactly.
COLORS = np.array(
    [[128, 128, 128], [250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 20]], np.uint8
)

COLOR_NET = """
name: "colors"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 24 dim: 40 } } }
layer { name: "nearest" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 5 kernel_size: 1 } }
"""


def color_net(folder: Path) -> tuple[Path, Path]:
    """A deploy net and weights that classify each pixel by the nearest of COLORS.

    The distance to color c is smallest where 2c·x − c·c is largest, so a 1×1 convolution does.
    """
    import caffe

    deploy, weights = folder / "deploy.prototxt", folder / "colors.caffemodel"
    deploy.write_text(COLOR_NET)
    net = caffe.Net(str(deploy), caffe.TEST)
    centered = COLORS - np.float64(MEAN_BGR)
    net.params["nearest"][0].data[...] = 2 * centered.reshape(5, 3, 1, 1)
    net.params["nearest"][1].data[...] = -(centered**2).sum(axis=1)
    net.save(str(weights))
    return deploy, weights


def draw_label(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A label map of 4×5 blocks, so that a net at another size still finds every block."""
    blocks = rng.integers(0, 5, (4, 5)).astype(np.uint8)
    return np.repeat(np.repeat(blocks, height // 4, axis=0), width // 5, axis=1)


def color_list(folder: Path, sizes=((24, 40), (48, 80), (72, 120)), seed: int = 0) -> Path:
    """A list of photos that the color net parses without an error; returns the list's path.

    Where blocks meet, scaling blends their scores, so these pixels are ignored.
    """
    rng = np.random.default_rng(seed)
    lines = []
    for k, (height, width) in enumerate(sizes):
        ids = draw_label(rng, height, width)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"images/photo{k}.png"), COLORS[ids])
        ids[ndimage.maximum_filter(ids, 5) != ndimage.minimum_filter(ids, 5)] = IGNORE
        write_label(folder / f"labels/photo{k}.png", ids, HORSE.palette)
        lines.append(f"images/photo{k}.png labels/photo{k}.png\n")
    (folder / "test.txt").write_text("".join(lines))
    return folder / "test.txt"


def demo_weights(folder: Path, model: Path = Path("models/demo"), seed: int = 3) -> Path:
    """Random weights, as training would save them, for all layers of a model's test net."""
    import caffe

    from lglstm.evaluation import nets

    deploy, test = (nets.read_net(model / f"{form}.prototxt") for form in ("deploy", "test"))
    prototxt = folder / "all.prototxt"
    prototxt.write_text(str(nets.with_all_scores(deploy, test, model)[0]))
    net = caffe.Net(str(prototxt), caffe.TEST)
    rng = np.random.default_rng(seed)
    for name, blobs in net.params.items():
        if not name.startswith("score_of") and name != "score":
            for blob in blobs:
                blob.data[...] = 0.2 * rng.standard_normal(blob.data.shape)
    path = folder / "demo.caffemodel"
    net.save(str(path))
    return path
