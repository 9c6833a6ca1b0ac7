"""The build options for the GPU, and the parts of the GPU check that need none."""

import json
from pathlib import Path

import pytest
from google.protobuf import text_format

import caffe_cuda
from common.errors import InputError

gpu_check = pytest.importorskip("gpu_check", exc_type=ImportError)  # needs Caffe
DEMO = gpu_check.REPOSITORY / "models" / "demo"


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a CUDA toolkit whose nvcc only says its release; return its folder."""

    def make(release: str) -> Path:
        nvcc = tmp_path / "cuda" / "bin" / "nvcc"
        nvcc.parent.mkdir(parents=True, exist_ok=True)
        nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V0'\n")
        nvcc.chmod(0o755)
        (nvcc.parent / "g++-11").symlink_to("/bin/true")
        monkeypatch.setenv("PATH", str(nvcc.parent), prepend=":")
        monkeypatch.setenv("CUDA", "1")
        monkeypatch.setenv("CUDA_ARCH", "90 75")
        for variable in ("CUDA_HOME", "CUDA_HOST_COMPILER", "CUDNN", "NCCL"):
            monkeypatch.delenv(variable, raising=False)
        caffe_cuda._release.cache_clear()
        return nvcc.parents[1]

    yield make
    caffe_cuda._release.cache_clear()


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
    caffe_cuda._release.cache_clear()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"there is no nvcc in {tmp_path}/bin"):
        caffe_cuda.cmake_flags()


def test_net_without_data_has_the_data_layers_shapes() -> None:
    net = gpu_check.without_data(DEMO / "train.prototxt")
    original = text_format.Parse((DEMO / "train.prototxt").read_text(), type(net)())
    data, label = net.layer[0].dummy_data_param.shape
    options = json.loads(original.layer[0].python_param.param_str)
    assert list(data.dim) == [options["batch_size"], 3, *options["input_size"]]
    stride = options["label_stride"]
    assert list(label.dim)[2:] == [len(range(0, n, stride)) for n in options["input_size"]]
    assert list(net.layer[0].top) == list(original.layer[0].top)
    assert net.layer[1:] == original.layer[1:]
    with pytest.raises(InputError, match="0 SegData layers"):
        gpu_check.without_data(DEMO / "deploy.prototxt")


def test_losses_and_times_are_read_from_caffe(tmp_path: Path) -> None:
    first = gpu_check.losses(DEMO / "solver.prototxt", tmp_path, None)
    assert len(first) == 10
    assert first == gpu_check.losses(DEMO / "solver.prototxt", tmp_path, None)
    measured = gpu_check.times(DEMO / "deploy.prototxt", "TEST", None, iterations=1)
    assert {"transition", "lg_lstm1"} <= set(measured["layers"])
    assert 0 < gpu_check.stack(measured) < measured["forward"] + measured["backward"]
