"""`lglstm bench infer`: one image through a model, in Caffe and in other programs for inference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.implementations import Comparison, Implementation, check_equal, difference, select
from benchmarks.net import (
    BF16,
    BF16_TOLERANCE,
    CAFFE_ENGINES,
    TOLERANCE,
    TORCH_FORMS,
    Arrays,
    net_row,
    random_inputs,
)
from benchmarks.worker import Worker
from lglstm.caffe_files import read_caffemodel, read_net, weights_for
from lglstm.common.errors import UsageError

TARGETS = "benchmarks.onnx_net"

IMPLEMENTATIONS = (
    *CAFFE_ENGINES,
    Implementation(
        "onnxruntime", "ONNX Runtime", f"{TARGETS}:OnnxRuntimeNet", ("threads",),
        package="onnxruntime",
    ),
    Implementation(
        "openvino", "OpenVINO", f"{TARGETS}:OpenVINONet", ("f32", "threads"), package="openvino"
    ),
    Implementation(
        "openvino_bf16", "OpenVINO, bf16", f"{TARGETS}:OpenVINONet", ("bf16", "threads"),
        package="openvino",
    ),
    *TORCH_FORMS,
)  # fmt: skip

QUICK = tuple(each.key for each in IMPLEMENTATIONS if each.key != "compiled")


def run(
    model: str,
    folder: Path,
    weights: Path | None,
    implementations: Iterable[Implementation],
    *,
    repeats: int,
    threads: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure every implementation on one image; returns the object that `--json` prints.

    weights: a caffemodel; without it, random weights. The image is noise.
    Raises InputError if an implementation computes other scores than the baseline.
    """
    implementations = list(implementations)
    with (
        tempfile.TemporaryDirectory() as temporary,
        Comparison(implementations, threads, len(implementations) * (2 + repeats), tell) as all_,
    ):
        if weights is None:
            weights = Path(temporary) / f"{model}.caffemodel"
            all_.run_alone(all_.baseline, methodcaller("make_weights", folder, weights))
        graph = Path(temporary) / f"{model}.onnx"
        if any(TARGETS in each.target for each in implementations):
            write_onnx(folder / "deploy.prototxt", weights, graph)
        image = {"data": random_inputs(folder / "train.prototxt")["data"][:1]}

        def build(worker: Worker) -> None:
            worker.build(graph if worker.takes_onnx() else folder, weights, "image", image)

        def prepare(worker: Worker) -> None:
            build(worker)
            worker.warm_up()

        def score(worker: Worker) -> np.ndarray:
            build(worker)
            return worker.score()

        scores: Arrays = {}
        for each in implementations:
            made = all_.run_alone(each, score)
            if made is not None:
                scores[each.key] = made
                check(all_, scores)
            all_.step()
        all_.start()
        measured = all_.measure(prepare, repeats)
        reference = measured[all_.baseline.key]
        rows = [
            net_row(each, all_, measured, reference)
            | compare(scores[all_.baseline.key], scores.get(each.key))
            for each in implementations
        ]
        rank(rows)
        return {
            "benchmark": "infer",
            "model": model,
            "machine": machine.describe(threads),
            "versions": all_.versions,
            "repeats": repeats,
            "compared_with": all_.baseline.key,
            "one_at_a_time": all_.one_at_a_time,
            "implementations": rows,
        }


def rank(rows: list[dict[str, Any]]) -> None:
    """Give each row its place in the order of the medians, 1 for the fastest."""
    timed = [row for row in rows if "left_out" not in row]
    timed.sort(key=lambda row: row["total_ms"]["median"])
    for place, row in enumerate(timed, 1):
        row["rank"] = place


def check(all_: Comparison, scores: Arrays) -> None:
    """Raise InputError unless the last scores are those of the first, but for what bf16 rounds."""
    first, last = next(iter(scores)), next(reversed(scores))
    allowed = BF16_TOLERANCE if last in BF16 else TOLERANCE
    pair = {key: {"score": scores[key]} for key in (first, last)}
    check_equal(pair, all_.label, special=allowed)


def compare(expected: np.ndarray, found: np.ndarray | None) -> dict[str, float]:
    """The largest difference of a score, relative to the largest score; positions labeled alike."""
    if found is None:
        return {}
    alike = expected.argmax(axis=1) == found.argmax(axis=1)
    return {"score_difference": difference(expected, found), "same_label": float(alike.mean())}


def write_onnx(deploy: Path, weights: Path, graph: Path) -> None:
    """Write the deploy net with its weights as `lglstm convert --to onnx` does."""
    import onnx

    from lglstm.convert.onnx_graph import to_onnx

    net = read_net(deploy, "TEST")
    found = weights_for(net, read_caffemodel(weights), str(weights))
    onnx.save_model(to_onnx(net, found), graph)


def choose_implementations(keys: str | None, quick: bool) -> list[Implementation]:
    """Implementations by their keys, separated by commas; the first must be one of Caffe's."""
    given = f"--implementations {keys}"
    known = tuple(each.key for each in IMPLEMENTATIONS)
    chosen = select(IMPLEMENTATIONS, keys.split(",") if keys else QUICK if quick else known, given)
    if chosen[0].package:
        raise UsageError(f"{given}: begin with one of Caffe's, which makes the weights")
    return chosen
