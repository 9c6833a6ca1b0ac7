"""Caffe's files read and written without Caffe."""

from __future__ import annotations

import codecs
import json
import random

import numpy as np
import pytest
from convert_help import (
    ROOT,
    caffe_outputs,
    data,
    layer,
    lg_lstm_net,
    make_net,
    needs_caffe,
    random_inputs,
)

from lglstm.caffe_files import read_caffemodel, read_net, weights_for, write_caffemodel
from lglstm.caffe_files.costs import measure
from lglstm.caffe_files.prototxt import _TOKEN, read_message, read_prototxt
from lglstm.caffe_files.schema import NetParameter, message_class
from lglstm.common.errors import InputError
from lglstm.convert.read import read_weights

CONVOLUTION = "convolution_param { num_output: 2 kernel_size: 3 }"
SMALL = data(1, 3, 8, 6) + layer("Convolution", "conv", "data", "conv", CONVOLUTION)


def seg_data(**changes):
    """A SegData layer called x."""
    given = {"batch_size": 1, "input_size": [8, 6], "label_stride": 1} | changes
    words = "module: 'lglstm.layers.seg_data' layer: 'SegData' param_str: "
    return layer("Python", "x", "", "x y", f"python_param {{ {words}'{json.dumps(given)}' }}")


def records(path):
    return [
        (x.name, x.type, [(b.shape, b.tobytes()) for b in x.blobs]) for x in read_caffemodel(path)
    ]


def blob(values, **fields):
    """A Blob message with numbers as given, in another field than `data` if `fields` says so."""
    message = message_class("Blob")(data=[np.asarray(values, "<f4").tobytes()])
    message.shape.dim.extend(np.shape(values))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@needs_caffe
def test_caffe_and_we_read_each_others_files(tmp_path):
    """Bit for bit, shared weights included, and our file is what Caffe writes."""
    caffe = pytest.importorskip("caffe")
    net, weights = make_net(tmp_path, lg_lstm_net(8, 3, share=True, bias=True))
    loaded = caffe.Net(net.path, caffe.TEST, weights=str(tmp_path / "net.caffemodel"))
    for item in net.layers:
        for stored, key in zip(loaded.params.get(item.name, []), item.blobs.values(), strict=True):
            assert stored.data.tobytes() == weights[key].tobytes()
    loaded.save(str(tmp_path / "caffe.caffemodel"))
    of_caffe = [r for r in records(tmp_path / "caffe.caffemodel") if r[2]]
    assert of_caffe == [r for r in records(tmp_path / "net.caffemodel") if r[2]]
    loaded.save_hdf5(str(tmp_path / "caffe.h5"))  # holds shared weights once
    again = weights_for(net, read_weights(tmp_path / "caffe.h5").stored, "caffe.h5")
    assert {k: w.tobytes() for k, w in again.items()} == {
        k: w.tobytes() for k, w in weights.items()
    }


def test_older_files_read_the_same(tmp_path):
    """V1 layers, four-axis shapes, doubles, halves and unpacked numbers."""
    values = np.float32([[1.5, -2.25, 0.125], [3, 1e-7, -65000]])
    raw = b"".join(bytes([5 << 3 | 5]) + v.tobytes() for v in values.ravel())  # field 5, unpacked
    shape = blob(values).shape
    as_double = bytes([8 << 3 | 2, 48]) + values.astype("<f8").tobytes()
    as_half = bytes([10 << 3, 2, 12 << 3 | 2, 12]) + values.astype("<f2").tobytes()
    legacy = blob(values, num=1, channels=1, height=2, width=3)
    legacy.ClearField("shape")
    head = message_class("Blob")(shape=shape).SerializeToString()
    blobs = [legacy.SerializeToString(), head + raw, head + as_double, head + as_half]
    v1 = NetParameter()
    v1.layers.add(name="fc", type=14)  # INNER_PRODUCT
    layer_record = v1.layers[0].SerializeToString() + b"".join(
        bytes([6 << 3 | 2, len(b)]) + b for b in blobs
    )
    path = tmp_path / "old.caffemodel"
    path.write_bytes(bytes([2 << 3 | 2]) + _varint(len(layer_record)) + layer_record)
    (stored,) = read_caffemodel(path)
    assert (stored.name, stored.type) == ("fc", "InnerProduct")
    assert stored.blobs[0].shape == (1, 1, 2, 3)
    for got in stored.blobs[:3]:
        np.testing.assert_array_equal(got.reshape(2, 3), values)
    np.testing.assert_array_equal(stored.blobs[3], values.astype(np.float16).astype(np.float32))
    assert all(b.dtype == np.float32 for b in stored.blobs)


