"""`lglstm bench data`: images per second of the data layer against what the net needs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2

from benchmarks import machine
from benchmarks.implementations import Comparison, Implementation
from benchmarks.net import random_inputs
from benchmarks.timing import Measured, milliseconds, of, ratio, total
from benchmarks.worker import Worker
from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.common.files import write_text
from lglstm.common.images import write_label
from lglstm.common.labels import label_set
from lglstm.data_prep.synthetic import draw_example
from lglstm.layers.seg_options import SegDataOptions, of_net

DRAWN = 24
"""Pictures that are drawn where there is no data set."""

DRAWN_SIZE = 400
"""Their side in pixels: as many as the photos of the data sets have on average."""

IMPLEMENTATIONS = tuple(
    Implementation(
        f"workers{count}",
        label,
        "benchmarks.caffe_data:CaffeData",
        (count,),
    )
    for count, label in enumerate(("in the net's process", "1 process ahead", "2 processes ahead"))
)
NET = Implementation("net", "Caffe", "benchmarks.caffe_net:CaffeNet")


def run(
    model: str,
    folder: Path,
    list_path: Path | None = None,
    seconds: float | None = None,
    *,
    repeats: int,
    threads: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure the data layer of the model in `folder` with 0, 1 and 2 decoding processes.

    list_path: a list of images and labels; None is the model's own where it exists, else pictures
    are drawn. seconds: of a training iteration; None measures one in the same rounds, with the
    convolution engine that the environment names. Returns the object that `--json` prints.
    """
    net_file = folder / "train.prototxt"
    runs = len(IMPLEMENTATIONS) * (1 + repeats) + (0 if seconds else repeats)
    with (
        tempfile.TemporaryDirectory() as temporary,
        Comparison(IMPLEMENTATIONS, threads, runs, tell) as comparison,
        ExitStack() as stack,
    ):
        source, list_path = _source(net_file, list_path, Path(temporary))
        comparison.start()
        others = {}
        if seconds is None:
            others["net"] = stack.enter_context(_net(folder, Path(temporary), threads))
        measured = comparison.measure(lambda w: _prepare(w, net_file, list_path), repeats, others)
        need = measured["net"] if seconds is None else [{"forward": seconds}] * repeats
        batch = data_options(net_file).batch_size
        return {
            "benchmark": "data",
            "machine": machine.describe(threads),
            "versions": comparison.versions,
            "repeats": repeats,
            "model": model,
            "pictures": source,
            "batch": batch,
            "iteration_s": of(need, total).as_dict(),
            "need_images_s": of(need, lambda m: batch / total(m)).as_dict(),
            "implementations": [
                _row(implementation, measured[implementation.key], need, batch)
                for implementation in IMPLEMENTATIONS
            ],
        }


def _row(
    implementation: Implementation,
    runs: list[Measured | None],
    need: Sequence[Measured | None],
    batch: int,
) -> dict[str, Any]:
    return {
        "key": implementation.key,
        "label": implementation.label,
        "ms_per_image": milliseconds(runs, "forward"),
        "images_s": of(runs, lambda m: 1 / m["forward"]).as_dict(),
        "times_need": ratio(need, runs, lambda m: total(m) / batch).as_dict(),
    }


def data_options(net_file: Path) -> SegDataOptions:
    """The options of the training net's data layer."""
    net, _ = read_prototxt(net_file, "TRAIN")
    return of_net(net, net_file)


def _prepare(worker: Worker, net_file: Path, list_path: Path | None) -> None:
    worker.build(net_file, list_path)
    worker.warm_up()


def _net(folder: Path, temporary: Path, threads: int) -> Worker:
    worker = NET.start(threads)
    weights = temporary / "net.caffemodel"
    worker.make_weights(folder, weights)
    worker.build(folder, weights, "train", random_inputs(folder / "train.prototxt"))
    worker.warm_up()
    return worker


def _source(net_file: Path, list_path: Path | None, temporary: Path) -> tuple[str, Path | None]:
    """What is decoded, in words, and the list to give to the layer, None for its own."""
    options = data_options(net_file)
    if list_path is not None:
        return str(list_path), list_path.resolve()
    if Path(options.list).is_file():
        return options.list, None
    draw(temporary)
    words = f"{DRAWN} drawn pictures of {DRAWN_SIZE} × {DRAWN_SIZE} ({options.list} is not here)"
    return words, temporary / "list.txt"


def draw(folder: Path, count: int = DRAWN, size: int = DRAWN_SIZE) -> None:
    """Write drawn horses as JPEG photos and palette PNGs, with list.txt."""
    palette = label_set("horse").palette
    lines = []
    for i in range(count):
        image, label = draw_example(size, seed=0, index=i)
        cv2.imwrite(str(folder / f"{i}.jpg"), image)
        write_label(folder / f"{i}.png", label, palette)
        lines.append(f"{i}.jpg {i}.png\n")
    write_text(folder / "list.txt", "".join(lines))
