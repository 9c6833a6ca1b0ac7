"""The whole of `lglstm predict`: photos and a model in, a folder of label maps and overlays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lglstm.common.errors import InputError, UsageError
from lglstm.common.labels import LabelSet
from lglstm.common.locks import locked
from lglstm.common.progress import progress_bar
from lglstm.evaluation import resume, sanity, video
from lglstm.evaluation.collection import (
    AREAS,
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
from lglstm.evaluation.predictor import Predictor
from lglstm.evaluation.video import ParsedVideo

OUTPUT = Path("runs/predict")

CHUNK = 8
"""Photos that a Dask worker gets at a time."""


@dataclass(frozen=True)
class PredictOptions:
    """What `lglstm predict` was asked for, as its --help explains."""

    model: str
    photos: tuple[Path, ...] = ()
    camera: int | None = None
    seconds: float | None = None
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

    def __post_init__(self) -> None:
        if not self.photos and self.camera is None:
            raise UsageError("give photos, folders with photos or videos, or --camera N")


@dataclass(frozen=True)
class ParsedCollection:
    """The photos in the order in which they were named, the videos, and their files."""

    photos: list[ParsedPhoto]
    files: ResultFiles
    videos: list[ParsedVideo]

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
    videos = _videos(options)
    others = [path for path in options.photos if not video.is_video(path)]
    photos = find_photos(others) if others else []
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
    folder = (options.output or _default_folder(net, maker, photos, videos)).resolve()
    files = ResultFiles(folder, labels, maker, not options.no_overlays, options.scores)
    _refuse_harm(files, photos, videos)
    with locked(folder):
        parts = (resume.LABELS, resume.OVERLAYS, resume.SCORES, resume.VIDEOS)
        resume.claim(folder, maker, parts, (AREAS,))
        if options.scheduler:
            stream = _on_cluster(options.scheduler, settings, files, photos)
        else:
            stream = parse_photos(predictor, photos, files)
        results = _in_order(stream, photos)
        if photos:
            write_areas(folder, results, labels)
        parsed = [
            _parse_video(predictor, name, source, files, options.seconds)
            for name, source in videos.items()
        ]
    for one in parsed:
        if one.is_short:
            warn(f"{one.source}: only {one.frames} of its {one.expected} frames can be read")
    if sentence := _one_class(results, labels):
        warn(sentence)
    return ParsedCollection(results, files, parsed)


def _videos(options: PredictOptions) -> dict[str, Path | int]:
    """The videos by the names of their results; InputError for two of the same name."""
    named: dict[str, Path | int] = {}
    for path in filter(video.is_video, options.photos):
        if path.stem in named:
            raise InputError(f"{path}: another video is called {path.stem}, too; parse it alone")
        named[path.stem] = path
    if options.camera is not None:
        named[f"camera{options.camera}"] = options.camera
    return named


def _refuse_harm(
    files: ResultFiles, photos: Sequence[Photo], videos: dict[str, Path | int]
) -> None:
    """Raise InputError if a result would take the place of a photo, a video or a foreign file."""
    outputs = [path for photo in photos for path in files.all_of(photo)]
    outputs += [path for name in videos for path in video.files_of(files.folder, name)]
    inputs = [photo.path for photo in photos]
    inputs += [source for source in videos.values() if isinstance(source, Path)]
    resume.refuse_harm(files.folder, inputs, outputs)


def _parse_video(
    predictor: Predictor, name: str, source: Path | int, files: ResultFiles, seconds: float | None
) -> ParsedVideo:
    with progress_bar(f"frames of {name}") as report:
        return video.parse_video(
            predictor, source, files.folder, name, files.labels, seconds, report
        )


def _default_folder(
    net: NetFiles, maker: resume.MadeBy, photos: Sequence[Photo], videos: dict[str, Path | int]
) -> Path:
    """A folder for this net with these weights on photos below the same folder."""
    if photos:
        below = photos[0].path.parents[len(Path(photos[0].name).parts) - 1]
    else:
        source = next(iter(videos.values()))
        below = Path("camera") if isinstance(source, int) else source.resolve().parent
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
