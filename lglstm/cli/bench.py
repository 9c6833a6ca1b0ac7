"""`lglstm bench`: how fast the layers, the nets and the data layer are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lglstm.cli.group import Group
from lglstm.cli.options import (
    BATCH,
    SECONDS,
    WORKERS,
    Choice,
    complete_model,
    picture_option,
    trust_option,
)
from lglstm.cli.paths import FilePath
from lglstm.common.checkout import checkout
from lglstm.common.errors import InputError
from lglstm.common.models import find_model
from lglstm.common.progress import progress_bar
from lglstm.common.pycaffe import require_caffe

EXAMPLES = """\b
Examples:
  lglstm bench stack
  lglstm bench net horse --repeats 9 --json > net.json
  lglstm bench data horse --list data/horse/train.txt
  lglstm bench scale -o scale.png
"""

STACK_EXAMPLES = """\b
Examples:
  lglstm bench stack
  lglstm bench stack --size 41x41 --batch 2 --implementations cpp,literal,factored
  lglstm bench stack --json -o stack.png > stack.json
"""


NET_EXAMPLES = """\b
Examples:
  lglstm bench net
  lglstm bench net horse --task train --implementations stock,onednn,torch
  lglstm bench net demo --repeats 3 --json
"""


INFER_EXAMPLES = """\b
Examples:
  lglstm bench infer
  lglstm bench infer horse --weights runs/horse_iter_8820.caffemodel
  lglstm bench infer demo --implementations stock,onednn_bf16,openvino_bf16 --json
"""

DATA_EXAMPLES = """\b
Examples:
  lglstm bench data
  lglstm bench data atr --list data/atr/train.txt
  lglstm bench data horse --seconds 0.2
"""

SCALE_EXAMPLES = """\b
Examples:
  lglstm bench scale -o scale.png
  lglstm bench scale --of positions --of batch --json
"""


ROUNDS, QUICK_ROUNDS = 7, 1


@click.group(cls=Group, epilog=EXAMPLES)
def command() -> None:
    """Measure how fast the layers, the nets and the data layer are.

    All implementations take turns within one run, each in a process of its own with the same number
    of threads; ratios are taken within a round. Let nothing else run meanwhile.
    """
    root = checkout()
    if root is None:
        raise InputError(
            "the benchmarks are not part of the installed package; run lglstm bench in a checkout "
            "of the project, after make setup"
        )
    require_caffe()
    sys.path.insert(0, str(root / "scripts"))  # before the user's folders


def common_options(function: Callable) -> Callable:
    """--repeats, --threads, --quick, --json and --output."""
    for option in (
        picture_option("Also draw a picture: .png, .pdf or .svg."),
        click.option("--json", "as_json", is_flag=True, help="Print everything as JSON."),
        click.option(
            "--quick", is_flag=True, help="Tiny sizes, one round: a first try in under a minute."
        ),
        click.option(
            "--threads", type=WORKERS, default=cores, metavar="N",
            help="Threads of every implementation (default: all cores).",
        ),
        click.option(
            "--repeats", type=click.IntRange(1, 10_000), metavar="N",
            help=f"Rounds (default: {ROUNDS}, with --quick {QUICK_ROUNDS}).",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def rounds(repeats: int | None, quick: bool) -> int:
    return repeats or (QUICK_ROUNDS if quick else ROUNDS)


def cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


@command.command(epilog=STACK_EXAMPLES)
@click.option(
    "--size", "sizes", multiple=True, metavar="HxW[xC]",
    help="Positions, and channels of the features; may be repeated (default: 41x41 with 1024, "
    "150x100 with 256 channels, those of the models).",
)  # fmt: skip
@click.option(
    "--batch", "batches", multiple=True, type=BATCH, metavar="N",
    help="Images; may be repeated (default: 1 and 2).",
)  # fmt: skip
@click.option(
    "--implementations", metavar="KEY,…",
    help="Implementations to time; the first is the baseline: cpp, python, literal, factored, "
    "compiled (default: all, with --quick all but compiled).",
)  # fmt: skip
@common_options
def stack(
    sizes: tuple[str, ...],
    batches: tuple[int, ...],
    implementations: str | None,
    repeats: int | None,
    threads: int,
    quick: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Time transition, five LG-LSTM layers and five classifiers, forward and backward.

    C++ layers, Python layers, and PyTorch: as the paper writes the equations, factored, compiled.
    All must compute the same scores and gradients; otherwise nothing is timed.
    """
    from benchmarks import stack, stack_report

    chosen_sizes = stack.choose(sizes, batches, quick)
    chosen = stack.choose_implementations(implementations, quick)
    more = {"limits": stack.QUICK_LIMITS} if quick else {}
    with progress_bar("stack") as tell:
        result = stack.run(
            chosen_sizes, chosen, repeats=rounds(repeats, quick), threads=threads, tell=tell, **more
        )
    show(result, stack_report, as_json, output)


