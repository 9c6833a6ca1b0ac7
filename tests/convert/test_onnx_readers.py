"""The ONNX files in everybody's readers: ONNX Runtime, onnx.reference, OpenCV and OpenVINO."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from convert_help import ROOT, assert_close, data, lg_lstm_net, make_net, random_inputs
from test_convert_onnx import BOUND, DYNAMIC, STOCK, thin

onnx = pytest.importorskip("onnx", reason="needs ONNX: see docs/convert.md")
runtime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: see docs/convert.md")

from onnx.reference import ReferenceEvaluator  # noqa: E402

from lglstm.convert.onnx_graph import to_onnx  # noqa: E402

Blobs = dict[str, np.ndarray]


def by_onnxruntime(model, inputs: Blobs, wanted: list[str]) -> Blobs:
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return dict(zip(wanted, session.run(wanted, inputs), strict=True))


def by_onnx_reference(model, inputs: Blobs, wanted: list[str]) -> Blobs:
    return dict(zip(wanted, ReferenceEvaluator(model).run(wanted, inputs), strict=True))


def by_opencv(model, inputs: Blobs, wanted: list[str]) -> Blobs:
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
    for name, array in inputs.items():
        net.setInput(array, name)
    axes = {x.name: len(x.type.tensor_type.shape.dim) for x in model.graph.output}
    made = dict(zip(wanted, net.forward(wanted), strict=True))
    # OpenCV's arrays have two axes at least.
    return {name: a.ravel() if axes[name] == 1 else a for name, a in made.items()}


def by_openvino(model, inputs: Blobs, wanted: list[str]) -> Blobs:
    openvino = pytest.importorskip("openvino", reason="pip install openvino")
    core = openvino.Core()
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", config)
    made = compiled(inputs)
    return {name: made[name] for name in wanted}


READERS = [
    by_onnx_reference,
    by_opencv,
    pytest.param(by_openvino, marks=pytest.mark.slow),
]


def check(model, read, inputs: Blobs, wanted: list[str], relative: float = 1e-5) -> None:
    expected = by_onnxruntime(model, inputs, wanted)
    made = read(model, inputs, wanted)
    for name in wanted:
        assert_close(made[name], expected[name], relative)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", STOCK | BOUND)
def test_every_stock_layer(tmp_path, name, read):
    net, weights = make_net(tmp_path, data(2, 4, 7, 6) + (STOCK | BOUND)[name])
    check(to_onnx(net, weights), read, random_inputs(net), list(net.outputs))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("neighbors", "grid", "share", "bias"),
    [(8, 3, True, False), (4, 0, False, True), (2, 2, True, True), (8, 1, False, False)],
)
@pytest.mark.parametrize("map_size", [(7, 5), (3, 4)])
def test_lg_lstm_layers(tmp_path, neighbors, grid, share, bias, map_size, read):
    net, weights = make_net(tmp_path, lg_lstm_net(neighbors, grid, share, bias, map_size))
    extra = ["lg_lstm1_local", "lg_lstm2_local", "lg_lstm1_memory"]
    model = to_onnx(net, weights, extra_outputs=extra)
    check(model, read, random_inputs(net), [*net.outputs, *extra])


def test_hidden_cells_arrive_on_a_map_of_one_position(tmp_path):
    """Nothing but zeros moves in; with one row, a cut comes close to leaving nothing."""
    net, weights = make_net(tmp_path, lg_lstm_net(8, 1, True, False, (1, 1)))
    model = to_onnx(net, weights, extra_outputs=["lg_lstm1_local"])
    inputs = random_inputs(net)
    wanted = ["score", "lg_lstm1_local"]
    local = by_onnxruntime(model, inputs, wanted)["lg_lstm1_local"]
    assert not local[:, :32].any() and local[:, 32:].all()
    check(model, by_onnx_reference, inputs, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["demo", "horse", "horse_wo_global", "atr"])
def test_a_net_of_each_family(tmp_path, name, read):
    """Also for a batch that is not the net's own."""
    net, weights = make_net(
        tmp_path, thin((ROOT / "models" / name / "deploy.prototxt").read_text())
    )
    inputs = {k: (40 * v).astype(np.float32) for k, v in random_inputs(net).items()}
    twice = {k: np.concatenate([v, 0.5 * v]) for k, v in inputs.items()}
    model = to_onnx(net, weights)
    check(model, read, inputs, ["score"], relative=1e-4)
    if read is by_opencv:
        check(model, read, twice, ["score"], relative=1e-4)


@pytest.mark.parametrize("read", [by_onnx_reference, READERS[2]])
def test_nets_of_any_size(tmp_path, read):
    """OpenCV's reader wants the cells of the global grid to be constant."""
    net, weights = make_net(tmp_path, data(1, 3, 17, 21) + DYNAMIC)
    model = to_onnx(net, weights, any_size=True)
    for batch, size in ((1, (17, 21)), (2, (20, 14)), (1, (33, 40))):
        shape = (batch, 3, *size)
        inputs = {"data": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        check(model, read, inputs, list(net.outputs))


@pytest.mark.slow
def test_a_net_of_any_size_by_onnx_reference(tmp_path):
    """OpenCV does not read it: the score is cut to the input's size, which a Shape node tells."""
    text = thin((ROOT / "models" / "horse_wo_global" / "deploy.prototxt").read_text())
    net, weights = make_net(tmp_path, text)
    model = to_onnx(net, weights, any_size=True)
    for size in ((65, 65), (97, 83)):
        shape = (1, 3, *size)
        inputs = {"data": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        check(model, by_onnx_reference, inputs, ["score"], relative=1e-4)
        assert by_onnxruntime(model, inputs, ["score"])["score"].shape[2:] == size
    with pytest.raises(cv2.error):
        by_opencv(model, inputs, ["score"])
