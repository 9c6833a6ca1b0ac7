"""The generated files of a model: their text, writing them, and checking what is on disk."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import text_format

from common.errors import InputError
from common.files import write_text
from prototxt_gen.nets import FORMS, build
from prototxt_gen.options import ModelOptions
from prototxt_gen.solvers import derivation, solver

MODELS_FOLDER = Path("models")


def texts(options: ModelOptions, name: str, origin: str) -> dict[str, str]:
    """Return file name → text of the four files; `origin` is the command that makes them."""
    header = f"# {name}: made by `{origin}`; change the options, not this file.\n"
    files = {
        f"{form}.prototxt": header + text_format.MessageToString(build(options, name, form))
        for form in FORMS
    }
    files["solver.prototxt"] = (
        f"{header}# {derivation(options)}.\n"
        f"# Run in the repository root: caffe train -solver models/{name}/solver.prototxt"
        "   (GPU: add -gpu 0)\n" + text_format.MessageToString(solver(options, name))
    )
    return files


def write(options: ModelOptions, name: str, origin: str, root: Path = MODELS_FOLDER) -> list[Path]:
    """Write the files of a model into `root/name`; return their paths."""
    check_name(name)
    paths = []
    for file, text in texts(options, name, origin).items():
        write_text(root / name / file, text)
        paths.append(root / name / file)
    return paths


def stale(options: ModelOptions, name: str, origin: str, root: Path = MODELS_FOLDER) -> list[Path]:
    """Return the files of a model that are missing or differ from what would be generated."""
    return [
        root / name / file
        for file, text in texts(options, name, origin).items()
        if not (root / name / file).is_file() or (root / name / file).read_text("utf-8") != text
    ]


def check_name(name: str) -> None:
    """Refuse a name that would not be a plain folder of its own under models/."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise InputError(f"model name '{name}': use small letters, digits and underscores")
