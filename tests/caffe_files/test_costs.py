"""Costs and shapes of nets without Caffe, and the one statement of the LG-LSTM layers' shapes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from lglstm.caffe_files.costs import measure
from lglstm.caffe_files.layer_types import PYTHON_LAYERS, UnsupportedLayer, layer_type
from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.caffe_files.schema import LayerParameter
from lglstm.common.errors import InputError
from lglstm.common.lg_lstm_shapes import DIRECTIONS, LGLSTMShapes

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_CAFFE = """
import sys
sys.modules["caffe"] = None
from lglstm.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["summary", "demo"], ["draw", "demo", "-o", "net.svg"]])
def test_summary_and_picture_need_no_caffe(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CAFFE, "models", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


def measured(text: str, folder: Path) -> list:
    path = folder / "net.prototxt"
    path.write_text('name: "n" ' + text)
    return measure(read_prototxt(path)[0])


INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 4, 6, 5] } } } '


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ('name: "c" type: "Convolution" bottom: "y" top: "c"', 'its bottom "y" is not a top'),
        ('name: "c" type: "Convolution" bottom: "x" top: "c"', "it has no kernel_size"),
        ('name: "c" type: "LSTM" bottom: "x" top: "c"', "this type cannot be measured"),
        ('name: "c" type: "ReLU" bottom: "x" top: "c" top: "d"', "it has 2 tops, expected 1"),
        (
            'name: "c" type: "Python" bottom: "x" top: "c" '
            'python_param { module: "my.layers" layer: "Mine" }',
            "my.layers.Mine is not one of this project's",
        ),
    ],
)
def test_an_edited_net_is_refused_by_its_layer(layer, words, tmp_path):
    with pytest.raises(InputError, match=words) as caught:
        measured(INPUT + f"layer {{ {layer} }}", tmp_path)
    assert 'net n: layer "c"' in str(caught.value)


def test_multiply_adds_and_workspace_of_a_convolution(tmp_path):
    convolution = (
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 7 kernel_size: 3 stride: 2 pad: 1 } }"
    )
    layer = measured(INPUT + convolution, tmp_path)[-1]
    assert (layer.tops, layer.blobs) == (((1, 7, 3, 3),), ((7, 4, 3, 3), (7,)))
    assert layer.multiply_adds == 7 * 4 * 9 * 3 * 3
    assert layer.workspace == 4 * 9 * 3 * 3


@pytest.mark.parametrize("package", ["lglstm.layers", "layers"])
def test_python_layers_are_known_by_todays_name_and_that_of_old_prototxts(package):
    modules = {"LGLSTM": "lg_lstm", "SegData": "seg_data", "ImageLabels": "image_labels"}
    for name, module in modules.items():
        layer = LayerParameter(type="Python")
        layer.python_param.module, layer.python_param.layer = f"{package}.{module}", name
        assert layer_type(layer) == name
    assert ("os", "system") not in PYTHON_LAYERS
    layer.python_param.module = "somebody.layers"
    with pytest.raises(UnsupportedLayer):
        layer_type(layer)


CASES = list(itertools.product((2, 4, 8), (0, 2), (True, False), (True, False)))


@pytest.mark.parametrize(("neighbors", "grid", "share", "bias"), CASES)
def test_the_pytorch_layers_state_the_same_shapes_and_directions(neighbors, grid, share, bias):
    """pytorch/lg_lstm_torch is installed without the rest, so it has a statement of its own."""
    pytest.importorskip("torch")
    from lglstm.convert.torch import LGLSTM, LGLSTMTransition, lg_lstm

    shapes = LGLSTMShapes(3, neighbors, grid, share, bias)
    layer = LGLSTM(3, neighbors, grid, share, bias)
    transition = LGLSTMTransition(5, 3, neighbors, grid, bias)
    for module, blobs in ((layer, shapes.layer_blobs()), (transition, shapes.transition_blobs(5))):
        stated = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        assert stated == blobs
    assert [tuple(step) for step in lg_lstm.DIRECTIONS[neighbors]] == list(DIRECTIONS[neighbors])


@pytest.mark.slow
def test_all_models_of_the_repository_can_be_measured():
    paths = sorted(ROOT.glob("models/*/*.prototxt"))
    nets = [path for path in paths if path.stem != "solver"]
    assert len(nets) >= 63
    for path in nets:
        phase = "TRAIN" if path.stem == "train" else "TEST"
        assert measure(read_prototxt(path, phase)[0])
