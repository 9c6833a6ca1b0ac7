"""`lglstm demo`: the main job on a small drawn set, from data to table and pictures."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from lglstm.cli.options import SEED
from lglstm.common import child
from lglstm.common.checkout import setup_advice
from lglstm.common.console import plain_console
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, write_text
from lglstm.common.locks import locked
from lglstm.common.progress import progress_bar
from lglstm.common.pycaffe import load_caffe
from lglstm.common.steady_streams import outlive_readers

if TYPE_CHECKING:
    from lglstm.evaluation.evaluator import Evaluation

NET, TWIN = "demo", "demo_conv"
TITLES = {NET: "LG-LSTM", TWIN: "convolutions"}
DRAWN, DATA, OUT = Path("data/drawn"), Path("data/demo"), Path("runs/demo")
WEIGHTS = Path("runs/demo.caffemodel")
"""A copy of the trained weights of the first net, where the documents' examples look for them."""
COMPARED_SEEDS = (1, 2, 3)
SHEET_EXAMPLES = 12
TABLE_WIDTH = 100  # where output is not a terminal, rich would cut the headings


@click.command(context_settings={"max_content_width": 100})
@click.option("--compare", is_flag=True, help="Train the twin net too, both over three seeds.")
@click.option("--seed", type=SEED, default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(compare: bool, seed: int, as_json: bool) -> None:
    """Draw animals, train a small net on them with `caffe train`, measure it, show pictures.

    Everything runs on the CPU; nothing is downloaded. Run it in the repository root. With
    --compare the same net is also trained with the LG-LSTM layers replaced by convolutions of about
    as many weights, for as many iterations, both over three seeds.

    \b
    lglstm demo
    lglstm demo --compare
    """
    console = plain_console(stderr=as_json)
    outlive_readers()
    require_root()
    load_caffe()  # before anything else loads it
    with locked(OUT, advice="run this one in another checkout"):
        prepare_data()
        names, seeds = ((NET, TWIN), COMPARED_SEEDS) if compare else ((NET,), (seed,))
        results = [train_and_measure(name, one, console) for one in seeds for name in names]
        with atomic_path(WEIGHTS) as path:
            shutil.copyfile(results[0].weights, path)
        written = OUT / "result.json"
        contents = [dataclasses.asdict(result) for result in results]
        write_text(written, json.dumps(contents, indent=1) + "\n")
    if as_json:
        click.echo(written.read_text())
        return
    console.print(table(results), soft_wrap=True)
    if compare:
        console.print(comparison(results), soft_wrap=True)
    shown = results[0]
    console.print(
        f"pictures: {shown.sheet}\nloss curve: {shown.curve}\nnumbers: {written}\n"
        f"weights: {WEIGHTS}"
    )


@dataclass(frozen=True)
class TrainedNet:
    """One trained net on the held-out images; IoU and accuracy between 0 and 1."""

    net: str
    seed: int
    training_s: float
    iou: dict[str, float]
    mean_iou: float
    pixel_accuracy: float
    weights: str
    sheet: str
    curve: str


def require_root() -> None:
    """The solver files name their nets and data relative to the repository root."""
    if not Path("models", NET, "solver.prototxt").is_file():
        raise InputError(
            f"{Path.cwd()}: has no models/{NET}; run the demo in the root of a checkout"
        )


def prepare_data() -> None:
    """Draw the set in PASCAL-Part layout and prepare it as `lglstm data horse-cow` would."""
    from lglstm.data_prep import horse_cow
    from lglstm.data_prep.prepare import SUMMARY, prepare
    from lglstm.data_prep.synthetic import make_synthetic
    from lglstm.prototxt_gen.registry import find

    if (DATA / SUMMARY).is_file():
        return
    options = find(NET).options
    with progress_bar("drawing animals") as progress:
        make_synthetic(DRAWN, options.train_images, options.test_images, on_progress=progress)
    lists = {split: DRAWN / "ImageSets" / f"{split}.txt" for split in ("train", "test")}
    data_set = horse_cow.data_set(DRAWN, horse_cow.HorseCowOptions(context=None), lists=lists)
    with progress_bar("preparing data/demo") as progress:
        prepare(data_set, DATA, on_progress=progress)


def train_and_measure(name: str, seed: int, console: Console) -> TrainedNet:
    """Train one net and measure it on the held-out images."""
    folder = OUT / f"{name}-seed{seed}"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be made anew ({error.strerror}); run the demo where you may "
            "write"
        ) from error
    solver, iterations = seeded_solver(name, seed, folder)
    weights = folder / f"{name}_iter_{iterations}.caffemodel"
    log = folder / "train.log"
    began = time.monotonic()
    train(solver, iterations, log, f"{TITLES[name]}, seed {seed}", console)
    training_s = time.monotonic() - began
    return measure(name, seed, training_s, weights, folder, log)


