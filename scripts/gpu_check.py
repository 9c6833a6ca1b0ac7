"""Check and time Caffe's GPU side, beside PyTorch, on a machine with an NVIDIA GPU.

    python3 gpu_check.py                        in a bundle of scripts/gpu_bundle.py; CUDA's
                                                libraries are those that came with PyTorch
    .venv/bin/python scripts/gpu_check.py       in a checkout, after make setup CUDA=1 …
    python3 gpu_check.py --json --gpu 1         another GPU; results as JSON
    python3 gpu_check.py --cpu                  all of it on the CPU: slow

1. The tests in C++: forward and gradients of the LG-LSTM layers, on CPU and GPU; in a bundle, those
   of Caffe's own layers, too.
2. The demo's net trained for a few iterations, on CPU and GPU, from the same weights with the same
   pictures: equal losses. The first of them is that of PyTorch, too.
3. Milliseconds of a training iteration, of its LG-LSTM layers alone, and of one image, in Caffe and
   in PyTorch, and how much memory of the GPU the training takes. Batches are those of the paper.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
KIT = "kit.tar.xz"  # in a bundle: nets, pictures, programs and their libraries
TOLERANCE = 1e-3  # relative, of a loss; single precision, summed in another order
LOSSES = 10
ITERATIONS = 20  # that are timed, after as many to warm up; one on the CPU
MODELS = ["horse", "atr"]
# The tests to run. Some of Caffe's own read files of its source. Without a GPU its own are left
# out, as one sets Caffe to the GPU, which ends the next. Numbers 2 and 3 of a test are the GPU's.
WITH_GPU = "-HDF5*:*SolverTest*:DBTest*"
WITHOUT_GPU = "LGLSTM*-*/2.*:*/3.*"
NO_GPU = "there is no NVIDIA GPU here"


class Failure(ValueError):
    """Something is missing or wrong; the message is one sentence."""


class Kit:
    """The folder of gpu_kit.py, and the device to compute on (None: the CPU)."""

    def __init__(self, folder: Path, gpu: int | None) -> None:
        self.folder, self.gpu = folder, gpu
        self.environment = os.environ | {"GLOG_minloglevel": "0", "GLOG_logtostderr": "1"}
        folders = [folder / "lib", *cuda_folders(), os.environ.get("LD_LIBRARY_PATH", "")]
        self.libraries = {"LD_LIBRARY_PATH": ":".join(filter(None, map(str, folders)))}

    @property
    def iterations(self) -> int:
        return 1 if self.gpu is None else ITERATIONS

    def caffe(self, *words: object, gpu: int | None) -> str:
        """What `caffe words…` prints."""
        device = [] if gpu is None else ["-gpu", gpu]
        return self.run("bin/caffe", *words, *device, environment=self.libraries)

    def torch(self, what: str, model: str) -> dict | None:
        """The result of gpu_torch.py; None without PyTorch."""
        if importlib.util.find_spec("torch") is None:
            return None
        device = "cpu" if self.gpu is None else f"cuda:{self.gpu}"
        words = [what, model, "--device", device, "--iterations", self.iterations]
        return json.loads(self.run(sys.executable, HERE / "gpu_torch.py", *words).splitlines()[-1])

    def run(self, *command: object, environment: dict | None = None) -> str:
        """Everything a command printed; Failure with its last line if it failed."""
        words = list(map(str, command))
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment | (environment or {}),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode != 0:
            last = (done.stdout.strip().splitlines() or ["it printed nothing"])[-1]
            if "error while loading shared libraries" in last:
                last += "; install PyTorch for CUDA 13, or name the folder in LD_LIBRARY_PATH"
            raise Failure(f"{' '.join(words)}: {last}")
        return done.stdout


def cuda_folders() -> list[str]:
    """Where this Python's packages have CUDA's libraries."""
    found = importlib.util.find_spec("nvidia")
    places = found.submodule_search_locations if found else []
    return sorted(
        {str(path.parent) for place in places for path in Path(place).glob("*/lib/*.so*")}
    )


def tests(kit: Kit) -> dict[str, int]:
    """Run every program of tests. Returns how many tests of each passed; Failure if one did not."""
    passed = {}
    for program in sorted((kit.folder / "bin").glob("test*")):
        device = [] if kit.gpu is None else [kit.gpu]
        chosen = WITHOUT_GPU if kit.gpu is None else WITH_GPU
        words = [program, *device, f"--gtest_filter={chosen}"]
        output = kit.run(*words, environment=kit.libraries)
        [count] = re.findall(r"\[  PASSED  \] (\d+) tests?\.", output)
        passed[program.name] = int(count)
    return passed


def train(kit: Kit, model: str, gpu: int | None, intervals: int, display: int) -> list[dict]:
    """Train a little. Returns `loss` and `ms` per iteration of each interval of `display`."""
    with tempfile.TemporaryDirectory() as temporary:
        solver = Path(temporary) / "solver.prototxt"
        solver.write_text(
            (kit.folder / model / "solver.prototxt").read_text()
            + f"max_iter: {intervals * display + 1}\ndisplay: {display}\n"
            + f'snapshot_prefix: "{temporary}/check"\n'
        )
        output = kit.caffe("train", "-solver", solver, gpu=gpu)
    found = re.findall(r"Iteration \d+ \((\S+) iter/s, .*, loss = (\S+)", output)
    if len(found) != intervals + 1:
        raise Failure(f"{model}: caffe train printed {len(found)} losses, not {intervals + 1}")
    return [{"loss": float(loss), "ms": 1e3 / (float(speed) or 1)} for speed, loss in found]


def compare_losses(kit: Kit) -> dict:
    """Losses of the same training on CPU and GPU, and of PyTorch's first iteration."""
    devices = {"cpu": None} if kit.gpu is None else {"cpu": None, "gpu": kit.gpu}
    result: dict = {
        name: [step["loss"] for step in train(kit, "demo", gpu, LOSSES - 1, 1)]
        for name, gpu in devices.items()
    }
    if found := kit.torch("loss", "demo"):
        result["pytorch"] = [found["loss"]]
    for name, losses in result.items():
        pairs = zip(result["cpu"], losses, strict=False)  # PyTorch has computed one
        worst = max(abs(cpu - other) / abs(cpu) for cpu, other in pairs)
        if not worst <= TOLERANCE:
            raise Failure(f"the losses of cpu and {name} differ by {worst:.1e} of it: {result}")
    return result


