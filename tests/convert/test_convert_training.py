"""One training step in PyTorch from the same weights: Caffe's loss and Caffe's gradients."""

from __future__ import annotations

import numpy as np
import pytest
from convert_help import ROOT, assert_close, data, layer, write_weights

from lglstm.caffe_files import random_weights, read_net

torch = pytest.importorskip("torch", reason="needs PyTorch: see docs/convert.md")
caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

from lglstm.convert.torch import Net, layers  # noqa: E402
from lglstm.layers.image_labels import image_labels  # noqa: E402

torch.set_num_threads(1)

LOSSES = (
    layer("Pooling", "pool", "data", "pool", "pooling_param { pool: AVE global_pooling: true }")
    + layer("InnerProduct", "fc", "pool", "fc", "inner_product_param { num_output: 4 }")
    + layer("Softmax", "probabilities", "fc", "probabilities")
    + layer("Python", "target", "label", "target",
            'python_param { module: "lglstm.layers.image_labels" layer: "ImageLabels" '
            "param_str: '{\"num_classes\": 4}' }")
    + layer("EuclideanLoss", "loss_labels", "probabilities target", "loss_labels",
            "loss_weight: 0.3")
    + layer("Convolution", "score", "data", "score",
            "convolution_param { num_output: 4 kernel_size: 1 }")
    + layer("SoftmaxWithLoss", "loss_full", "score label", "loss_full",
            "loss_weight: 0.5 loss_param { ignore_label: 255 normalization: FULL }")
    + layer("SoftmaxWithLoss", "loss_batch", "score label", "loss_batch",
            "loss_param { ignore_label: 255 normalize: false }")
)  # fmt: skip


def check(folder, text: str, classes: int, contrast: float) -> None:
    """Loss and every gradient of a train net, given as text with Input layers for its data."""
    path = folder / "train.prototxt"
    path.write_text(text)
    net = read_net(path, "TRAIN")
    weights = random_weights(net, seed=1)
    rng = np.random.default_rng(0)
    photos = (contrast * rng.standard_normal(net.inputs["data"])).astype(np.float32)
    labels = rng.integers(0, classes, net.inputs["label"]).astype(np.float32)
    labels[:, :, :2] = 255

    of_caffe = caffe.Net(
        str(path), caffe.TRAIN, weights=str(write_weights(folder / "w.caffemodel", net, weights))
    )
    of_caffe.blobs["data"].data[...], of_caffe.blobs["label"].data[...] = photos, labels
    losses = of_caffe.forward()
    of_caffe.backward()
    scale = {name: of_caffe.blob_loss_weights[name] for name in losses}

    module = Net(net.description()).load_weights(weights).train()
    loss = module(torch.from_numpy(photos), torch.from_numpy(labels))
    loss.backward()
    expected = sum(float(value) * scale[name] for name, value in losses.items())
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    compared = set()
    for item in net.layers:
        for blob, key in zip(of_caffe.params.get(item.name, []), item.blobs.values(), strict=True):
            gradient = module.weights()[key].grad
            assert_close(gradient, blob.diff, relative=1e-4)
            compared.add(key)
    assert compared == set(net.weights)


def test_demo_trains_as_in_caffe(tmp_path):
    """The repository's own net with its four losses and shared weights."""
    path = ROOT / "models" / "demo" / "train.prototxt"
    shapes = read_net(path, "TRAIN").inputs
    stride = -(-shapes["data"][2] // shapes["label"][2])
    text = path.read_text()
    start = text.index('layer {\n  name: "train_data"')
    end = text.index("\nlayer {", start)
    inputs = data(2, 3, 33, 41) + data(2, 1, -(-33 // stride), -(-41 // stride), name="label")
    check(tmp_path, text[:start] + inputs + text[end:], classes=5, contrast=40)


def test_other_losses_are_caffes(tmp_path):
    """Co-CNN's image-label branch, and the ways to normalize."""
    check(
        tmp_path, data(2, 3, 6, 5) + data(2, 1, 6, 5, name="label") + LOSSES, classes=4, contrast=1
    )


def test_a_loss_along_another_axis_is_caffes(tmp_path):
    """There, Caffe divides by the positions before that axis."""
    text = data(2, 3, 4, 5) + data(2, 3, 5, name="label")
    score = "convolution_param { num_output: 3 kernel_size: 1 bias_term: false }"
    text += layer("Convolution", "score", "data", "score", score)
    for kind in ("BATCH_SIZE", "FULL", "VALID", "NONE"):
        words = (
            f"softmax_param {{ axis: 2 }} loss_param {{ ignore_label: 255 normalization: {kind} }}"
        )
        text += layer("SoftmaxWithLoss", kind, "score label", kind, words)
    check(tmp_path, text, classes=4, contrast=1)


@pytest.mark.parametrize("ignore_label", [0, 2, 255])
def test_image_labels_are_those_of_the_caffe_layer(ignore_label):
    labels = np.random.default_rng(0).integers(0, 4, (6, 1, 1, 5))
    labels[0] = ignore_label
    np.testing.assert_array_equal(
        layers.image_labels(torch.from_numpy(labels), 4, ignore_label),
        image_labels(labels, 4, ignore_label),
    )
