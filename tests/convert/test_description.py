"""What a converted file says of itself, as those read it who have nothing but the file."""

from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner
from convert_help import ROOT, data, layer, make_net, write_weights

from lglstm.caffe_files import random_weights, read_net
from lglstm.cli.convert import command
from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of
from lglstm.common.labels import LABEL_SETS
from lglstm.common.preprocessing import MEAN_BGR
from lglstm.convert.description import KEY, Description, parsing_net, read_description

for package in ("torch", "onnx", "onnxruntime", "safetensors"):
    pytest.importorskip(package, reason=f"needs the package {package}: see docs/convert.md")

WHOLE = Description(
    model="demo",
    label_set=LABEL_SETS["horse"],
    input_size=(97, 99),
    source="demo.caffemodel",
    source_sha256="0" * 64,
    outputs=("score",),
    license="CC-BY-4.0",
)


def convert(*arguments) -> None:
    result = CliRunner().invoke(command, [*map(str, arguments), "--no-verify"])
    if result.exception:
        raise result.exception


@pytest.fixture
def demo(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    net = read_net(ROOT / "models" / "demo" / "deploy.prototxt")
    return write_weights(tmp_path / "w.caffemodel", net, random_weights(net, seed=1))


@pytest.mark.parametrize(
    ("target", "name"),
    [("onnx", "w.onnx"), ("safetensors", "w.safetensors"), ("pytorch", "w.safetensors")],
)
def test_a_file_says_what_its_user_must_know(demo, target, name):
    made = demo.with_name(name)
    convert("demo", demo, "--to", target, "-o", made, "--license", "CC-BY-4.0")
    assert read_description(made) == Description(
        model="demo",
        label_set=LABEL_SETS["horse"],
        input_size=(97, 97),
        source="w.caffemodel",
        source_sha256=sha256_of(demo),
        outputs=("score",),
        license="CC-BY-4.0",
        mean_bgr=MEAN_BGR,
        scale=1.0,
        channel_order="BGR",
    )


def test_other_readers_find_it(demo):
    import onnxruntime

    made = demo.with_name("w.onnx")
    convert("demo", demo, "--to", "onnx")
    session = onnxruntime.InferenceSession(made)
    about = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    assert about["label_set"]["names"] == ["background", "head", "body", "leg", "tail"]
    assert about["license"] == "not stated"


def test_what_a_source_says_of_itself_stays(demo):
    """Names and license go on into the next format, unless others are given."""
    there, onward = demo.with_name("there.safetensors"), demo.with_name("onward.onnx")
    renamed = demo.with_name("net.prototxt")
    renamed.write_text((ROOT / "models" / "demo" / "deploy.prototxt").read_text())
    convert(renamed, demo, "--to", "safetensors", "-o", there, "--license", "L", "--labels", "cow")
    convert(renamed, there, "--to", "onnx", "-o", onward)
    made = read_description(onward)
    assert made.label_set == LABEL_SETS["cow"] and made.license == "L"
    assert made.source == "there.safetensors" and made.source_sha256 == sha256_of(there)


def test_a_label_set_must_fit_the_net(demo):
    with pytest.raises(InputError, match="scores 5 classes, but the label set atr has 18"):
        convert("demo", demo, "--to", "onnx", "--labels", "atr")


def test_other_nets_have_none(tmp_path):
    """No photo in, or no map out: nothing could be said."""
    fully = layer("InnerProduct", "fc", "data", "fc", "inner_product_param { num_output: 5 }")
    net, _ = make_net(tmp_path, data(1, 3, 4, 4) + fully)
    assert parsing_net(net) is None
    without_axes, _ = make_net(tmp_path, data() + layer("Power", "power", "data", "power"))
    assert parsing_net(without_axes) is None
    make_net(tmp_path, data(1, 3, 4, 4) + fully)
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", "--to", "onnx")
    assert read_description(tmp_path / "net.onnx") is None


def test_unknown_classes_are_said_to_be_unknown(tmp_path):
    seven = layer(
        "Convolution",
        "score",
        "data",
        "score",
        "convolution_param { num_output: 7 kernel_size: 1 }",
    )
    make_net(tmp_path, data(1, 3, 4, 6) + seven)
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", "--to", "onnx")
    made = read_description(tmp_path / "net.onnx")
    assert made.label_set is None and made.input_size == (4, 6)


@pytest.mark.parametrize("labels", [None, LABEL_SETS["atr"]], ids=["unknown", "atr"])
def test_it_reads_what_it_writes(labels):
    one = dataclasses.replace(WHOLE, label_set=labels)
    assert Description.from_text(one.to_text(), "w") == one
    assert "\n" not in one.to_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_size": [97]}, "input_size is [97]; it must be [height, width] in pixels"),
        ({"input_size": [0, 97]}, "input_size is [0, 97]"),
        ({"mean_bgr": [1, 2, "3"]}, "mean_bgr is"),
        ({"scale": 0}, "scale is 0"),
        ({"channel_order": "GBR"}, "channel_order is"),
        ({"outputs": []}, "outputs is []"),
        ({"label_set": []}, "label_set is []; it must be an object or null"),
        ({"label_set": {}}, "w"),
        ({"more": 1}, "unknown key more"),
    ],
)
def test_a_damaged_one_is_refused(change, words):
    text = json.dumps(json.loads(WHOLE.to_text()) | change)
    with pytest.raises(InputError) as error:
        Description.from_text(text, "w")
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, " " * (1 << 21)])
def test_what_is_no_description_is_refused(text):
    with pytest.raises(InputError, match="convert the model again"):
        Description.from_text(text, "w")


@pytest.mark.parametrize("name", ["w.onnx", "w.safetensors"])
def test_a_damaged_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="is damaged"):
        read_description(tmp_path / name)
