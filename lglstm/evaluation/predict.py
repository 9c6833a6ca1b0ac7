"""The whole of `lglstm predict`: photos and a model in, a folder of label maps and overlays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lglstm.common.devices import choose_gpu
from lglstm.common.errors import InputError
from lglstm.common.labels import LabelSet
from lglstm.common.locks import locked
from lglstm.common.models import find_model, find_weights
from lglstm.common.progress import progress_bar
from lglstm.evaluation import resume, sanity
from lglstm.evaluation.collection import (
    ParsedPhoto,
    Photo,
    PredictorSettings,
    ResultFiles,
    find_photos,
    parse_chunk,
    parse_photos,
    write_areas,
)
from lglstm.evaluation.label_choice import check_classes, choose_labels
from lglstm.evaluation.predictor import Predictor

OUTPUT = Path("runs/predict")

CHUNK = 8
"""Photos that a Dask worker gets at a time."""


@dataclass(frozen=True)
class PredictOptions:
    """What `lglstm predict` was asked for, as its --help explains."""

    model: str
    photos: tuple[Path, ...]
    weights: Path | None = None
    output: Path | None = None
    labels: str | None = None
    scores: bool = False
    no_overlays: bool = False
    batch: int = 1
    gpu: int | None = None
    cpu: bool = False
    trust_net: bool = False
    scheduler: str | None = None


@dataclass(frozen=True)
class ParsedCollection:
    """The photos in the order in which they were named, and their files."""

    photos: list[ParsedPhoto]
    files: ResultFiles

    @property
    def parsed(self) -> list[ParsedPhoto]:
        return [photo for photo in self.photos if not photo.error]

    @property
    def unreadable(self) -> list[ParsedPhoto]:
        return [photo for photo in self.photos if photo.error]


def predict(options: PredictOptions, warn: Callable[[str], None]) -> ParsedCollection:
    """Parse everything that is not parsed yet; write areas.csv last.

    warn: gets sentences that a reader of the results must know, as early as they are known.
    """
    photos = find_photos(options.photos)
    model = find_model(options.model)
    weights = find_weights(options.weights, model)
    gpu = choose_gpu(options.gpu, options.cpu)
    predictor = Predictor(
        model.file,
        weights,
        gpu=gpu,
        batch_size=options.batch,
        trust_net=options.trust_net,
    )
    labels = choose_labels(options.labels, model, predictor.num_classes, None)
    check_classes(predictor, labels)
    if sentence := sanity.untrained_layers(weights, predictor.loaded):
        warn(sentence)
    maker = resume.made_by(predictor, labels)
    folder = (options.output or _default_folder(model.name, weights, maker, photos)).resolve()
    files = ResultFiles(folder, labels, maker, not options.no_overlays, options.scores)
    with locked(folder):
        resume.claim(folder, maker, ("labels", "overlays", "scores"))
        if options.scheduler:
            settings = PredictorSettings(
                model.file.resolve(),
                weights.resolve(),
                gpu,
                options.batch,
                options.trust_net,
            )
            stream = _on_cluster(options.scheduler, settings, files, photos)
        else:
            stream = parse_photos(predictor, photos, files)
        results = _in_order(stream, photos)
        write_areas(folder, results, labels)
    if sentence := _one_class(results, labels):
        warn(sentence)
    return ParsedCollection(results, files)


def _default_folder(
    model: str, weights: Path, maker: resume.MadeBy, photos: Sequence[Photo]
) -> Path:
    """A folder for this net with these weights on photos below the same folder."""
    below = photos[0].path.parents[len(Path(photos[0].name).parts) - 1]
    net = (maker["deploy_sha256"], maker["weights_sha256"], maker["labels"])
    return OUTPUT / model / resume.folder_name(weights.stem, *net, below)


def _on_cluster(
    address: str, settings: PredictorSettings, files: ResultFiles, photos: Sequence[Photo]
) -> Iterator[ParsedPhoto]:
    """Parse the collection on Dask workers, chunk by chunk; yield the results as they come."""
    from lglstm.common.parallel import stream

    size = max(CHUNK, settings.batch_size)
    chunks = (tuple(photos[k : k + size]) for k in range(0, len(photos), size))
    try:
        for _, results in stream(partial(parse_chunk, settings, files), chunks, scheduler=address):
            yield from results or ()
    except Exception as error:
        if type(error).__name__ != "KilledWorker":  # of distributed, which may not be installed
            raise
        raise InputError(
            f"{address}: workers died again and again on the same photos; give them more memory, "
            "then give the same command again (what is done is kept)"
        ) from error


def _in_order(stream: Iterator[ParsedPhoto], photos: Sequence[Photo]) -> list[ParsedPhoto]:
    """Follow the results with a progress bar; return them in the order of the photos."""
    by_name: dict[str, ParsedPhoto] = {}
    with progress_bar("photos") as report:
        report(0, len(photos))
        for result in stream:
            by_name[result.photo.name] = result
            report(len(by_name), len(photos))
    return [by_name[photo.name] for photo in photos]


def _one_class(results: Sequence[ParsedPhoto], labels: LabelSet) -> str | None:
    parsed = (result.pixels for result in results if not result.error)
    pixels = [sum(column) for column in zip(*parsed, strict=True)]
    return sanity.one_class(labels.names, pixels) if pixels else None
