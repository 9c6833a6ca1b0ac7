"""ONNX graphs that take photos of any size and return label maps of that size."""

from __future__ import annotations

import json

import cv2
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from convert_help import (
    assert_close,
    data,
    layer,
    lg_lstm_net,
    make_net,
    needs_caffe,
    write_weights,
)

from lglstm.cli.convert import command
from lglstm.common.errors import InputError
from lglstm.common.preprocessing import to_blob, to_label_map
from lglstm.convert import onnx_photo, prove
from lglstm.convert.description import LABELS, PHOTO, read_description
from lglstm.convert.onnx_graph import to_onnx

SIZE = (17, 13)
SIZES = {
    "its own": SIZE,
    "shrinks": (40, 31),
    "by whole numbers": (51, 39),
    "shrinks a little": (18, 14),
    "grows": (9, 12),
    "both": (60, 9),
    "one side stays": (17, 50),
    "large": (400, 333),
    "one pixel": (1, 1),
}


def session(model) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def make_parser(folder):
    """A narrow net with LG-LSTM layers and random weights, under which no class wins everywhere."""
    net, weights = make_net(folder, lg_lstm_net(4, 2, True, True, map_size=SIZE))
    blob = to_blob(photo_of(SIZE), SIZE)[None].repeat(2, axis=0)
    (scores,) = session(to_onnx(net, weights)).run(None, {"data": blob})
    weights["score_local.bias"] -= np.median(scores, axis=(0, 2, 3))
    write_weights(folder / "net.caffemodel", net, weights)
    return net, weights


def photo_of(size, seed=0) -> np.ndarray:
    """Smooth colors, with edges."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_label_maps_are_those_of_predict(tmp_path, size):
    """What the photo becomes, to a millionth; and every label."""
    net, weights = make_parser(tmp_path)
    whole = session(to_onnx(net, weights, labels=True, extra_outputs=["score"]))
    photo = photo_of(size)
    labels, scores = whole.run(None, {PHOTO: photo[None, ..., ::-1]})
    (expected,) = session(to_onnx(net, weights)).run(None, {"data": to_blob(photo, SIZE)[None]})
    assert_close(scores, expected, 1e-5)
    truth = to_label_map(expected[0], size)
    assert labels.dtype == np.uint8 and labels.shape == (1, *size)
    assert (labels[0] == truth).all()
    assert size[0] < 9 or len(np.unique(truth)) > 1, "a map of one label would prove nothing"


def test_photos_of_a_batch_are_kept_apart(tmp_path):
    net, weights = make_parser(tmp_path)
    model = session(to_onnx(net, weights, labels=True))
    photos = np.stack([photo_of((30, 24), seed) for seed in range(3)])
    (together,) = model.run(None, {PHOTO: photos})
    alone = [model.run(None, {PHOTO: photo[None]})[0][0] for photo in photos]
    np.testing.assert_array_equal(together, alone)
    assert len({labels.tobytes() for labels in alone}) == 3


@pytest.mark.parametrize("method", [cv2.INTER_LINEAR, cv2.INTER_NEAREST])
def test_other_ways_of_stretching_are_told_apart(tmp_path, method):
    """The first test could not fail if these gave the same."""
    net, weights = make_parser(tmp_path)
    whole = session(to_onnx(net, weights, labels=True, extra_outputs=["score"]))
    photo = photo_of((200, 200)) + np.random.default_rng(0).integers(0, 99, (200, 200, 3), np.uint8)
    (_, scores) = whole.run(None, {PHOTO: photo[None, ..., ::-1]})
    other = cv2.resize(photo, SIZE[::-1], interpolation=method)
    (changed,) = session(to_onnx(net, weights)).run(None, {"data": to_blob(other, SIZE)[None]})
    with pytest.raises(AssertionError):
        assert_close(scores, changed, 1e-3)


def run(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments), "--json"])


@pytest.mark.slow
@needs_caffe
def test_the_command_counts_the_pixels_that_change(tmp_path):
    make_parser(tmp_path)
    files = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    result = run(*files, "--to", "onnx", "--returns", "labels")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {"whole photo", "noise, shrunk", "noise, enlarged", "noise, stretched"} <= {
        d["sample"] for d in report["differences"]
    }
    assert report["changed_labels"]["pixels"] > 200_000
    assert report["changed_labels"]["changed"] < 20
    assert "pixels labeled otherwise than by lglstm predict" in report["verdict"]
    assert read_description(tmp_path / "net.onnx").outputs == (LABELS,)


@pytest.mark.slow
@needs_caffe
def test_label_maps_that_are_not_those_of_predict_are_not_kept(tmp_path, monkeypatch):
    """Scores are right, and the second best class is returned."""
    make_parser(tmp_path)

    def worst(g, scores, classes):
        negative = g.op("Neg", scores)
        return right(g, negative, classes)

    right = onnx_photo.scores_to_labels
    monkeypatch.setattr("lglstm.convert.onnx_graph.scores_to_labels", worst)
    before = sorted(tmp_path.iterdir())
    result = run(
        *(tmp_path / "net.prototxt", tmp_path / "net.caffemodel"),
        *("--to", "onnx", "--returns", "labels"),
    )
    assert isinstance(result.exception, InputError)
    assert "pixels get another label, allowed is 1 of 1000" in str(result.exception)
    assert sorted(tmp_path.iterdir()) == before
    assert prove.MOST_CHANGED == 1e-3


def test_nets_without_a_map_of_scores_are_refused(tmp_path):
    inner = layer("InnerProduct", "fc", "data", "fc", "inner_product_param { num_output: 5 }")
    net, weights = make_net(tmp_path, data(1, 3, 4, 4) + inner)
    with pytest.raises(InputError, match="label maps need one photo in and one map of at most 256"):
        to_onnx(net, weights, labels=True)


def test_a_blob_of_the_same_name_is_refused(tmp_path):
    relu = layer("ReLU", "labels", "data", "labels")
    net, weights = make_net(tmp_path, data(1, 3, 4, 4) + relu)
    with pytest.raises(InputError, match="has a blob labels, the name of an input or output"):
        to_onnx(net, weights, labels=True)
