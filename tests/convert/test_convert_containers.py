"""Weights files of strangers: what training scripts write is taken, what is hostile is refused."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from convert_help import ROOT, lg_lstm_net, make_net

from lglstm.caffe_files import weights_for
from lglstm.common.errors import InputError
from lglstm.convert.read import read_weights
from lglstm.convert.samples import Reference

torch = pytest.importorskip("torch", reason="needs PyTorch: see docs/convert.md")
pytest.importorskip("safetensors", reason="needs safetensors: see docs/convert.md")

from safetensors.torch import save_file  # noqa: E402

from lglstm.convert.torch import Net, load, save  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small net, its weights, and the state dict of its module."""
    net, weights = make_net(tmp_path_factory.mktemp("net"), lg_lstm_net(2, 1, True, False))
    module = Net(net.description()).load_weights(weights)
    return net, weights, module.state_dict()


def refused(path: Path, words: str, net=None) -> None:
    with pytest.raises(InputError, match=words) as error:
        read_weights(path, [net] if net else [])
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def pth(tmp_path: Path, content) -> Path:
    torch.save(content, tmp_path / "net.pth")
    return tmp_path / "net.pth"


# --- What training scripts write ------------------------------------------------------------------


def checkpoint(key):
    return lambda state: {key: state, "epoch": torch.tensor(3), "optimizer": {"state": {}}}


def prefixed(prefix):
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def in_bfloat16(state):
    return {name: tensor.bfloat16() for name, tensor in state.items()}


CHECKPOINTS = {
    "plain": lambda state: state,
    "model": checkpoint("model"),
    "state_dict": checkpoint("state_dict"),
    "model_state_dict": checkpoint("model_state_dict"),
    "nested": lambda state: {"model": {"state_dict": state}},
    "DataParallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "both": lambda state: checkpoint("model")(prefixed("module._orig_mod.")(state)),
    "counters": lambda state: state | {"bn.num_batches_tracked": torch.tensor(7)},
    "parameters": lambda state: {k: torch.nn.Parameter(v) for k, v in state.items()},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_training_scripts_are_taken(model, tmp_path, name):
    net, weights, state = model
    file = read_weights(pth(tmp_path, CHECKPOINTS[name](state)), [net])
    assert file.by_modules
    for key, array in weights_for(net, file.stored, name).items():
        np.testing.assert_array_equal(array, weights[key])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_bfloat16_is_taken(model, tmp_path, suffix):
    pytest.importorskip("ml_dtypes")  # of onnx: teaches NumPy the name, and nothing else
    net, weights, state = model
    path = tmp_path / f"net{suffix}"
    tensors = in_bfloat16({k: v.contiguous().clone() for k, v in state.items()})
    if suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    stored = weights_for(net, read_weights(path, [net]).stored, "")
    for key, array in stored.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, weights[key], rtol=2**-8)
        assert not np.array_equal(array, weights[key])


def test_a_layer_named_like_a_wrapper_keeps_its_name(tmp_path):
    text = lg_lstm_net(2, 1, True, False).replace('name: "score_local"', 'name: "module"')
    net, weights = make_net(tmp_path, text)
    assert "module.weight" in net.weights
    path = pth(tmp_path, {key: torch.from_numpy(array) for key, array in weights.items()})
    stored = weights_for(net, read_weights(path, [net]).stored, "")
    np.testing.assert_array_equal(stored["module.weight"], weights["module.weight"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(3, 4), r"holds one tensor of shape \[3, 4\], not tensors by name"),
        ([torch.zeros(3)] * 2, "holds a list of 2, not tensors by name"),
        ((1, 2, 3), "holds a tuple of 3"),
        (7, "holds a int"),
        ({}, "holds an empty dict"),
        ({"epoch": 3, "loss": 0.5}, "holds a dict of epoch, loss, not tensors"),
        ({"model": {}, "epoch": 3}, "holds no tensors; give the weights of"),
        ({"state": {0: torch.zeros(3)}, "param_groups": []}, "a dict of state, param_groups"),
        ({0: torch.zeros(3)}, "holds a dict of 0"),
        (torch.nn.Linear(2, 2), "an object of the class torch.nn.modules.linear.Linear, which"),
        ({"model": torch.nn.Linear(2, 2)}, "class torch.nn.modules.linear.Linear"),
        ({"best": np.float64(0.5)}, "an object of the class numpy"),
        ({"a.weight": torch.zeros(3, dtype=torch.int8)}, "a.weight holds torch.int8 instead"),
        ({"a.weight": torch.zeros(3, device="meta")}, "does not hold its numbers one by one"),
        ({"a.weight": torch.eye(3).to_sparse()}, "does not hold its numbers one by one"),
        ({"a.weight": torch.zeros(3)}, "none of its tensors"),
    ],
)  # fmt: skip
def test_other_pth_files_say_what_they_hold(model, tmp_path, content, words):
    refused(pth(tmp_path, content), words, model[0])