def _varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def test_reads_half_precision_of_opencv(tmp_path):
    cv2 = pytest.importorskip("cv2")
    _, weights = make_net(tmp_path, SMALL)
    half = tmp_path / "half.caffemodel"
    cv2.dnn.shrinkCaffeModel(str(tmp_path / "net.caffemodel"), str(half))
    assert half.stat().st_size < (tmp_path / "net.caffemodel").stat().st_size
    stored = {x.name: x.blobs for x in read_caffemodel(half)}
    expected = weights["conv.weight"].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(stored["conv"][0], expected)


@pytest.mark.slow
@needs_caffe
def test_v1_prototxt_is_upgraded_as_caffe_does(tmp_path):
    text = """
    name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 7
    layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2
      convolution_param { num_output: 4 kernel_size: 3 group: 1 } }
    layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
    layers { name: "train" type: DROPOUT bottom: "conv" top: "x" include { phase: TRAIN } }
    layers { name: "pool" type: POOLING bottom: "conv" top: "pool"
      pooling_param { kernel_size: 3 stride: 2 } }
    """
    net, _ = make_net(tmp_path, text)
    assert [(x.type, x.line) for x in net.layers] == [
        ("Convolution", 3), ("ReLU", 5), ("Pooling", 7)
    ]  # fmt: skip
    made = caffe_outputs(net, tmp_path, random_inputs(net))
    assert made["pool"].shape == net.layers[-1].top_shapes[0] == (1, 4, 3, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layer { name: 'a' type: 'Normalize' bottom: 'data' top: 'a' norm_param { x: 1 } }",
         'line 3: layer "a" of type Normalize: this type cannot be converted; supported'),
        ("layer { name: 'a' type: 'ReLU' bottom: 'data' top: 'a' relu_parm { } }", "3:"),
        ("layer { name: 'a' type: 'ReLU' bottom: 'date' top: 'a' }", '"date" is not a top'),
        ("layer { name: 'a' type: 'Python' bottom: 'data' top: 'a' python_param { module: 'os' "
         "layer: 'system' } }", "the Python layer os.system is not one of this project's"),
        ("layer { name: 'a' type: 'Convolution' bottom: 'data' top: 'a' convolution_param { "
         "num_output: 4 kernel_size: 99 } }", "the bottom is too small"),
        ("layer { name: 'a' type: 'LGLSTM' bottom: 'data' bottom: 'data' top: 'l' top: 'm' "
         "top: 'g' }", "its bottoms have the shapes"),
        ("{" * 500, "nested too deep"),
        ("layer { name: 'a", "is not a Caffe NetParameter: "),
    ],
)  # fmt: skip
def test_a_wrong_prototxt_is_refused_with_its_line(tmp_path, text, words):
    path = tmp_path / "net.prototxt"
    path.write_text("# a net {\n" + data(1, 3, 8, 6) + text)
    with pytest.raises(InputError) as error:
        read_net(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'name: "' + b'\\"' * 20_000, "1:7"),  # took 10 s
        (b"name: '" + b"\\'" * 20_000, "1:7"),
        (b"layer { name: " + b"[" * 100_000, "1:15"),
        (b"input_dim: 1" + b"0" * 5_000, "1:12"),
        (b"input_dim: 0x" + b"f" * 5_000, "1:12"),
        (b"layer { a " + b"{ a " * 100 + b"}" * 101, "line 1: is nested too deep"),
        (b'name: "a"\nlayer { \0 }', "line 2: holds a NUL"),
        (b"#" * (2 << 20) + b"\n", "too many for a prototxt"),
        (b'name: "\xe4"', "is not text"),
        (b"\xff\xfen\0", "is not text"),
    ],
)
def test_hostile_text_is_refused_at_once_and_in_one_short_sentence(tmp_path, content, words):
    path = tmp_path / "net.prototxt"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_net(path)
    message = str(error.value).removeprefix(f"{path}: ")
    assert words in message
    assert message.isprintable() and len(message) < 300


