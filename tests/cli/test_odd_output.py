"""Odd names on odd streams: brackets, ASCII, a full device, folders that cannot be written to."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.table import Table

from lglstm.common import streams
from lglstm.common.console import plain_console
from lglstm.common.progress import progress_bar

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.prefix, "bin", "lglstm")


def run(*arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, **environment):
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def sentence(done) -> str:
    """The one line of an expected error."""
    text = done.stderr.decode()
    assert done.returncode == 1, text
    assert text.startswith("error: ") and text.count("\n") == 1, text
    return text


# ------------------------------------------------------------------------------------- brackets


@pytest.mark.parametrize("terminal", [True, False])
def test_brackets_and_codes_are_printed_as_they_are(terminal):
    text = "runs[old]/[/y]/[bold]:bug:"
    made = plain_console(
        file=io.StringIO(), force_terminal=terminal, color_system=None, highlight=False, width=200
    )
    table = Table("[a]" + text, title=text)
    table.add_row(text)
    made.print(table)
    made.print(f"report: {text}")
    assert made.file.getvalue().count(text) == 4
    with progress_bar(text, made) as report:
        report(1, 1, text)
    if terminal:
        assert made.file.getvalue().count(text) >= 6


@pytest.mark.parametrize("columns", ["0", "40", ""])
def test_tables_are_printed_whatever_columns_says(monkeypatch, columns):
    """Some shells and schedulers set COLUMNS=0."""
    monkeypatch.setenv("COLUMNS", columns)
    made = plain_console(file=io.StringIO())
    table = Table("model", "described")
    table.add_row("horse", "a horse")
    made.print(table)
    assert "a horse" in made.file.getvalue()


def test_all_consoles_are_plain():
    folders = ("lglstm", "layers", "data_prep", "prototxt_gen", "scripts")
    sources = {
        path.resolve() for folder in folders for path in REPOSITORY.glob(f"{folder}/**/*.py")
    }
    made = {path.name for path in sources if re.search(r"\b(Console|rprint)\(", path.read_text())}
    assert made == {"console.py"}


@pytest.fixture
def colors(tmp_path):
    pytest.importorskip("caffe", reason="needs Caffe: make setup")
    from evaluation_help import color_net

    return color_net(tmp_path)


@pytest.mark.slow
def test_paths_with_brackets_in_commands(colors, tmp_path):
    from evaluation_help import COLORS, color_list

    folder = tmp_path / "runs[old]"
    folder.mkdir()
    photo = folder / "a[b]c.png"
    cv2.imwrite(str(photo), np.tile(COLORS[1], (24, 40, 1)))
    out = folder / "[y" / "y]"
    net = (colors[0], "--weights", colors[1], "--cpu")
    done = run("predict", *net, photo, "-o", out)
    assert done.returncode == 0, done.stderr
    assert f"1 photos parsed: {out}" in done.stdout.decode() and b"a[b]c" in done.stdout
    listed = color_list(tmp_path / "data")
    out = folder / "[" / "y]"
    done = run("evaluate", *net, "--list", listed, "-o", out)
    assert done.returncode == 0 and f"report: {out}/report.html" in done.stdout.decode()
    made = folder / "[" / "y].npz"
    done = run("convert", colors[0], colors[1], "--to", "npz", "-o", made)
    assert done.returncode == 0 and f"wrote {made}" in done.stdout.decode(), done.stderr


# -------------------------------------------------------------------------------------- streams


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_streams_of_any_encoding(encoding):
    odd = {"LC_ALL": "C", "PYTHONIOENCODING": encoding}
    for arguments in (("models", "summary", "demo"), ("models", "list"), ("table", "all"), ("-h",)):
        done = run(*arguments, **odd)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert done.stdout.decode(encoding)


def test_what_a_stream_cannot_encode_becomes_similar(monkeypatch):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, "ascii"))
    monkeypatch.setattr(sys, "stderr", None)
    streams.let_streams_print_anything()
    print("2×3 é \udce9 漢", end="")
    sys.stdout.flush()
    assert file.getvalue() == b"2x3 e \xe9 ?"


@pytest.mark.slow
def test_names_that_are_not_utf_8_are_printed(colors, tmp_path):
    from evaluation_help import COLORS

    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    cv2.imwrite(str(tmp_path / "p.png"), np.tile(COLORS[1], (24, 40, 1)))
    os.rename(tmp_path / "p.png", folder + b"/\xff.png")
    net = (colors[0], "--weights", colors[1], "--cpu", "-o", os.fsdecode(folder) + "/out")
    done = run("predict", *net, os.fsdecode(folder))
    assert done.returncode == 0, done.stderr
    assert folder + b"/out" in done.stdout
    missing = run("predict", *net, os.fsdecode(folder + b"/missing.png"))
    assert missing.returncode == 1 and folder in missing.stderr
    assert b"Traceback" not in missing.stderr


@pytest.mark.parametrize("arguments", [("models", "list"), ("table", "5"), ("--help",)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_device(arguments, unbuffered):
    with open("/dev/full", "wb") as full:
        done = run(*arguments, stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert "No space left on device" in sentence(done)


def test_a_reader_that_goes_away_is_no_error():
    command = f"{PROGRAM} models options horse | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, cwd=REPOSITORY)
    assert done.stderr == b""


# -------------------------------------------------------------------------------------- folders


@pytest.fixture
def unwritable(tmp_path):
    """A folder in which nothing can be made, for root, too."""
    folder = tmp_path / "unwritable"
    folder.symlink_to("/proc/self/net")
    return folder


@pytest.mark.slow
def test_folders_that_cannot_be_written_to(colors, unwritable, tmp_path):
    from evaluation_help import COLORS, color_list

    photo = tmp_path / "p.png"
    cv2.imwrite(str(photo), np.tile(COLORS[1], (24, 40, 1)))
    net = (colors[0], "--weights", colors[1], "--cpu")
    listed = color_list(tmp_path / "data")
    for arguments in (
        ("predict", *net, photo, "-o", unwritable / "out"),
        ("evaluate", *net, "--list", listed, "-o", unwritable / "out"),
        ("convert", colors[0], colors[1], "--to", "npz", "-o", unwritable / "a.npz"),
    ):
        assert "cannot be written" in sentence(run(*arguments))


@pytest.mark.slow
def test_demo_where_nothing_can_be_written(unwritable, tmp_path):
    pytest.importorskip("caffe", reason="needs Caffe: make setup")
    for name in ("runs", "data"):
        place = tmp_path / name
        place.mkdir()
        (place / "models").symlink_to(REPOSITORY / "models")
        (place / name).symlink_to(unwritable)
        assert name in sentence(run("demo", cwd=place))
