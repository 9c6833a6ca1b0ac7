"""The whole of `lglstm evaluate`: a model or label maps in, evaluation.json and report out."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lglstm.common.errors import InputError, UsageError
from lglstm.common.labels import LabelSet
from lglstm.common.locks import locked
from lglstm.common.models import ModelFiles, find_model
from lglstm.common.progress import progress_bar
from lglstm.evaluation import engines, evaluation_json, nets, paper, report, sanity
from lglstm.evaluation.engines import NetFiles
from lglstm.evaluation.evaluation_json import Provenance
from lglstm.evaluation.label_choice import choose_labels, labels_of
from lglstm.evaluation.paper import Cell

if TYPE_CHECKING:
    from lglstm.evaluation.evaluator import Evaluation

OUTPUT = Path("runs/evaluation")


@dataclass(frozen=True)
class EvaluateOptions:
    """What `lglstm evaluate` was asked for, as its --help explains.

    Raises UsageError for options that do not go together.
    """

    model: str | None = None
    weights: Path | None = None
    backend: str | None = None
    list_path: Path | None = None
    root: Path | None = None
    predictions: Path | None = None
    labels: str | None = None
    row: str | None = None
    expect: str | None = None
    tolerance: float = 0.5
    all_layers: bool = False
    class_offsets: bool = False
    log: Path | None = None
    output: Path | None = None
    batch: int = 1
    gpu: int | None = None
    cpu: bool = False
    trust_net: bool = False

    def __post_init__(self) -> None:
        if self.predictions is None and self.model is None:
            raise UsageError(
                "give MODEL to run a net, or --predictions DIR to score label maps that already "
                "exist"
            )
        runs_net = self.weights is not None or self.all_layers or self.class_offsets
        if self.predictions is not None and runs_net:
            raise UsageError(
                "--predictions scores finished label maps, so --weights, --all-layers and "
                "--class-offsets have no use with it; leave them out"
            )
        if self.class_offsets and (self.all_layers or self.expect or self.row):
            raise UsageError(
                "--class-offsets is for comparing nets with each other: the paper has no such "
                "numbers, nor have the earlier layers; leave out --paper, --expect and --all-layers"
            )
        if self.expect and self.row and self.expect != self.row:
            raise UsageError("--expect and --paper name different rows; give one of them")


@dataclass(frozen=True)
class EvaluationFiles:
    """What an evaluation wrote into `folder`: evaluation.json's contents and its table's cells."""

    contents: dict
    cells: list[Cell]
    folder: Path

    @property
    def report(self) -> Path:
        return self.folder / report.FILE

    def missed(self, tolerance: float) -> list[Cell]:
        """The cells in which the paper's number is off by more than `tolerance` points."""
        return paper.outside(self.cells, tolerance)


@dataclass(frozen=True)
class _Scored:
    """An evaluation, where its label maps are, and where its files go."""

    evaluation: Evaluation
    folder: Path
    label_maps: Path
    weights: Path | None = None
    weights_sha256: str | None = None
    warning: str | None = None


def evaluate(options: EvaluateOptions, warn: Callable[[str], None]) -> EvaluationFiles:
    """Predict what is not predicted yet, score it, and write evaluation.json and the report.

    warn: gets the sentences that the report warns with, too.
    """
    curves = _curves(options.log)
    files = None
    if options.predictions is None:
        assert options.model is not None  # see EvaluateOptions
        files = engines.net_files(options.model, options.weights)
        model = files.model
    else:
        model = find_model(options.model) if options.model else None
    row = None if options.class_offsets else _row_of(options, model)
    list_path = _list_of(options, model)
    with contextlib.ExitStack() as held:  # the lock of the folder, once that is known
        if options.predictions is not None:
            scored = _score_label_maps(options, options.predictions, model, list_path, row, held)
        else:
            assert files is not None
            scored = _run_net(options, files, list_path, row, held)
        return _write(scored, model, list_path, row, curves, warn)


def _row_of(options: EvaluateOptions, model: ModelFiles | None) -> str | None:
    """The paper's row that was asked for, else the model's own."""
    return options.expect or options.row or (paper.row_of_model(model.name) if model else None)


def _write(
    scored: _Scored,
    model: ModelFiles | None,
    list_path: Path,
    row: str | None,
    curves: dict[str, dict[int, float]],
    warn: Callable[[str], None],
) -> EvaluationFiles:
    """Compare, and write evaluation.json and the report."""
    evaluation = scored.evaluation
    warnings = [sentence for sentence in (scored.warning, *_doubts(evaluation)) if sentence]
    for sentence in warnings:
        warn(sentence)
    cells = paper.compare(evaluation.metrics, row)
    provenance = Provenance(
        model=model.name if model else None,
        weights=str(scored.weights) if scored.weights else None,
        weights_sha256=scored.weights_sha256,
        predictions=str(scored.label_maps),
        list=str(list_path),
        labels=evaluation.labels.name,
        row=row,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        warnings=tuple(warnings),
    )
    contents = evaluation_json.as_dict(provenance, evaluation, cells)
    evaluation_json.write(scored.folder / evaluation_json.FILE, contents)
    report.write(scored.folder / report.FILE, provenance, evaluation, cells, curves)
    return EvaluationFiles(contents, cells, scored.folder)