def test_a_long_unclosed_string_is_read_once(tmp_path):
    """The reader's own search for layers, in steps of the regular expression, not in seconds."""
    tokens = _TOKEN.findall('"' + '\\"' * 1000 + "\nlayer {")
    assert tokens == ['"' + '\\"' * 1000, "\n", "layer", "{"]


def test_a_byte_order_mark_is_no_part_of_a_net(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(codecs.BOM_UTF8 + SMALL.replace("\n", "\r\n").encode())
    assert [(x.name, x.line) for x in read_net(path).layers] == [("conv", 2)]
    with pytest.raises(InputError, match="byte-order mark, which Caffe cannot read"):
        read_message(path, NetParameter(), for_caffe=True)


@needs_caffe
def test_blobs_without_axes_are_read_as_caffe_writes_them(tmp_path):
    caffe = pytest.importorskip("caffe")
    text = data(1, 3, 4, 4)
    text += layer("PReLU", "prelu", "data", "prelu", "prelu_param { channel_shared: true }")
    text += layer("Scale", "scale", "prelu", "scale", "scale_param { num_axes: 0 }")
    net, weights = make_net(tmp_path, text)
    loaded = caffe.Net(net.path, caffe.TEST, weights=str(tmp_path / "net.caffemodel"))
    assert loaded.params["prelu"][0].data.shape == ()
    loaded.save(str(tmp_path / "caffe.caffemodel"))
    of_caffe = [r for r in records(tmp_path / "caffe.caffemodel") if r[2]]
    assert of_caffe == [
        ("prelu", "PReLU", [((), weights["prelu.weight"].tobytes())]),
        ("scale", "Scale", [((), weights["scale.weight"].tobytes())]),
    ]
    assert of_caffe == [r for r in records(tmp_path / "net.caffemodel") if r[2]]
    loaded.save_hdf5(str(tmp_path / "caffe.h5"))
    again = weights_for(net, read_weights(tmp_path / "caffe.h5").stored, "caffe.h5")
    assert {k: w.tobytes() for k, w in again.items()} == {
        k: w.tobytes() for k, w in weights.items()
    }


LG_LSTM = "python_param { module: 'lglstm.layers.lg_lstm' layer: 'LGLSTMTransition' param_str: "
IMAGE_LABELS = (
    "python_param { module: 'lglstm.layers.image_labels' layer: 'ImageLabels' param_str: "
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (layer("Reshape", "x", "data", "x", "reshape_param { axis: 9 shape { dim: -1 } }"),
         "at axis 9"),
        (layer("Reshape", "x", "data", "x", "reshape_param { axis: -9 shape { dim: -1 } }"),
         "cannot give"),
        (layer("Reshape", "x", "data", "x", "reshape_param { num_axes: 9 shape { dim: 0 } }"),
         "cannot give"),
        (layer("Reshape", "x", "data", "x", "reshape_param { axis: 3 shape { dim: 0 dim: 0 } }"),
         "cannot give"),
        (layer("Reshape", "x", "data", "x", "reshape_param { shape { dim: -8 dim: -18 } }"),
         "cannot give"),
        (layer("Flatten", "x", "data", "x", "flatten_param { axis: 2 end_axis: 1 }"), "end_axis"),
        (layer("Flatten", "y", "data", "y")
         + layer("Convolution", "x", "y", "x", CONVOLUTION), "not 4 axes"),
        (layer("Flatten", "y", "data", "y", "flatten_param { axis: 0 }")
         + layer("PReLU", "x", "y", "x"), "its axis 1 does not exist"),
        (layer("Softmax", "x", "data", "x", "softmax_param { axis: 4 }"), "its axis 4"),
        (layer("Scale", "x", "data", "x", "scale_param { num_axes: 4 }"), "its num_axes 4"),
        (layer("InnerProduct", "x", "data", "x"), "num_output must be positive"),
        (layer("InnerProduct", "x", "data", "x", "inner_product_param { num_output: 4000000000 }"),
         "more than the 2,147,483,647"),
        (layer("Tile", "x", "data", "x", "tile_param { tiles: 2000000000 }"), "more than the"),
        (layer("Python", "x", "data", "x", IMAGE_LABELS + "'{\"num_classes\": 2.5}' }"),
         "whole numbers"),
        (layer("Python", "x", "data", "x", IMAGE_LABELS + f"'{{\"num_classes\": {10**400}}}' }}"),
         "whole numbers"),
        (layer("Python", "x", "data", "x", IMAGE_LABELS + "'" + "[" * 9000 + "' }"), "param_str"),
        *[
            (seg_data(label_stride=stride), words)
            for stride, words in [(0, "label_stride"), (2.5, "whole"), ("a", "label_stride"),
                                  (-1, "not positive"), (None, "label_stride")]
        ],
        (seg_data(input_size=[10**400, 8]), "up to 2,147,483,647"),
        (seg_data(input_size=[2**16, 2**16]), "more than the"),
        (layer("Python", "x", "data", "x y z", LG_LSTM + f"'{{\"num_output\": {10**4000}}}' }}"),
         "num_output"),
        (seg_data(input_size=[8.5, 8]), "whole numbers"),
        (seg_data(batch_size=True), "whole numbers"),
    ],
)  # fmt: skip
def test_options_that_no_layer_can_have_are_refused_in_one_sentence(tmp_path, text, words):
    """By the reader of nets and by `lglstm models summary`."""
    path = tmp_path / "net.prototxt"
    path.write_text(data(1, 3, 8, 6) + text)
    for read in (read_net, lambda file: measure(read_prototxt(file)[0], file)):
        with pytest.raises(InputError) as error:
            read(path)
        assert words in str(error.value) and 'layer "x"' in str(error.value)
        assert "\n" not in str(error.value)


