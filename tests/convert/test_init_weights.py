"""Initial weights: every source format goes through exactly; what does not fit is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from click.testing import CliRunner

from lglstm.caffe_files.costs import measure
from lglstm.cli.main import main
from lglstm.common.errors import InputError
from lglstm.common.preprocessing import MEAN_BGR
from lglstm.convert.init_weights import (
    CONVOLUTIONS,
    LAYERS,
    TORCHVISION_MEAN_RGB,
    TORCHVISION_NAMES,
    TORCHVISION_STD_RGB,
    decimate,
    initial_weights,
    write_initial_weights,
)
from lglstm.prototxt_gen.nets import build
from lglstm.prototxt_gen.options import LargeFOV

WIDTH = 1 / 16  # conv1 has 4 filters, conv5 32, fc6 and fc7 64
OPTIONS = LargeFOV(width=WIDTH, hidden=4, input_size=(65, 73))


def target_shapes(options=OPTIONS):
    layers = measure(build(options, "x", "train"))
    return {m.name: m.blobs for m in layers if m.blobs and not m.is_fixed}


def vgg16(rng, dense=True):
    """VGG-16 with a sixteenth of the filters: layer → (weight, bias); fc6 and fc7 are dense."""
    shapes = target_shapes()
    weights = {
        name: (
            rng.normal(0, 0.1, shapes[name][0]).astype(np.float32),
            rng.normal(0, 0.1, shapes[name][1]).astype(np.float32),
        )
        for name in CONVOLUTIONS
    }
    for name, inputs in (("fc6", 32 * 7 * 7), ("fc7", 256)) if dense else ():
        weight = rng.normal(0, 0.1, (256, inputs)).astype(np.float32)
        weights[name] = (weight, rng.normal(0, 0.1, 256).astype(np.float32))
    return weights


def v1_caffemodel(weights, path):
    """Write what Caffe wrote in 2014: V1 layers, blobs with four axes, a trailing fc8."""
    net = caffe_pb2.NetParameter(name="VGG_ILSVRC_16_layers")
    for name, arrays in {**weights, "fc8": weights["fc7"]}.items():
        layer = net.layers.add(name=name, type=caffe_pb2.V1LayerParameter.CONVOLUTION)
        for array in arrays:
            blob = layer.blobs.add()
            shape = (1,) * (4 - array.ndim) + array.shape
            blob.num, blob.channels, blob.height, blob.width = shape
            blob.data.extend(array.ravel().tolist())
    path.write_bytes(net.SerializeToString())
    return path


def torchvision_state(weights):
    names = {ours: theirs for theirs, ours in TORCHVISION_NAMES.items()}
    return {
        f"{names[layer]}.{kind}": np.ascontiguousarray(array)
        for layer, arrays in weights.items()
        for kind, array in zip(("weight", "bias"), arrays, strict=True)
    }


def convert_and_check_rest(path, weights):
    made = initial_weights(path, target_shapes())
    for name in LAYERS[1:13]:
        for ours, theirs in zip(made.weights[name], weights[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    return made


# --------------------------------------------------------------------------------- the formats


def test_v1_caffemodel_with_fully_connected_layers(tmp_path):
    weights = vgg16(np.random.default_rng(0))
    made = convert_and_check_rest(v1_caffemodel(weights, tmp_path / "vgg.caffemodel"), weights)
    np.testing.assert_array_equal(made.weights["conv1_1"][0], weights["conv1_1"][0])
    taps = weights["fc6"][0].reshape(256, 32, 7, 7)
    for o, i, y, x in ((0, 0, 0, 0), (1, 5, 2, 1), (63, 31, 1, 2)):
        assert made.weights["fc6"][0][o, i, y, x] == taps[4 * o, i, 3 * y, 3 * x]
        assert made.weights["fc7"][0][o, i, 0, 0] == weights["fc7"][0][4 * o, 4 * i]
    np.testing.assert_array_equal(made.weights["fc6"][1], weights["fc6"][1][::4])
    actions = {step.layer: step.action for step in made.steps}
    assert actions["conv5_3"] == "copied" and actions["fc6"] == actions["fc7"] == "decimated"
    rest = {"transition", "lg_lstm1", "score5_local", "score5_global"}
    assert {actions[layer] for layer in rest} == {"left at its initialization"}
    assert set(actions) == set(target_shapes())


def test_vgg16_20m_goes_through_unchanged(tmp_path):
    rng = np.random.default_rng(1)
    weights = vgg16(rng, dense=False)
    for name in ("fc6", "fc7"):
        weights[name] = tuple(rng.random(s, np.float32) for s in target_shapes()[name])
    write_initial_weights(weights, tmp_path / "vgg16_20M.caffemodel")
    made = initial_weights(tmp_path / "vgg16_20M.caffemodel", target_shapes())
    for name in LAYERS:
        for ours, theirs in zip(made.weights[name], weights[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert {step.action for step in made.steps if step.layer in LAYERS} == {"copied"}


def as_pth(state, folder):
    torch = pytest.importorskip("torch")
    torch.save({k: torch.from_numpy(v) for k, v in state.items()}, folder / "vgg16.pth")
    return folder / "vgg16.pth"


def as_safetensors(state, folder):
    numpy_format = pytest.importorskip("safetensors.numpy")
    numpy_format.save_file(state, folder / "vgg16.safetensors")
    return folder / "vgg16.safetensors"


@pytest.mark.parametrize("save", [as_pth, as_safetensors])
def test_torchvision_state_dict_written_by_hand(save, tmp_path):
    """conv1_1 on our blob equals torchvision's conv1_1 on its normalized RGB image."""
    weights = vgg16(np.random.default_rng(2))
    made = convert_and_check_rest(save(torchvision_state(weights), tmp_path), weights)
    np.testing.assert_array_equal(made.weights["fc7"][0][:, :, 0, 0], weights["fc7"][0][::4, ::4])
    photo_bgr = np.random.default_rng(3).integers(0, 256, (9, 7, 3)).astype(float)
    theirs = (photo_bgr[:, :, ::-1] / 255 - TORCHVISION_MEAN_RGB) / TORCHVISION_STD_RGB
    ours = photo_bgr - MEAN_BGR
    expected = first_layer(*weights["conv1_1"], theirs)
    np.testing.assert_allclose(first_layer(*made.weights["conv1_1"], ours), expected, rtol=1e-4)
    swapped = first_layer(made.weights["conv1_1"][0][:, ::-1], made.weights["conv1_1"][1], ours)
    assert not np.allclose(swapped, expected, rtol=1e-2)


