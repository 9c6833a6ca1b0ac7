"""One function over many items: in this process, on all cores, or on a Dask cluster.

Results come as a stream, few items are in flight at a time, and a process that dies takes nothing
down with it: on one machine the items it may have died of are tried again one by one, on a cluster
Dask gives them to another worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from common.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT = 4
"""Items per core that are handed out ahead: enough to keep it busy, few enough for memory."""

CONNECT_SECONDS = 10
TRIES = 5
"""How often Dask gives an item to another worker after one died of, or during, it."""


def stream(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Iterator[tuple[Item, Result | None]]:
    """Yield (item, function(item)) in the order in which they finish.

    function: module-level, or a `functools.partial` of one, since it travels to other processes.
    workers: processes, by default one per core; 1 stays in this process.
    scheduler: address of a Dask scheduler to use instead.
    The result is None for an item that killed the process that worked on it. What `function`
    raises is raised here.
    """
    items = iter(items)
    workers = workers or len(os.sched_getaffinity(0))
    if scheduler:
        with _dask(scheduler) as (executor, cores):
            yield from _results(function, items, executor, cores, {})
    elif workers == 1:
        yield from ((item, function(item)) for item in items)
    else:
        running: dict[Future, Item] = {}
        with _processes(workers) as executor, contextlib.suppress(BrokenProcessPool):
            yield from _results(function, items, executor, workers, running)
        for item in running.values():
            yield item, _alone(function, item)
        if running:
            yield from stream(function, items, workers=workers)


def _results(function, items, executor: Executor, cores: int, running: dict):
    """Yield results from an executor; `running` holds the unfinished items, should it break."""
    try:
        while True:
            while len(running) < IN_FLIGHT * cores and (item := next(items, None)) is not None:
                running[_submit(executor, function, item)] = item
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield running.pop(future), result
    finally:
        for future in running:
            future.cancel()


def _submit(executor: Executor, function, item) -> Future:
    """Hand out one item; a broken pool refuses it, which then counts as a failure of the item."""
    try:
        return executor.submit(function, item)
    except BrokenProcessPool as error:
        future: Future = Future()
        future.set_exception(error)
        return future


def _alone(function, item):
    """Return the result of one item in a process of its own, or None when that dies twice."""
    for _ in range(2):
        with _processes(1) as executor, contextlib.suppress(BrokenProcessPool):
            return executor.submit(function, item).result()
    return None


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    # Plain forking is not safe beside the threads of OpenCV and of a progress bar.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_prep.prepare"])
    executor = ProcessPoolExecutor(workers, mp_context=context)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[tuple[Executor, int]]:
    """Yield an executor on a Dask cluster, and the number of its cores."""
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            "--scheduler needs the package 'distributed'; install it with: pip install distributed"
        ) from error
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{address}: no Dask scheduler answers there; start one with `dask scheduler`"
        ) from error
    with client:
        cores = sum(client.nthreads().values())
        if not cores:
            raise InputError(f"{address}: the Dask scheduler has no workers; start `dask worker`")
        yield client.get_executor(pure=False, retries=TRIES), cores
