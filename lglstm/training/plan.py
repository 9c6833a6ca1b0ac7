"""From a command line to a checked plan of one training run, before Caffe builds anything."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from lglstm.caffe_files import wire
from lglstm.caffe_files.prototxt import read_message
from lglstm.common import devices
from lglstm.common.errors import InputError, UsageError
from lglstm.common.files import sweep
from lglstm.common.locks import locked_prefix
from lglstm.common.models import find_model, named_weights
from lglstm.common.pycaffe import Message
from lglstm.common.suggest import close
from lglstm.training import log, place, record, snapshots
from lglstm.training.events import require_tensorboard
from lglstm.training.initial import weight_files

# Used when the solver file names no random_seed: a run can then be repeated, and continued.
DEFAULT_SEED = 1


@dataclass(frozen=True)
class TrainOptions:
    """What the user asked for; `gpu` as typed ("0", "0,1", "all"), None to choose by itself."""

    model: str
    resume: bool = False
    overwrite: bool = False
    gpu: str | None = None
    cpu: bool = False
    iterations: int | None = None
    weights: str | None = None
    settings: tuple[str, ...] = ()
    verbose: bool = False
    json: bool = False
    tensorboard: bool = False


@dataclass(frozen=True)
class TrainingPlan:
    """One training run with everything decided; it travels to the worker process as JSON.

    `solver` is the text of the SolverParameter to train with, `prefix` its snapshot prefix as an
    absolute path. The other files of a run are next to the snapshots under the same prefix.
    """

    solver: str
    folder: str
    prefix: str
    gpus: tuple[int, ...]
    resume: str | None
    overwrite: bool
    verbose: bool
    json: bool
    tensorboard: bool = False
    rank: int = 0
    nccl_id: str = ""

    @property
    def name(self) -> str:
        return Path(self.prefix).name

    @property
    def csv(self) -> Path:
        return Path(f"{self.prefix}.csv")

    @property
    def events(self) -> Path:
        return Path(f"{self.prefix}.tensorboard")

    @property
    def curve(self) -> Path:
        return Path(f"{self.prefix}.png")

    @property
    def log(self) -> Path:
        return Path(f"{self.prefix}.log")

    @property
    def record(self) -> Path:
        return Path(f"{self.prefix}.run.json")

    def parameters(self) -> Message:
        """The SolverParameter."""
        return text_format.Parse(self.solver, caffe_pb2.SolverParameter())

    def nets(self) -> list[Message]:
        """The nets that the solver names or holds."""
        solver = self.parameters()
        tests = [self._net(name) for name in solver.test_net]
        return [*self._train_nets(solver), *tests, *solver.test_net_param]

    def settings(self) -> dict[str, Any]:
        """What the run must be continued with; see `place`."""
        layers = self.data_layers()
        folder = Path(self.folder)
        return place.settings(self.parameters(), max(1, len(self.gpus)), layers, folder)

    def data_layers(self) -> list[Message]:
        """The layers that bring data into the net that is trained."""
        return [layer for net in self._train_nets(self.parameters())
                for layer in place.data_layers(net)]  # fmt: skip

    def _train_nets(self, solver: Message) -> list[Message]:
        names = [name for name in (solver.net, solver.train_net) if name]
        return [*map(self._net, names), solver.net_param, solver.train_net_param]

    def _net(self, name: str) -> Message:
        return read_message(Path(self.folder) / name, caffe_pb2.NetParameter())

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrainingPlan:
        fields = json.loads(text)
        return cls(**{**fields, "gpus": tuple(fields["gpus"])})


@dataclass(frozen=True)
class _Draft:
    """Where a run comes from, and where it goes to."""

    solver: Message
    path: Path
    folder: Path
    prefix: Path


@contextmanager
def locked_plan(options: TrainOptions) -> Iterator[TrainingPlan]:
    """Check the options and every file they name; raise InputError for the first that is wrong.

    While the block runs, no other training can have the same prefix.
    """
    draft = _draft(options)
    with locked_prefix(draft.prefix, "set another place with --set snapshot_prefix=FOLDER/NAME"):
        yield _complete(draft, options)


def _draft(options: TrainOptions) -> _Draft:
    found = find_model(options.model, "solver")
    if found.is_packaged:
        raise InputError(
            f"{found.file}: belongs to the installed package, which has no data and no runs beside "
            f"it; write the model here with `lglstm models generate {found.name}`, then train it"
        )
    path, folder = found.file.resolve(), found.root
    solver = read_message(path, caffe_pb2.SolverParameter())
    for setting in _grouped(options.settings):
        _apply_setting(solver, *setting)
    if options.iterations is not None:
        solver.max_iter = options.iterations
    return _Draft(solver, path, folder, _snapshot_prefix(solver, path, folder))


def _complete(draft: _Draft, options: TrainOptions) -> TrainingPlan:
    if options.tensorboard:
        require_tensorboard()
    solver, path, folder, prefix = draft.solver, draft.path, draft.folder, draft.prefix
    _check_solver(solver, path, folder)
    resume = _choose_snapshot(options, solver, prefix, folder)
    _choose_weights(options, solver, folder)
    # The solver's `solver_mode` is for `caffe train`; one file then serves machines of both kinds.
    gpus = devices.choose_gpus(options.gpu, options.cpu, solver.device_id)
    solver.solver_mode = solver.GPU if gpus else solver.CPU
    if solver.random_seed < 0:
        solver.random_seed = DEFAULT_SEED
    plan = TrainingPlan(
        solver=text_format.MessageToString(solver),
        folder=str(folder),
        prefix=str(prefix),
        gpus=gpus,
        resume=str(resume) if resume else None,
        overwrite=options.overwrite,
        verbose=options.verbose,
        json=options.json,
        tensorboard=options.tensorboard,
    )
    if resume:
        _require_same_place(plan, resume)
    return plan


def _require_same_place(plan: TrainingPlan, state: Path) -> None:
    layers = plan.data_layers()
    if layers:  # a net in the form of old has none that are called `layer`
        place.require_same_layers(state, layers)
    before = record.read(plan.record, warn=False).settings
    place.require_same_settings(state, before, plan.settings())


def _grouped(settings: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """`key=value` texts as (key, values), so that a repeated field can be given value by value."""
    grouped: dict[str, list[str]] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: expected key=value, for example base_lr=0.0005")
        grouped.setdefault(key.strip(), []).append(value.strip())
    return list(grouped.items())


def _apply_setting(solver: Message, key: str, values: list[str]) -> None:
    field = solver.DESCRIPTOR.fields_by_name.get(key)
    if field is None or field.message_type is not None:
        simple = [f.name for f in solver.DESCRIPTOR.fields if f.message_type is None]
        meant = close(key, simple)
        raise UsageError(
            f"--set {key}: is not a simple field of Caffe's SolverParameter"
            + (f"; did you mean {meant}" if meant else "")
        )
    if len(values) > 1 and not field.is_repeated:
        raise UsageError(f"--set {key}: given {len(values)} times; this field takes one value")
    if field.type == field.TYPE_STRING:
        values = [json.dumps(value) for value in values]
    solver.ClearField(key)
    try:
        text_format.Parse("".join(f"{key}: {value}\n" for value in values), solver)
    except text_format.ParseError as error:
        raise UsageError(f"--set {key}={values[0]}: {error}; give a value of its type") from error


def _snapshot_prefix(solver: Message, path: Path, folder: Path) -> Path:
    """Complete `snapshot_prefix` as Caffe does; the solver keeps it relative, for other machines.

    Caffe stores this path in each snapshot, and looks there for the weights on resuming.
    """
    if not solver.snapshot_prefix:
        solver.snapshot_prefix = _for_caffe(str(path.with_suffix("")))
    elif os.path.isdir(folder / solver.snapshot_prefix):
        solver.snapshot_prefix = _for_caffe(os.path.join(solver.snapshot_prefix, path.stem))
    prefix = folder / solver.snapshot_prefix
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{prefix.parent}: cannot be made ({error.strerror}); set another place with "
            "--set snapshot_prefix=FOLDER/NAME"
        ) from error
    # What cannot be listed may hold an earlier run.
    if not os.access(prefix.parent, os.R_OK | os.W_OK | os.X_OK):
        raise InputError(
            f"{prefix.parent}: may not be read and written by you; set another place with "
            "--set snapshot_prefix=FOLDER/NAME"
        )
    # Here, because a run that was killed at its very end is never written to again.
    sweep(prefix.parent)
    snapshots.sweep_probes(prefix)
    return prefix


def _for_caffe(name: str) -> str:
    """A path as a text of a SolverParameter, which is UTF-8; a path on the disk may hold anything.

    InputError for one that is not.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: is not a path in UTF-8, as Caffe's solver needs; rename the file or folder"
        ) from error
    return name


