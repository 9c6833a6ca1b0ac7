"""Which device to compute on: what Caffe was built for, and what the machine has.

A GPU is its number, the CPU is None, and several GPUs are a tuple, empty for the CPU.
"""

from __future__ import annotations

import ctypes

from lglstm.common.errors import InputError, UsageError
from lglstm.common.pycaffe import load_caffe

ALL = "all"


def choose_gpu(asked: int | None = None, cpu: bool = False) -> int | None:
    """The one GPU to use: as asked, else the first one if Caffe and the machine have it.

    asked, cpu: the options --gpu and --cpu. Raises InputError when the GPU cannot be used.
    """
    gpus = choose_gpus(None if asked is None else str(asked), cpu)
    return gpus[0] if gpus else None


def choose_gpus(asked: str | None, cpu: bool, default: int = 0) -> tuple[int, ...]:
    """The GPUs to use: as asked ("0", "0,1" or "all"), else `default` if it can be used.

    Raises UsageError for options that make no sense, InputError for GPUs that cannot be used.
    """
    if cpu and asked is not None:
        raise UsageError("--cpu and --gpu exclude each other; give one of them")
    if asked is not None:
        return _named(asked)
    if cpu or not caffe_has_cuda() or default >= gpu_count():
        return ()
    return (default,)


def select_gpu(gpu: int | None) -> None:
    """Let Caffe compute on a GPU, or on the CPU with None, in the calling thread."""
    caffe = load_caffe()
    if gpu is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(gpu)
        caffe.set_mode_gpu()


def describe(gpus: tuple[int, ...]) -> str:
    """The device in words: CPU, GPU 0, GPUs 0, 1."""
    if not gpus:
        return "CPU"
    return f"GPU{'s' * (len(gpus) > 1)} {', '.join(map(str, gpus))}"


def caffe_has_cuda() -> bool:
    """Only a Caffe that was built with CUDA shows the device addresses of its blobs."""
    return hasattr(load_caffe()._caffe.Blob, "_gpu_data_ptr")


def gpu_count() -> int:
    """The number of GPUs that the driver shows to this process; 0 without a driver.

    Asks the driver directly, because CUDA's own runtime would take memory on the first GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _named(asked: str) -> tuple[int, ...]:
    parts = [] if asked == ALL else [part.strip() for part in asked.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(
            f"--gpu {asked}: give the number of a GPU, several with commas between and each once, "
            f"or {ALL}"
        )
    if not caffe_has_cuda():
        raise InputError(
            f"--gpu {asked}: this Caffe was built without CUDA; use the CPU with --cpu, or build "
            "Caffe with CUDA"
        )
    count = gpu_count()
    gpus = tuple(range(count)) if asked == ALL else tuple(map(int, parts))
    if not gpus or max(gpus) >= count:
        raise InputError(
            f"--gpu {asked}: this machine has {count} GPU(s), numbered from 0; give a lower "
            "number, or --cpu"
        )
    if len(gpus) > 1 and not load_caffe().has_nccl():
        raise InputError(
            f"--gpu {asked}: this Caffe was built without NCCL, which several GPUs need; give one "
            "GPU, or build Caffe with NCCL"
        )
    return gpus
