"""CMake's options for a Caffe that computes on an NVIDIA GPU; docs/cuda.md explains them.

CUDA=1               build for the GPU, with the nvcc on PATH or that of CUDA_HOME
CUDA_ARCH="75 86"    the architectures to compile for; with PTX of the last, for newer GPUs
CUDA_HOST_COMPILER   the C++ compiler of nvcc, when it is not to be chosen here
CUDNN=<folder>       use cuDNN 8 or 9, with include/ and lib/ in this folder
NCCL=1               use NCCL, for training on several GPUs
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from lglstm.common.errors import InputError

ARCHITECTURE = re.compile(r"\d\d\d?$")
NEWEST_GCC_FOR_CUDA_11 = "g++-11"


def wanted() -> bool:
    """Whether the environment asks for the GPU."""
    return _is_on("CUDA")


def tools() -> dict[str, str]:
    """What else a build depends on: the release of the CUDA toolkit, if the GPU is asked for."""
    return {"cuda": "{}.{}".format(*release())} if wanted() else {}


def cmake_flags() -> list[str]:
    """The options that say whether, how and for which GPUs Caffe is built."""
    if not wanted():
        return ["-DCPU_ONLY=ON"]
    architectures = os.environ.get("CUDA_ARCH", "").split()
    if not architectures or not all(map(ARCHITECTURE.match, architectures)):
        raise InputError(
            f'CUDA_ARCH="{" ".join(architectures)}": name the compute capabilities of the GPUs to '
            'build for without the point, for example CUDA_ARCH="75 86"'
        )
    return [
        "-DCPU_ONLY=OFF",
        "-DCUDA_ARCH_NAME=Manual",
        f"-DCUDA_ARCH_BIN={' '.join(architectures)}",
        f"-DCUDA_ARCH_PTX={max(architectures, key=int)}",
        f"-DCUDA_HOST_COMPILER={_host_compiler()}",
        f"-DUSE_NCCL={'ON' if _is_on('NCCL') else 'OFF'}",
        *([f"-DCUDA_TOOLKIT_ROOT_DIR={home}"] if (home := os.environ.get("CUDA_HOME")) else []),
        *_cudnn_flags(),
    ]


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")


def nvcc() -> Path:
    """The CUDA compiler that is to be used."""
    home = os.environ.get("CUDA_HOME")
    found = shutil.which("nvcc", path=str(Path(home, "bin")) if home else None)
    if not found:
        raise InputError(
            f"CUDA=1: there is no nvcc {f'in {home}/bin' if home else 'on PATH'}; install a CUDA "
            "toolkit (Debian: nvidia-cuda-toolkit), or name its folder with CUDA_HOME"
        )
    return Path(found)


@cache
def release() -> tuple[int, int]:
    """Its release, for example (11, 8)."""
    answer = subprocess.run([nvcc(), "--version"], capture_output=True, text=True)
    found = re.search(r"release (\d+)\.(\d+)", answer.stdout)
    if not found:
        raise InputError(f"{nvcc()} --version does not name a release: reinstall the CUDA toolkit")
    return int(found[1]), int(found[2])


def _host_compiler() -> str:
    """CUDA 11 refuses the g++ 12 of Debian 12."""
    named = os.environ.get("CUDA_HOST_COMPILER")
    name = named or (NEWEST_GCC_FOR_CUDA_11 if release() < (12, 0) else "g++")
    found = shutil.which(name)
    if not found:
        raise InputError(
            f"{name}, the C++ compiler for CUDA {release()[0]}, is missing: install it, or name "
            "another with CUDA_HOST_COMPILER"
        )
    return found


def _cudnn_flags() -> list[str]:
    if not _is_on("CUDNN"):
        return ["-DUSE_CUDNN=OFF"]
    folder = Path(os.environ["CUDNN"]).resolve()
    header, library = folder / "include/cudnn.h", next(folder.glob("lib*/libcudnn.so*"), None)
    if not header.is_file() or library is None:
        raise InputError(
            f"CUDNN={folder}: there are no include/cudnn.h and lib/libcudnn.so in this folder; "
            "name the one that cuDNN is installed in"
        )
    return [
        "-DUSE_CUDNN=ON",
        f"-DCUDNN_INCLUDE={header.parent}",
        f"-DCUDNN_LIBRARY={library}",
    ]
