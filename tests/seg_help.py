"""A tiny data set and nets on it, for the tests of the data layer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from lglstm.common.images import write_label
from lglstm.common.labels import label_set

EXAMPLES = 7
INPUT, STRIDE = [17, 25], 8

AUGMENTATION = {
    "box_jitter": [0, 1],
    "crop": [0.7, 1],
    "scale": [0.8, 1.2],
    "rotation": [-20, 20],
    "color": [0.8, 1.2],
    "mirror": True,
    "mirror_swaps": [[1, 2]],
}


def make_set(root: Path, count: int = EXAMPLES) -> Path:
    """Write `count` examples of different sizes and their list; return the list."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    lines = []
    for i in range(count):
        size = (20 + 3 * i, 30 + i)
        photo = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        photo.save(root / "images" / f"{i}.png")
        ids = np.zeros(size, np.uint8)
        ids[5:15, 8:20] = rng.integers(0, 5, (10, 12))
        write_label(root / "labels" / f"{i}.png", ids, label_set("horse").palette)
        lines.append(f"images/{i}.png labels/{i}.png\n")
    (root / "train.txt").write_text("".join(lines))
    return root / "train.txt"


def settings(list_file: Path, **more) -> str:
    """A `param_str` for a training layer on the tiny set."""
    keys = {
        "list": str(list_file),
        "batch_size": 2,
        "input_size": INPUT,
        "label_stride": STRIDE,
        "num_classes": 5,
        "train": True,
        "seed": 3,
    }
    return json.dumps({key: value for key, value in (keys | more).items() if value is not None})


def digest(data: np.ndarray, label: np.ndarray) -> str:
    """A short name for a batch, different for different bits."""
    pixels = np.asarray(data, np.float32).tobytes() + np.asarray(label, np.float32).tobytes()
    return hashlib.sha256(pixels).hexdigest()[:16]