def test_weights_must_fit_the_net(tmp_path):
    net, _ = make_net(tmp_path, SMALL)
    stored = read_caffemodel(tmp_path / "net.caffemodel")
    stored[0].blobs[0] = stored[0].blobs[0][:, :2]
    with pytest.raises(InputError, match=r'weight of layer "conv" has the shape \[2, 2, 3, 3\]'):
        weights_for(net, stored, "w.caffemodel")
    with pytest.raises(InputError, match='has no layer "conv"'):
        weights_for(net, [], "w.caffemodel")


def test_shared_weights_must_agree(tmp_path):
    net, _ = make_net(tmp_path, lg_lstm_net(2, 0, True, False))
    stored = read_caffemodel(tmp_path / "net.caffemodel")
    second = next(x for x in stored if x.name == "lg_lstm2")
    second.blobs[1] = second.blobs[1] + 1
    with pytest.raises(InputError, match='"lg_lstm2" shares depth with others'):
        weights_for(net, stored, "w.caffemodel")


HOSTILE = {
    "negative": blob([1.0, 2.0]),
    "huge": blob([1.0]),
    "overflow": blob([1.0]),
    "short": blob([1.0, 2.0]),
    "ragged": blob([1.0]),
    "axes": blob([1.0]),
    "beyond NumPy": blob([]),
}
HOSTILE["negative"].shape.dim[:] = [-1, -2]
HOSTILE["huge"].shape.dim[:] = [2**31]
HOSTILE["overflow"].shape.dim[:] = [2**62, 4, 2**62, 4]
HOSTILE["short"].shape.dim[:] = [3]
HOSTILE["ragged"].data[0] = b"123"
HOSTILE["beyond NumPy"].shape.dim[:] = [2**62, 4, 0]
HOSTILE["axes"].shape.dim[:] = [1] * 33


