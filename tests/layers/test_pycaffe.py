"""Stock pycaffe with the pinned packages: what its users call works, with the same numbers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import caffe
import cv2
import numpy as np
import pytest
from caffe import layers as L
from caffe import params as P
from caffe.coord_map import coord_map_from_to, crop
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from PIL import Image
from skimage.transform import AffineTransform, warp

SIDE = 8
LUMINANCE = (0.2125, 0.7154, 0.0721)  # of red, green and blue, in scikit-image


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo of 20 × 30 pixels."""
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8))
    return path


@pytest.fixture
def net(tmp_path: Path) -> tuple[str, str]:
    """A net that averages each channel of an image of 8 × 8: its prototxt and its weights."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, SIDE, SIDE]})
    n.mean = L.Pooling(n.data, pool=P.Pooling.AVE, global_pooling=True)
    n.prob = L.Convolution(n.mean, num_output=3, kernel_size=1, weight_filler={"type": "constant"})
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(str(n.to_proto()))
    made = caffe.Net(str(prototxt), caffe.TEST)
    made.params["prob"][0].data[...] = np.eye(3).reshape(3, 3, 1, 1)
    made.save(str(weights))
    return str(prototxt), str(weights)


# --- caffe.io ------------------------------------------------------------------------------------


def test_load_image_in_color(photo: Path) -> None:
    image = caffe.io.load_image(str(photo))
    assert (image.shape, image.dtype) == ((20, 30, 3), np.float32)
    np.testing.assert_allclose(image[:, :, ::-1] * 255, cv2.imread(str(photo)), atol=1e-4)


def test_load_image_in_gray(photo: Path) -> None:
    image = caffe.io.load_image(str(photo), color=False)
    assert (image.shape, image.dtype) == ((20, 30, 1), np.float32)
    expected = caffe.io.load_image(str(photo)) @ np.array(LUMINANCE)
    np.testing.assert_allclose(image[:, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "a.png"), ("LA", "a.png"), ("RGBA", "a.png"), ("RGB", "a.gif")],
)
def test_load_image_of_every_kind(tmp_path: Path, mode: str, name: str) -> None:
    """Gray values, transparency (ignored, as ever) and GIFs, whose picture has one axis more."""
    drawn = Image.new("RGBA", (7, 6), (204, 204, 204, 51))
    drawn.putpixel((0, 0), (0, 0, 0, 0))
    drawn.convert(mode).save(tmp_path / name)
    for color, channels in ((True, 3), (False, 1)):
        image = caffe.io.load_image(str(tmp_path / name), color=color)
        assert (image.shape, image.dtype) == ((6, 7, channels), np.float32)
        np.testing.assert_allclose(image[0, 0], 0, atol=1e-6)
        np.testing.assert_allclose(image[5, 6], 0.8, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_datum_round_trip(dtype: type) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    datum = caffe.io.array_to_datum(array, label=7)
    back = caffe.io.datum_to_array(caffe_pb2.Datum.FromString(datum.SerializeToString()))
    assert datum.label == 7
    np.testing.assert_array_equal(back, array)
    back[...] = 0  # the caller's own copy, as it always was


def test_blobproto_round_trip() -> None:
    arrays = [np.arange(6.0).reshape(1, 2, 3), np.ones((2, 2))]
    text = caffe.io.arraylist_to_blobprotovector_str(arrays)
    for array, back in zip(arrays, caffe.io.blobprotovector_str_to_arraylist(text), strict=True):
        np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("size", [(7, 5), (33, 50)])
def test_resize_gives_the_numbers_of_the_scikit_image_of_caffes_time(size: tuple[int, int]) -> None:
    """Interpolation at the centers of the new pixels, black around the image, and no blur."""
    image = np.random.default_rng(3).random((20, 30, 3)).astype(np.float32)
    low, high = image.min(), image.max()
    rows, columns = 20 / size[0], 30 / size[1]
    centers = [[columns, 0, columns / 2 - 0.5], [0, rows, rows / 2 - 0.5], [0, 0, 1]]
    at_that_time = warp(
        (image - low) / (high - low), AffineTransform(np.array(centers)), None, size
    )
    resized = caffe.io.resize_image(image, size)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, at_that_time * (high - low) + low, atol=1e-5)


def test_resize_of_many_channels_and_of_one_color() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 9)[:, None, None], (9, 9, 5))
    np.testing.assert_allclose(caffe.io.resize_image(ramp, (5, 3)), ramp[::2, ::4], atol=1e-6)
    plain = np.full((9, 9, 3), 0.25, np.float32)
    np.testing.assert_array_equal(caffe.io.resize_image(plain, (2, 3)), plain[:2, :3])


def test_oversample_takes_corners_center_and_mirror_images() -> None:
    image = np.arange(6 * 8 * 1.0).reshape(6, 8, 1)
    crops = caffe.io.oversample([image], (2, 4))
    assert crops.shape == (10, 2, 4, 1)
    corners = [image[:2, :4], image[:2, 4:], image[4:, :4], image[4:, 4:], image[2:4, 2:6]]
    np.testing.assert_array_equal(crops[:5], corners)
    np.testing.assert_array_equal(crops[5:], crops[:5, :, ::-1])


def test_transformer_prepares_an_image_and_undoes_it() -> None:
    transformer = caffe.io.Transformer({"data": (1, 3, SIDE, SIDE)})
    mean = np.array([104.0, 117.0, 123.0])
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", mean)
    transformer.set_input_scale("data", 0.5)
    image = np.random.default_rng(2).random((SIDE, SIDE, 3)).astype(np.float32)
    expected = (image[:, :, ::-1].transpose(2, 0, 1) * 255 - mean[:, None, None]) / 2
    prepared = transformer.preprocess("data", image.copy())
    np.testing.assert_allclose(prepared, expected, atol=1e-4)
    np.testing.assert_allclose(transformer.deprocess("data", prepared), image, atol=1e-5)
    assert transformer.preprocess("data", np.zeros((20, 30, 3))).shape == (3, SIDE, SIDE)


def test_transformer_resizes_the_mean_image() -> None:
    transformer = caffe.io.Transformer({"data": (1, 3, SIDE, SIDE)})
    mean = np.broadcast_to(np.array([0.0, 50.0, 100.0])[:, None, None], (3, 16, 12))
    transformer.set_mean("data", mean)
    inner = transformer.mean["data"][:, 2:-2, 2:-2]
    np.testing.assert_allclose(inner, mean[:, :4, :4], atol=1e-3)


# --- Classifier and Detector ---------------------------------------------------------------------


@pytest.mark.parametrize("oversample", [True, False])
def test_classifier(net: tuple[str, str], oversample: bool) -> None:
    classifier = caffe.Classifier(
        *net, image_dims=(12, 10), raw_scale=255, mean=np.array([1.0, 2.0, 3.0])
    )
    images = [np.full((20, 30, 3), color, np.float32) for color in ((0.1, 0.2, 0.3), (1, 1, 1))]
    scores = classifier.predict(images, oversample=oversample).reshape(2, 3)
    np.testing.assert_allclose(scores, [[24.5, 49, 73.5], [254, 253, 252]], rtol=1e-4)


@pytest.mark.parametrize("dtype", [int, float])
def test_detector(net: tuple[str, str], photo: Path, dtype: type) -> None:
    windows = np.array([[2, 3, 2 + SIDE, 3 + SIDE], [12, 22, 20, 30]])
    sent = [(str(photo), windows.astype(dtype))]
    found = caffe.Detector(*net, raw_scale=255).detect_windows(sent)
    assert [list(one["window"]) for one in found] == windows.tolist()
    pixels = cv2.imread(str(photo))[:, :, ::-1].astype(float)
    for one, (top, left, bottom, right) in zip(found, windows, strict=True):
        expected = pixels[top:bottom, left:right].mean(axis=(0, 1))
        np.testing.assert_allclose(one["prediction"].ravel(), expected, rtol=1e-4)


def test_detector_with_context_fills_what_is_outside_with_the_mean(
    net: tuple[str, str], tmp_path: Path
) -> None:
    plain = tmp_path / "plain.png"
    cv2.imwrite(str(plain), np.full((40, 60, 3), 200, np.uint8))
    detector = caffe.Detector(*net, raw_scale=255, mean=np.full(3, 50.0), context_pad=2)
    windows = np.array([[15, 20, 25, 30], [0, 0, 10, 10]])
    inside, corner = detector.detect_windows([(str(plain), windows)])
    np.testing.assert_allclose(inside["prediction"].ravel(), 150, rtol=1e-4)
    assert np.all((corner["prediction"] > 50) & (corner["prediction"] < 140))


def test_detector_collects_the_results_of_a_selective_search(
    net: tuple[str, str], photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "selective_search_ijcv_with_python.py").write_text(
        "import numpy\n\n\ndef get_windows(images, cmd):\n"
        "    return [numpy.array([[0, 0, 9, 9], [1, 2, 12, 14]]) for image in images]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = caffe.Detector(*net).detect_selective_search([str(photo), str(photo)])
    assert [one["filename"] for one in found] == 4 * [str(photo)]


# --- caffe.draw ----------------------------------------------------------------------------------


def test_draw_without_pydot_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pydot", "pydotplus"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "caffe.draw", raising=False)
    with pytest.raises(ImportError, match=r"^caffe\.draw needs pydot, and Graphviz") as raised:
        importlib.import_module("caffe.draw")
    assert raised.value.__suppress_context__


def test_draw_with_pydot(net: tuple[str, str]) -> None:
    pytest.importorskip("pydot")
    from caffe import draw

    message = text_format.Parse(Path(net[0]).read_text(), caffe_pb2.NetParameter())
    text = draw.get_pydot_graph(message, "LR", display_lrm=True).to_string()
    assert all(layer.name in text for layer in message.layer)


# --- Nets, written and run -----------------------------------------------------------------------


def test_net_spec_takes_what_numpy_computed() -> None:
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(shape=[{"dim": [2, 3]}, {"dim": [2]}], ntop=2)
    n.score = L.InnerProduct(n.data, num_output=np.int64(4), param=[{"lr_mult": np.float32(0.5)}])
    n.relu = L.ReLU(n.score, in_place=True)
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    layers = {layer.name: layer for layer in n.to_proto().layer}
    assert layers["data"].top == ["data", "label"]
    assert layers["score"].inner_product_param.num_output == 4
    assert layers["score"].param[0].lr_mult == 0.5
    assert layers["relu"].top == layers["relu"].bottom == ["score"]


def test_coordinates_between_layers() -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 9, 9]})
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=3, stride=2, pad=1)
    _, scale, offset = coord_map_from_to(n.conv, n.data)
    assert (scale.item(), offset.item()) == (2, 0)  # position i of the map is pixel 2i
    n.up = L.Deconvolution(
        n.conv, convolution_param={"num_output": 1, "kernel_size": 3, "stride": 2, "pad": 0}
    )
    n.cropped = crop(n.up, n.data)
    [layer] = [layer for layer in n.to_proto().layer if layer.type == "Crop"]
    assert (layer.crop_param.axis, list(layer.crop_param.offset)) == (2, [1])


def test_batches_that_do_not_fill_the_net(tmp_path: Path) -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [2, 3]})
    n.twice = L.Power(n.data, scale=2)
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text("force_backward: true\n" + str(n.to_proto()))
    made = caffe.Net(str(prototxt), caffe.TEST)
    inputs = np.arange(15.0).reshape(5, 3)
    np.testing.assert_array_equal(made.forward_all(data=inputs)["twice"], 2 * inputs)
    outs, diffs = made.forward_backward_all(data=inputs, twice=inputs)
    np.testing.assert_array_equal(outs["twice"], 2 * inputs)
    np.testing.assert_array_equal(diffs["data"], 2 * inputs)


def test_arrays_in_a_memory_data_layer(tmp_path: Path) -> None:
    n = caffe.NetSpec()
    n.data, n.label = L.MemoryData(batch_size=2, channels=1, height=2, width=3, ntop=2)
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(str(n.to_proto()))
    made = caffe.Net(str(prototxt), caffe.TEST)
    images = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3)
    made.set_input_arrays(images, np.array([3, 4], np.float32))
    out = made.forward()
    np.testing.assert_array_equal(out["data"], images)
    np.testing.assert_array_equal(out["label"].ravel(), [3, 4])