def seeded_solver(name: str, seed: int, folder: Path) -> tuple[Path, int]:
    """Write the model's solver file with this seed into `folder`; return it and its iterations."""
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    model = Path("models", name)
    solver = text_format.Parse((model / "solver.prototxt").read_text(), caffe_pb2.SolverParameter())
    net = text_format.Parse((model / "train.prototxt").read_text(), caffe_pb2.NetParameter())
    data = net.layer[0].python_param
    data.param_str = json.dumps(json.loads(data.param_str) | {"seed": seed})
    solver.random_seed = seed
    solver.train_net = str(folder / "train.prototxt")
    solver.snapshot_prefix = str(folder / name)
    write_text(folder / "train.prototxt", text_format.MessageToString(net))
    write_text(folder / "solver.prototxt", text_format.MessageToString(solver))
    return folder / "solver.prototxt", solver.max_iter


def train(solver: Path, total: int, log: Path, description: str, console: Console) -> None:
    """Run `caffe train` for `total` iterations; its log goes to a file, its progress to a bar."""
    from lglstm.training.snapshots import UNWRITTEN, why_unwritable

    caffe = Path(sys.executable).with_name("caffe")
    if not caffe.exists():
        raise InputError(f"{caffe}: is missing; {setup_advice()}")
    command = [str(caffe), "train", "-solver", str(solver)]
    console.print(" ".join(command), highlight=False, soft_wrap=True)
    command = child.bound_command(*command)
    # Evaluation silences Caffe for this process; its training log is wanted.
    environment = child.environment()
    environment.pop("GLOG_minloglevel", None)
    iteration = re.compile(r"Iteration (\d+) \(.*loss = (\S+)")
    with (
        progress_bar(description, console) as report,
        log.open("w", encoding="utf-8", errors="surrogateescape") as file,
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
        ) as process,
    ):
        assert process.stdout is not None  # a pipe, as asked for
        status = ""
        for line in process.stdout:
            file.write(line)
            if found := iteration.search(line):
                status = f"loss {float(found[2]):.3f}"
                report(int(found[1]), total, status)
        if process.wait() == 0:
            report(total, total, status)
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((x for x in lines if "Check failed" in x), "")
        if UNWRITTEN in last:
            last = f"The snapshot cannot be written ({why_unwritable(log)})."
        raise InputError(f"caffe train stopped with status {process.returncode}; see {log}. {last}")


def measure(
    name: str,
    seed: int,
    training_s: float,
    weights: Path,
    folder: Path,
    log: Path,
) -> TrainedNet:
    """Parse the held-out images, score them, and draw contact sheet and loss curve."""
    from lglstm.common.labels import label_set
    from lglstm.evaluation.engines import net_files
    from lglstm.evaluation.evaluator import evaluate_list
    from lglstm.evaluation.predictor import Predictor
    from lglstm.training import log as logs
    from lglstm.training import plot

    labels = label_set("horse")
    predictor = Predictor(net_files(f"models/{name}/deploy.prototxt", weights), batch_size=10)
    with progress_bar("held-out images") as progress:
        evaluation = evaluate_list(
            predictor, DATA / "test.txt", labels, folder / "predictions", report=progress
        )
    sheet, curve = folder / "sheet.png", folder / "loss.png"
    draw_sheet(evaluation, sheet)
    plot.draw([logs.read(log)], curve)
    metrics = evaluation.metrics
    iou = metrics.per_class["iou"]
    return TrainedNet(
        net=name,
        seed=seed,
        training_s=round(training_s, 1),
        iou=iou,
        mean_iou=metrics.averages["mean_iou"],
        pixel_accuracy=metrics.averages["pixel_accuracy"],
        weights=str(weights),
        sheet=str(sheet),
        curve=str(curve),
    )


def draw_sheet(evaluation: Evaluation, path: Path) -> None:
    """Image, truth and prediction of the first held-out examples."""
    from lglstm.common.images import read_label, read_photo
    from lglstm.common.sheets import SheetRow, write_sheet

    rows = [
        SheetRow(
            [read_photo(i.image.photo), read_label(i.image.label), read_label(i.prediction)],
            f"mean IoU {i.mean_iou:.2f}",
        )
        for i in evaluation.images[:SHEET_EXAMPLES]
    ]
    write_sheet(path, rows, ("image", "truth", "prediction"), evaluation.labels, columns=3)


def table(results: list[TrainedNet]) -> Table:
    """IoU of each class, mean IoU and pixel accuracy, in percent."""
    out = Table(title="held-out images, percent", width=TABLE_WIDTH)
    parts = list(results[0].iou)
    for heading in ("net", "seed", *parts, "mean IoU", "pixel acc.", "training"):
        out.add_column(heading, justify="left" if heading == "net" else "right")
    for r in results:
        values = [*r.iou.values(), r.mean_iou, r.pixel_accuracy]
        numbers = [f"{100 * value:.1f}" for value in values]
        out.add_row(TITLES[r.net], str(r.seed), *numbers, f"{r.training_s:.0f} s")
    return out


def comparison(results: list[TrainedNet]) -> str:
    """One sentence: mean IoU of both nets over the seeds, and in how many LG-LSTM is ahead."""
    means = {name: [r.mean_iou for r in results if r.net == name] for name in (NET, TWIN)}
    ahead = sum(ours > theirs for ours, theirs in zip(means[NET], means[TWIN], strict=True))
    told = ", ".join(
        f"{TITLES[name]} {100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"
        for name, values in means.items()
    )
    return f"mean IoU over {len(means[NET])} seeds: {told}; LG-LSTM ahead in {ahead}"
