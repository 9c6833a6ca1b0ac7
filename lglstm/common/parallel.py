"""One function over many items: in this process, on all cores, or on a Dask cluster.

Results come as a stream, few items are in flight at a time, and a process that dies takes nothing
down with it: on one machine the item that it had is tried again, alone, on a cluster Dask gives it
to another worker.

Why processes of our own and not `ProcessPoolExecutor`: there, an interrupt or a dead process in the
moment in which its processes start leaves the program waiting for ever for one of its threads
(Python 3.11), and processes whose parent is killed stay. Here the parent has no threads. A process
is started like all others of ours (`child.py`), has one item at a time, and dies with its parent.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future
from concurrent.futures import wait as wait_for_futures
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_connections
from typing import Any, Generic, TypeVar

from lglstm.common import child
from lglstm.common.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT = 4
"""Items per core that are read or handed out ahead: enough to keep it busy, few for the memory."""

END_SECONDS = 5
"""How long a process that is told to end may clean up after itself before it is killed."""

ATTEMPTS_ALONE = 2
"""How often an item that may have killed its process is tried again, with the machine to itself."""

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

    function: module-level, or a `functools.partial` of one, since it travels to other processes;
        they import its module, so it cannot be one of the main program.
    workers: processes, by default one per core; 1 stays in this process.
    scheduler: address of a Dask scheduler to use instead.
    The result is None for an item that killed the process that worked on it. What `function`
    raises is raised here. Closing the stream ends its processes.
    """
    items = iter(items)
    workers = workers or len(os.sched_getaffinity(0))
    if scheduler:
        with _dask(scheduler) as (executor, cores):
            yield from _on_cluster(function, items, executor, cores)
    elif workers == 1:
        yield from ((item, function(item)) for item in items)
    else:
        with _Workers(function, workers) as processes:
            yield from _on_processes(items, processes)


# ---------------------------------------------------------------- processes of this machine


def _on_processes(
    items: Iterator[Item], processes: _Workers[Item, Result]
) -> Iterator[tuple[Item, Result | None]]:
    """Yield results; after a death the suspects are tried alone before all others go on."""
    ahead: deque[Item] = deque()  # read while all are busy, so that none waits for the source
    while True:
        suspects: list[Item] = []
        while True:
            for item in itertools.islice(items, IN_FLIGHT * processes.count - len(ahead)):
                ahead.append(item)
                if not suspects:
                    processes.give(ahead)
            if not processes.busy:
                break
            finished, died = processes.wait()
            suspects += died
            if not suspects:
                processes.give(ahead)
            yield from finished
        if not suspects:
            return
        for item in suspects:
            yield item, _alone(item, processes)
        processes.give(ahead)


def _alone(item: Item, processes: _Workers[Item, Result]) -> Result | None:
    """The result of an item that a process died with; None if more die of it."""
    for _ in range(ATTEMPTS_ALONE):
        processes.give(deque([item]))
        for _, result in processes.wait()[0]:
            return result
    return None


class _Workers(Generic[Item, Result]):
    """Up to `count` processes, started when there is work for them, each with one item at most."""

    def __init__(self, function: Callable[[Item], Result], count: int) -> None:
        self.function, self.count = function, count
        self.busy: dict[Connection, Item] = {}
        self._idle: list[Connection] = []
        self._processes: dict[Connection, subprocess.Popen[bytes]] = {}

    def give(self, items: deque[Item]) -> None:
        """Hand out items from the left of `items`, as long as a process is free."""
        while items and len(self.busy) < self.count:
            connection = self._idle.pop() if self._idle else self._start()
            try:
                connection.send(items[0])
            except OSError:  # it died while it had nothing to do
                self._end([connection])
            else:
                self.busy[connection] = items.popleft()

    def wait(self) -> tuple[list[tuple[Item, Result]], list[Item]]:
        """Wait for processes to finish; return results, and the items with which some died.

        Raises what the function raised.
        """
        finished, died = [], []
        for connection in wait_for_connections(list(self.busy)):
            assert isinstance(connection, Connection)
            item = self.busy.pop(connection)
            try:
                succeeded, value = connection.recv()
            except (EOFError, OSError):
                self._end([connection])
                died.append(item)
                continue
            self._idle.append(connection)
            if not succeeded:
                raise value
            finished.append((item, value))
        return finished, died

    def __enter__(self) -> _Workers[Item, Result]:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end(list(self._processes))

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            connection = Connection(ours.detach())
            process = subprocess.Popen(
                child.module_command(
                    "lglstm.common.parallel_worker", str(theirs.fileno()), str(os.getpid())
                ),
                stdin=subprocess.DEVNULL,
                env=child.environment(),
                pass_fds=[theirs.fileno()],
                process_group=0,  # the terminal's Ctrl-C reaches the parent alone
            )
        self._processes[connection] = process
        with contextlib.suppress(OSError):  # it died already, which the first item will show
            connection.send(self.function)
        return connection

    def _end(self, connections: list[Connection]) -> None:
        """End processes, whatever they are doing: first by request, then by force."""
        for connection in connections:
            connection.close()
        processes = [self._processes.pop(connection) for connection in connections]
        try:
            for process in processes:
                process.terminate()
            deadline = time.monotonic() + END_SECONDS
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0, deadline - time.monotonic()))
        finally:  # also when Ctrl-C is pressed again
            for process in processes:
                process.kill()
                process.wait()


# ---------------------------------------------------------------- a cluster


def _on_cluster(
    function: Callable[[Item], Result], items: Iterator[Item], executor: Executor, cores: int
) -> Iterator[tuple[Item, Result]]:
    """Yield results from Dask's executor."""
    running: dict[Future[Any], Item] = {}
    try:
        while True:
            for item in itertools.islice(items, IN_FLIGHT * cores - len(running)):
                running[executor.submit(function, item)] = item
            if not running:
                return
            for future in wait_for_futures(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield running.pop(future), result
    finally:
        for future in running:
            future.cancel()


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
