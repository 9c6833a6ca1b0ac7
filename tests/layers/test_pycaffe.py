"""Stock pycaffe with the pinned packages: what its users call works with today's NumPy."""

from __future__ import annotations

from pathlib import Path

import caffe
import cv2
import numpy as np
import pytest
from caffe import layers as L
from caffe.coord_map import coord_map_from_to
from caffe.proto import caffe_pb2
from google.protobuf import text_format

SIDE = 8


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def net(tmp_path: Path) -> tuple[str, str]:
    """A net that averages each channel of an image of 8 × 8: its prototxt and its weights."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, SIDE, SIDE]})
    n.mean = L.Pooling(n.data, pool=1, global_pooling=True)
    n.prob = L.Convolution(n.mean, num_output=3, kernel_size=1, weight_filler={"type": "constant"})
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(str(n.to_proto()))
    made = caffe.Net(str(prototxt), caffe.TEST)
    made.params["prob"][0].data[...] = np.eye(3).reshape(3, 3, 1, 1)
    made.save(str(weights))
    return str(prototxt), str(weights)


@pytest.mark.parametrize(("color", "channels"), [(True, 3), (False, 1)])
def test_load_image(photo, color, channels):
    image = caffe.io.load_image(str(photo), color=color)
    assert (image.shape, image.dtype) == ((20, 30, channels), np.float32)
    if color:
        np.testing.assert_allclose(image[:, :, ::-1] * 255, cv2.imread(str(photo)), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_datum_round_trip(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    datum = caffe.io.array_to_datum(array, label=7)
    back = caffe.io.datum_to_array(caffe_pb2.Datum.FromString(datum.SerializeToString()))
    assert datum.label == 7
    np.testing.assert_array_equal(back, array)
    back[...] = 0  # the caller's own copy, as it always was


def test_blobproto_round_trip():
    arrays = [np.arange(6.0).reshape(1, 2, 3), np.ones((2, 2))]
    text = caffe.io.arraylist_to_blobprotovector_str(arrays)
    for array, back in zip(arrays, caffe.io.blobprotovector_str_to_arraylist(text), strict=True):
        np.testing.assert_array_equal(back, array)


def test_resize_interpolates_and_does_not_blur():
    """Caffe's nets were trained on pictures that were shrunk by interpolation alone."""
    image = np.zeros((9, 9, 3), np.float32)
    image[4, 4] = 1
    small = caffe.io.resize_image(image, (3, 3))
    assert small[1, 1, 0] == pytest.approx(1)


def test_transformer_undoes_itself():
    transformer = caffe.io.Transformer({"data": (1, 3, SIDE, SIDE)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([104.0, 117.0, 123.0]))
    image = np.random.default_rng(2).random((SIDE, SIDE, 3)).astype(np.float32)
    prepared = transformer.preprocess("data", image)
    assert prepared.shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(transformer.deprocess("data", prepared), image, atol=1e-5)


@pytest.mark.parametrize("oversample", [True, False])
def test_classifier(net, photo, oversample):
    classifier = caffe.Classifier(*net, image_dims=(SIDE, SIDE), raw_scale=255)
    image = np.full((20, 30, 3), (0.1, 0.2, 0.3), np.float32)
    (scores,) = classifier.predict([image], oversample=oversample).reshape(1, 3)
    np.testing.assert_allclose(scores, [25.5, 51, 76.5], rtol=1e-4)


@pytest.mark.parametrize("context_pad", [None, 2])
def test_detector(net, photo, context_pad):
    detector = caffe.Detector(*net, raw_scale=255, context_pad=context_pad)
    windows = np.array([[2, 3, 14, 20], [0, 0, 20, 30]])
    found = detector.detect_windows([(str(photo), windows)])
    assert [list(one["window"]) for one in found] == windows.tolist()
    assert all(np.isfinite(one["prediction"]).all() for one in found)


def test_draw_or_one_sentence_that_says_what_is_missing(net):
    message = text_format.Parse(Path(net[0]).read_text(), caffe_pb2.NetParameter())
    try:
        from caffe import draw
    except ImportError as error:
        assert "needs pydot" in str(error)
    else:
        assert "prob" in draw.get_pydot_graph(message, "LR").to_string()


def test_coordinates_between_layers():
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 9, 9]})
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=3, stride=2, pad=1)
    _, scale, offset = coord_map_from_to(n.conv, n.data)
    assert (scale.item(), offset.item()) == (2, 0)  # position i of the map is pixel 2i
