"""ONNX files in float16 and int8: what is in them, and that their loss is measured."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from convert_help import data, layer, make_net, needs_caffe
from test_onnx_labels import SIZE, make_parser, photo_of, session

from lglstm.cli.convert import command
from lglstm.common.errors import InputError
from lglstm.convert import precision
from lglstm.convert.onnx_graph import to_onnx
from lglstm.convert.options import Truth

GRAPHS = {"scores": {}, "photo": {"preprocessing": True}, "labels": {"labels": True}}
NET = (SIZE, 3)


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, size in enumerate([(40, 31), (30, 60), SIZE]):
        cv2.imwrite(str(folder / f"{seed}.png"), photo_of(size, seed))
    return sorted(folder.iterdir())


def types_of(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_float16_keeps_inputs_outputs_and_almost_all_labels(tmp_path, photos, graph):
    net, weights = make_parser(tmp_path)
    before, made = to_onnx(net, weights, **graph), to_onnx(net, weights, **graph)
    made = precision.to_float16(made)
    assert onnx.TensorProto.FLOAT16 in types_of(made) - types_of(before)
    for ends in ("input", "output"):
        assert getattr(made.graph, ends) == getattr(before.graph, ends)
    loss = precision.measure_loss("float16", (before, made), NET, photos, None, print)
    assert 0.99 < loss.equal <= 1 and loss.pixels == 40 * 31 + 30 * 60 + SIZE[0] * SIZE[1]


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_int8_is_static_and_keeps_most_labels(tmp_path, photos, graph):
    net, weights = make_parser(tmp_path)
    before = to_onnx(net, weights, **graph)
    untouched = before.SerializeToString()
    made = precision.to_int8(before, SIZE, photos)
    assert before.SerializeToString() == untouched
    kinds = [node.op_type for node in made.graph.node]
    assert "QuantizeLinear" in kinds and "DynamicQuantizeLinear" not in kinds
    assert onnx.TensorProto.INT8 in types_of(made) and made.opset_import == before.opset_import
    loss = precision.measure_loss("int8", (before, made), NET, photos, None, print)
    assert 0.8 < loss.equal < 1, "as many as with float32 would be no int8"


def test_int8_depends_on_its_photos(tmp_path, photos):
    net, weights = make_parser(tmp_path)
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((20, 20, 3), np.uint8))
    model = to_onnx(net, weights, labels=True)
    fitting, other = (precision.to_int8(model, SIZE, given) for given in (photos, [black]))
    losses = [
        precision.measure_loss("int8", (model, made), NET, photos, None, print)
        for made in (fitting, other)
    ]
    assert losses[0].equal > losses[1].equal
    again = precision.to_int8(model, SIZE, photos)
    assert again.SerializeToString() == fitting.SerializeToString()


def test_mean_iou_is_that_of_the_label_maps(tmp_path, photos):
    """Against the truth, which here is what float32 gives: 1 before, less after."""
    net, weights = make_parser(tmp_path)
    before = to_onnx(net, weights, labels=True)
    made = precision.to_int8(before, SIZE, photos)
    given = [cv2.imread(str(path)) for path in photos]
    truth = [session(before).run(None, {"photo": x[None, ..., ::-1]})[0][0] for x in given]

    def confusion(index, ids, classes):
        pairs = np.bincount(
            (truth[index].astype(int) * classes + ids).ravel(), minlength=classes**2
        )
        return pairs.reshape(classes, classes)

    def accuracy(matrix):
        return float(np.trace(matrix) / matrix.sum())

    known = Truth(photos, confusion, accuracy)
    loss = precision.measure_loss("int8", (before, made), NET, photos, known, print)
    assert loss.mean_iou == (1, pytest.approx(loss.equal))


def run(*arguments):
    result = CliRunner().invoke(command, [*map(str, arguments), "--json"])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


@pytest.mark.slow
@needs_caffe
def test_the_command_measures_on_a_list(tmp_path, photos):
    make_parser(tmp_path)
    labels = [path.with_suffix(".label.png") for path in photos]
    for path, label in zip(photos, labels, strict=True):
        cv2.imwrite(str(label), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) // 86)
    listed = tmp_path / "photos" / "test.txt"
    lines = [f"{a.name} {b.name}" for a, b in zip(photos, labels, strict=True)]
    listed.write_text("\n".join(lines) + "\n")
    files = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    wanted = ["--precision", "int8", "--test-list", listed, "--returns", "labels"]
    calibration = [argument for path in photos for argument in ("--calibrate", path)]
    report = run(*files, "--to", "onnx", *wanted, *calibration)
    loss = report["loss"]
    assert loss["photos"] == 3 and all(0 < value < 1 for value in loss["mean_iou"])
    assert loss["bytes"][1] == (tmp_path / "net.onnx").stat().st_size
    for words in ("proved: within", "int8 keeps", "mean IoU", "ms a photo instead of"):
        assert words in report["verdict"]


def test_too_great_a_loss_is_not_kept(tmp_path, photos, monkeypatch):
    make_parser(tmp_path)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setitem(precision.LEAST_EQUAL, "int8", 1.0)
    monkeypatch.setattr("lglstm.convert.conversion.prove", lambda *_: NothingProved())
    files = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    with pytest.raises(InputError, match="pixels keep their label in int8, at least 100% should"):
        run(*files, "--to", "onnx", "--precision", "int8", "--calibrate", photos[0])
    assert sorted(tmp_path.iterdir()) == before


class NothingProved:
    def as_json(self):
        return {}


def test_a_net_that_parses_no_photo_has_no_loss_to_measure(tmp_path):
    inner = layer("InnerProduct", "fc", "data", "fc", "inner_product_param { num_output: 5 }")
    make_net(tmp_path, data(1, 3, 4, 4) + inner)
    files = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    with pytest.raises(InputError, match="--precision needs a net that makes one score map"):
        run(*files, "--to", "onnx", "--precision", "float16", "--no-verify")
