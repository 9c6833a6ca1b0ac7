"""Check and time Caffe's GPU side on a machine with an NVIDIA GPU, after `make setup CUDA=1 …`.

    .venv/bin/python scripts/gpu_check.py                  tests, training like the CPU's, times
    .venv/bin/python scripts/gpu_check.py --json --gpu 1   another GPU; results as JSON

1. The C++ tests of the LG-LSTM layers, CPU and GPU.
2. The demo's net, trained for a few iterations on CPU and GPU from the same seed: equal losses.
3. Milliseconds per training iteration and per forward pass of one image, layer by layer, and the
   most memory in use, of the models named (inputs are random: no data set is needed).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from common.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
CAFFE = Path(sys.prefix) / "bin" / "caffe"
TOLERANCE = 1e-3  # relative, of a loss; single precision, summed in another order
ITERATIONS = 20


def without_data(net_file: Path) -> caffe_pb2.NetParameter:
    """The training net in `net_file` with random photos, and label 0, for its data layer's."""
    net = text_format.Parse(net_file.read_text(), caffe_pb2.NetParameter())
    layers = [layer for layer in net.layer if layer.python_param.layer == "SegData"]
    if len(layers) != 1:
        raise InputError(f"{net_file}: has {len(layers)} SegData layers; name a training net")
    layer = layers[0]
    options = json.loads(layer.python_param.param_str)
    batch, (height, width) = options["batch_size"], options["input_size"]
    stride = options["label_stride"]
    label = [1, -(-height // stride), -(-width // stride)]
    dummy = caffe_pb2.LayerParameter(name=layer.name, type="DummyData", top=layer.top[:2])
    for shape, filler in (([3, height, width], ("gaussian", 50.0)), (label, ("constant", 0.0))):
        dummy.dummy_data_param.shape.add().dim.extend([batch, *shape])
        dummy.dummy_data_param.data_filler.add(type=filler[0], std=filler[1])
    layer.CopyFrom(dummy)
    return net


def losses(solver_file: Path, folder: Path, gpu: int | None) -> list[float]:
    """The total loss of each of a few iterations of `caffe train`, without a data set."""
    solver = text_format.Parse(solver_file.read_text(), caffe_pb2.SolverParameter())
    net = folder / "train.prototxt"
    net.write_text(text_format.MessageToString(without_data(REPOSITORY / solver.train_net)))
    for field in ("test_net", "test_iter", "test_interval", "snapshot", "average_loss"):
        solver.ClearField(field)
    solver.train_net, solver.snapshot_prefix = str(net), str(folder / "check")
    solver.max_iter, solver.display = 10, 1
    solver.solver_mode = caffe_pb2.SolverParameter.CPU
    short = folder / "solver.prototxt"
    short.write_text(text_format.MessageToString(solver))
    output = run([CAFFE, "train", "-solver", short, *_device(gpu)])
    found = re.findall(r"Iteration \d+ .*, loss = (\S+)", output)
    if len(found) < solver.max_iter:
        raise InputError(f"{solver_file}: caffe train printed {len(found)} losses, not 10")
    return [float(loss) for loss in found]


def times(net_file: Path, phase: str, gpu: int | None, iterations: int = ITERATIONS) -> dict:
    """Milliseconds of `caffe time`: `forward`, `backward`, and both of each layer."""
    command = [CAFFE, "time", "-model", net_file, "-phase", phase, "-iterations", iterations]
    output = run([*command, *_device(gpu)])
    total = dict(re.findall(r"Average (Forward|Backward) pass: (\S+) ms", output))
    layers: dict[str, dict[str, float]] = {}
    for name, way, milliseconds in re.findall(r"(\S+)\t(forward|backward): (\S+) ms", output):
        layers.setdefault(name, {})[way] = float(milliseconds)
    if len(total) < 2:
        raise InputError(f"{net_file}: caffe time printed no averages")
    return {
        "forward": float(total["Forward"]),
        "backward": float(total["Backward"]),
        "layers": layers,
    }


def stack(measured: dict) -> float:
    """Milliseconds of the LG-LSTM layers and the transition in a result of `times`."""
    names = re.compile(r"transition$|lg_lstm\d+$")
    return sum(sum(ways.values()) for n, ways in measured["layers"].items() if names.match(n))


def run(command: list) -> str:
    """Everything a command printed; an error that ends with its last line if it failed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=REPOSITORY,
        env=os.environ | {"GLOG_minloglevel": "0", "GLOG_logtostderr": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["it printed nothing"])[-1]
        raise InputError(f"{' '.join(map(str, command))}: {last}")
    return done.stdout


class PeakMemory:
    """The most memory of a GPU in use, in MiB, while a `with` block runs."""

    def __init__(self, gpu: int) -> None:
        self.query = ["nvidia-smi", f"--id={gpu}", "--query-gpu=memory.used"]
        self.query += ["--format=csv,noheader,nounits"]
        self.peak = 0
        self.end = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self.watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self.watcher.join()

    def _watch(self) -> None:
        while not self.end.wait(0.1):
            self.peak = max(self.peak, int(run(self.query)))


def check(gpu: int, models: list[str]) -> dict:
    """Everything of the list above; an error at the first thing that is wrong."""
    name = run(["nvidia-smi", f"--id={gpu}", "--query-gpu=name", "--format=csv,noheader"]).strip()
    run([sys.executable, "scripts/setup_caffe.py", "test"])
    result: dict = {"gpu": name, "models": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        demo = REPOSITORY / "models/demo/solver.prototxt"
        result["losses"] = {"cpu": losses(demo, folder, None), "gpu": losses(demo, folder, gpu)}
        pairs = zip(result["losses"]["cpu"], result["losses"]["gpu"], strict=True)
        worst = max(abs(cpu - on_gpu) / abs(cpu) for cpu, on_gpu in pairs)
        if not worst <= TOLERANCE:
            raise InputError(f"the losses on CPU and GPU differ by {worst:.1e}: {result['losses']}")
        for model in models:
            net = folder / "train.prototxt"
            source = REPOSITORY / "models" / model / "train.prototxt"
            net.write_text(text_format.MessageToString(without_data(source)))
            with PeakMemory(gpu) as memory:
                train = times(net, "TRAIN", gpu)
            test = times(source.with_name("deploy.prototxt"), "TEST", gpu)
            result["models"][model] = {
                "train_ms": train["forward"] + train["backward"],
                "train_stack_ms": stack(train),
                "image_ms": test["forward"],
                "peak_mib": memory.peak,
                "train": train,
            }
    return result


def _device(gpu: int | None) -> list[str]:
    return [] if gpu is None else ["-gpu", str(gpu)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["horse", "atr"], help="default: horse atr")
    parser.add_argument("--gpu", type=int, default=0, help="number of the GPU (default: 0)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    try:
        result = check(arguments.gpu, arguments.models)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(result, indent=2))
        return 0
    print(f"{result['gpu']}: the tests pass; losses on CPU and GPU are equal")
    print("| model | training iteration | of it LG-LSTM | one image | peak memory |")
    print("| --- | --- | --- | --- | --- |")
    for model, found in result["models"].items():
        print(
            f"| {model} | {found['train_ms']:.1f} ms | {found['train_stack_ms']:.1f} ms "
            f"| {found['image_ms']:.1f} ms | {found['peak_mib']} MiB |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