def layer_times(kit: Kit, net: str, phase: str) -> dict:
    """Milliseconds of `caffe time`: `forward`, `backward`, and both of each layer."""
    words = ["time", "-model", net, "-phase", phase, "-iterations", kit.iterations]
    output = kit.caffe(*words, gpu=kit.gpu)
    total = dict(re.findall(r"Average (Forward|Backward) pass: (\S+) ms", output))
    layers: dict[str, dict[str, float]] = {}
    for name, way, time in re.findall(r"(\S+)\t(forward|backward): (\S+) ms", output):
        layers.setdefault(name, {})[way] = float(time)
    if len(total) < 2:
        raise Failure(f"{net}: caffe time printed no averages")
    return {"layers": layers} | {way.lower(): float(time) for way, time in total.items()}


def times(kit: Kit, model: str) -> dict:
    """All times of a model, Caffe's and PyTorch's; the memory of training."""
    with GPUMemory(kit) as memory:
        trained = train(kit, model, kit.gpu, 2, kit.iterations)[-1]
    stack = layer_times(kit, f"{model}/stack.prototxt", "TRAIN")
    image = layer_times(kit, f"{model}/deploy.prototxt", "TEST")
    layers = [ways for name, ways in stack["layers"].items() if name != "features"]
    result: dict = {
        "caffe": {
            "train_ms": trained["ms"],
            "stack_ms": sum(sum(ways.values()) for ways in layers),
            "image_ms": image["forward"],
            "train_mib": memory.mib,
        },
        "layers": layer_times(kit, f"{model}/train.prototxt", "TRAIN")["layers"],
    }
    with GPUMemory(kit) as memory:
        trained = kit.torch("train", model)
    if trained:
        result["pytorch"] = {"train_ms": trained["ms"], "train_mib": memory.mib}
        for what in ("stack", "image"):
            result["pytorch"][f"{what}_ms"] = kit.torch(what, model)["ms"]
        result["torch"] = trained["torch"]
    return result