def first_layer(weight, bias, image):
    """A 3×3 convolution of (H, W, 3) at the positions whose window lies inside, (h, w, O)."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(0, 1))
    return np.einsum("hwcyx,ocyx->hwo", windows, weight.astype(float)) + bias


def test_npz_and_the_correction_of_its_mean(tmp_path):
    weights = vgg16(np.random.default_rng(4), dense=False)
    arrays = {
        f"{name}_{k}": a for name, pair in weights.items() for k, a in zip("wb", pair, strict=True)
    }
    np.savez(tmp_path / "vgg.npz", **arrays)
    made = convert_and_check_rest(tmp_path / "vgg.npz", weights)
    left = [step.layer for step in made.steps if step.action.startswith("left")]
    assert left[:3] == ["fc6", "fc7", "transition"]
    np.testing.assert_array_equal(made.weights["conv1_1"][1], weights["conv1_1"][1])
    corrected = initial_weights(tmp_path / "vgg.npz", target_shapes(), correct_mean=True)
    photo = np.random.default_rng(3).integers(0, 256, (9, 7, 3)).astype(float)
    expected = first_layer(*weights["conv1_1"], photo - (103.939, 116.779, 123.68))
    ours = first_layer(*corrected.weights["conv1_1"], photo - MEAN_BGR)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)


def test_decimation_keeps_evenly_spaced_channels_and_taps():
    weight = np.arange(8 * 4 * 7 * 7, dtype=np.float32).reshape(8, 4, 7, 7)
    np.testing.assert_array_equal(decimate(weight, (2, 4, 3, 3)), weight[::4, :, ::3, ::3])
    for wanted in ((3, 4, 3, 3), (2, 4, 5, 5), (2, 4, 1, 1), (16, 4, 3, 3), (2, 4, 3)):
        with pytest.raises(ValueError):
            decimate(weight, wanted)


# ------------------------------------------------------------------------------ what is refused


def refused(path, words, shapes=None):
    with pytest.raises(InputError, match=words) as error:
        initial_weights(path, shapes or target_shapes())
    assert str(path) in str(error.value)


def test_other_shapes_are_refused_by_name(tmp_path):
    weights = vgg16(np.random.default_rng(5))
    weights["conv3_2"] = (weights["conv3_2"][0][:, :-1], weights["conv3_2"][1])
    path = v1_caffemodel(weights, tmp_path / "other.caffemodel")
    refused(
        path, "conv3_2 has weights 16×15×3×3 and biases 1×1×1×16, which do not fit 16×16×3×3 and 16"
    )
    weights = vgg16(np.random.default_rng(5))
    weights["fc6"] = (weights["fc6"][0][:-1], weights["fc6"][1])
    refused(
        v1_caffemodel(weights, path), "fc6 has weights 1×1×255×1568 and biases 1×1×1×256, which"
    )
    weights = vgg16(np.random.default_rng(5))
    weights["conv2_1"] = (weights["conv2_1"][0], weights["conv2_1"][1][:-1])
    refused(v1_caffemodel(weights, path), "conv2_1 has weights 8×4×3×3 and biases 1×1×1×7, which")


def test_other_nets_and_broken_files_are_refused(tmp_path):
    weights = vgg16(np.random.default_rng(6))
    del weights["conv4_3"]
    refused(v1_caffemodel(weights, tmp_path / "a.caffemodel"), "has no conv4_3")
    broken = tmp_path / "b.caffemodel"
    broken.write_bytes((tmp_path / "a.caffemodel").read_bytes()[:-5])
    refused(broken, "not a complete caffemodel")
    for name in ("c.npz", "c.safetensors", "c.pth"):
        (tmp_path / name).write_bytes(b"no weights at all")
        needs_torch = name.endswith(".pth") and not importlib.util.find_spec("torch")
        refused(tmp_path / name, "the Python package torch" if needs_torch else "not a whole")
    refused(tmp_path / "missing.npz", "cannot be read .No such file or directory")
    refused(tmp_path / "vgg.h5", "ends in .caffemodel, .pth, .safetensors, .npz")
    weights = vgg16(np.random.default_rng(6))
    weights["conv1_2"][1][0] = np.nan
    refused(v1_caffemodel(weights, tmp_path / "nan.caffemodel"), "conv1_2 has values that are not")


def as_npz(state, folder):
    path = folder / "vgg.npz"
    np.savez(path, **state)
    return path


def vgg_npz(folder, **changes):
    """An npz of a small VGG-16, some of its arrays replaced or, by None, left out."""
    weights = vgg16(np.random.default_rng(8), dense=False)
    arrays = {
        f"{name}_{k}": a for name, pair in weights.items() for k, a in zip("wb", pair, strict=True)
    }
    return as_npz({k: a for k, a in (arrays | changes).items() if a is not None}, folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conv1_1_w": np.float32([1, 2, 3])}, "conv1_1 has weights 3 and biases 4, which are no"),
        ({"conv1_1_b": np.float32([1, 2, 3])}, "conv1_1 has weights 4×3×3×3 and biases 3, which"),
        ({"conv1_1_b": np.float32(1)}, "biases of one number, which are no convolution"),
        ({"conv1_1_w": np.zeros((4, 4, 3, 3), np.float32)}, "4×4×3×3 and biases 4, which are no"),
        ({"conv3_1_w": np.float32([1, 2, 3])}, "conv3_1 has weights 3 and biases 16, which do not"),
        ({"conv3_1_b": np.zeros((2, 2), np.float32)}, "conv3_1 has weights .* and biases 2×2"),
        ({"fc6_w": np.ones(9, np.float32), "fc6_b": np.ones(9, np.float32)}, "fc6 has weights 9"),
        ({"conv2_1_w": np.array(["a", "b"])}, "conv2_1_w holds <U1 instead of floating-point"),
        ({"conv2_1_w": np.zeros((2, 3), int)}, "conv2_1_w holds int64 instead of"),
        ({"conv2_1_w": np.array([None])}, "conv2_1_w holds Python objects instead of"),
        ({"conv2_1_b": None}, "has no conv2_1; give the weights of a VGG-16"),
    ],
)
def test_other_arrays_are_refused(tmp_path, changes, words):
    for correct_mean in (False, True):
        with pytest.raises(InputError, match=words) as error:
            initial_weights(vgg_npz(tmp_path, **changes), target_shapes(), correct_mean)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("save", [as_npz, as_pth, as_safetensors])
def test_truncated_and_empty_files_are_refused(tmp_path, save):
    path = save(torchvision_state(vgg16(np.random.default_rng(9), dense=False)), tmp_path)
    whole = path.read_bytes()
    for length in (*range(0, 200, 7), len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        refused(path, "not a whole")
    refused(save({}, tmp_path), "no conv1_1|without arrays|holds an empty dict")


def test_a_caffemodel_with_short_blobs_is_refused(tmp_path):
    for shape in ((), (0,), (1,), (5,), (2, 2)):
        weights = vgg16(np.random.default_rng(9), dense=False)
        weights["conv1_1"] = (np.ones(shape, np.float32), weights["conv1_1"][1])
        path = write_initial_weights_file(weights, tmp_path / "short.caffemodel")
        for correct_mean in (False, True):
            with pytest.raises(InputError, match="conv1_1 has weights .* no convolution"):
                initial_weights(path, target_shapes(), correct_mean)


def write_initial_weights_file(weights, path):
    write_initial_weights(weights, path)
    return path


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    state = {"conv1_1_w": np.zeros((8 << 20,), np.float32), "conv1_1_b": np.zeros(4, np.float32)}
    np.savez_compressed(tmp_path / "bomb.npz", **state)
    refused(tmp_path / "bomb.npz", "claim more numbers than they, or the .* weights of the net")


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module.", "_orig_mod.module."])
def test_checkpoints_of_training_scripts(tmp_path, wrapper):
    torch = pytest.importorskip("torch")
    weights = vgg16(np.random.default_rng(10))
    plain = {k: torch.from_numpy(v) for k, v in torchvision_state(weights).items()}
    content = {wrapper + k: v for k, v in plain.items()}
    if not wrapper.endswith("."):
        content = {wrapper: plain, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, tmp_path / "vgg.pth")
    convert_and_check_rest(tmp_path / "vgg.pth", weights)


def test_pickles_with_code_in_them_are_not_run(tmp_path):
    pytest.importorskip("torch")
    import pickle

    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "written_by_the_pickle"), "w"))

    (tmp_path / "harmful.pth").write_bytes(pickle.dumps({"features.0.weight": Harmful()}))
    refused(
        tmp_path / "harmful.pth",
        "it is no pickle that torch.save writes",
    )
    assert not (tmp_path / "written_by_the_pickle").exists()


def test_batch_normalized_vgg_is_refused(tmp_path):
    state = torchvision_state(vgg16(np.random.default_rng(7)))
    state["features.1.running_mean"] = np.zeros(4, np.float32)
    refused(as_safetensors(state, tmp_path), "batch normalization")


# -------------------------------------------------------------------------------- the command


@pytest.fixture
def small_model(tmp_path, monkeypatch):
    """A repository with one generated model of a sixteenth of the width; the current folder."""
    monkeypatch.chdir(tmp_path)
    settings = [f"--set=width={WIDTH}", "--set=hidden=4", "--set=input_size=65,73"]
    arguments = ["models", "generate", "horse", *settings, "--name", "small"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    return tmp_path


def test_command_makes_what_the_solver_names_and_caffe_loads_it(small_model):
    weights = vgg16(np.random.default_rng(8), dense=False)
    v1_caffemodel(
        {**weights, "fc7": vgg16(np.random.default_rng(8))["fc7"]}, small_model / "v.caffemodel"
    )
    arguments = ["init-weights", "small", "--from", "v.caffemodel", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    made = small_model / "data/init/vgg16_largefov.caffemodel"
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    assert report["sha256"] == digest
    assert made.with_suffix(".caffemodel.sha256").read_text() == f"{digest}  {made.name}\n"
    assert "fc6" in report["note"] and "fc7" not in report["note"]

    net = caffe.Net("models/small/deploy.prototxt", caffe.TEST)
    net.copy_from(str(made))
    np.testing.assert_array_equal(net.params["conv5_3"][0].data, weights["conv5_3"][0])


def test_command_refuses_in_one_sentence(small_model):
    for arguments, words in (
        (["init-weights", "none", "--from", "v.npz"], "there is no model"),
        (["init-weights", "small", "--from", "v.npz"], "v.npz: cannot be read (No such file"),
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1 and words in result.stderr
        assert result.stderr.count("\n") == 1


def test_command_keeps_its_source_and_writes_caffemodels_only(small_model):
    weights = vgg16(np.random.default_rng(8))
    v1_caffemodel(weights, small_model / "v.caffemodel")
    before = (small_model / "v.caffemodel").read_bytes()
    for output, code, words in (
        ("v.caffemodel", 1, "v.caffemodel: is the source itself, which would be lost"),
        ("./v.caffemodel", 1, "v.caffemodel: is the source itself, which would be lost"),
        ("v.npz", 2, "--output v.npz: a caffemodel is made; give a name that ends in .caffemodel"),
        ("", 2, "--output': the path is empty; name a file"),
    ):
        arguments = ["init-weights", "small", "--from", "v.caffemodel", "-o", output]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == code and words in " ".join(result.stderr.split())
    assert (small_model / "v.caffemodel").read_bytes() == before
    assert not (small_model / "v.npz").exists()


def test_the_hash_names_a_file_that_is_not_utf_8(tmp_path):
    path = tmp_path / "i\udcff.caffemodel"
    digest = write_initial_weights({}, path)
    beside = tmp_path / "i\udcff.caffemodel.sha256"
    assert beside.read_bytes() == f"{digest}  ".encode() + b"i\xff.caffemodel\n"


# ------------------------------------------------------------- the proof on real weights


def convolutions_in_torch(blob, weights):
    """conv1 to conv5 of LargeFOV in PyTorch, from Caffe-shaped weights: name → activations."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    maps, activations = torch.from_numpy(blob), {}
    with torch.no_grad():
        for name in CONVOLUTIONS:
            dilation = 2 if name.startswith("conv5") else 1
            weight, bias = map(torch.from_numpy, weights[name])
            maps = functional.conv2d(maps, weight, bias, padding=dilation, dilation=dilation)
            maps = maps.relu()
            activations[name] = maps.numpy().copy()
            if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3"):
                stride = 1 if name == "conv4_3" else 2
                maps = functional.max_pool2d(maps, 3, stride, 1)
    return activations


