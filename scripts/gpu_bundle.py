"""Make a folder that checks and times Caffe's GPU side on a machine with nothing but a driver.

    .venv/bin/python scripts/gpu_bundle.py gpu-bundle               for an H100 or H200
    .venv/bin/python scripts/gpu_bundle.py gpu-bundle --arch 86 --models horse

Copy the folder (less than 60 MB) to any Linux machine with an NVIDIA GPU, its driver, Python 3.10
or later, and PyTorch for CUDA 13, whose libraries Caffe uses, too. There:

    python3 gpu-bundle/gpu_check.py

Needs nvcc 13, on PATH or in CUDA_HOME. A toolkit without cuBLAS and cuRAND gets them from PyPI.
The build stays in the cache of make setup. There is no OpenCV in it and no Python.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import caffe_build
import caffe_cuda
import gpu_kit
from caffe_build import BuildSettings, CaffeBuild
from gpu_check import KIT
from lglstm.common.errors import InputError

SCRIPTS = Path(__file__).resolve().parent
FLAGS = ["-DUSE_OPENCV=OFF", "-DBUILD_python=OFF", "-DUSE_LEVELDB=OFF", "-DUSE_ONEDNN=OFF"]
PACKAGES = SCRIPTS / "cuda13.txt"
LARGEST = 60  # MB
# What every Linux has, and what the driver or PyTorch brings.
NOT_TAKEN = re.compile(
    r"(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libutil|libanl"
    r"|libcuda|libcudart|libcublas|libcublasLt|libcurand|libcudnn\w*)\.so"
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder to make")
    parser.add_argument("--arch", default="90", help="compute capability (default: 90)")
    parser.add_argument("--models", nargs="+", default=["horse", "atr"], help="default: horse atr")
    parser.add_argument(
        "--photos",
        type=Path,
        help="a list of photos with 18 labels (data/fashionista/train.txt) for the models of human "
        "parsing; without it, all train with drawn animals",
    )
    arguments = parser.parse_args()
    try:
        make(arguments.folder, arguments.arch, arguments.models, arguments.photos)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make(folder: Path, arch: str, models: list[str], photos: Path | None) -> None:
    """Build Caffe and put the folder together; complete, or not there at all."""
    if folder.exists():
        raise InputError(f"{folder}: exists already; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    cache = caffe_build.cache_folder()
    home = toolkit(cache)
    os.environ |= {"CUDA": "1", "CUDA_ARCH": arch, "CUDA_HOME": str(home)}
    settings = BuildSettings.here()
    settings = replace(
        settings, tools=settings.tools | {"cmake_flags": settings.tools["cmake_flags"] + FLAGS}
    )
    build = CaffeBuild(settings, cache).built("caffe.bin", caffe_build.ALL_TESTS)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        kit, bundle = Path(temporary, "kit"), Path(temporary, "bundle")
        gpu_kit.make(kit, models, photos)
        add_programs(build, home, kit)
        bundle.mkdir()
        pack(kit, bundle / KIT)
        add_scripts(bundle)
        (bundle / "README.txt").write_text(readme(settings, arch, kit))
        size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) / 1e6
        if size > LARGEST:
            raise InputError(f"{folder}: would take {size:.0f} MB; bundle fewer models")
        bundle.rename(folder)
    print(f"{folder}: {size:.1f} MB; run python3 {folder.name}/gpu_check.py where the GPU is")


def toolkit(cache: Path) -> Path:
    """The folder of CUDA 13 with cuBLAS and cuRAND; made of links where the toolkit lacks these."""
    nvcc, (major, minor) = caffe_cuda.nvcc(), caffe_cuda.release()
    if major != 13:
        raise InputError(
            f"{nvcc} is CUDA {major}.{minor}, but the libraries that come with PyTorch are CUDA "
            "13's: install its toolkit and name it with CUDA_HOME"
        )
    home = Path(os.environ.get("CUDA_HOME") or nvcc.resolve().parents[1]).resolve()
    if not (home / "include" / "cuda_runtime.h").exists():
        raise InputError(f"{home}: is not a CUDA toolkit; name its folder with CUDA_HOME")
    if all((home / "include" / header).exists() for header in ("cublas_v2.h", "curand.h")):
        return home
    whole = cache / "cuda-13"
    if not whole.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            complete(home, Path(temporary)).rename(whole)
    return whole


def complete(home: Path, folder: Path) -> Path:
    """A toolkit in `folder`: links to the one at `home`, and what it lacks from PyPI."""
    packages, whole = folder / "packages", folder / "cuda"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    command += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", PACKAGES]
    if subprocess.run([*command, "--target", packages]).returncode != 0:
        raise InputError(
            f"{home} has no cuBLAS and cuRAND, and those of {PACKAGES} could not be installed: "
            "check the network connection, or name a complete toolkit with CUDA_HOME"
        )
    for name in ("bin", "include", "lib", "nvvm"):
        shutil.copytree(home / name, whole / name, copy_function=os.symlink)
    (whole / "lib64").symlink_to("lib")
    for name in ("include", "lib"):
        shutil.copytree(packages / "nvidia" / "cu13" / name, whole / name, dirs_exist_ok=True)
    for library in (whole / "lib").glob("lib*.so.*"):
        link = library.with_name(library.name.split(".so")[0] + ".so")
        if not link.exists():
            link.symlink_to(library.name)
    return whole


def add_programs(build: Path, home: Path, kit: Path) -> None:
    """Copy `caffe`, the tests, and the libraries that a bare machine lacks, without symbols."""
    programs = {"caffe": build / "tools" / "caffe", "test": build / "test" / caffe_build.ALL_TESTS}
    for folder in ("bin", "lib"):
        (kit / folder).mkdir()
    for name, program in programs.items():
        strip(program, kit / "bin" / name)
    for name, library in libraries(programs.values(), home).items():
        strip(library, kit / "lib" / name)


def libraries(programs: Iterable[Path], home: Path) -> dict[str, Path]:
    """Name and file of every library that the programs load and that is to go with them."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(home / "lib64")}
    found = {}
    for program in programs:
        listing = subprocess.run(
            ["ldd", program], capture_output=True, text=True, check=True, env=environment
        ).stdout
        if missing := re.findall(r"(\S+) => not found", listing):
            raise InputError(f"{program}: {missing[0]} is not found; install it")
        for name, path in re.findall(r"(\S+) => (/\S+)", listing):
            if not NOT_TAKEN.match(name):
                found[name] = Path(path)
    return found


