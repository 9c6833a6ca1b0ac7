"""Models that somebody edited: `summary` and `draw` work, or refuse them in one sentence."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lglstm.caffe_files.prototxt import read_message
from lglstm.caffe_files.schema import NetParameter
from lglstm.common.errors import InputError
from lglstm.common.models import find_model
from lglstm.prototxt_gen.draw import draw
from lglstm.prototxt_gen.summary import Summary, summarize

MODELS = Path(__file__).resolve().parents[2] / "models"
NAMES = ("a#b$", "x%y", "", "a_b{", "score", "lg_lstm9", "extra1", "label", "fc6", "up\\o")
TYPES = ("ReLU", "Softmax", "LRN", "Nope", "InnerProduct", "Flatten", "Convolution", "Silence")


def edit(net: NetParameter, rng: random.Random) -> None:
    """Make one of the mistakes that editing makes."""
    i = rng.randrange(len(net.layer))
    layer = net.layer[i]
    mistake = rng.randrange(8)
    if mistake == 0:
        del net.layer[i]
    elif mistake == 1:
        del net.layer[i:]
    elif mistake == 2:
        del net.layer[:i]
    elif mistake == 3:
        layer.name = rng.choice(NAMES)
    elif mistake == 4 and layer.bottom:
        layer.bottom[0] = "data"
    elif mistake == 5:
        layer.type = rng.choice(TYPES)
    elif mistake == 6 and layer.top:
        del layer.top[0]
    elif mistake == 7:
        layer.python_param.param_str = rng.choice(("", "{", "[]", '{"label_stride": 0}'))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["horse_extra_conv", "demo", "atr"])
def test_an_edited_model_is_measured_and_drawn_or_refused(name, tmp_path):
    rng = random.Random(5)
    folder = tmp_path / name
    folder.mkdir()
    test_net = (MODELS / name / "test.prototxt").read_text()
    (folder / "test.prototxt").write_text(test_net)
    done = refused = 0
    for _ in range(30):
        net = read_message(MODELS / name / "train.prototxt", NetParameter())
        edit(net, rng)
        (folder / "train.prototxt").write_text(str(net))
        try:
            summary = summarize(find_model(str(folder), "train"))
            summary.as_dict()
            draw(summary, tmp_path / "net.svg")
            done += 1
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert done > 2 and refused > 2


def summary_of(path: Path) -> Summary:
    return summarize(find_model(str(path), "train"))


def test_the_file_that_is_named_is_the_one_that_is_measured(tmp_path):
    """Not the train.prototxt of its folder; a net of both phases is its own test net."""
    for name in ("demo", "horse"):
        text = (MODELS / name / "train.prototxt").read_text()
        (tmp_path / ("train.prototxt" if name == "demo" else "own.prototxt")).write_text(text)
    own = summary_of(tmp_path / "own.prototxt")
    horse = summary_of(MODELS / "horse" / "train.prototxt")
    assert (own.name, own.weights, own.batch) == ("own", horse.weights, horse.batch)
    assert own.weights != summary_of(MODELS / "demo" / "train.prototxt").weights
    only_training = TWO_PHASES.replace("input_param", "include { phase: TRAIN } input_param")
    tests = []
    for text in (TWO_PHASES, only_training):
        (tmp_path / "both.prototxt").write_text(text)
        tests.append(summary_of(tmp_path / "both.prototxt").test_bytes)
    assert tests == [4 * (2 * 3 * 4 * 4 + 2 * 5 * 4 * 4), 0]


TWO_PHASES = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 1 } }
"""


def test_any_letter_may_be_in_the_name_of_a_layer(tmp_path):
    for name in ("test", "train"):
        text = (MODELS / "demo" / f"{name}.prototxt").read_text()
        edited = text.replace('name: "conv1"', 'name: "c\U00020000n$v_1"')
        assert edited != text
        (tmp_path / f"{name}.prototxt").write_text(edited)
    draw(summary_of(tmp_path), tmp_path / "net.svg")
    assert (tmp_path / "net.svg").stat().st_size > 1000