def real_vgg(folder):
    with np.load(folder / "vgg16/vgg16_ilsvrc_conv_caffe_oihw_bgr.npz") as arrays:
        return {name: (arrays[f"{name}_w"], arrays[f"{name}_b"]) for name in CONVOLUTIONS}


def photo_bgr(size):
    """A real photo, (H, W, 3) float."""
    data = pytest.importorskip("skimage.data")
    import cv2

    photo = np.ascontiguousarray(data.astronaut()[:, :, ::-1])
    return cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)


def in_caffe(made, blob, folder):
    """Activations of our net with the weights made, by layer."""
    from google.protobuf import text_format

    options = LargeFOV(lg_lstm_layers=0, input_size=blob.shape[2:])
    (folder / "deploy.prototxt").write_text(
        text_format.MessageToString(build(options, "x", "deploy"))
    )
    write_initial_weights(made.weights, folder / "init.caffemodel")
    net = caffe.Net(str(folder / "deploy.prototxt"), str(folder / "init.caffemodel"), caffe.TEST)
    net.blobs["data"].data[...] = blob
    net.forward(end="relu5_3")
    return {name: net.blobs[name].data for name in CONVOLUTIONS}


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_real_vgg16_gives_the_source_frameworks_activations(shared_data, tmp_path):
    """conv1 to conv5 on a real photo, everywhere: same images, same zero padding."""
    weights = real_vgg(shared_data)
    source = shared_data / "vgg16/vgg16_ilsvrc_conv_caffe_oihw_bgr.npz"
    shapes = target_shapes(LargeFOV(lg_lstm_layers=0))
    blob = (photo_bgr((129, 97)) - np.float32(MEAN_BGR)).transpose(2, 0, 1)[None].copy()
    ours = in_caffe(initial_weights(source, shapes), blob, tmp_path)
    theirs = convolutions_in_torch(blob, weights)
    for name in CONVOLUTIONS:
        assert relative(ours[name], theirs[name]) < 1e-4, name
    assert relative(ours["conv5_3"], theirs["conv5_3"] * 1.001) > 1e-4  # the bound can fail


