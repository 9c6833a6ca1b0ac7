"""One training run: Caffe's own `Solver::Solve`, with our hooks around its iterations.

Caffe computes, tests, displays and writes snapshots exactly as under `caffe train`. What makes a
run repeatable and resumable is here: Caffe's snapshots hold neither the state of its random
generator nor the place in the data, so before each iteration the generator is seeded from the run's
seed and the iteration, and after a restore the data layers are brought to their place.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import caffe
import numpy as np
from google.protobuf import text_format

from lglstm.common import convolution_engine, devices
from lglstm.common.errors import InputError, reason_of
from lglstm.common.pycaffe import Solver
from lglstm.training import health, initial, log, record, snapshots
from lglstm.training.display import Display
from lglstm.training.events import EventLog
from lglstm.training.place import PLACELESS
from lglstm.training.plan import TrainingPlan
from lglstm.training.plot import draw
from lglstm.training.probe import Probe, source_layers
from lglstm.training.stop import Stopped, StopRequest

_libc = ctypes.CDLL(None)


class Diverged(Exception):
    """A number that is not finite came up, or a loss that says nothing any more."""

    def __init__(self, iteration: int, what: str, culprit: health.Culprit | None):
        self.culprit = culprit
        where = f"; in net order it starts in {culprit}; {culprit.remedy}" if culprit else ""
        super().__init__(f"iteration {iteration}: {what}{where}")


@dataclass
class TrainingSummary:
    """How a run ended. `loss` is the mean of the last tenth of this run's iterations."""

    name: str
    outcome: str  # finished, interrupted or diverged
    device: str
    start: int
    iteration: int
    max_iter: int
    loss: float | None
    tests: dict[str, float]
    seconds: float
    data_seconds: float
    snapshot: str | None
    weights: str | None
    csv: str
    curve: str | None
    log: str
    message: str = ""
    culprit: dict[str, str] | None = None


def seed_iteration(seed: int, rank: int, iteration: int) -> None:
    """Seed all generators that layers draw from for one iteration of one process of a run.

    These are Caffe's own, C's (HDF5Data shuffles with it) and NumPy's (for Python layers). A hash
    and not seed + iteration, by which runs with neighboring seeds would share dropout masks.
    """
    number = int(np.random.SeedSequence([seed, rank, iteration]).generate_state(1)[0])
    caffe.set_random_seed(number)
    _libc.srand(number)
    np.random.seed(number)


def build_solver(plan: TrainingPlan, given: Sequence[initial.InitialWeights]) -> Solver:
    """Choose the device, and let Caffe build the nets and restore the plan's snapshot.

    given: the weights to start from.
    """
    devices.select_gpu(plan.gpus[plan.rank] if plan.gpus else None)
    if len(plan.gpus) > 1:
        caffe.set_solver_count(len(plan.gpus))
        caffe.set_solver_rank(plan.rank)
        caffe.set_multiprocess(True)
    _import_python_layers(plan)
    parameters = plan.parameters()
    # In memory: a full disk does not matter, and a killed process leaves no file.
    with (
        initial.readable_by_caffe(given) as paths,
        os.fdopen(os.memfd_create("solver.prototxt"), "w", encoding="utf-8") as file,
    ):
        parameters.weights[:] = paths
        file.write(text_format.MessageToString(parameters))
        file.flush()
        solver = caffe.get_solver(f"/proc/self/fd/{file.fileno()}")
    if plan.resume:
        solver.restore(plan.resume)
    return solver


def _import_python_layers(plan: TrainingPlan) -> None:
    """Caffe itself says little about a Python layer that it cannot make."""
    for net in plan.nets():
        for layer in (layer for layer in net.layer if layer.type == "Python"):
            module, name = layer.python_param.module, layer.python_param.layer
            try:
                getattr(importlib.import_module(module), name)
            except (ImportError, AttributeError) as error:
                raise InputError(
                    f"layer '{layer.name}': {module}.{name} cannot be imported ({error}); put the "
                    "module's folder on PYTHONPATH, or install what it needs"
                ) from error


