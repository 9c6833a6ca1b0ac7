"""The `lglstm` command itself: quick help, lazy sub-commands, errors as one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lglstm import __version__
from lglstm.cli.main import COMMANDS, Entry, main


def lglstm(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    code = """
import sys
from lglstm.cli.main import main
main(["--help"], standalone_mode=False)
heavy = {"numpy", "caffe", "cv2", "matplotlib", "lglstm.cli.doctor"} & set(sys.modules)
assert not heavy, heavy
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    listed = run.stdout.split("Commands:")[1]
    assert [line.split()[0] for line in listed.splitlines() if line[:3].strip()] == [
        *main.list_commands(None),
        "Each",  # the epilogue
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = lglstm(name, "--help")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: main {name} ")


def test_version_and_unknown_command() -> None:
    assert lglstm("--version").output == f"lglstm, version {__version__}\n"
    unknown = lglstm("trian")
    assert unknown.exit_code == 2
    assert "no such command 'trian'; did you mean train" in unknown.stderr
    assert "did you mean horse-cow" in lglstm("data", "horsecow").stderr
    assert "choose one of doctor, demo, data" in lglstm("frobnicate").stderr


@pytest.mark.parametrize(
    ("raised", "exit_code", "message"),
    [
        (
            "InputError('a.png: is not a picture; name a PNG')",
            1,
            "error: a.png: is not a picture; name a PNG\n",
        ),
        (
            "UsageError('--a and --b exclude each other')",
            2,
            "Usage: main ends [OPTIONS]\nTry 'main ends --help' for help.\n\n"
            "Error: --a and --b exclude each other\n",
        ),
        ("KeyboardInterrupt", 130, "interrupted\n"),
    ],
)
def test_expected_ends_print_one_line(
    raised: str, exit_code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"ends_{exit_code}.py").write_text(
        "import click\nfrom lglstm.common.errors import InputError, UsageError\n\n"
        f"@click.command()\ndef command():\n    raise {raised}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "ends", Entry(f"ends_{exit_code}:command", "Ends."))
    result = lglstm("ends")
    assert (result.exit_code, result.stderr, result.stdout) == (exit_code, message, "")


def test_a_defect_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text(
        "import click\n\n@click.command()\ndef command():\n    raise ValueError('a defect')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "broken", Entry("broken:command", "Breaks."))
    assert isinstance(lglstm("broken").exception, ValueError)