def test_a_torchscript_program_is_not_run(model, tmp_path):
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "holds a TorchScript program, which only running", model[0])


# --- Files that claim more than they hold ---------------------------------------------------------


def npz_bomb(path: Path) -> None:
    np.savez_compressed(path, **{"conv1/0": np.zeros(64 << 20, np.float32)})


def npz_of_a_false_shape(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive, archive.open("conv1/0.npy", "w") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
        np.lib.format.write_array_header_1_0(file, header)


def hdf5_bomb(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data/conv1/0", (800_000_000,), "f4", chunks=(1 << 20,))


def hdf5_bomb_of_many_names(path: Path) -> None:
    with h5py.File(path, "w") as file:
        one = file.create_dataset("data/conv1/0", (100_000,), "f4", chunks=(1 << 10,))
        for i in range(2, 50):
            file[f"data/conv{i}/0"] = one


def pth_bomb(path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1).expand(1 << 30)}, path)


def pth_zip_bomb(path: Path) -> None:
    import zipfile

    torch.save({"conv1.weight": torch.zeros(64 << 20)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in parts.items():
            archive.writestr(entry, content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("net.npz", npz_bomb, "claim more numbers than they"),
        ("net.npz", npz_of_a_false_shape, "does not hold what its shape"),
        ("net.h5", hdf5_bomb, "claim more numbers than they"),
        ("net.h5", hdf5_bomb_of_many_names, "claim more numbers than they"),
        ("net.pth", pth_bomb, "claim more numbers than they"),
        ("net.pth", pth_zip_bomb, "claim more numbers than they"),
    ],
)
def test_bombs_are_refused_before_they_unpack(model, tmp_path, name, make, words):
    """In a process that may have no more memory than it needs to start."""
    path = tmp_path / name
    make(path)
    assert path.stat().st_size < 600_000
    refused(path, words, model[0])
    refused(path, words)
    code = (
        "import resource, sys; from lglstm.convert.read import read_weights\n"
        "import torch, h5py, numpy\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: read_weights({str(path)!r})\n"
        "except ValueError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert int(made.stdout) < 100_000, made.stderr  # KiB


def test_zeros_of_the_net_are_no_bomb(tmp_path):
    """A sound file can be as small: the net says what it holds."""
    text = lg_lstm_net(8, 3, False, False).replace("num_output: 4", "num_output: 32")
    net, weights = make_net(tmp_path, text)
    arrays = {
        f"{x.name}/{i}": np.zeros_like(weights[key], np.float64)
        for x in net.layers
        for i, key in enumerate(x.blobs.values())
    }
    np.savez_compressed(tmp_path / "zeros.npz", **arrays)
    claimed = sum(array.nbytes for array in arrays.values())
    assert claimed > 100 * (tmp_path / "zeros.npz").stat().st_size
    assert len(read_weights(tmp_path / "zeros.npz", [net]).stored) == len(
        {name.split("/")[0] for name in arrays}
    )
    refused(tmp_path / "zeros.npz", "claim more numbers")


@pytest.mark.slow
def test_a_reference_that_is_a_bomb_is_refused(model, tmp_path):
    path = tmp_path / "net.reference.npz"
    np.savez_compressed(path, **{"in:0:data": np.zeros(64 << 20, np.float32), "about": "{}"})
    with pytest.raises(InputError, match="is not a stored reference"):
        Reference.load(path, model[0])


# --- HDF5 that leads elsewhere --------------------------------------------------------------------


def external_dataset(file: h5py.File, secret: Path) -> None:
    file["data/conv1/0"] = h5py.ExternalLink(str(secret), "data/conv1/0")


def external_layer(file: h5py.File, secret: Path) -> None:
    file["data/conv1"] = h5py.ExternalLink(str(secret), "data/conv1")


def external_data(file: h5py.File, secret: Path) -> None:
    file["data"] = h5py.ExternalLink(str(secret), "data")


def soft_link(file: h5py.File, secret: Path) -> None:
    file["other"] = np.ones(3, np.float32)
    file["data/conv1/0"] = h5py.SoftLink("/other")


def external_storage(file: h5py.File, secret: Path) -> None:
    raw = [(str(secret), 0, 64)]
    file.create_dataset("data/conv1/0", (16,), "f4", external=raw)


def virtual_dataset(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "data/conv1/0", (3,))
    file.create_virtual_dataset("data/conv1/0", layout)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (external_dataset, "/data/conv1/0 is a link"),
        (external_layer, "/data/conv1 is a link"),
        (external_data, "/data is a link"),
        (soft_link, "/data/conv1/0 is a link"),
        (external_storage, "/data/conv1/0 takes its numbers from other files"),
        (virtual_dataset, "/data/conv1/0 takes its numbers from other files"),
    ],
)
def test_hdf5_never_leads_into_other_files(tmp_path, make, words):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data/conv1/0"] = np.ones(3, np.float32)
    assert read_weights(secret).stored  # the file itself is in order
    with h5py.File(tmp_path / "net.h5", "w") as file:
        make(file, secret)
    refused(tmp_path / "net.h5", words)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda file: file.create_dataset("data", data=[1.0]), "/data is not a group"),
        (lambda file: file.create_dataset("data/conv1", data=[1.0]), "conv1 is not a group"),
        (lambda file: file.create_group("data/conv1/0"), "conv1/0 is not a dataset"),
        (lambda file: file.create_dataset("data/conv1/0", data="text"), "instead of floating"),
        (lambda file: file.create_dataset("data/conv1/0", dtype="f4"), "Empty"),
        (lambda file: file.create_group("weights"), "has no group data"),
    ],
)
def test_hdf5_of_other_programs_is_refused(tmp_path, make, words):
    with h5py.File(tmp_path / "net.h5", "w") as file:
        make(file)
    refused(tmp_path / "net.h5", words)


