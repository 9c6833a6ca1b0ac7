"""Every wrong option or shape ends in a sentence that names the layer and what is allowed."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lglstm.common.errors import InputError
from lglstm.layers import lg_lstm

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

from test_lg_lstm import input_layer, layer_text  # noqa: E402  (needs Caffe itself)

CELLS = (2, 18, 5, 4)  # of neighbors 8 and num_output 2
GLOBAL = (2, 2, 3, 3)
GOOD = {"num_output": 2, "neighbors": 8, "global_grid": 3}

# layer, changed options, shapes of the bottoms, number of tops, part of the message
BAD_NETS = {
    "neighbors": ("LGLSTM", {"neighbors": 5}, [CELLS, CELLS, GLOBAL], 3, "it must be 2, 4 or 8"),
    "num_output": ("LGLSTM", {"num_output": 0}, [CELLS, CELLS, GLOBAL], 3, "at least 1"),
    "wide": ("LGLSTM", {"num_output": 4_000_000_000}, [CELLS, CELLS], 3, "at most 65,536"),
    "fine": ("LGLSTM", {"global_grid": 4_000_000_000}, [CELLS, CELLS], 3, "at most 1,024"),
    "tops": ("LGLSTM", {}, [CELLS, CELLS, GLOBAL], 2, "the tops are local, memory and global"),
    "bottoms": ("LGLSTM", {}, [CELLS, CELLS], 3, "the bottoms are local, memory and global"),
    "no-global": (
        "LGLSTM",
        {"global_grid": 0},
        [CELLS, CELLS, GLOBAL],
        2,
        "there is no global bottom",
    ),
    "local": ("LGLSTM", {"neighbors": 4}, [CELLS, CELLS, GLOBAL], 3, "it must be (B, 10, H, W)"),
    "memory": ("LGLSTM", {}, [CELLS, (2, 18, 5, 5), GLOBAL], 3, "the bottom memory has shape"),
    "global": ("LGLSTM", {}, [CELLS, CELLS, (2, 2, 2, 2)], 3, "the bottom global has shape"),
    "small-map": ("LGLSTMTransition", {}, [(2, 3, 2, 4)], 3, "use a larger map or a smaller"),
    "in-place": ("LGLSTM", {}, [CELLS, CELLS, GLOBAL], 3, "cannot work in place"),
    "not-a-map": ("LGLSTMTransition", {}, [(2, 3)], 3, "it must be (B, C, H, W)"),
}


def net_text(name: str, engine: str) -> str:
    layer, changed, shapes, tops, message = BAD_NETS[name]
    text = "".join(input_layer(f"bottom{i}", shape) for i, shape in enumerate(shapes))
    tested = layer_text(layer, GOOD | changed, len(shapes), tops, engine)
    return text + (tested.replace('"top', '"bottom') if "in place" in message else tested)


def in_a_child(call: Callable[[], object], log: Path) -> int:
    """The status of a process that calls this: Caffe ends the process that it finds a fault in."""
    if (child := os.fork()) == 0:
        faulthandler.disable()
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
        with contextlib.suppress(Exception):
            call()
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("name", BAD_NETS)
def test_python_layer_says_what_is_wrong(tmp_path, name):
    path = tmp_path / "net.prototxt"
    path.write_text(net_text(name, "python"))
    with pytest.raises(InputError) as error:
        caffe.Net(str(path), caffe.TEST)
    assert BAD_NETS[name][0] in str(error.value)
    assert BAD_NETS[name][4] in str(error.value)


@pytest.mark.parametrize("name", BAD_NETS)
def test_cpp_layer_says_what_is_wrong(tmp_path, name):
    path, log = tmp_path / "net.prototxt", tmp_path / "log"
    path.write_text(net_text(name, "caffe"))
    status = in_a_child(lambda: caffe.Net(str(path), caffe.TEST), log)
    (line,) = [line for line in log.read_text().splitlines() if "Check failed" in line]
    assert status != 0
    assert f'{BAD_NETS[name][0]} layer "{BAD_NETS[name][0].lower()}_under_test": ' in line
    assert BAD_NETS[name][4] in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"hidden": 3}', "unknown key hidden; choose one of num_output, neighbors"),
        ('{"neighbors": "8"}', "it must be 2, 4 or 8"),
        ('{"neighbor": 8}', "unknown key neighbor; did you mean neighbors"),
        ('{"num_output": 4, "num_output": 8}', "gives num_output twice; give every key once"),
        ('{"weight_filler": "xavier"}', "it must be a filler such as"),
        ('{"share_spatial": 1}', "it must be true or false"),
        ('{"global_grid": -1}', "it must be a whole number, at least 0"),
        ('{"num_output": 1' + "0" * 400 + "}", "it must be a whole number, at least 1"),
        ('{"global_grid": 1' + "0" * 5000 + "}", "param_str is not JSON"),
        ('{"neighbors": ' + "[" * 900 + "]" * 900 + "}", "it must be 2, 4 or 8"),
    ],
)
def test_param_str_is_checked(text, message):
    with pytest.raises(InputError, match="the layer: .*" + message):
        lg_lstm.parse_options("the layer", text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "ImageLabels: num_classes is missing; it must be a whole number from 1 to 256"),
        ({"num_classes": "5"}, 'num_classes is "5"; it must be a whole number from 1 to 256'),
        ({"num_classes": 5, "ignore": 255}, "unknown key ignore; did you mean ignore_label"),
        ({"num_classes": 5, "ignore_label": 256}, "it must be a whole number from 0 to 255"),
    ],
)
def test_image_labels_checks_its_param_str(tmp_path, options, message):
    path = tmp_path / "net.prototxt"
    quoted = json.dumps(json.dumps(options))
    path.write_text(
        input_layer("label", (2, 1, 5, 4))
        + 'layer { name: "target" type: "Python" bottom: "label" top: "target" python_param { '
        f'module: "lglstm.layers.image_labels" layer: "ImageLabels" param_str: {quoted} }} }}'
    )
    with pytest.raises(InputError) as error:
        caffe.Net(str(path), caffe.TEST)
    assert message in str(error.value)


@pytest.mark.slow
def test_python_layer_says_what_is_wrong_inside_the_caffe_program(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(net_text("memory", "python"))
    program = Path(sys.executable).with_name("caffe")
    run = subprocess.run(
        [program, "time", "-model", path, "-iterations", "1"], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "error: LGLSTM layer (Python): the bottom memory has shape" in run.stderr


@pytest.mark.parametrize(
    "filler", [{"sort": "uniform"}, {"type": 5}, {"min": 1e39}, {"min": 10**400}, {"type": [[]]}]
)
def test_unknown_filler_is_refused(tmp_path, filler):
    path = tmp_path / "net.prototxt"
    text = input_layer("bottom0", (2, 3, 5, 4))
    options = GOOD | {"weight_filler": filler}
    path.write_text(text + layer_text("LGLSTMTransition", options, 1, 3, "python"))
    with pytest.raises(InputError, match="is not a filler of Caffe"):
        caffe.Net(str(path), caffe.TEST)


@pytest.mark.parametrize(
    ("filler", "fault"),
    [
        ({"type": "unifrom"}, "type must be one of constant, gaussian,"),
        ({"type": "bilinear"}, "type must be one of"),
        ({"type": "gaussian", "std": 0}, "std must be above 0"),
        ({"type": "gaussian", "std": -1e-3}, "std must be above 0"),
        ({"type": "gaussian", "mean": "Infinity"}, "its numbers must be finite"),
        ({"type": "gaussian", "std": "NaN"}, "its numbers must be finite"),
        ({"type": "uniform", "min": 0.1, "max": -0.1}, "min must not be above max"),
        ({"type": "uniform", "min": 0.1, "max": 0.2, "sparse": 1}, "sparse is for gaussian"),
        ({"type": "gaussian", "sparse": 3}, "sparse must be -1 … 2, the rows of the blob"),
        ({"type": "gaussian", "sparse": -2}, "sparse must be -1 … 2"),
    ],
)
def test_filler_with_which_caffe_would_abort_is_refused(tmp_path, monkeypatch, filler, fault):
    """It aborts, or fills with numbers that are not finite."""

    def fill() -> None:
        values = lg_lstm.filled("LGLSTM layer", (2, 3), filler)
        assert np.isfinite(values).all()

    with pytest.raises(InputError, match=re.escape(fault)):
        fill()
    monkeypatch.setattr(lg_lstm, "_fault_of", lambda filler, shape: None)
    assert in_a_child(fill, tmp_path / "log") != 0


@pytest.mark.parametrize(
    "filler",
    [{}, {"type": "xavier", "varianceNorm": "AVERAGE"}, {"type": "msra"},
     {"type": "positive_unitball"}, {"type": "uniform", "min": 1, "max": 1},
     {"type": "gaussian", "sparse": 2}, {"type": "gaussian", "sparse": 0}],
)  # fmt: skip
def test_filler_of_caffe_is_used(filler):
    values = lg_lstm.filled("LGLSTM layer", (2, 3), filler)
    assert values.shape == (2, 3)
    assert np.isfinite(values).all()
