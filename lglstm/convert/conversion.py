"""One conversion from beginning to end: read, write under a temporary name, prove, then rename."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, write_text
from lglstm.common.hashing import sha256_of
from lglstm.convert.caffe_process import caffe_is_there
from lglstm.convert.description import parsing_net
from lglstm.convert.options import ConvertOptions
from lglstm.convert.places import check_output
from lglstm.convert.prove import expected_outputs, prove
from lglstm.convert.read import SourceModel, read_model
from lglstm.convert.samples import Reference, sample_photo
from lglstm.convert.write import check_installed, supported_layers, write_model

PACKAGES = ("numpy", "protobuf", "h5py", "torch", "safetensors", "onnx", "onnxruntime")

Say = Callable[[str], None]
"""Called with what is being done, for a status line."""


def _silent(text: str) -> None:
    pass


def convert(options: ConvertOptions, say: Say = _silent) -> dict[str, Any]:
    """Convert; return the report that is also written beside the result, as <result>.json.

    The report says what was converted by what, and holds the `prove.Proof`: `differences` of blobs,
    and `exact_blobs`, how many were read back from the result bit for bit. Raises InputError, and
    leaves nothing behind, if anything is wrong with the input or if the proof fails.
    """
    check_installed(options.format)
    check_output(options.output, options.inputs)
    say(f"reading {options.weights}")
    model = read_model(options.deploy, options.weights, supported_layers(options.format))
    if options.precision == "float16" and options.format != "onnx":
        model = model.rounded()
    report = _about(model, options) | {"differences": []}
    with atomic_path(options.output) as path:
        say(f"writing {options.output}")
        write_model(path, model, options)
        if options.verify:
            report |= prove(model, path, options, say).as_json()
        if options.format == "onnx" and options.precision != "float32":
            report |= _reduce(path, model, options, say)
        report["sha256"] = sha256_of(path)
    report["verdict"] = verdict(report)
    write_text(f"{options.output}.json", json.dumps(report, indent=2) + "\n")
    return report


def _reduce(
    path: Path, model: SourceModel, options: ConvertOptions, say: Say
) -> dict[str, dict[str, Any]]:
    """Give the ONNX file at `path` the precision that is asked for; the loss, for the report."""
    import onnx

    from lglstm.convert import precision

    found = parsing_net(model.deploy)
    if found is None:
        raise InputError(
            f"{model.deploy_path}: --precision needs a net that makes one score map of one photo, "
            "to compare label maps; leave it out"
        )
    before = onnx.load(path)
    say(f"making {options.output} {options.precision}")
    if options.precision == "int8":
        after = precision.to_int8(before, found[0], options.calibration)
    else:
        after = precision.to_float16(onnx.load(path))
    path.write_bytes(after.SerializeToString())
    if not options.verify:
        return {}
    photos: Sequence[Path | np.ndarray] = options.calibration
    if options.truth:
        photos = options.truth.photos
    elif not photos and (photo := sample_photo(options.photo)) is not None:
        photos = [photo]
    if not photos:
        raise InputError("--precision is measured on photos; give one with --photo")
    loss = precision.measure_loss(
        options.precision, (before, after), found, photos, options.truth, say
    )
    precision.check_loss(loss, options.output)
    return {"loss": loss.as_json()}


def verdict(report: dict[str, Any]) -> str:
    """What the proof in a report says, as one sentence without a stop."""
    if not report["options"]["verify"]:
        return "not proved: --no-verify"
    kept = f"{report['exact_blobs']} blobs kept bit for bit" if "exact_blobs" in report else ""
    if not report["differences"]:
        return f"proved in part: {kept}; there is no Caffe here to run them"
    worst = max(d["relative"] for d in report["differences"])
    by = report["reference"]
    facts = [f"proved: within {worst:.1e} of {by}, allowed {report['tolerance']:g}", kept]
    if changed := report.get("changed_labels"):
        facts.append(
            f"{changed['changed']:,} of {changed['pixels']:,} pixels labeled otherwise than by "
            "lglstm predict"
        )
    if loss := report.get("loss"):
        facts += _costs(loss)
    return "; ".join(filter(None, facts))


def _costs(loss: dict[str, Any]) -> list[str]:
    """What another precision costs and gains, for the verdict."""
    on = f"on {loss['photos']:,} photo{'s' * (loss['photos'] > 1)}"
    facts = [f"{loss['precision']} keeps {loss['equal']:.3%} of the labels of float32 {on}"]
    if loss["mean_iou"]:
        before, after = loss["mean_iou"]
        facts.append(f"mean IoU {before:.2%} before, {after:.2%} after")
    (bytes_before, bytes_after), (before, after) = loss["bytes"], loss["milliseconds"]
    facts.append(f"{bytes_after / 1e6:.2f} MB instead of {bytes_before / 1e6:.2f}")
    facts.append(f"{after:.1f} ms a photo instead of {before:.1f}")
    return facts


def make_reference(options: ConvertOptions, say: Say = _silent) -> dict[str, Any]:
    """Run Caffe and store inputs and outputs, for the proof on a machine without Caffe."""
    if not caffe_is_there():
        raise InputError(
            "a reference is made by Caffe, whose Python package caffe is not installed here; run "
            "this where it is: in a checkout of the project, make setup installs it"
        )
    check_output(options.output, options.inputs)
    say(f"reading {options.weights}")
    model = read_model(options.deploy, options.weights)
    expected = expected_outputs(model, options, say)
    hashes = model.weights_sha256, model.deploy_sha256
    Reference(expected.samples, expected.outputs, *hashes).save(options.output)
    return _about(model, options) | {
        "differences": [],
        "reference": expected.by,
        "verdict": f"holds what {expected.by} computes; nothing was compared",
    }


def _about(model: SourceModel, options: ConvertOptions) -> dict[str, Any]:
    """What is converted by what."""
    return {
        "format": options.format,
        "net": {"path": str(model.deploy_path), "sha256": model.deploy_sha256},
        "weights": {"path": str(model.weights_path), "sha256": model.weights_sha256},
        "options": {
            "any_size": options.any_size,
            "preprocessing": options.preprocessing,
            "labels": options.labels,
            "precision": options.precision,
            "verify": options.verify,
        },
        "versions": options.versions | {"python": platform.python_version()} | _installed(),
    }


def _installed() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
