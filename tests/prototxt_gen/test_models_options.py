"""Options of the generators: documented, checked, and settable from the command line."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from seg_help import make_set

from lglstm.caffe_files import read_net
from lglstm.caffe_files.prototxt import read_message
from lglstm.caffe_files.schema import NetParameter
from lglstm.cli.main import main
from lglstm.common.errors import InputError
from lglstm.common.labels import LabelSet
from lglstm.common.models import find_model
from lglstm.evaluation.label_choice import known_labels
from lglstm.layers import seg_options
from lglstm.prototxt_gen.nets import build
from lglstm.prototxt_gen.options import (
    CoCNN,
    Demo,
    LargeFOV,
    ModelOptions,
    parse_value,
    show,
    with_settings,
)

FAMILIES = (LargeFOV, CoCNN, Demo)
REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments):
    return CliRunner().invoke(main, ["models", *arguments], catch_exceptions=False)


# ------------------------------------------------------------------------------- documentation


def documented():
    """Return option → default cell of every table of docs/differences.md."""
    text = (REPOSITORY / "docs/differences.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "an option is in the tables twice"
    return dict(rows)


def default_cell(name):
    """What the document must say: the default, then the families that have another one."""
    cell, base = "", None
    for family in (ModelOptions, LargeFOV, CoCNN):
        defaults = {field.name: field.default for field in dataclasses.fields(family)}
        if name in defaults and not cell:
            base = defaults[name]
            cell = show(base) or "none"
        elif name in defaults and defaults[name] != base:
            cell += f"; {family.__name__} {show(defaults[name])}"
    return cell or "–"  # of the demo alone


def test_every_option_stands_in_the_table_of_differences_and_the_reverse():
    names = {field.name for family in FAMILIES for field in dataclasses.fields(family)}
    assert set(documented()) == names
    assert documented() == {name: default_cell(name) for name in documented()}


def test_every_option_has_a_sentence_and_a_value_that_set_takes_back():
    for family in FAMILIES:
        for field in dataclasses.fields(family):
            assert field.metadata["help"]
            value = parse_value(field, show(field.default))
            assert value == field.default or show(value) == show(field.default)


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "setting", "words"),
    [
        (LargeFOV(), "neighbours=2", "neighbours is unknown to LargeFOV nets; did you mean neigh"),
        (LargeFOV(), "neighbors=3", "neighbors: 3 is not allowed; use 2, 4 or 8"),
        (LargeFOV(), "neighbors=many", "neighbors: 'many' is not allowed; use 2, 4 or 8"),
        (LargeFOV(), "share_spatial=1", "use true or false"),
        (LargeFOV(), "input_size=320,320", r"use sizes 8·m \+ 1, such as 65, 97, 321"),
        (LargeFOV(), "input_size=321", r"use \[height, width\] in pixels"),
        (LargeFOV(), "hidden=0", "hidden: 0 is not allowed; use a whole number from 1 to 65,536"),
        (LargeFOV(), "base_lr=nan", "base_lr: nan is not allowed"),
        (LargeFOV(), "global_grid=42", "at most the map's smaller side, 41"),
        (LargeFOV(), "extra_convs=5", "extra_convs: 5 is not allowed; use 0 with lg_lstm_layers"),
        (LargeFOV(), "test_batch=2", r"a divisor of test_images \(227\)"),
        (LargeFOV(), "engine=torch", "use caffe or python"),
        (LargeFOV(), "lg_lstm_after=conv5", "use fc7, fc6 or pool5"),
        (LargeFOV(), "crop=1,0.5", r"use \[low, high\] with 0.1 ≤ low ≤ high ≤ 1"),
        (LargeFOV(), "rotation=-200,10", r"use \[low, high\] with -180 ≤ low"),
        (LargeFOV(), "input_size=65.5,97", r"use \[height, width\] in pixels"),
        (LargeFOV(), "lr_step=0", "above 0, at most 1"),
        (LargeFOV(), "neighbors", "write it as option=value"),
        (CoCNN(), "kernel=4", "kernel: 4 is not allowed; use an odd number"),
        (CoCNN(), "upsampling=nearest", "use bilinear or learned"),
        (CoCNN(), "width=2", "width is unknown to CoCNN nets"),
        (Demo(), "poolings=9", "at most one per convolution"),
        (LargeFOV(), f"lg_lstm_layers={2**63 - 1}", "use a whole number from 0 to 100"),
        (LargeFOV(), "epochs=1e30", "use what makes 1 to 2,147,483,647 iterations"),
        (LargeFOV(), "epochs=0", "use what makes 1 to 2,147,483,647 iterations"),
        (LargeFOV(), "dropout=1", "a number from 0, below 1"),
        (CoCNN(), "train_images=2147483648", "from 1 to 2,147,483,647"),
        (Demo(), "widths=" + ",".join(["8"] * 101), "use whole numbers above 0"),
        (Demo(), "widths=8,x", "use whole numbers above 0, such as 16,32,48"),
    ],
)
def test_wrong_options_are_refused_by_name_with_what_is_allowed(options, setting, words):
    with pytest.raises(InputError, match=words) as error:
        with_settings(options, [setting])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_number_is_without_a_limit(family):
    for field in dataclasses.fields(family):
        if field.type in ("int", "float"):
            for huge in (2**63 if field.type == "int" else 1.7e308, 10**400):
                assert not field.metadata["rule"].allows(huge), field.name


def test_settings_reach_the_net():
    options = with_settings(LargeFOV(), ["lstm_range=0.5", "input_size=65,97", "loss_weight=0.25"])
    net = {layer.name: layer for layer in build(options, "x", "train").layer}
    assert net["lg_lstm2"].lg_lstm_param.weight_filler.max == pytest.approx(0.5)
    assert '"input_size": [65, 97]' in net["train_data"].python_param.param_str
    assert [net[f"loss{i}"].loss_weight[0] for i in (1, 4, 5)] == [0.25, 0.25, 1]


@pytest.mark.parametrize("options", [LargeFOV(), CoCNN(sum_label_scores=True), Demo()])
def test_the_rate_of_the_classifiers_is_theirs_alone(options):
    before, after = (
        {
            layer.name: layer
            for layer in build(dataclasses.replace(options, score_lr_mult=rate), "x", "train").layer
        }
        for rate in (1, 10)
    )
    learning = {name for name, layer in before.items() if any(p.lr_mult for p in layer.param)}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in learning if name.startswith("score")}
    for name in changed:
        rates = zip(before[name].param, after[name].param, strict=True)
        assert [new.lr_mult / old.lr_mult for old, new in rates] == [10] * len(before[name].param)


# ----------------------------------------------------------------------------------- commands


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty folder to generate into; the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_generate_and_check(repository):
    assert run("generate", "demo").exit_code == 0
    assert run("generate", "demo", "--check").output == "5 files are up to date\n"
    path = repository / "models/demo/solver.prototxt"
    path.write_text(path.read_text() + "# by hand\n")
    result = run("generate", "demo", "--check")
    assert result.exit_code == 1
    assert "out of date: models/demo/solver.prototxt; run lglstm models gen" in result.stderr
    assert run("generate", "demo").exit_code == 0
    assert run("generate", "demo", "--check").exit_code == 0
    assert run("generate", "--check").exit_code == 1  # the others are missing


def test_variant_names_the_command_that_makes_it(repository):
    arguments = ["demo", "--set", "share_spatial=false", "--engine", "python", "--name", "mine"]
    assert run("generate", *arguments).exit_code == 0
    text = (repository / "models/mine/train.prototxt").read_text()
    command = re.search(r"`lglstm models (.*?)`", text)[1].split()
    assert '\\"share_spatial\\": false' in text and "LGLSTM" in text
    assert run(*command, "--check").exit_code == 0
    settings = (repository / "models/mine/solver.prototxt").read_text()
    assert 'train_net: "models/mine/train.prototxt"' in settings
    assert 'snapshot_prefix: "runs/mine"' in settings


def test_options_stay_in_the_comment_that_names_them(repository):
    """Behind a line break they would be part of the net; bytes that are no text are escaped."""
    for odd in ("new\nline: 1", "r\r", "\u2028", "caf\udce9"):
        arguments = ["generate", "demo", "--set", f"train_list={odd}", "--name", "mine"]
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        for form in ("train", "test", "deploy", "solver"):
            text = (repository / f"models/mine/{form}.prototxt").read_text()
            assert text.startswith("# mine: made by `lglstm models generate demo --set")
            assert "change the options, not this file." in text.split("\n")[0]
        train = read_message("models/mine/train.prototxt", NetParameter())
        (data,) = seg_options.seg_data_layers(train)
        assert seg_options.parse(data.python_param.param_str).list == odd


LEAVES = LabelSet.from_json(
    {"name": "leaves", "names": ["ground", "left", "right"], "mirror_swaps": [[1, 2]]}, ""
)


def test_a_label_set_of_ones_own_travels_with_the_model(repository):
    Path("leaves.json").write_text(LEAVES.to_text())
    arguments = ["demo", "--set", "label_set=leaves.json", "--name", "leaves"]
    assert run("generate", *arguments).exit_code == 0
    Path("leaves.json").unlink()
    model = find_model("leaves")
    assert known_labels(None, model, 3, None) == LEAVES
    train = model.form("train").read_text()
    assert '\\"num_classes\\": 3' in train and '\\"mirror_swaps\\": [[1, 2]]' in train
    net = read_net(model.form("deploy"))
    assert net.layers[-1].top_shapes[-1][1] == 3


def test_a_model_takes_its_classes_and_lists_from_a_data_set(repository):
    data = repository / "data/leaves"
    make_set(data)
    (data / "test.txt").write_text("".join((data / "train.txt").open().readlines()[:6]))
    (data / "dataset.json").write_text(json.dumps({"label_set": LEAVES.to_json()}))
    arguments = ["demo", "--data", "data/leaves", "--set", "epochs=2", "--name", "leaves"]
    assert run("generate", *arguments).exit_code == 0
    model = find_model("leaves")
    assert known_labels(None, model, 3, None) == LEAVES
    assert "data/leaves/train.txt" in model.form("train").read_text()
    assert '\\"batch_size\\": 2' in model.form("test").read_text()  # of 10 and 6
    assert "test_iter: 3" in model.form("solver").read_text()
    command = re.search(r"`lglstm models (.*?)`", model.form("train").read_text())[1].split()
    assert run(*command, "--check").exit_code == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("label_set=leave.json", "leave.json: there is no such file"),
        ("label_set=bad.json", "bad.json: names is missing"),
        ("label_set=hors", "'hors' is not allowed; use horse, cow, atr"),
    ],
)
def test_a_wrong_label_set_is_refused(repository, setting, words):
    Path("bad.json").write_text('{"name": "bad"}')
    result = run("generate", "demo", "--set", setting, "--name", "mine")
    assert result.exit_code == 2 and words in result.stderr
    assert not Path("models").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "demo", "--set", "hidden=8"], "--set option=value --name NEW"),
        (["generate", "demo", "--name", "horse"], "--set option=value --name NEW"),
        (["generate", "demo", "--name", "../x"], "use small letters, digits and underscores"),
        (["generate", "demo", "--name", "x", "--set", "hidden=0"], "use a whole number from 1"),
        (["draw", "demo", "-o", "demo.txt"], ".png, .svg or .pdf"),
    ],
)
def test_usage_errors_exit_with_2(repository, arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr and "Usage: " in result.stderr
    assert list(repository.rglob("*.prototxt")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "hors"], "there is no model 'hors'; did you mean horse"),
        (["summary", "nothing"], "there is no model 'nothing'"),
        (["draw", "../../etc"], "../../etc: there is no such file"),
        (["options", "nothing"], "there is no model 'nothing'"),
    ],
)
def test_commands_refuse_in_one_sentence(repository, arguments, words):
    result = run(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr and result.stderr.count("\n") == 1
    assert list(repository.rglob("*.prototxt")) == []


def test_summary_in_both_forms(repository):
    run("generate", "demo")
    measured = json.loads(run("summary", "demo", "--json").output)
    assert measured["weights"] == sum(part["weights"] for part in measured["groups"].values())
    assert measured["weights"] == sum(row["weights"] for row in measured["layers"])
    layers = {row["name"]: row for row in measured["layers"]}
    assert layers["lg_lstm2"]["weights"] == 0
    assert layers["lg_lstm2"]["shared_weights"] == layers["lg_lstm1"]["weights"] > 0
    text = run("summary", "demo").output
    assert f"{measured['weights']:,} weights" in text and "transition" in text


def test_summary_refuses_a_damaged_net(repository):
    run("generate", "demo")
    (repository / "models/demo/train.prototxt").write_text("layer { nme: 1 }")
    result = run("summary", "demo")
    assert result.exit_code == 1 and "models/demo/train.prototxt: layer" in result.stderr


@pytest.mark.parametrize("name", ["horse", "atr_co_cnn", "demo_conv"])
def test_pictures_show_every_part_once(repository, name):
    from lglstm.common.models import find_model
    from lglstm.prototxt_gen.draw import collect, connections, place
    from lglstm.prototxt_gen.summary import summarize

    run("generate", name)
    result = run("draw", name)
    assert result.output == f"runs/{name}_net.png\n"
    assert (repository / f"runs/{name}_net.png").read_bytes()[1:4] == b"PNG"
    blocks = collect(summarize(find_model(name, "train")).layers)
    links = connections(blocks)
    place(blocks, links)
    boxes = [(b.x, b.y, b.height) for b in blocks.values()]
    for i, (x, y, height) in enumerate(boxes):
        for other_x, other_y, other_height in boxes[:i]:
            apart = abs(y - other_y) >= (height + other_height) / 2
            assert abs(x - other_x) >= 1 or apart, "boxes overlap"
    read = {target.key for _, target in links}
    assert read == set(blocks) - {"data"}


def test_list_and_options(repository):
    listed = run("list").output
    assert "horse_wo_global" in listed and "Tables 1, 5" in listed
    assert "neighbors" in run("options", "horse").output


def without_caffe(*arguments):
    """Run a command in a process of its own in which `import caffe` fails."""
    program = (
        "import sys; sys.modules['caffe'] = None\n"
        "from lglstm.cli.main import main; main(['models', *sys.argv[1:]])"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )


def test_models_are_listed_without_caffe():
    listed = without_caffe("list")
    assert listed.returncode == 0 and "horse_wo_global" in listed.stdout
    options = without_caffe("options", "horse")
    assert options.returncode == 0 and "neighbors" in options.stdout


def test_generate_without_caffe_says_so_in_one_sentence(repository):
    for arguments in (["generate", "horse"], ["generate", "--check"]):
        result = without_caffe(*arguments)
        assert result.returncode == 1 and result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ") and "needs Caffe" in result.stderr
    assert without_caffe("generate", "hors").stderr.startswith("error: there is no model 'hors'")
