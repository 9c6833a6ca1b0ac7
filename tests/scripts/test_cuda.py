"""The build options for the GPU, and the parts of the GPU check that need none."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import h5py
import numpy as np
import pytest
from google.protobuf import text_format

import caffe_cuda
import gpu_check
from lglstm.common.errors import InputError
from lglstm.layers import seg_options

caffe_pb2 = pytest.importorskip("caffe.proto.caffe_pb2", exc_type=ImportError)
gpu_kit = pytest.importorskip("gpu_kit", exc_type=ImportError)
gpu_bundle = pytest.importorskip("gpu_bundle", exc_type=ImportError)


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a CUDA toolkit whose nvcc only says its release; return its folder."""

    def make(release: str) -> Path:
        nvcc = tmp_path / "cuda" / "bin" / "nvcc"
        nvcc.parent.mkdir(parents=True, exist_ok=True)
        nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V0'\n")
        nvcc.chmod(0o755)
        for compiler in ("g++-11", "g++"):
            (nvcc.parent / compiler).symlink_to("/bin/true")
        monkeypatch.setenv("PATH", str(nvcc.parent), prepend=":")
        monkeypatch.setenv("CUDA", "1")
        monkeypatch.setenv("CUDA_ARCH", "90 75")
        for variable in ("CUDA_HOME", "CUDA_HOST_COMPILER", "CUDNN", "NCCL"):
            monkeypatch.delenv(variable, raising=False)
        caffe_cuda.release.cache_clear()
        return nvcc.parents[1]

    yield make
    caffe_cuda.release.cache_clear()


def test_cpu_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "0"):
        monkeypatch.setenv("CUDA", value)
        assert caffe_cuda.cmake_flags() == ["-DCPU_ONLY=ON"]
        assert caffe_cuda.tools() == {}


def test_cuda_11_takes_the_older_compiler_and_ptx_of_the_newest(toolkit) -> None:
    home = toolkit("11.8")
    flags = caffe_cuda.cmake_flags()
    assert f"-DCUDA_HOST_COMPILER={home}/bin/g++-11" in flags
    assert {"-DCUDA_ARCH_BIN=90 75", "-DCUDA_ARCH_PTX=90", "-DUSE_CUDNN=OFF"} <= set(flags)
    assert caffe_cuda.tools() == {"cuda": "11.8"}


def test_cuda_13_takes_the_systems_compiler(toolkit) -> None:
    toolkit("13.0")
    [compiler] = [flag for flag in caffe_cuda.cmake_flags() if "HOST_COMPILER" in flag]
    assert compiler.endswith("/g++")


@pytest.mark.parametrize("architectures", ["", "9.0", "sm_90", "90;75"])
def test_architecture_that_is_none(toolkit, monkeypatch, architectures: str) -> None:
    toolkit("13.0")
    monkeypatch.setenv("CUDA_ARCH", architectures)
    with pytest.raises(InputError, match='for example CUDA_ARCH="75 86"'):
        caffe_cuda.cmake_flags()


def test_missing_toolkit_and_cudnn(toolkit, tmp_path: Path, monkeypatch) -> None:
    toolkit("13.0")
    monkeypatch.setenv("CUDNN", str(tmp_path))
    with pytest.raises(InputError, match=f"CUDNN={tmp_path}: there are no include/cudnn.h"):
        caffe_cuda.cmake_flags()
    caffe_cuda.release.cache_clear()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"there is no nvcc in {tmp_path}/bin"):
        caffe_cuda.cmake_flags()


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's kit, with the Caffe of this environment and no tests in C++."""
    folder = tmp_path_factory.mktemp("gpu") / "kit"
    gpu_kit.make(folder, ["demo"])
    (folder / "bin").mkdir()
    caffe = folder / "bin" / "caffe"
    caffe.write_text(f'#!/bin/sh\nexec {sys.prefix}/bin/caffe "$@"\n')
    caffe.chmod(0o755)
    return folder


def net(path: Path) -> caffe_pb2.NetParameter:
    return text_format.Parse(path.read_text(), caffe_pb2.NetParameter())


@pytest.mark.parametrize("model", ["demo", "atr"])
def test_kit_trains_the_models_own_net_without_python(tmp_path: Path, model: str) -> None:
    """Only the layers that bring data differ; those get what the Python layers would give."""
    gpu_kit.make(tmp_path / "kit", [model])
    original = net(gpu_kit.REPOSITORY / "models" / model / "train.prototxt")
    made = net(tmp_path / "kit" / model / "train.prototxt")
    stock = [layer for layer in original.layer if layer.type != "Python"]
    assert list(made.layer[1:]) == stock and len(stock) < len(original.layer)
    options = seg_options.of_net(original, tmp_path)
    with h5py.File(tmp_path / "kit" / model / "pictures.h5") as file:
        count = gpu_kit.BATCHES * options.batch_size
        assert file["data"].shape == (count, *options.data_shape[1:])
        assert file["label"].shape == (count, *options.label_shape[1:])
        assert set(made.layer[0].top) == set(file)
        if model == "atr":
            for label, target in zip(file["label"], file["label_target"], strict=True):
                assert set(np.flatnonzero(target)) == set(np.unique(label).astype(int))
    with pytest.raises(InputError, match="0 SegData layers"):
        seg_options.of_net(made, tmp_path)


