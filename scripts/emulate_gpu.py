"""Run the GPU half of the LG-LSTM layers' C++ tests without a GPU, in an emulation of CUDA.

    .venv/bin/python scripts/emulate_gpu.py

The layers' .cu files are compiled as C++ against `layers/caffe/emulation`, where kernels run thread
by thread, with __syncthreads, and cuBLAS's products are loops. So the code that a GPU would run is
checked for its numbers, its leading dimensions and for pointers into the wrong memory. What is not
emulated: that threads run at the same time, and speed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import caffe_build
from caffe_build import Recipe, Workshop
from common.errors import InputError

EMULATION = Path(__file__).resolve().parent.parent / "layers" / "caffe" / "emulation"
LAYERS = ["util/lg_lstm", "layers/lg_lstm_base_layer", "layers/lg_lstm_layer"]
LAYERS += ["layers/lg_lstm_transition_layer"]
CORE = ["blob", "common", "layer", "syncedmem", "util/math_functions"]
TESTS = ["test/test_caffe_main", "test/test_lg_lstm_layer"]
LIBRARIES = ["-lprotobuf", "-lglog", "-lgflags", "-lboost_system", "-lboost_thread", "-pthread"]
LIBRARIES += ["-lopenblas"]
BLOCK = 8  # threads: any power of two gives the same numbers
GPU_TESTS = "*/2.*:*/3.*"  # float and double on the GPU, after those on the CPU


def as_cplusplus(kernels: str) -> str:
    """The text of a .cu file with its kernel launches as calls, in small blocks."""
    kernels = kernels.replace("kBlockThreads = 128", f"kBlockThreads = {BLOCK}")
    launch = re.compile(r"(\w+<Dtype>)<<<(.*?),\s*\w+>>>\(", re.DOTALL)
    return launch.sub(rf"emulation::Launch(\2, {BLOCK}, \1, ", kernels)


def build(workshop: Workshop, folder: Path) -> Path:
    """Compile everything into `folder`. Returns the test program."""
    folder.mkdir(exist_ok=True)
    source = workshop.source / "src" / "caffe"
    sources = [source / f"{name}.cpp" for name in CORE + LAYERS + TESTS]
    sources.append(EMULATION / "math_functions.cpp")
    for name in LAYERS:
        copy = folder / f"{Path(name).name}.cu.cpp"
        copy.write_text(as_cplusplus((source / f"{name}.cu").read_text()))
        sources.append(copy)
    includes = [EMULATION, workshop.source / "include", workshop.source / "src"]
    includes += [workshop.build, workshop.build / "include"]
    flags = ["-std=c++17", "-O1", "-w", "-DCUDA_TEST_DEVICE=-1", "-DGTEST_USE_OWN_TR1_TUPLE=1"]
    flags += [f"-I{include}" for include in includes]
    blas = "/usr/lib/x86_64-linux-gnu/openblas-openmp"
    flags += ["-I/usr/include/x86_64-linux-gnu/openblas-openmp"]

    def compiled(path: Path) -> Path:
        output = folder / f"{path.name}.o"
        if path.parent == EMULATION:
            output = folder / "emulation.o"
        kernels = ["-include", "kernels.h"] if path.name.endswith(".cu.cpp") else []
        compile_or_link([*flags, *kernels, "-c", path, "-o", output])
        return output

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    program = folder / "test_lg_lstm_emulated"
    archives = [workshop.build / "lib" / name for name in ("libgtest.a", "libcaffeproto.a")]
    compile_or_link([*objects, *archives, "-o", program, f"-L{blas}", *LIBRARIES])
    return program


def compile_or_link(arguments: list) -> None:
    done = subprocess.run(["g++", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(f"the emulation does not compile:\n{done.stderr[:2000]}")


def main() -> int:
    if len(sys.argv) > 1:
        print(__doc__)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    try:
        workshop = Workshop(Recipe.here(), caffe_build.cache_folder())
        with workshop.locked():
            workshop.make("caffeproto", "gtest")
            program = build(workshop, workshop.folder / "emulation")
        return subprocess.run([program, f"--gtest_filter={GPU_TESTS}"]).returncode
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
