"""The generated files under models/: their text, and whether the ones on disk agree with it."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format

from lglstm.common.models import FOLDER, LABELS
from lglstm.prototxt_gen.index import index
from lglstm.prototxt_gen.nets import FORMS, build
from lglstm.prototxt_gen.options import ModelOptions
from lglstm.prototxt_gen.registry import check_name
from lglstm.prototxt_gen.solvers import derivation, solver


def texts(options: ModelOptions, name: str, origin: str) -> dict[Path, str]:
    """Return path → text of a model's files; `origin` is the command that makes them.

    They are its four prototxts, and its label set, so that whoever has the folder can read what
    the net says.
    """
    check_name(name)
    header = f"# {name}: made by `{_on_one_line(origin)}`; change the options, not this file.\n"
    solver_header = (
        f"# {derivation(options)}.\n"
        f"# Run in the repository root: caffe train -solver models/{name}/solver.prototxt\n"
    )
    messages = {form: build(options, name, form) for form in FORMS}
    files = {form: header + text_format.MessageToString(net) for form, net in messages.items()}
    files["solver"] = header + solver_header + text_format.MessageToString(solver(options, name))
    folder = Path(FOLDER) / name
    prototxts = {folder / f"{file}.prototxt": text for file, text in files.items()}
    return prototxts | {folder / LABELS: options.label_set.to_text()}


def _on_one_line(text: str) -> str:
    """With escapes for what would end a comment, and for bytes that are not text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def index_text() -> dict[Path, str]:
    """Return path → text of the index of all models."""
    return {Path(FOLDER) / "README.md": index()}


def stale(texts: dict[Path, str]) -> list[Path]:
    """Return the files that are missing or differ from their text."""
    return [p for p, text in texts.items() if not p.is_file() or p.read_text("utf-8") != text]
