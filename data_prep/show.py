"""Contact sheets of a list's examples as the net gets them, before or after random changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.common.images import read_pair
from lglstm.common.labels import LabelSet
from lglstm.common.preprocessing import to_blob, to_label_blob, to_picture
from lglstm.common.sheets import SheetRow, write_sheet
from lglstm.layers.seg_batches import Batches
from lglstm.layers.seg_list import read_list
from lglstm.layers.seg_options import HORSE_COW_AUGMENTATION, SegDataOptions, of_net, parse

VERSIONS = 4
"""How many random versions of each example an augmented sheet shows."""


def options_for(
    list_path: Path, labels: LabelSet, size: tuple[int, int], seed: int
) -> SegDataOptions:
    """Return the data layer's options for training on a set: the augmentation of the paper.

    Horse-Cow sets get the ranges of HORSE_COW_AUGMENTATION, all others the mirror alone.
    """
    changes: dict[str, Any] = {"mirror": True, "mirror_swaps": labels.mirror_swaps}
    if labels.name in ("horse", "cow"):
        changes = HORSE_COW_AUGMENTATION
    settings = {
        "list": str(list_path),
        "batch_size": 1,
        "input_size": size,
        "num_classes": labels.num_classes,
        "seed": seed,
        "train": True,
        **changes,
    }
    return parse(json.dumps(settings))


def options_of_net(prototxt: Path, list_path: Path, seed: int) -> SegDataOptions:
    """Return the options of the SegData layer in a net, on the list `list_path`."""
    net, _ = read_prototxt(prototxt, "TRAIN")
    return replace(of_net(net, prototxt), list=str(list_path), root=None, seed=seed)


def write_examples(
    path: Path,
    options: SegDataOptions,
    labels: LabelSet,
    count: int,
    augmented: bool,
    photos: bool = True,
) -> None:
    """Draw `count` examples spread over the list; augmented ones in VERSIONS versions each.

    Photo and label are shown at the net's input size, the label at its stride. With `augmented` the
    first pair of a row is the unchanged example. Without `photos` only the labels are shown.
    """
    examples = read_list(options.list, options.root)
    chosen = np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int)
    ordered = Batches(replace(options, shuffle=False), examples)
    rows = []
    for k in chosen:
        pictures = _as_net_sees(
            read_pair(examples[k].photo, examples[k].label, options.num_classes), options
        )
        if augmented:
            for version in range(VERSIONS):
                # Example e of the endless stream is example e mod n of the list, with new changes.
                changed = ordered.example(int(k) + version * len(examples))
                pictures += _as_net_sees(changed, options)
        rows.append(SheetRow(pictures if photos else pictures[1::2], Path(examples[k].photo).stem))
    versions = [f"changed {v + 1}" for v in range(VERSIONS if augmented else 0)]
    headings = ["as it is", "labels", *(h for name in versions for h in (name, ""))]
    write_sheet(
        path,
        rows,
        headings if photos else ["labels", *versions],
        labels,
        title=f"{options.list} at {options.input_size[0]}x{options.input_size[1]}",
        columns=1 if augmented else 6 if photos else 12,
        height=150,
    )


def _as_net_sees(pair: tuple[np.ndarray, np.ndarray], options: SegDataOptions) -> list[np.ndarray]:
    """Return photo (h, w, 3) uint8 and label at the net's stride, through the net's own input."""
    photo = to_picture(to_blob(pair[0], options.input_size, options.mean), options.mean)
    label = to_label_blob(pair[1], options.input_size, options.label_stride)
    return [photo, label[0].astype(np.uint8)]
