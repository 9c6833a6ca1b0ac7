"""The web page that parses photos in the browser: the files of web/ and an ONNX model."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from lglstm.caffe_files import Net
from lglstm.common.errors import InputError
from lglstm.common.labels import numbered
from lglstm.common.preprocessing import MEAN_BGR
from lglstm.common.scratch import scratch_folder
from lglstm.convert.conversion import Say, convert
from lglstm.convert.description import parsing_net, read_description
from lglstm.convert.options import ConvertOptions
from lglstm.convert.read import read_deploy

MODEL = "model.onnx"
ABOUT = "model.json"
_SOURCE = Path(__file__).with_name("web")
_PAGE = ("index.html", "page.css", "page.js", "parse.js", "sample.jpg")
"""sample.jpg is `lglstm.data_prep.synthetic.draw_example(291, seed=7, index=1005)`."""
_KEYS = {"name", "input", "output", "size", "mean_bgr", "names", "colors"}
"""What `_about` says of a model."""
_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def build_page(options: ConvertOptions, say: Say) -> dict[str, Any]:
    """Make a folder that any static web server can serve; options.output is the model in it.

    say: for a status line. The runtime comes from the npm package onnxruntime-web, as `npm ci`
    puts it into web/.
    Returns the conversion's report. Raises InputError; the folder appears whole or not at all.
    """
    folder = options.output.parent
    runtime = _SOURCE / "node_modules" / "onnxruntime-web" / "dist"
    missing = [name for name in _RUNTIME if not (runtime / name).is_file()]
    if missing:
        source = os.path.relpath(_SOURCE)
        raise InputError(
            f"{runtime / missing[0]}: is missing; run: npm ci --prefix "
            f"{_SOURCE if source.startswith(os.pardir) else source}"
        )
    _check_replaceable(folder)
    about = _about(read_deploy(options.deploy), options)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); choose another --output"
        ) from error
    with scratch_folder(folder.parent) as scratch:
        made = Path(scratch, "page")
        report = convert(dataclasses.replace(options, output=made / MODEL), say)
        for name in _PAGE:
            shutil.copyfile(_SOURCE / name, made / name)
        for name in _RUNTIME:
            shutil.copyfile(runtime / name, made / name)
        (made / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(Path(scratch, "old"))
        made.rename(folder)
    return report


def _check_replaceable(folder: Path) -> None:
    """Raise InputError for a folder that is neither empty nor a page that we made, and no more.

    TensorFlow.js names its models model.json, too, so a page is known by what ours says.
    """
    try:
        found = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(
            f"{folder}: cannot become such a page ({error.strerror}); choose another --output"
        ) from None
    foreign = sorted(found - {*_PAGE, *_RUNTIME, MODEL, f"{MODEL}.json", ABOUT})
    if foreign:
        raise InputError(
            f"{folder}: holds {foreign[0]}, which is no part of such a page and would be lost; "
            "give another --output"
        )
    if found and not _is_ours(folder / ABOUT):
        raise InputError(
            f"{folder}: holds other files than such a page, which would be lost; give another "
            "--output"
        )


def _is_ours(about: Path) -> bool:
    """Whether a file is what `_about` returns, for any net."""
    try:
        known = json.loads(about.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(known, dict) and known.keys() == _KEYS


def _about(net: Net, options: ConvertOptions) -> dict[str, Any]:
    """What the page must know of the model."""
    found = parsing_net(net)
    if found is None:
        raise InputError(
            f"{net.path}: the page needs one photo in and one score map out; this net has the "
            f"inputs {list(net.inputs)} and the outputs {list(net.outputs)}"
        )
    size, classes = found
    described = read_description(options.weights)
    known = options.labels_for(classes, described.label_set if described else None)
    labels = known or numbered(classes)
    return {
        "name": net.name.removesuffix("_deploy"),
        "input": next(iter(net.inputs)),
        "output": net.outputs[0],
        "size": list(size),
        "mean_bgr": list(MEAN_BGR),
        "names": list(labels.names),
        "colors": [list(color) for color in labels.colors],
    }