def _list_of(options: EvaluateOptions, model: ModelFiles | None) -> Path:
    """The list that was asked for, else the model's own."""
    if options.list_path:
        return options.list_path
    if model and (test_list := nets.test_list(model)):
        return test_list
    raise InputError("the images to score are not known; name their list with --list FILE")


def _run_net(
    options: EvaluateOptions,
    files: NetFiles,
    list_path: Path,
    row: str | None,
    held: contextlib.ExitStack,
) -> _Scored:
    """Parse and score the images of the list."""
    from lglstm.evaluation import label_maps, resume
    from lglstm.evaluation.evaluator import evaluate_list
    from lglstm.evaluation.predictor import Predictor

    backend = engines.choose_backend(options.backend, files)
    gpu = engines.choose_gpu(backend, options.gpu, options.cpu)
    predictor = Predictor(
        files,
        gpu=gpu,
        batch_size=options.batch,
        backend=backend,
        test=_test_net(files, backend) if options.all_layers else None,
        trust_net=options.trust_net,
    )
    labels = labels_of(predictor, options.labels, files.model, list_path)
    _check_row(row, labels)
    engine = predictor.engine
    net = (engine.deploy_sha256, engine.weights_sha256, labels.name)
    data = (list_path.resolve(), options.root and options.root.resolve())
    stem = files.weights.stem + ("-class_offsets" if options.class_offsets else "")
    name = resume.folder_name(stem, *net, *data)
    folder = options.output or OUTPUT / files.name / name
    held.enter_context(locked(folder))
    with progress_bar(f"{files.name} on {engines.words(gpu)}") as progress:
        evaluation = evaluate_list(
            predictor,
            list_path,
            labels,
            folder,
            root=options.root,
            with_offsets=options.class_offsets,
            report=progress,
        )
    written = label_maps.folder_of(folder, nets.OUTPUT)
    warning = sanity.untrained_layers(files.weights, engine.loaded)
    return _Scored(evaluation, folder, written, files.weights, engine.weights_sha256, warning)


def _test_net(files: NetFiles, backend: str) -> Path:
    """The net with the classifiers of all layers."""
    if files.model is None or backend != "caffe":
        raise InputError("only Caffe gives the scores of all layers; leave out --all-layers")
    return files.model.form("test")


def _score_label_maps(
    options: EvaluateOptions,
    predictions: Path,
    model: ModelFiles | None,
    list_path: Path,
    row: str | None,
    held: contextlib.ExitStack,
) -> _Scored:
    """Score label maps that exist; needs no Caffe."""
    from lglstm.evaluation import resume
    from lglstm.evaluation.evaluator import evaluate_label_maps
    from lglstm.evaluation.image_list import read_image_list

    labels = choose_labels(options.labels, model, None, list_path)
    _check_row(row, labels)
    images = read_image_list(list_path, options.root)
    data = (list_path.resolve(), options.root and options.root.resolve())
    maps = predictions.resolve()
    folder = options.output or OUTPUT / resume.folder_name(maps.name, maps, labels.name, *data)
    held.enter_context(locked(folder))
    with progress_bar("label maps") as progress:
        evaluation = evaluate_label_maps(images, predictions, labels, progress)
    return _Scored(evaluation, folder, predictions)


def _check_row(row: str | None, labels: LabelSet) -> None:
    """A row of the paper that does not fit is told before an hour of work."""
    paper.headings(row, labels.names)


def _doubts(evaluation: Evaluation) -> tuple[str | None, ...]:
    predicted = evaluation.metrics.matrix.sum(axis=0).tolist()
    return (
        _said_of_offsets(evaluation),
        sanity.one_class(evaluation.labels.names, predicted),
        sanity.never_predicted(evaluation.metrics),
    )


def _said_of_offsets(evaluation: Evaluation) -> str | None:
    """That the numbers are not the paper's kind, and what was added to the scores."""
    if not evaluation.class_offsets:
        return None
    names = evaluation.labels.names[1:]
    used = "; ".join(
        ", ".join(f"{name} {added:+.2f}" for name, added in zip(names, own[1:], strict=True))
        for own in evaluation.class_offsets
    )
    return (
        "constants were added to the scores of the classes, each half of the list with those that "
        f"are best for the other half ({used}); compare such numbers with each other only"
    )


def _curves(path: Path | None) -> dict[str, dict[int, float]]:
    """Name → {iteration: loss} of a training run; empty without its log."""
    if path is None:
        return {}
    from lglstm.training import log

    run = log.read(path)
    curves = {"training loss": run.losses[log.TOTAL]}
    if run.tests.get(log.TOTAL):
        curves["test loss"] = run.tests[log.TOTAL]
    return curves
