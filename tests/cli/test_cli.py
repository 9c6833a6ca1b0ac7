"""The `lglstm` command itself: quick help, lazy sub-commands, errors as one sentence."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from lglstm import __version__
from lglstm.cli.main import COMMANDS, Entry, main
from lglstm.common.models import find_model


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


CTRL_C_IN_AN_IMPORT = """
import os, signal, sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == when:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
from lglstm.cli.main import main
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.parametrize(("when", "status", "out"), [("click", -2, ""), ("none", 0, "True\n")])
def test_ctrl_c_while_the_command_is_imported(when: str, status: int, out: str) -> None:
    # Not ignored, as it is for what runs in the background.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"when = {when!r}\n{CTRL_C_IN_AN_IMPORT}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr, run.stdout) == (status, "", out)


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


def every_command() -> Iterator[tuple[list[str], click.Command]]:
    """The words that call each command that takes options, sub-commands included."""
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        if isinstance(command, click.Group):
            yield from (([name, key], each) for key, each in command.commands.items())
        else:
            yield [name], command


def numbers(kind: type[click.ParamType]) -> Iterator[tuple[str, Any]]:
    """The name and type of every option that takes a number of a kind."""
    for words, command in every_command():
        for option in (each for each in command.params if isinstance(each.type, kind)):
            yield " ".join([*words, option.opts[0]]), option.type


def test_no_option_takes_a_fraction_that_is_not_finite() -> None:
    fractions = dict(numbers(click.types.FloatParamType))
    assert len(fractions) > 4
    for name, taken in fractions.items():
        for value in ("nan", "-nan", "inf", "-inf", "1e300"):
            with pytest.raises(click.BadParameter, match="not a number|not in the range"):
                print(name, taken.convert(value, None, None))
    assert fractions["evaluate --tolerance"].convert("0.5", None, None) == 0.5


def test_no_option_takes_a_whole_number_of_any_size() -> None:
    whole = dict(numbers(click.types.IntParamType))
    assert len(whole) > 10
    assert [name for name, taken in whole.items() if getattr(taken, "max", None) is None] == []
    said = lglstm("train", "demo", "--iterations", "99999999999").stderr
    assert "99999999999 is not in the range 1<=x<=2147483647" in said


def test_an_empty_path_is_refused_everywhere() -> None:
    """A variable that is not set would mean the current folder."""
    said = lglstm("predict", "horse", "").stderr
    assert "the path is empty" in said
    for words, command in every_command():
        for parameter in command.params:
            kind = getattr(parameter.type, "func", parameter.type)
            assert kind is not Path and not isinstance(kind, click.Path), (words, parameter.name)


def test_every_mistyped_command_gets_the_nearest_name() -> None:
    for words, _ in every_command():
        *group, name = words
        said = lglstm(*group, name + "x").stderr
        assert f"no such command '{name}x'; did you mean {name}\n" in said
    assert "did you mean train" in lglstm("Train").stderr


def test_every_mistyped_option_gets_the_nearest_name() -> None:
    for words, command in every_command():
        for parameter in command.params:
            for option in (each for each in parameter.opts if each.startswith("--")):
                result = lglstm(*words, option + "x")
                assert result.exit_code == 2
                assert re.search(f"(?i)did you mean .*{option}'", result.stderr), result.stderr


def test_every_mistyped_choice_gets_the_nearest_name() -> None:
    tried = 0
    for words, command in every_command():
        for parameter in command.params:
            if not isinstance(parameter.type, click.Choice):
                continue
            for name in (each for each in parameter.type.choices if len(each) > 2):
                option = [key for key in parameter.opts if key.startswith("-")][:1]
                given = [*option, f"{name}x"]
                assert f"Did you mean '{name}'?" in lglstm(*words, *given).stderr
                tried += 1
    assert tried > 10


@pytest.mark.parametrize(
    "words",
    [
        ("train", "hrose"),
        ("train", "models/hrose/solver.prototxt"),
        ("models", "summary", "models/hrose"),
        ("models", "generate", "hrose"),
        ("models", "options", "Hrose"),
        ("evaluate", "hrose", "--weights", "x"),
        ("predict", "hrose", "x.jpg", "--weights", "x"),
        ("convert", "hrose", "x", "--to", "onnx"),
        ("init-weights", "hrose", "--from", "x"),
    ],
)
def test_a_mistyped_model_gets_the_nearest_name(words: tuple[str, ...]) -> None:
    result = lglstm(*words)
    assert result.exit_code == 1 and re.search(r"did you mean (the model )?horse\b", result.stderr)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("lglstm tr", {"train"}),
        ("lglstm data fash", {"fashionista"}),
        ("lglstm train --tens", {"--tensorboard"}),
        ("lglstm train horse_l", {"horse_local2", "horse_local4"}),
        ("lglstm convert dem", {"demo", "demo_conv"}),
        ("lglstm convert demo x --to on", {"onnx"}),
    ],
)
def test_bash_completes(typed: str, expected: set[str]) -> None:
    """With the function that docs/install.md turns on, in a real bash."""
    words = typed.split()
    script = f"""
PATH={Path(sys.executable).parent}:$PATH
eval "$(_LGLSTM_COMPLETE=bash_source lglstm)"
COMP_WORDS=({typed})
COMP_CWORD={len(words) - 1}
compopt() {{ :; }}
_lglstm_completion lglstm
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split()) == expected


DOCUMENTS = Path(__file__).resolve().parents[2]
COMMAND_LINE = re.compile(r"^ *(lglstm [^#\n]+?) *(?:#.*)?$", re.M)


@pytest.mark.parametrize("page", ["README.md", "docs/reproduce.md"])
def test_the_commands_of_a_page_can_be_given(page: str) -> None:
    """Commands, options and models exist; weights are named by their solver's last iteration."""
    text = (DOCUMENTS / page).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S))
    for loop in re.finditer(r"for net in ([^;]+); do\n(.*?)\ndone", blocks, re.S):
        names = [w for w in loop[1].split() if "$" not in w]
        blocks += "\n" + "\n".join(
            loop[2].replace("${net}", name).replace("$net", name) for name in names
        )
    lines = [line for line in COMMAND_LINE.findall(blocks) if "$" not in line]
    assert len(lines) >= 5
    for line in lines:
        name, *words = shlex.split(line)[1:]
        command = main.get_command(click.Context(main), name)
        assert command, line
        if isinstance(command, click.Group):
            command, words = command.commands[words[0]], words[1:]
        given = command.make_context(name, words).params
        if model := given.get("model"):
            solver = find_model(model, "solver").file.read_text()
            if weights := re.search(r"_iter_(\d+)\.caffemodel", line):
                assert f"max_iter: {weights[1]}\n" in solver, line
