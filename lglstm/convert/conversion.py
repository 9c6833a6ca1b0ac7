"""One conversion from beginning to end: read, write under a temporary name, prove, then rename."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lglstm.caffe_files import Net, read_net, weights_for
from lglstm.caffe_files.net import Weights
from lglstm.common.checkout import setup_advice
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, write_text
from lglstm.convert import proof, weights
from lglstm.convert.caffe_process import Blobs, caffe_is_there, caffe_version, run_caffe

PACKAGES = ("numpy", "protobuf", "h5py", "torch", "safetensors", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Job:
    """What to convert, and how. deploy: the deploy net; a train.prototxt beside it is used too.

    any_size, preprocessing: see `onnx_graph.to_onnx`. reference: a stored one, to compare with
    instead of Caffe. photo: the real photo of the proof.
    """

    deploy: Path
    weights: Path
    target: str
    output: Path
    verify: bool = True
    reference: Path | None = None
    photo: Path | None = None
    any_size: bool = False
    preprocessing: bool = False
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """The model as it was read: its nets by phase, all layers of the file, the deploy's weights.

    from_modules: whether the weights come from PyTorch and not from Caffe.
    """

    job: Job
    nets: dict[str, Net]
    stored: weights.Stored
    weights: Weights
    from_modules: bool

    @property
    def deploy(self) -> Net:
        return self.nets["deploy"]


class Target(NamedTuple):
    """A format: its suffix, what writes it, and what runs it (None: Caffe on the weights in it)."""

    suffix: str
    write: Callable[[Path, Source], None]
    runner: Callable[[Path], proof.Runner] | None
    holds_weights: bool
    needs: tuple[str, ...]


def _weights_writer(write: Callable[[Path, weights.Content], None]) -> Callable:
    def write_source(path: Path, source: Source) -> None:
        metadata = {"model": source.deploy.name, "weights_sha256": sha256(source.job.weights)}
        write(path, weights.Content(source.stored, source.nets, metadata))

    return write_source


def _write_pytorch(path: Path, source: Source) -> None:
    as_pth = path.suffix in (".pth", ".pt")
    _weights_writer(weights.write_pth if as_pth else weights.write_torch_safetensors)(path, source)


def _write_onnx(path: Path, source: Source) -> None:
    from lglstm.convert.onnx_graph import to_onnx

    job = source.job
    model = to_onnx(
        source.deploy,
        source.weights,
        any_size=job.any_size,
        preprocessing=job.preprocessing,
        metadata={"model": source.deploy.name, "weights_sha256": sha256(job.weights)},
    )
    path.write_bytes(model.SerializeToString())


TARGETS = {
    "pytorch": Target(
        ".safetensors", _write_pytorch, proof.torch_runner, True, ("torch", "safetensors")
    ),
    "onnx": Target(".onnx", _write_onnx, proof.onnx_runner, False, ("onnx", "onnxruntime")),
    "caffemodel": Target(
        ".caffemodel", _weights_writer(weights.write_caffe), None, True, ()
    ),
    "hdf5": Target(".caffemodel.h5", _weights_writer(weights.write_hdf5), None, True, ()),
    "npz": Target(".npz", _weights_writer(weights.write_npz), None, True, ()),
    "safetensors": Target(
        ".caffe.safetensors", _weights_writer(weights.write_safetensors), None, True,
        ("safetensors",),
    ),
}  # fmt: skip


def default_output(source: Path, target: str) -> Path:
    """Beside the weights, with the format's suffix; never the weights themselves."""
    name = source.name
    for suffix in (".caffe.safetensors", ".caffemodel.h5", source.suffix):
        name = name.removesuffix(suffix)
    suffix = ".reference.npz" if target == "reference" else TARGETS[target].suffix
    output = source.with_name(name + suffix)
    return source.with_name(f"{name}.converted{suffix}") if output == source else output


Say = Callable[[str], None]
"""Called with what is being done, for a status line."""


def _silent(text: str) -> None:
    pass