def _check_solver(solver: Message, path: Path, folder: Path) -> None:
    if not (solver.net or solver.train_net or solver.HasField("net_param")
            or solver.HasField("train_net_param")):  # fmt: skip
        raise InputError(f"{path}: names no net to train; add net: or train_net:")
    for name in net_files(solver):
        read_message(folder / name, caffe_pb2.NetParameter(), for_caffe=True)
    if solver.max_iter <= 0:
        raise InputError(f"{path}: has no max_iter; add it, or give --iterations N")
    _check_numbers(solver, path)
    if solver.snapshot_format != solver.BINARYPROTO:
        raise InputError(
            f"{path}: snapshot_format HDF5 cannot be checked and resumed here; leave it out, or "
            "give --set snapshot_format=BINARYPROTO"
        )


# The smallest values that mean something, and where; Caffe takes others, and divides by 0, trains
# nothing or writes snapshots that nobody has asked for.
SMALLEST: tuple[tuple[str, int, Callable[[Message], bool]], ...] = (
    ("iter_size", 1, lambda solver: True),
    ("average_loss", 1, lambda solver: True),
    ("snapshot", 0, lambda solver: True),
    ("display", 0, lambda solver: True),
    ("test_interval", 0, lambda solver: True),
    ("test_iter", 1, lambda solver: solver.test_interval > 0),
    ("stepsize", 1, lambda solver: solver.lr_policy == "step"),
)