# --- convert.torch.load ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_says_what_is_wrong_with_a_file(model, tmp_path, suffix):
    net, weights, _ = model
    path = tmp_path / f"net{suffix}"
    save(Net(net.description()).load_weights(weights), path)
    assert load(path).name == net.name
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"net{suffix}: .*give such|net{suffix}: is damaged"):
            load(path)
    rng = np.random.default_rng(0)
    for _ in range(100):  # bytes of the description and of the container
        damaged = bytearray(whole)
        at = int(rng.integers(len(whole)))
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            load(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / f"other{suffix}")


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [1], {"state_dict": {}}, torch.nn.Linear(2, 2), {"conv1.weight": 3}],
)
def test_load_takes_only_converted_files(tmp_path, content):
    with pytest.raises(ValueError, match="net.pth: was not made by `lglstm convert"):
        load(pth(tmp_path, content))


@pytest.mark.parametrize(
    "nets", ["[]", "{}", "3", "{", '{"deploy": 3}', '{"deploy": {"name": "x"}}']
)
def test_load_refuses_a_damaged_description(tmp_path, nets):
    with pytest.raises(ValueError, match="net.pth: "):
        load(pth(tmp_path, {"state_dict": {}, "nets": nets}))


def test_load_builds_nothing_that_the_weights_do_not_fill(model, tmp_path):
    """A description can claim terabytes."""
    import json

    net, _, state = model
    description = net.description()
    for layer in description["layers"]:
        if layer["type"] == "LGLSTM":
            layer["options"] = layer["options"] | {"num_output": 1 << 17}
    path = pth(tmp_path, {"state_dict": state, "nets": json.dumps({"deploy": description})})
    with pytest.raises(ValueError, match=r"lg_lstm1.spatial is \[.*\], but its net needs"):
        load(path)