def advance_data(solver: Solver, plan: TrainingPlan, stop: StopRequest) -> None:
    """After a restore, bring data layers that keep no position of their own to their place.

    They serve the batches of the iterations before once more, with the seeds of then. A layer that
    keeps its position in a parameter blob (SegData) was restored with the snapshot.
    """
    net, parameters = solver.net, plan.parameters()
    layers = [k for k in source_layers(net) if not len(net.layers[k].blobs)]
    layers = [k for k in layers if net.layers[k].type not in PLACELESS]
    for iteration in range(solver.iter if layers else 0):
        stop.check()
        seed_iteration(parameters.random_seed, plan.rank, iteration)
        for index in layers * parameters.iter_size:
            net._forward(index, index)


class Training:
    """A run that is built and ready to go; the first or only process of it."""

    def __init__(self, plan: TrainingPlan, stop: StopRequest, stream: TextIO):
        self.plan, self.stop = plan, stop
        self.parameters = plan.parameters()
        given = initial.read(self.parameters)  # before Caffe, which aborts on a damaged file
        self.solver = build_solver(plan, given)
        self.net = self.solver.net
        self.start = self.solver.iter
        health.require_space(Path(plan.prefix).parent, snapshots.size(self.net, self.parameters))
        self.display = Display(
            plan.name, self.start, self.parameters.max_iter, self.parameters.display, stream,
            plain=plan.verbose,
        )  # fmt: skip
        self._report_weights(given)
        self._advise()
        self.probe = Probe(self.solver, self.parameters.iter_size, list(self.parameters.test_iter))
        nets = plan.nets()
        self.watch = health.LossWatch(self.net, nets)
        for net in (self.net, *self.solver.test_nets):
            health.watch_labels(net, nets)
        self.row: dict[str, float] | None = None
        self.events: EventLog | None = None
        self.recent: list[float] = []
        self.tests: dict[str, float] = {}
        self.data_seconds = 0.0
        self.snapshot = Path(plan.resume) if plan.resume else None
        self.nccl = connect(self.solver, plan) if len(plan.gpus) > 1 else None
        self._listen()

    def run(self) -> TrainingSummary:
        """Train to the end, or until a stop request or a loss that is not finite."""
        if self.plan.overwrite:
            snapshots.remove_all(self.plan.prefix)
        earlier = record.read(self.plan.record, warn=False).up_to(self.start) if self.start else {}
        self.record = record.RunRecord(self.plan.settings(), earlier)
        self.record.save(self.plan.record)
        self.csv = log.CsvLog(self.plan.csv, self.probe.columns, self.start)
        if self.csv.lost:
            self.display.note(f"warning: {self.csv.lost}")
        if self.plan.tensorboard:
            self.events = EventLog(self.plan.events, self.start)
        self.began = time.perf_counter()
        try:
            outcome, diverged = self._solve()
        except InputError as error:
            self._draw()
            raise InputError(f"{error}; {self._kept}") from error
        finally:
            self.csv.close()
            self._tell_events(lambda events: events.close())
            self.display.close()
        self._draw()
        return self._summary(outcome, diverged)

    def _solve(self) -> tuple[str, Diverged | None]:
        try:
            return self._solve_or_stop(), None
        except Diverged as error:
            self._finish_row()
            return "diverged", error

    def _solve_or_stop(self) -> str:
        try:
            self._advance()
            self.solver.solve()
            self._finish()
            return "finished"
        except Stopped:
            self._finish_row()
            self._snapshot_now()
            return "interrupted"

    # -- before the first iteration

    def _report_weights(self, given: Sequence[initial.InitialWeights]) -> None:
        """Say which layers the initial weights fill: Caffe skips unknown names in silence."""
        learned = [
            name for name, blobs in self.net.params.items()
            if len(blobs) and self.net.bottom_names[name]  # a data layer's are its place
        ]  # fmt: skip
        missing = set(learned)
        for weights in given:
            filled = weights.layers.intersection(learned)
            if not filled:
                raise InputError(
                    f"{weights.path}: none of its layers is in this net; give weights of the "
                    "same backbone"
                )
            self.display.note(f"{weights.path}: fills {len(filled)} of {len(learned)} layers")
            missing -= filled
        if given and missing:
            names = ", ".join(name for name in learned if name in missing)
            self.display.note(f"not in these weights: {names}")

    def _advise(self) -> None:
        """Say how to train faster on a CPU, to whoever has not chosen how to."""
        onednn = convolution_engine.onednn_library()
        if not self.plan.gpus and onednn and convolution_engine.VARIABLE not in os.environ:
            advice = convolution_engine.faster(convolution_engine.bf16_is_fast(onednn))
            self.display.note(f"{advice}: docs/performance.md")

    def _advance(self) -> None:
        if self.start:
            self.display.note(f"resumed from {self.plan.resume}")
            advance_data(self.solver, self.plan, self.stop)

    def _listen(self) -> None:
        self.solver.add_callback(self._on_start, self._on_gradients)
        self.probe.on_bad_loss = self._on_bad_loss
        self.probe.on_test = self.display.testing
        self.probe.on_test_layer = self._on_test_layer

    # -- called by Caffe

    def _on_start(self) -> None:
        """Before the forward pass of an iteration; tests and snapshots of it are done."""
        iteration = self.solver.iter
        self._finish_row()
        tests = self._take_tests()
        if iteration > self.start and self._snapshot_due(iteration):
            self._check_snapshot()
        self.stop.check()
        seed_iteration(self.parameters.random_seed, self.plan.rank, iteration)
        self.probe.start_iteration()
        self.row = {"iteration": iteration, "lr": _shortest(self.solver.lr), **tests}
        self.row_began = time.perf_counter()

    def _on_gradients(self) -> None:
        """After the backward pass, before the update."""
        assert self.row is not None  # Caffe calls _on_start first
        losses = self.probe.iteration_losses()
        self.row.update(losses, data_seconds=self.probe.data_seconds)
        if self.watch.look(self.solver.iter, losses):
            raise self._lost()
        # Caffe writes the snapshot right after the update; killed then, a run would lack this row.
        if self._snapshot_due(self.solver.iter + 1):
            self._finish_row()

    def _on_test_layer(self) -> None:
        self._finish_row()
        self.stop.check()

    def _on_bad_loss(self) -> None:
        """Stop before the backward pass, while what went wrong can still be seen in the net."""
        losses = self.probe.iteration_losses()
        if self.row is not None:
            self.row.update(losses, data_seconds=self.probe.data_seconds)
        raise Diverged(
            self.solver.iter,
            f"the loss is {losses[log.TOTAL]}",
            health.first_not_finite(self.net),
        )

    def _lost(self) -> Diverged:
        """The end of a run whose loss says nothing any more; its snapshots since then are bad."""
        assert self.watch.since is not None
        for state in snapshots.find(self.plan.prefix):
            if snapshots.iteration(state) >= max(self.watch.since, self.start + 1):
                snapshots.remove(state)
        self.snapshot = next(iter(snapshots.find(self.plan.prefix)), None)
        since = f"since iteration {self.watch.since}"
        return Diverged(self.solver.iter, f"{since} {self.watch.what}; {health.LOWER}", None)

    # -- one iteration's record

    def _finish_row(self) -> None:
        """Write the iteration's row, once the first thing after its update happens.

        Before its update, when a snapshot comes right after that.
        """
        if self.row is None:
            return
        row, self.row = self.row, None
        if log.TOTAL not in row:
            return  # stopped before its loss was known
        row["seconds"] = time.perf_counter() - self.row_began
        self._record(row)
        self.recent.append(row[log.TOTAL])
        self.data_seconds += row["data_seconds"]
        share = row["data_seconds"] / max(row["seconds"], 1e-9)
        self.display.iteration(int(row["iteration"]), row[log.TOTAL], share)

    def _record(self, row: dict[str, float]) -> None:
        """Keep a row; event files that cannot be written are no reason to end the training."""
        self.csv.write(row)
        self._tell_events(lambda events: events.write(row))

    def _tell_events(self, what: Callable[[EventLog], None]) -> None:
        if self.events is None:
            return
        try:
            what(self.events)
        except OSError as error:
            self.events = None
            self.display.note(
                f"warning: {self.plan.events}: cannot be written ({error.strerror}); the numbers "
                "are in the CSV alone from here on"
            )

    def _take_tests(self) -> dict[str, float]:
        tests = self.probe.take_tests()
        if tests:
            self.tests = tests
            self.display.tested(self.solver.iter, tests)
        return tests

    def _finish(self) -> None:
        """After the last update: its row, and the results of the test after it."""
        self._finish_row()
        if tests := self._take_tests():
            self._record({"iteration": self.solver.iter, **tests})
        if self.solver.iter > self.start and self._snapshot_due(self.solver.iter):
            self._check_snapshot()
        if self.watch.since is not None:
            raise self._lost()

    # -- snapshots

    def _snapshot_due(self, iteration: int) -> bool:
        """Whether Caffe takes a snapshot when `iteration` iterations are done."""
        interval, last = self.parameters.snapshot, self.parameters.max_iter
        at_end = iteration == last and self.parameters.snapshot_after_train
        return at_end or (interval > 0 and iteration % interval == 0)

    def _snapshot_now(self) -> None:
        if self.solver.iter > self.start:
            self.solver.snapshot()
            self._check_snapshot()

    def _check_snapshot(self) -> None:
        """Keep the snapshot just written if it is whole and finite; bring the curve up to date."""
        state = snapshots.path_at(self.plan.prefix, self.solver.iter)
        if not health.weights_finite(self.net):
            snapshots.remove(state)
            culprit = health.first_not_finite(self.net)
            raise Diverged(self.solver.iter, "the update is not finite", culprit)
        try:
            snapshots.verify(state)
            snapshots.sync(state)
            self.record.add(self.solver.iter, state)
        except (snapshots.BrokenSnapshot, OSError) as error:
            reason = snapshots.why_unwritable(state)
            snapshots.remove(state)
            raise InputError(
                f"{state}: the snapshot cannot be written ({reason}); free some space, then "
                "continue with --resume"
            ) from error
        self.record.save(self.plan.record)
        self.snapshot = state
        self._draw()

    def _draw(self) -> None:
        """Draw the loss curve again; a run that has no row yet has no curve.

        A picture that cannot be made, as on a full disk, is no reason to end the training.
        """
        if not self._has_rows:
            return
        try:
            draw([log.read(self.plan.csv)], self.plan.curve)
        except InputError as error:
            self.display.note(f"warning: {error}")
        except Exception as error:  # whatever matplotlib raises: hours of training count for more
            self.display.note(
                f"warning: {self.plan.curve}: cannot be drawn ({reason_of(error)}); the numbers "
                f"are in {self.plan.csv.name}"
            )

    @property
    def _has_rows(self) -> bool:
        return bool(self.recent or self.start)

    @property
    def _kept(self) -> str:
        return f"the last good snapshot is {self.snapshot or 'none yet'}"

    def _summary(self, outcome: str, error: Diverged | None) -> TrainingSummary:
        recent = [x for x in self.recent[-max(1, len(self.recent) // 10) :] if np.isfinite(x)]
        return TrainingSummary(
            name=self.plan.name,
            outcome=outcome,
            device=devices.describe(self.plan.gpus),
            start=self.start,
            iteration=self.solver.iter,
            max_iter=self.parameters.max_iter,
            loss=float(np.mean(recent)) if recent else None,
            tests=self.tests,
            seconds=time.perf_counter() - self.began,
            data_seconds=self.data_seconds,
            snapshot=str(self.snapshot) if self.snapshot else None,
            weights=str(self.snapshot.with_suffix(".caffemodel")) if self.snapshot else None,
            csv=str(self.plan.csv),
            curve=str(self.plan.curve) if self._has_rows else None,
            log=str(self.plan.log),
            message=f"{error}; {self._kept}" if error else "",
            culprit=vars(error.culprit) if error and error.culprit else None,
        )


def follow(plan: TrainingPlan) -> None:
    """The part of a run on several GPUs that its second and later processes do.

    They never stop by themselves, which would leave the first waiting for their gradients: when
    the first one ends, the supervisor ends them.
    """
    parameters = plan.parameters()
    solver = build_solver(plan, initial.read(plan.parameters()))
    advance_data(solver, plan, StopRequest())
    _nccl = connect(solver, plan)

    def seed() -> None:
        seed_iteration(parameters.random_seed, plan.rank, solver.iter)

    solver.add_callback(seed, lambda: None)
    solver.step(parameters.max_iter - solver.iter)


def connect(solver: Solver, plan: TrainingPlan) -> object:
    """Join the processes of a run: the same weights at the start, summed gradients ever after.

    Keep the returned object as long as the solver, which only points to it.
    """
    nccl = caffe.NCCL(solver, bytes.fromhex(plan.nccl_id))
    nccl.bcast()
    solver.add_callback(nccl)
    if plan.parameters().layer_wise_reduce:
        solver.net.after_backward(nccl)
    return nccl


def _shortest(value: float) -> float:
    """Undo pycaffe's widening of a float32: 0.1, not 0.10000000149."""
    return float(str(np.float32(value)))
