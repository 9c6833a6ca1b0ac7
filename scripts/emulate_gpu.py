"""Run the GPU half of the LG-LSTM layers' C++ tests without a GPU, in an emulation of CUDA.

    .venv/bin/python scripts/emulate_gpu.py

The layers' .cu files are compiled as C++ against `tests/emulation`, where kernels run thread
by thread, with __syncthreads, and cuBLAS's products are loops. So the code that a GPU would run is
checked for its numbers, its leading dimensions and for pointers into the wrong memory. What is not
emulated: that threads run at the same time, and speed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import caffe_source
from caffe_build import cache_folder
from lglstm.common.errors import InputError

EMULATION = Path(__file__).resolve().parent.parent / "tests" / "emulation"
LAYERS = ["util/lg_lstm", "layers/lg_lstm_base_layer", "layers/lg_lstm_layer"]
LAYERS += ["layers/lg_lstm_transition_layer"]
CORE = ["blob", "common", "layer", "syncedmem", "util/math_functions", "util/onednn"]
TESTS = ["test/test_caffe_main", "test/test_lg_lstm_layer"]
LIBRARIES = ["-lprotobuf", "-lglog", "-lgflags", "-lboost_system", "-lboost_thread", "-pthread"]
LIBRARIES += ["-lopenblas"]
MULTIARCH = sysconfig.get_config_var("MULTIARCH")
BLOCK = 8  # threads: any power of two gives the same numbers
GPU_TESTS = "*/2.*:*/3.*"  # float and double on the GPU, after those on the CPU


def as_cplusplus(kernels: str) -> str:
    """The text of a .cu file with its kernel launches as calls, in small blocks."""
    kernels = kernels.replace("kBlockThreads = 128", f"kBlockThreads = {BLOCK}")
    launch = re.compile(r"(\w+<Dtype>)<<<(.*?),\s*\w+>>>\(", re.DOTALL)
    return launch.sub(rf"emulation::Launch(\2, {BLOCK}, \1, ", kernels)


def build(folder: Path) -> Path:
    """Put Caffe's source together and compile all in `folder`. Returns the test program."""
    tree, source = folder / "caffe", folder / "caffe" / "src" / "caffe"
    tree.mkdir()
    caffe_source.assemble(tree, caffe_source.own_tree(), cache_folder() / "downloads")
    proto = tree / "include" / "caffe" / "proto"
    proto.mkdir()
    definition = source / "proto" / "caffe.proto"
    run(["protoc", f"--proto_path={definition.parent}", f"--cpp_out={proto}", definition])
    sources = [source / f"{name}.cpp" for name in CORE + LAYERS + TESTS]
    sources += [proto / "caffe.pb.cc", tree / "src" / "gtest" / "gtest-all.cpp"]
    sources.append(EMULATION / "math_functions.cpp")
    for name in LAYERS:
        copy = folder / f"{Path(name).name}.cu.cpp"
        copy.write_text(as_cplusplus((source / f"{name}.cu").read_text()))
        sources.append(copy)
    flags = ["-std=c++17", "-O1", "-w", "-DCUDA_TEST_DEVICE=-1", "-DGTEST_USE_OWN_TR1_TUPLE=1"]
    flags += [f"-I{path}" for path in (EMULATION, tree / "include", tree / "src")]
    flags.append(f"-I/usr/include/{MULTIARCH}/openblas-openmp")

    def compiled(numbered: tuple[int, Path]) -> Path:
        number, path = numbered
        output = folder / f"{number}.o"
        kernels = ["-include", "kernels.h"] if path.name.endswith(".cu.cpp") else []
        run(["g++", *flags, *kernels, "-c", path, "-o", output])
        return output

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, enumerate(sources)))
    program = folder / "test_lg_lstm_emulated"
    blas = f"-L/usr/lib/{MULTIARCH}/openblas-openmp"
    run(["g++", *objects, "-o", program, blas, *LIBRARIES])
    return program


def run(command: list) -> None:
    """Run a compiler; an error with the beginning of what it says if it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(f"the emulation does not compile:\n{done.stderr[:2000]}")


def main() -> int:
    if len(sys.argv) > 1:
        print(__doc__)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    try:
        with tempfile.TemporaryDirectory() as folder:
            program = build(Path(folder))
            return subprocess.run([program, f"--gtest_filter={GPU_TESTS}"]).returncode
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