def convert(job: Job, say: Say = _silent) -> dict:
    """Convert; return the report that is also written beside the result, as <result>.json.

    The report has `differences` (see `proof`), `exact_blobs` (how many blobs were read back from
    the result bit for bit) and what was converted by what. Raises InputError, and leaves
    nothing behind, if anything is wrong with the input or if the proof fails.
    """
    target = TARGETS[job.target]
    _check_installed(target.needs)
    if job.output.resolve() == job.weights.resolve():
        raise InputError(f"{job.output}: is the source itself; give another --output")
    say(f"reading {job.weights}")
    source = read_source(job)
    expected = expected_side(source, say) if job.verify else None
    say(f"writing {job.output}")
    with atomic_path(job.output) as made:
        target.write(made, source)
        report = _about(source) | {"differences": []}
        if expected is not None:
            say(f"running and comparing {job.output}")
            report |= _proof(source, made, expected)
        report["sha256"] = sha256(made)
    write_text(Path(f"{job.output}.json"), json.dumps(report, indent=2) + "\n")
    return report


def read_source(job: Job) -> Source:
    """Read nets and weights; every check of the input is made here, before anything is written."""
    deploy = read_net(job.deploy, supported=_supported(job.target))
    nets = {"deploy": deploy}
    train = job.deploy.with_name("train.prototxt")
    if job.deploy.name == "deploy.prototxt" and train.is_file():
        # Only PyTorch takes it; other people's may have data layers that nobody can convert.
        with contextlib.suppress(InputError):
            nets["train"] = read_net(train, "TRAIN")
    stored, from_modules = weights.read_weights(job.weights, tuple(nets.values())[::-1])
    names = {layer.name for layer in stored}
    needed = {x.name for x in nets.get("train", deploy).layers if x.blobs}
    if not needed <= names:  # a file without the layers that only training has
        nets.pop("train", None)
    found = weights_for(deploy, stored, str(job.weights))
    for layer in stored:
        if not all(np.isfinite(blob).all() for blob in layer.blobs):
            raise InputError(
                f'{job.weights}: layer "{layer.name}" holds NaN or infinity, so its training '
                "diverged; use an earlier snapshot"
            )
    return Source(job, nets, stored, found, from_modules)


def _supported(target: str) -> Sequence[str]:
    if target == "onnx":
        from lglstm.convert.onnx_graph import SUPPORTED

        return SUPPORTED
    from lglstm.caffe_files.layer_types import LAYER_TYPES

    return tuple(LAYER_TYPES)


def _check_installed(packages: Sequence[str]) -> None:
    missing = [name for name in packages if not _version(name)]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} must be installed for this format; run: pip install "
            f"{' '.join(missing)}"
        )


# --- The proof ------------------------------------------------------------------------------------


class Expected(NamedTuple):
    """The side to compare with: samples, what they should give, and by whom."""

    samples: list[proof.Sample]
    outputs: list[Blobs]
    by: str


def expected_side(source: Source, say: Say = _silent) -> Expected | None:
    """Run the source, before anything is written. None: only the weights can be compared here."""
    job, net = source.job, source.deploy
    if job.target in TARGETS and TARGETS[job.target].runner is None and not caffe_is_there():
        return None  # it is Caffe that would have to run the result
    wanted = proof.compared_blobs(net)
    if job.reference is not None:
        stored = proof.Reference.load(job.reference)
        if (stored.weights_sha256, stored.net_sha256) != (sha256(job.weights), sha256(job.deploy)):
            raise InputError(
                f"{job.reference}: was made from other weights or another net than "
                f"{job.weights} and {job.deploy}; make it again where Caffe is installed"
            )
        return Expected(stored.samples, stored.outputs, f"stored reference {job.reference}")
    given = proof.samples(net, job.photo, job.any_size)
    say(f"running the source, {sum(len(x.names) for x in given)} images")
    if source.from_modules and job.target != "onnx" and _version("torch"):
        return Expected(given, _run_modules(source, given, wanted), "PyTorch on the source")
    if caffe_is_there():
        with _for_caffe(source) as path:
            outputs = run_caffe(job.deploy, path, [x.blobs for x in given], wanted)
        return Expected(given, outputs, f"Caffe {caffe_version()}")
    raise InputError(
        "there is no Caffe here to compare with; give --reference FILE, made where Caffe is by "
        "`lglstm convert … --to reference`, or ask for --no-verify"
    )


