"""What the tests of convert/ share: nets as text, weights files, and Caffe to compare with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lglstm.caffe_files import Net, random_weights, read_net, write_caffemodel
from lglstm.cli.convert import command
from lglstm.common.errors import InputError
from lglstm.convert.caffe_process import caffe_is_there, run_caffe

ROOT = Path(__file__).resolve().parents[1]
needs_caffe = pytest.mark.skipif(not caffe_is_there(), reason="needs Caffe: make setup")


def layer(kind: str, name: str, bottoms: str, tops: str, parameters: str = "") -> str:
    """One layer of a prototxt; bottoms and tops are separated by spaces."""
    ends = "".join(f' bottom: "{b}"' for b in bottoms.split())
    ends += "".join(f' top: "{t}"' for t in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}"{ends} {parameters} }}\n'


def data(*shape: int, name: str = "data") -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    return layer("Input", name, "", name, f"input_param {{ shape {{ {dims} }} }}")


def lg_lstm_net(neighbors: int, grid: int, share: bool, bias: bool, map_size=(7, 5)) -> str:
    """Two LG-LSTM layers with shared weights behind a transition, and the factored classifier."""
    words = f"num_output: 4 neighbors: {neighbors} global_grid: {grid}"
    words += f" share_spatial: {str(share).lower()} bias_term: {str(bias).lower()}"
    options = f"lg_lstm_param {{ {words} }}"
    names = ["spatial", "spatial_bias", "depth", "depth_bias"] if bias else ["spatial", "depth"]
    shared = "".join(f'param {{ name: "{name}" }}' for name in names)
    blobs = "local memory global" if grid else "local memory"

    def tops(prefix: str) -> str:
        return " ".join(f"{prefix}_{blob}" for blob in blobs.split())

    text = data(2, 3, *map_size)
    text += layer("LGLSTMTransition", "transition", "data", tops("transition"), options)
    text += layer("LGLSTM", "lg_lstm1", tops("transition"), tops("lg_lstm1"), options + shared)
    text += layer("LGLSTM", "lg_lstm2", tops("lg_lstm1"), tops("lg_lstm2"), options + shared)
    text += layer("Silence", "silence", "lg_lstm2_memory", "")
    convolution = "convolution_param { num_output: 3 kernel_size: 1 }"
    if not grid:
        return text + layer("Convolution", "score", "lg_lstm2_local", "score", convolution)
    text += layer("Convolution", "score_local", "lg_lstm2_local", "score_local", convolution)
    inner = "inner_product_param { num_output: 3 bias_term: false }"
    text += layer("InnerProduct", "score_global", "lg_lstm2_global", "score_global", inner)
    return text + layer(
        "Bias", "score", "score_local score_global", "score", "bias_param { axis: 0 }"
    )


def write_weights(path: Path, net: Net, weights: dict[str, np.ndarray]) -> Path:
    """Write weights as a caffemodel of the net."""
    layers = [(x.message, [weights[key] for key in x.blobs.values()]) for x in net.layers]
    write_caffemodel(path, net.name, layers)
    return path


def make_net(folder: Path, text: str, seed: int = 1) -> tuple[Net, dict[str, np.ndarray]]:
    """Write the prototxt and random weights as net.prototxt and net.caffemodel into the folder."""
    path = folder / "net.prototxt"
    path.write_text(text)
    net = read_net(path)
    weights = random_weights(net, seed)
    write_weights(folder / "net.caffemodel", net, weights)
    return net, weights


def random_inputs(net: Net, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(shape).astype(np.float32) for n, shape in net.inputs.items()}


def caffe_outputs(net: Net, folder: Path, inputs: dict, wanted=None) -> dict[str, np.ndarray]:
    """What Caffe makes of make_net's files."""
    wanted = list(wanted or net.outputs)
    return run_caffe(net.path, folder / "net.caffemodel", [inputs], wanted)[0]


def assert_close(got, expected, relative: float = 1e-5) -> None:
    """Equal up to `relative` times the largest value, which must not be zero."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    largest = np.abs(expected).max()
    assert largest > 0
    assert np.abs(got - expected).max() <= relative * largest


def convert(*arguments: object, code: int = 0) -> dict | str:
    """Run `lglstm convert` in the current folder; its report, or with code=1 its error."""
    result = CliRunner().invoke(command, [*map(str, arguments), "--json"])
    if code:
        assert isinstance(result.exception, InputError), result.output
        return str(result.exception)
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)