class GPUMemory:
    """How much more of the GPU's memory was in use in a `with` block than before, `mib`."""

    def __init__(self, kit: Kit) -> None:
        self.gpu = kit.gpu
        self.mib: int | None = None
        self.end = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> GPUMemory:
        if self.gpu is not None:
            self.before, self.mib = int(query("memory.used", self.gpu)), 0
            self.watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        if self.gpu is not None:
            self.watcher.join()

    def _watch(self) -> None:
        while not self.end.wait(0.1):
            self.mib = max(self.mib, int(query("memory.used", self.gpu)) - self.before)


def query(field: str, gpu: int) -> str:
    """What nvidia-smi says about a GPU; Failure when there is none."""
    command = ["nvidia-smi", f"--id={gpu}", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        raise Failure(f"{NO_GPU}: nvidia-smi, which comes with the driver, is missing") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it failed"]
        raise Failure(f"{NO_GPU} with the number {gpu}: nvidia-smi says: {said[-1]}")
    return done.stdout.strip()


def check(kit: Kit, models: list[str]) -> dict:
    """Everything of the list above; Failure at the first thing that is wrong."""
    for model in models:
        if not (kit.folder / model / "stack.prototxt").exists():
            raise Failure(f"{model}: {kit.folder} has no nets of this name")
    name = "CPU"
    if kit.gpu is not None:
        try:
            name = query("name", kit.gpu)
        except Failure as missing:
            check_cpu(kit)
            raise Failure(f"{missing}; what needs none was checked, and passed") from None
    result: dict = {"device": name, "tests": step("tests in C++", tests, kit)}
    result["losses"] = step("training of the demo", compare_losses, kit)
    result["models"] = {model: step(f"times of {model}", times, kit, model) for model in models}
    return result


def check_cpu(kit: Kit) -> None:
    """What of it needs no GPU."""
    kit.gpu = None
    step("tests in C++, those of the CPU", tests, kit)
    step("training of the demo on the CPU", compare_losses, kit)


def step(what: str, function, *arguments):
    """Say what is being done, and do it."""
    print(f"{what} …", file=sys.stderr, flush=True)
    return function(*arguments)


COLUMNS = {
    "train_ms": ("training iteration", "{:,.1f} ms"),
    "stack_ms": ("its LG-LSTM layers", "{:,.1f} ms"),
    "image_ms": ("one image", "{:,.1f} ms"),
    "train_mib": ("memory of training", "{:,.0f} MiB"),
}


def table(result: dict) -> str:
    """The results as Markdown; what was not measured stays empty."""
    passed = ", ".join(f"{count} of {name}" for name, count in result["tests"].items())
    lines = [
        f"{result['device']}: tests pass ({passed}); equal losses: {', '.join(result['losses'])}",
        "",
        f"| model | | {' | '.join(title for title, _ in COLUMNS.values())} |",
        "| --- | --- |" + " ---: |" * len(COLUMNS),
    ]
    for model, found in result["models"].items():
        for name in ("caffe", "pytorch"):
            values = found.get(name, {})
            cells = [
                "" if values.get(key) is None else form.format(values[key])
                for key, (_, form) in COLUMNS.items()
            ]
            lines.append(f"| {model} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bundled_kit(folder: Path, models: list[str]) -> Path:
    """The kit of this bundle, unpacked."""
    with tarfile.open(HERE / KIT) as packed:
        packed.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder


def checkout_kit(folder: Path, models: list[str]) -> Path:
    """A kit of this checkout: its Caffe and its tests, built if need be."""
    import caffe_build
    import gpu_kit

    gpu_kit.make(folder, models)
    settings = caffe_build.BuildSettings.here()
    tests = caffe_build.CaffeBuild(settings, caffe_build.cache_folder()).built(
        caffe_build.OUR_TESTS
    )
    (folder / "bin").mkdir()
    (folder / "bin" / "caffe").symlink_to(Path(sys.prefix) / "bin" / "caffe")
    (folder / "bin" / caffe_build.OUR_TESTS).symlink_to(tests / "test" / caffe_build.OUR_TESTS)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=MODELS, help="default: horse atr")
    parser.add_argument("--gpu", type=int, default=0, help="number of the GPU (default: 0)")
    parser.add_argument("--cpu", action="store_true", help="compute everything on the CPU")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            make = bundled_kit if (HERE / KIT).exists() else checkout_kit
            folder = step("nets and programs", make, Path(temporary), arguments.models)
            result = check(Kit(folder, None if arguments.cpu else arguments.gpu), arguments.models)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, indent=2) if arguments.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