def _check_numbers(solver: Message, path: Path) -> None:
    for name, least, counts in SMALLEST:
        given = getattr(solver, name)
        for value in [given] if isinstance(given, int) else given:
            if counts(solver) and value < least:
                raise _wrong_number(path, name, value, f"at least {least} is needed")
    for field, value in solver.ListFields():
        if isinstance(value, float) and not math.isfinite(value):
            raise _wrong_number(path, field.name, value, "a finite number is needed")


def _wrong_number(path: Path, name: str, value: float, needed: str) -> InputError:
    return InputError(
        f"{path}: {name} is {value} where {needed}; correct it there or in --set {name}=VALUE"
    )


def net_files(solver: Message) -> list[str]:
    return [name for name in (solver.net, solver.train_net, *solver.test_net) if name]


def _choose_snapshot(
    options: TrainOptions, solver: Message, prefix: Path, folder: Path
) -> Path | None:
    """The snapshot to continue from, or None for a start from iteration 0."""
    existing = snapshots.find(prefix)
    if not options.resume:
        if not options.overwrite:
            _require_no_earlier_run(prefix, existing)
        return None
    if options.weights or options.overwrite:
        other = "--weights" if options.weights else "--overwrite"
        raise UsageError(f"--resume and {other} exclude each other; give one of them")
    if not existing:
        raise InputError(f"{prefix}_iter_*.solverstate: nothing to resume; start without --resume")
    known = record.read(Path(f"{prefix}.run.json"))
    newest = snapshots.newest_good(prefix, known, folder)
    at = snapshots.iteration(newest)
    if known.settings:
        known.complete(at, newest, Path(f"{prefix}.run.json"))
    table = Path(f"{prefix}.csv")
    if at > solver.max_iter or (at == solver.max_iter and not _lacks_last_test(solver, table)):
        _bring_curve_up_to_date(table, prefix)
        raise InputError(
            f"{newest}: already at iteration {at} of {solver.max_iter}; nothing is left to train; "
            "give --iterations N with a larger N to continue"
        )
    return newest


def _require_no_earlier_run(prefix: Path, states: list[Path]) -> None:
    """Refuse to replace what took hours to make, or is the user's own."""
    if states:
        raise InputError(
            f"{states[0]}: exists from an earlier run; continue it with --resume, or "
            "start again with --overwrite, which deletes that run's files"
        )
    if kept := _kept_without_state(prefix):
        raise InputError(
            f"{kept}: exists from an earlier run, which cannot be continued without its "
            ".solverstate; set another place with --set snapshot_prefix=FOLDER/NAME, or start "
            "again with --overwrite, which deletes that run's files"
        )


def _kept_without_state(prefix: Path) -> Path | None:
    """Weights without a .solverstate, or a table without a record, that a run would replace.

    A run that was killed in its first snapshot leaves weights, too. Nobody keeps these: its record
    is there, and does not name them.
    """
    path, table = Path(f"{prefix}.run.json"), Path(f"{prefix}.csv")
    known = record.read(path, warn=False)
    for model in snapshots.find_weights(prefix):
        if not known.settings or str(snapshots.iteration(model)) in known.snapshots:
            return model
    return table if os.path.lexists(table) and not path.exists() else None


def _lacks_last_test(solver: Message, table: Path) -> bool:
    """Whether a run was killed between its last snapshot and the end of the test after it."""
    if not solver.test_interval or solver.max_iter % solver.test_interval or not table.exists():
        return False
    with contextlib.suppress(InputError):
        return not any(solver.max_iter in curve for curve in log.read(table).tests.values())
    return False


def _bring_curve_up_to_date(table: Path, prefix: Path) -> None:
    """Draw what a run had no time to draw that was killed after its last snapshot."""
    from lglstm.training.plot import draw

    curve = Path(f"{prefix}.png")
    # There is nothing to train in any case, and matplotlib raises whatever it likes.
    with contextlib.suppress(Exception):
        if not curve.exists() or curve.stat().st_mtime_ns < table.stat().st_mtime_ns:
            draw([log.read(table)], curve)


def _choose_weights(options: TrainOptions, solver: Message, folder: Path) -> None:
    """Initial weights as `caffe train` takes them: none on resuming, --weights before the file."""
    if options.resume:
        solver.ClearField("weights")
    elif options.weights:
        solver.ClearField("weights")
        names = map(named_weights, options.weights.split(","))
        solver.weights.extend(_for_caffe(os.path.abspath(name)) for name in names)
    for name in weight_files(solver):
        if options.weights:
            wire.require_readable(name)
        elif not os.path.isfile(folder / name):
            raise InputError(
                f"{name}: the initial weights do not exist; make them with lglstm init-weights, "
                "or name others with --weights FILE"
            )