def reach(name):
    """How far from a position, in positions of its map, an activation looks into the padding."""
    # In pixels of the image: radius of the window of each layer, grown layer by layer.
    radius, jump = 0, 1
    for layer in CONVOLUTIONS[: CONVOLUTIONS.index(name) + 1]:
        radius += jump * (2 if layer.startswith("conv5") else 1)
        if layer == name:
            break
        if layer in ("conv1_2", "conv2_2", "conv3_3", "conv4_3"):
            radius += jump
            jump *= 1 if layer == "conv4_3" else 2
    return -(-radius // jump)


def test_torchvision_conversion_is_exact_inside_the_image(shared_data, tmp_path):
    """A torchvision model made of the real weights gives the same activations away from the border.

    At the border, zero padding means torchvision's mean there and ours here.
    """
    weights = real_vgg(shared_data)
    mean, std = np.array(TORCHVISION_MEAN_RGB), np.array(TORCHVISION_STD_RGB)
    weight, bias = weights["conv1_1"]
    weights["conv1_1"] = (
        (weight[:, ::-1] * (255 * std)[:, None, None]).astype(np.float32),
        bias,
    )
    source = as_safetensors(torchvision_state(weights), tmp_path)
    made = initial_weights(source, target_shapes(LargeFOV(lg_lstm_layers=0)))

    photo = photo_bgr((289, 289))
    theirs_in = ((photo[:, :, ::-1] / 255 - mean) / std).transpose(2, 0, 1)[None]
    theirs = convolutions_in_torch(theirs_in.astype(np.float32).copy(), weights)
    blob = (photo - np.float32(MEAN_BGR)).transpose(2, 0, 1)[None].copy()
    ours = in_caffe(made, blob, tmp_path)
    for name in CONVOLUTIONS:
        margin = reach(name)
        inside = np.s_[:, :, margin:-margin, margin:-margin]
        assert ours[name][inside].size, name
        assert relative(ours[name][inside], theirs[name][inside]) < 1e-4, name
    assert relative(ours["conv1_1"], theirs["conv1_1"]) > 1e-4  # the border does differ