@pytest.mark.parametrize("name", HOSTILE)
def test_a_blob_must_hold_what_its_shape_says(tmp_path, name):
    net = NetParameter()
    net.layer.add(name="conv").blobs.append(HOSTILE[name])
    path = tmp_path / "bad.caffemodel"
    path.write_bytes(net.SerializeToString())
    with pytest.raises(InputError, match='blob 0 of layer "conv"'):
        read_caffemodel(path)


def test_damaged_files_are_refused_not_believed(tmp_path):
    """Every truncation, and random damage: an InputError or arrays, never another exception."""
    make_net(tmp_path, SMALL)
    whole = (tmp_path / "net.caffemodel").read_bytes()
    path = tmp_path / "damaged.caffemodel"

    def read(content):
        path.write_bytes(content)
        try:
            return len(read_caffemodel(path))
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            return None

    assert read(whole) == 1
    for length in range(len(whole)):
        assert read(whole[:length]) is None, length
    rng = random.Random(1)
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(60)] = rng.randrange(256)
        refused += read(bytes(content)) is None
    assert refused > 100


def test_writing_is_whole_or_not_at_all(tmp_path):
    with pytest.raises(TypeError):
        write_caffemodel(tmp_path / "x.caffemodel", "x", [(None, [])])
    assert list(tmp_path.iterdir()) == []


def test_every_model_of_the_repository_is_read():
    prototxts = sorted(ROOT.glob("models/*/deploy.prototxt"))
    assert prototxts
    for path in prototxts:
        net = read_net(path)
        assert net.outputs == ("score",)
        (score,) = (x for x in net.layers if "score" in x.tops)
        assert score.top_shapes[0][2:] == net.inputs["data"][2:]


@needs_caffe
@pytest.mark.parametrize("kernel", [3, 4, 15])
def test_missing_upsampling_weights_are_caffes_filler(tmp_path, kernel):
    """A snapshot of training lacks the deploy net's fixed layers; Caffe fills them."""
    caffe = pytest.importorskip("caffe")
    path = tmp_path / "net.prototxt"
    words = f"num_output: 2 kernel_size: {kernel} stride: 2 group: 2 bias_term: false"
    filler = 'weight_filler { type: "bilinear" }'
    path.write_text(
        data(1, 2, 4, 4)
        + layer("Deconvolution", "up", "data", "up", f"convolution_param {{ {words} {filler} }}")
    )
    weights = weights_for(read_net(path), [], "a file without the layer")
    expected = caffe.Net(str(path), caffe.TEST).params["up"][0].data
    np.testing.assert_allclose(weights["up.weight"], expected, rtol=1e-6)


def test_python_layers_of_the_repository_are_the_same_nets(tmp_path):
    """`lglstm models generate --engine python` writes LG-LSTM layers of type Python."""
    words = json.dumps({"num_output": 4, "neighbors": 4, "global_grid": 2})
    options = "lg_lstm_param { num_output: 4 neighbors: 4 global_grid: 2 }"
    nets = []
    for name in ("LGLSTMTransition", "Python"):
        parameters = options
        if name == "Python":
            parameters = 'python_param { module: "lglstm.layers.lg_lstm" layer: "LGLSTMTransition" '
            parameters += f"param_str: {words!r} }}"
        path = tmp_path / f"{name}.prototxt"
        path.write_text(data(1, 3, 5, 4) + layer(name, "t", "data", "l m g", parameters))
        nets.append(read_net(path).description() | {"name": ""})
    assert nets[0] == nets[1]
    assert nets[0]["weights"] == {"t.weight": [5, 12, 3]}