def strip(source: Path, target: Path) -> None:
    subprocess.run(["strip", "--strip-unneeded", "-o", target, source], check=True)


def pack(kit: Path, archive: Path) -> None:
    """One compressed file: programs and libraries shrink to a third."""
    with tarfile.open(archive, "w:xz") as packed:
        for path in sorted(kit.iterdir()):
            packed.add(path, path.name)


def add_scripts(bundle: Path) -> None:
    """What runs on the other machine: nothing but Python and PyTorch is needed there."""
    for name in ("gpu_check.py", "gpu_torch.py"):
        shutil.copy(SCRIPTS / name, bundle)
    module = bundle / "lglstm" / "convert" / "torch"
    shutil.copytree(
        gpu_kit.REPOSITORY / "lglstm" / "convert" / "torch",
        module,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    # Packages, or an installed lglstm would come first; nothing else of ours is there.
    for package in (module.parent, module.parent.parent):
        (package / "__init__.py").write_text('"""Only convert.torch is in this folder."""\n')


def readme(settings: BuildSettings, arch: str, kit: Path) -> str:
    """What the folder is, for whoever finds it on another machine."""
    release = settings.tools["cuda"]
    return f"""\
LG-LSTM in BVLC Caffe: check and time its GPU side, beside PyTorch.

    python3 gpu_check.py            everything; python3 gpu_check.py --help says what that is
    python3 gpu_check.py --json     the same, for programs

Needs an NVIDIA GPU of compute capability {arch} or higher with a driver for CUDA 13, glibc
{glibc(kit)} or later, and Python 3.10 or later with PyTorch for CUDA 13.

Built with CUDA {release} and {settings.tools["compiler"]}
from {settings.files["source"]}, this project's layers
(SHA-256 {settings.files["overlay_sha256"]}) and patches.

{KIT} holds nets, pictures, Caffe and its tests. To use them by hand, unpack it and let
LD_LIBRARY_PATH name its lib/ and the folders of PyTorch's CUDA (…/site-packages/nvidia/*/lib).
"""


def glibc(kit: Path) -> str:
    """The release of glibc that programs and libraries of a kit ask for."""
    files = list(kit.glob("[bl]i[nb]/*"))
    listing = subprocess.run(["objdump", "-T", *files], capture_output=True, text=True).stdout
    return max(re.findall(r"GLIBC_(\d+\.\d+)", listing), key=lambda v: int(v.split(".")[1]))


if __name__ == "__main__":
    sys.exit(main())