@command.command(epilog=NET_EXAMPLES)
@click.argument("models", nargs=-1, shell_complete=complete_model)
@click.option(
    "--task", "tasks", multiple=True, type=Choice(["train", "image"]),
    help="train: an iteration with its update; image: one image forward (default: both).",
)  # fmt: skip
@click.option(
    "--implementations", metavar="KEY,…",
    help="Implementations to time; the first is the baseline: stock, onednn, onednn_winograd, "
    "onednn_bf16 (Caffe's convolution engines), torch, channels_last, compiled, torch_bf16 "
    "(default: all but compiled; with --quick stock, onednn_winograd and torch).",
)  # fmt: skip
@trust_option
@common_options
def net(
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    implementations: str | None,
    trust_net: bool,
    repeats: int | None,
    threads: int,
    quick: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Time whole MODELS (default: horse and atr) in Caffe and in PyTorch.

    A training iteration is forward, backward and update, at the model's batch size; an image goes
    through the deploy net. Inputs are random. All must compute the same loss, gradients and scores.
    """
    from benchmarks import net, net_report

    chosen = net.choose_implementations(implementations, quick)
    folders = {
        name: model_folder(name, trust_net)
        for name in models or (net.QUICK if quick else net.MODELS)
    }
    tasks = tasks or tuple(net.TASKS)
    with progress_bar("net") as tell:
        result = net.run(
            folders, chosen, tasks, repeats=rounds(repeats, quick), threads=threads, tell=tell
        )
    show(result, net_report, as_json, output)


@command.command(epilog=INFER_EXAMPLES)
@click.argument("model", required=False)
@click.option(
    "--weights", type=FilePath(), metavar="FILE",
    help="A caffemodel of the model (default: random weights).",
)  # fmt: skip
@click.option(
    "--implementations", metavar="KEY,…",
    help="Implementations to time; the first is the baseline: stock, onednn, onednn_winograd, "
    "onednn_bf16 (Caffe's convolution engines), onnxruntime, openvino, openvino_bf16, torch, "
    "channels_last, compiled, torch_bf16 (default: all, with --quick all but compiled).",
)  # fmt: skip
@trust_option
@common_options
def infer(
    model: str | None,
    weights: Path | None,
    implementations: str | None,
    trust_net: bool,
    repeats: int | None,
    threads: int,
    quick: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Time one image through MODEL (default: horse) in Caffe and in other programs.

    ONNX Runtime, OpenVINO and PyTorch take part if their packages are installed; those that are
    missing are named. The image is noise. All must compute the same scores, bf16 within 10 % of the
    largest.
    """
    from benchmarks import infer, infer_report

    if weights is not None and not weights.is_file():
        raise InputError(f"{weights}: there is no such file; name a caffemodel, or leave it out")
    chosen = infer.choose_implementations(implementations, quick)
    model = model or ("demo" if quick else "horse")
    folder = model_folder(model, trust_net)
    with progress_bar("infer") as tell:
        result = infer.run(
            folder.name, folder, weights, chosen,
            repeats=rounds(repeats, quick), threads=threads, tell=tell,
        )  # fmt: skip
    show(result, infer_report, as_json, output)


@command.command(epilog=DATA_EXAMPLES)
@click.argument("model", required=False, shell_complete=complete_model)
@click.option(
    "--list", "list_path", type=FilePath(), metavar="FILE",
    help="Images and labels to decode (default: the model's training list if it exists, else "
    "drawn pictures).",
)  # fmt: skip
@click.option(
    "--seconds", type=SECONDS, metavar="S",
    help="Seconds of a training iteration, such as on a GPU (default: measured here, on the CPU).",
)  # fmt: skip
@trust_option
@common_options
def data(
    model: str | None,
    list_path: Path | None,
    seconds: float | None,
    trust_net: bool,
    repeats: int | None,
    threads: int,
    quick: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Time the data layer of MODEL (default: horse) against what its training needs.

    The layer decodes, augments and resizes as in training, in the net's process or in 1 or 2
    processes of its own.
    """
    from benchmarks import data, data_report

    if list_path is not None and not list_path.is_file():
        raise InputError(f"{list_path}: there is no such list; name one of images and labels")
    model = model or ("demo" if quick else "horse")
    folder = model_folder(model, trust_net)
    with progress_bar("data") as tell:
        result = data.run(
            model,
            folder,
            list_path,
            seconds,
            repeats=rounds(repeats, quick),
            threads=threads,
            tell=tell,
        )
    show(result, data_report, as_json, output)


@command.command(epilog=SCALE_EXAMPLES)
@click.option(
    "--of", "series", multiple=True, type=Choice(["positions", "batch", "layers", "d"]),
    help="What varies; may be repeated (default: all four).",
)  # fmt: skip
@common_options
def scale(
    series: tuple[str, ...],
    repeats: int | None,
    threads: int,
    quick: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Time the C++ stack, forward and backward, as one of its sizes grows.

    A line is fitted to the cost over positions, batch and layers, a parabola to that over d: R² and
    the largest deviation say how well it fits.
    """
    from benchmarks import scale, scale_report

    with progress_bar("scale") as tell:
        result = scale.run(
            series, quick=quick, repeats=rounds(repeats, quick), threads=threads, tell=tell
        )
    show(result, scale_report, as_json, output)


def model_folder(model: str, trust_net: bool) -> Path:
    """The folder of a model's prototxts, by its name in models/ or by its path.

    Raises InputError for layers that may read or write files or run code, without `trust_net`.
    """
    folder = find_model(model).folder
    for name in ("train.prototxt", "solver.prototxt"):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: has no {name}; name a model that can be trained")
    if not trust_net:
        check_model(folder)
    return folder


def check_model(folder: Path) -> None:
    """Refuse what is run of a model if it may do more than compute and read its training data."""
    from lglstm.caffe_files import trusted
    from lglstm.caffe_files.prototxt import read_message
    from lglstm.caffe_files.schema import NetParameter, SolverParameter

    for name in ("train.prototxt", "deploy.prototxt"):
        net = read_message(folder / name, NetParameter())
        trusted.require_layers(net, folder / name)
        trusted.check_layers(net.layer, folder / name, training=True)
    solver = read_message(folder / "solver.prototxt", SolverParameter())
    inline = [field.name for field, _ in solver.ListFields() if field.name.endswith("net_param")]
    if inline:
        raise InputError(
            f"{folder}/solver.prototxt: holds a net in {inline[0]}, which is not checked; put it "
            "into a file of its own, or allow it with --trust-net"
        )


def show(result: dict[str, Any], presenter: Any, as_json: bool, output: Path | None) -> None:
    """Print a result as JSON or tables, and draw it."""
    from benchmarks import report

    result = {"command": " ".join(["lglstm", *sys.argv[1:]])} | result
    if output is not None:
        report.save(presenter.figure(result), output)
    if as_json:
        click.echo(json.dumps(result, indent=1))
        return
    console = report.console()
    for part in presenter.tables(result):
        console.print(part)
    console.print(report.machine_line(result))
    if output is not None:
        console.print(f"wrote {output}")