def make_reference(job: Job, say: Say = _silent) -> dict:
    """Run Caffe and store inputs and outputs, for the proof on a machine without Caffe."""
    if not caffe_is_there():
        raise InputError("a reference can only be made where Caffe is installed; " + setup_advice())
    source = read_source(job)
    expected = expected_side(source, say)
    hashes = sha256(job.weights), sha256(job.deploy)
    proof.Reference(expected.samples, expected.outputs, *hashes).save(job.output)
    return _about(source) | {"differences": [], "reference": expected.by}


def _run_modules(source: Source, given, wanted) -> list[Blobs]:
    import torch

    from lglstm.convert.torch import Net as Module

    module = Module(source.deploy.description()).load_weights(source.weights).eval()
    with torch.inference_mode():
        results = [
            module.blobs([torch.from_numpy(x.blobs[n]) for n in module.inputs], wanted)
            for x in given
        ]
    return [{name: value.numpy() for name, value in blobs.items()} for blobs in results]


@contextlib.contextmanager
def _for_caffe(source: Source):
    """A file with the source's weights that Caffe reads: its own where it can."""
    if weights.format_of(source.job.weights) in ("caffemodel", "hdf5"):
        yield source.job.weights
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.caffemodel")
        weights.write_caffe(path, weights.Content(source.stored, source.nets, {}))
        yield path


def _proof(source: Source, made: Path, expected: Expected | None) -> dict:
    job = source.job
    target = TARGETS[job.target]
    report: dict = {"tolerance": proof.TOLERANCE}
    if target.holds_weights:
        report["exact_blobs"] = _read_back(source, made)
    if expected is None:
        return report | {"reference": "none: no Caffe here", "differences": []}
    run = target.runner(made) if target.runner else _caffe_runner(source, made)
    results = run(expected.samples, proof.compared_blobs(source.deploy))
    differences = proof.compare(expected.samples, expected.outputs, results)
    failed = [difference for difference in differences if not difference.passed]
    if failed:
        worst = max(failed, key=lambda d: d.relative if d.relative == d.relative else np.inf)
        raise InputError(
            f"{job.output}: the proof failed and nothing was written: {worst.blob} differs by "
            f"{worst.relative:.1e} of its largest number on {worst.sample}, allowed are "
            f"{proof.TOLERANCE:g}; if the net is sound, report this as an error of the converter"
        )
    return report | {"reference": expected.by, "differences": proof.as_json(differences)}


def _read_back(source: Source, made: Path) -> int:
    """Read the weights out of the new file; how many blobs are there, bit for bit."""
    nets = tuple(source.nets.values())
    again = {x.name: x.blobs for x in weights.read_weights(made, nets).stored}
    modules = {x.name for net in nets for x in net.layers}
    count = 0
    for layer in source.stored:
        if source.job.target == "pytorch" and layer.name not in modules:
            continue  # what no module computes, such as the data layer's place in the data
        before = [blob.tobytes() for blob in layer.blobs]
        after = [blob.tobytes() for blob in again.get(layer.name, [])]
        if before != after:
            raise InputError(
                f'{source.job.output}: layer "{layer.name}" was not kept bit for bit, nothing was '
                "written; report this as an error of the converter"
            )
        count += len(before)
    return count


def _caffe_runner(source: Source, made: Path) -> proof.Runner:
    """Caffe on the weights in the new file."""

    def run(given: Sequence[proof.Sample], wanted: Sequence[str]) -> list[Blobs]:
        if made.suffix in (".caffemodel", ".h5"):
            return run_caffe(source.job.deploy, made, [x.blobs for x in given], wanted)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights.caffemodel")
            stored = weights.read_weights(made, tuple(source.nets.values())).stored
            weights.write_caffe(path, weights.Content(stored, source.nets, {}))
            return run_caffe(source.job.deploy, path, [x.blobs for x in given], wanted)

    return run


# --- What was converted by what -------------------------------------------------------------------


def _about(source: Source) -> dict:
    job = source.job
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    return {
        "format": job.target,
        "net": {"path": str(job.deploy), "sha256": sha256(job.deploy)},
        "weights": {"path": str(job.weights), "sha256": sha256(job.weights)},
        "options": {
            "any_size": job.any_size,
            "preprocessing": job.preprocessing,
            "verify": job.verify,
        },
        "versions": job.versions | {"python": platform.python_version()} | versions,
    }


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
