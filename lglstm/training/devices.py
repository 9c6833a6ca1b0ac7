"""Which device to train on: what Caffe was built for, and what the machine has."""

from __future__ import annotations

import ctypes

import caffe

from lglstm.common.errors import InputError


def caffe_has_cuda() -> bool:
    """Only a Caffe that was built with CUDA shows the device addresses of its blobs."""
    return hasattr(caffe._caffe.Blob, "_gpu_data_ptr")


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


def choose(asked: str | None, cpu: bool, solver) -> tuple[int, ...]:
    """GPU numbers to train on, () for the CPU.

    Without a wish: the solver's `device_id` (0 by default) when Caffe and the machine have it. The
    solver's `solver_mode` is for `caffe train`; one file then serves machines of both kinds.
    """
    if cpu and asked:
        raise InputError("--cpu and --gpu exclude each other; give one of them")
    if asked:
        return _named(asked)
    if cpu or not caffe_has_cuda() or solver.device_id >= gpu_count():
        return ()
    return (solver.device_id,)


def _named(asked: str) -> tuple[int, ...]:
    if not caffe_has_cuda():
        raise InputError(
            f"--gpu {asked}: this Caffe was built without CUDA; train on the CPU with --cpu, or "
            "build Caffe with CUDA"
        )
    count = gpu_count()
    parts = [str(k) for k in range(count)] if asked == "all" else asked.split(",")
    gpus = tuple(int(part) if part.strip().isdigit() else -1 for part in parts)
    if not gpus or len(set(gpus)) < len(gpus) or not all(0 <= gpu < count for gpu in gpus):
        raise InputError(
            f"--gpu {asked}: this machine has {count} GPU(s); give numbers below {count} with "
            "commas between, each once"
        )
    if len(gpus) > 1 and not caffe.has_nccl():
        raise InputError(
            f"--gpu {asked}: this Caffe was built without NCCL, which several GPUs need; give one "
            "GPU, or build Caffe with NCCL"
        )
    return gpus
