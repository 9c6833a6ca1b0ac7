"""The whole of `lglstm predict`: photos and a model in, a folder of label maps and overlays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lglstm.common.errors import InputError
from lglstm.common.labels import LabelSet
from lglstm.common.locks import locked
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
from lglstm.evaluation.engines import NetFiles, choose_backend, choose_gpu, net_files
from lglstm.evaluation.label_choice import labels_of

OUTPUT = Path("runs/predict")

CHUNK = 8
"""Photos that a Dask worker gets at a time."""


@dataclass(frozen=True)
class PredictOptions:
    """What `lglstm predict` was asked for, as its --help explains."""

    model: str
    photos: tuple[Path, ...]
    weights: Path | None = None
    backend: str | None = None
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
    net = net_files(options.model, options.weights)
    backend = choose_backend(options.backend, net)
    settings = PredictorSettings(
        net.resolved() if options.scheduler else net,
        backend,
        choose_gpu(backend, options.gpu, options.cpu),
        options.batch,
        options.trust_net,
    )
    predictor = settings.open()
    labels = labels_of(predictor, options.labels, net.model)
    if sentence := sanity.untrained_layers(net.weights, predictor.engine.loaded):
        warn(sentence)
    maker = resume.made_by(predictor, labels)
    folder = (options.output or _default_folder(net, maker, photos)).resolve()
    files = ResultFiles(folder, labels, maker, not options.no_overlays, options.scores)
    with locked(folder):
        resume.claim(folder, maker, ("labels", "overlays", "scores"))
        if options.scheduler:
            stream = _on_cluster(options.scheduler, settings, files, photos)
        else:
            stream = parse_photos(predictor, photos, files)
        results = _in_order(stream, photos)
        write_areas(folder, results, labels)
    if sentence := _one_class(results, labels):
        warn(sentence)
    return ParsedCollection(results, files)


def _default_folder(net: NetFiles, maker: resume.MadeBy, photos: Sequence[Photo]) -> Path:
    """A folder for this net with these weights on photos below the same folder."""
    below = photos[0].path.parents[len(Path(photos[0].name).parts) - 1]
    parts = (maker["deploy_sha256"], maker["weights_sha256"], maker["labels"])
    return OUTPUT / net.name / resume.folder_name(net.weights.stem, *parts, below)


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