def test_times_are_read_from_caffe(kit: Path) -> None:
    here = gpu_check.Kit(kit, None)
    measured = gpu_check.layer_times(here, "demo/stack.prototxt", "TRAIN")
    assert {"features", "transition", "lg_lstm1"} <= set(measured["layers"])
    assert 0 < measured["layers"]["lg_lstm1"]["forward"] < measured["forward"]
    assert gpu_check.train(here, "demo", None, 1, 1)[1]["ms"] > measured["forward"]
    with pytest.raises(gpu_check.Failure, match="nowhere.prototxt"):
        gpu_check.layer_times(here, "nowhere.prototxt", "TEST")


@pytest.mark.slow
def test_bundle_on_a_bare_machine_without_gpu(kit: Path, tmp_path: Path) -> None:
    """The packed folder trains on the CPU with nothing of the project, and says what is missing.

    PyTorch, where the tests have it, computes its loss there, too.
    """
    gpu_bundle.pack(kit, tmp_path / gpu_check.KIT)
    gpu_bundle.add_scripts(tmp_path)
    # The system's Python sees the packages of this environment, but not its editable lglstm.
    command = [Path(sys.executable).resolve(), "gpu_check.py", "demo"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "OMP_NUM_THREADS": "1",
        "NVIDIA_VISIBLE_DEVICES": "none",
    }
    module = subprocess.run(
        [command[0], "-P", "-c", "import lglstm"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
    )
    assert module.returncode == 1
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    *steps, last = done.stderr.strip().splitlines()
    assert last.startswith("error: there is no NVIDIA GPU here") and "was checked" in last
    assert steps[-1].startswith("training of the demo on the CPU")
    unknown = subprocess.run(
        [*command, "cow"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert unknown.stderr.splitlines()[-1].startswith("error: cow: ")


@pytest.mark.slow
def test_bundle_computes_with_pytorch_from_its_own_files_alone(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    gpu_bundle.add_scripts(tmp_path)
    code = "import gpu_torch, sys; print(*(module.__file__ for name, module in sys.modules.items()"
    code += " if name.partition('.')[0] == 'lglstm'), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    files = [Path(line).relative_to(tmp_path) for line in done.stdout.splitlines()]
    assert Path("lglstm/convert/torch/net.py") in files


def test_losses_that_differ_are_found(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = gpu_check.Kit(kit, 0)
    monkeypatch.setattr(here, "torch", lambda what, model: None)
    losses = {None: 3.0, 0: 3.01}
    monkeypatch.setattr(gpu_check, "train", lambda kit, model, gpu, *_: [{"loss": losses[gpu]}])
    with pytest.raises(gpu_check.Failure, match="cpu and gpu differ by 3.3e-03"):
        gpu_check.compare_losses(here)
    losses[0] = float("nan")
    with pytest.raises(gpu_check.Failure, match="cpu and gpu differ"):
        gpu_check.compare_losses(here)


def test_bundle_takes_libraries_along_but_not_those_of_system_and_cuda(tmp_path: Path) -> None:
    found = gpu_bundle.libraries([Path(sys.prefix) / "libexec" / "caffe"], tmp_path)
    names = {name.split(".so")[0] for name in found}
    assert {"libprotobuf", "libopenblas", "libstdc++"} <= names
    assert not names & {"libc", "libm", "libpthread", "libcublas", "libcuda"}
    for library in ("libcublasLt.so.13", "libcudart.so.13", "libcurand.so.10", "libm.so.6"):
        assert gpu_bundle.NOT_TAKEN.match(library)


def test_bundle_needs_cuda_13(toolkit, tmp_path: Path) -> None:
    toolkit("11.8")
    with pytest.raises(InputError, match="is CUDA 11.8, but .* name it with CUDA_HOME"):
        gpu_bundle.toolkit(tmp_path)


def test_gpu_that_is_missing_is_one_sentence() -> None:
    command = [f"{sys.prefix}/bin/caffe", "time", "-model", "models/demo/deploy.prototxt"]
    done = subprocess.run(
        [*command, "-gpu", "99"], cwd=gpu_kit.REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: -gpu 99: ") and done.stderr.count("\n") == 1


def test_results_as_a_table() -> None:
    """What was not measured, such as PyTorch's times where there is none, stays empty."""
    caffe = {"train_ms": 1234.56, "stack_ms": 7.0, "image_ms": 0.25, "train_mib": None}
    result = {"device": "CPU", "tests": {"test": 3}, "losses": {"cpu": [1.0]}}
    lines = gpu_check.table(result | {"models": {"demo": {"caffe": caffe}}}).splitlines()
    assert lines[0] == "CPU: tests pass (3 of test); equal losses: cpu"
    assert lines[-2] == "| demo | caffe | 1,234.6 ms | 7.0 ms | 0.2 ms |  |"
    assert lines[-1] == "| demo | pytorch |  |  |  |  |"
