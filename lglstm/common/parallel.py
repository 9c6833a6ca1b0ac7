"""One function over many items: in this process, on all cores, or on a Dask cluster.

Results come as a stream, few items are in flight at a time, and a process that dies takes nothing
down with it: on one machine the items it may have died of are tried again one by one, on a cluster
Dask gives them to another worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import urllib.parse
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from lglstm.common import child
from lglstm.common.errors import InputError

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
) -> Generator[tuple[Item, Result | None]]:
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
        if running:
            yield from _one_by_one(function, list(running.values()))
            yield from stream(function, items, workers=workers)


def _results(
    function: Callable[[Item], Result],
    items: Iterator[Item],
    executor: Executor,
    cores: int,
    running: dict[Future, Item],
) -> Iterator[tuple[Item, Result]]:
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


def _submit(executor: Executor, function: Callable[[Item], Result], item: Item) -> Future:
    """Hand out one item; a broken pool refuses it, which then counts as a failure of the item."""
    try:
        return executor.submit(function, item)
    except BrokenProcessPool as error:
        future: Future = Future()
        future.set_exception(error)
        return future


def _one_by_one(
    function: Callable[[Item], Result], items: list[Item]
) -> Iterator[tuple[Item, Result | None]]:
    """Yield results, one item at a time, so that a death has one cause; None after the second."""
    deaths = 0
    while items:
        with _processes(1) as executor, contextlib.suppress(BrokenProcessPool):
            while items:
                result = executor.submit(function, items[0]).result()
                yield items.pop(0), result
                deaths = 0
        if items:
            deaths += 1
        if deaths == 2:
            yield items.pop(0), None
            deaths = 0


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    # Plain forking is not safe beside the threads of OpenCV and of a progress bar.
    context = multiprocessing.get_context("forkserver")
    with child.as_environment():
        multiprocessing.forkserver.ensure_running()
    executor = ProcessPoolExecutor(workers, context, initializer=_leave_ctrl_c_to_parent)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _leave_ctrl_c_to_parent() -> None:
    """Finish the item at hand when the terminal interrupts everybody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
        _knock(address)
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{address}: no Dask scheduler answers there; start one with `dask scheduler` and give "
            "its address, such as tcp://127.0.0.1:8786"
        ) from error
    with client:
        cores = sum(client.nthreads().values())
        if not cores:
            raise InputError(f"{address}: the Dask scheduler has no workers; start `dask worker`")
        yield client.get_executor(pure=False, retries=TRIES), cores


def _knock(address: str) -> None:
    """Raise OSError or ValueError when nobody listens there; Dask's own client would linger."""
    parts = urllib.parse.urlsplit(address)
    if not parts.hostname or not parts.port:
        raise ValueError("not of the form tcp://HOST:PORT")
    socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
