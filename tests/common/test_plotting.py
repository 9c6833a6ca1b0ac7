"""Matplotlib as it is by default, whatever files and variables would have it do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lglstm.common.plotting import plain_style

ROOT = Path(__file__).resolve().parents[2]
DRAW = """
import os, sys
from pathlib import Path
from lglstm.training.log import Run
from lglstm.training.plot import draw
import matplotlib

assert not matplotlib.rcParams["text.usetex"] and matplotlib.rcParams["lines.linewidth"] == 1.5
draw([Run("x", losses={"total_loss": {0: 2.0, 1: 1.0}})], sys.argv[1])
print(os.getcwd(), os.environ["MPLBACKEND"])
"""


def draw(folder: Path, picture: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DRAW, str(picture)],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "foo"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("kind", ["settings", "named by MATPLOTLIBRC", "pipe"])
def test_no_file_of_the_folder_is_obeyed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("other" if "named" in kind else "matplotlibrc")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("text.usetex: True\nlines.linewidth: 9\n")
    done = draw(tmp_path, tmp_path / "a.png", MATPLOTLIBRC=str(path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path} foo\n"
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_folder_that_was_deleted(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os; os.rmdir({str(gone)!r})\n{DRAW}".replace("os.getcwd()", "'gone'")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png")],
        cwd=gone,
        env=os.environ | {"MPLBACKEND": "foo"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "gone foo\n"), done.stderr


def test_the_settings_of_a_program_that_calls_us_are_kept() -> None:
    import matplotlib

    with matplotlib.rc_context({"lines.linewidth": 9, "text.parse_math": True}):
        with plain_style():
            assert matplotlib.rcParams["lines.linewidth"] == 1.5
            assert not matplotlib.rcParams["text.parse_math"]
        assert matplotlib.rcParams["lines.linewidth"] == 9
        assert matplotlib.rcParams["text.parse_math"]


def test_nothing_else_imports_matplotlib() -> None:
    # The links in lglstm/ lead to the other folders.
    folders = ("lglstm", "data_prep", "layers", "prototxt_gen", "pytorch", "scripts")
    ours = {path.resolve() for name in folders for path in (ROOT / name).rglob("*.py")}
    importing = [
        path.name
        for path in ours
        if any(
            line.split()[:1] in (["import"], ["from"]) and line.split()[1].startswith("matplotlib")
            for line in path.read_text().splitlines()
        )
    ]
    assert importing == ["plotting.py"]
