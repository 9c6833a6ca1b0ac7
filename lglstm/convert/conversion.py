"""One conversion from beginning to end: read, write under a temporary name, prove, then rename."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable
from typing import Any

from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, write_text
from lglstm.common.hashing import sha256_of
from lglstm.convert.caffe_process import caffe_is_there
from lglstm.convert.options import ConvertOptions
from lglstm.convert.prove import expected_outputs, prove
from lglstm.convert.read import SourceModel, read_model
from lglstm.convert.samples import Reference
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
    if options.output.resolve() == options.weights.resolve():
        raise InputError(f"{options.output}: is the source itself; give another --output")
    say(f"reading {options.weights}")
    model = read_model(options.deploy, options.weights, supported_layers(options.format))
    if options.float16:
        model = model.rounded()
    report = _about(model, options) | {"differences": []}
    with atomic_path(options.output) as path:
        say(f"writing {options.output}")
        write_model(path, model, options)
        if options.verify:
            report |= prove(model, path, options, say).as_json()
        report["sha256"] = sha256_of(path)
    write_text(f"{options.output}.json", json.dumps(report, indent=2) + "\n")
    return report


def make_reference(options: ConvertOptions, say: Say = _silent) -> dict[str, Any]:
    """Run Caffe and store inputs and outputs, for the proof on a machine without Caffe."""
    if not caffe_is_there():
        raise InputError(
            "a reference is made by Caffe, whose Python package caffe is not installed here; run "
            "this where it is: in a checkout of the project, make setup installs it"
        )
    say(f"reading {options.weights}")
    model = read_model(options.deploy, options.weights)
    expected = expected_outputs(model, options, say)
    hashes = model.weights_sha256, model.deploy_sha256
    Reference(expected.samples, expected.outputs, *hashes).save(options.output)
    return _about(model, options) | {"differences": [], "reference": expected.by}


def _about(model: SourceModel, options: ConvertOptions) -> dict[str, Any]:
    """What is converted by what."""
    return {
        "format": options.format,
        "net": {"path": str(model.deploy_path), "sha256": model.deploy_sha256},
        "weights": {"path": str(model.weights_path), "sha256": model.weights_sha256},
        "options": {
            "any_size": options.any_size,
            "preprocessing": options.preprocessing,
            "float16": options.float16,
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
