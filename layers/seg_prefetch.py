"""Batches decoded ahead of the net by processes of their own.

Why processes: while Caffe computes, be it the `caffe` program or pycaffe's `solver.step`, its main
thread holds Python's interpreter lock; a background thread of Python would only run inside the data
layer's own `forward`. Tried in `caffe train`: a thread that wakes every millisecond ran 1 to 4
times in iterations of 44 to 76 ms, and 13 to 18 times while a Python layer slept for 20 ms.

Why started by exec, not by fork: the `caffe` process has threads (BLAS, CUDA) that a fork would
leave behind with their locks held, and multiprocessing's other methods import the user's main
program again.

The batches come back through anonymous shared memory: a ring of slots, each one batch. It needs
neither a file nor /dev/shm, which is small in containers.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from lglstm.common import child
from lglstm.common.errors import InputError
from lglstm.layers.seg_batches import Batches
from lglstm.layers.seg_list import Example
from lglstm.layers.seg_options import SegDataOptions
from lglstm.layers.seg_worker import slot_arrays, slot_bytes

Batch = tuple[np.ndarray, np.ndarray]
"""data (B, 3, H, W) and label (B, 1, h, w), float32."""


class Inline:
    """Decodes each batch when it is asked for, in this process: `workers: 0`."""

    def __init__(self, options: SegDataOptions, examples: Sequence[Example]) -> None:
        self._batches = Batches(options, examples)
        self._batch = (
            np.empty(options.data_shape, np.float32),
            np.empty(options.label_shape, np.float32),
        )

    def batch(self, number: int) -> Batch:
        """Return batch `number`; the arrays are overwritten by the next call."""
        self._batches.fill(number, *self._batch)
        return self._batch

    def close(self) -> None:
        """Nothing runs."""


class Prefetcher:
    """Decodes `prefetch` batches ahead in `workers` processes.

    Batch i is made by worker i mod workers, in slot i mod (prefetch + 1): nothing depends on which
    worker is faster. Batches are the same as without workers, bit for bit.
    """

    def __init__(self, options: SegDataOptions, examples: Sequence[Example]) -> None:
        self._options = options
        self._slots = options.prefetch + 1  # one more: the batch that the caller still reads
        self._wanted = range(0)  # numbers of the batches asked for and not yet handed out
        descriptor = os.memfd_create("seg_data")
        try:
            os.ftruncate(descriptor, self._slots * slot_bytes(options))
            self._memory = mmap.mmap(descriptor, 0)
            job = {
                "options": options.to_json(),
                "examples": list(examples),
                "memory": descriptor,
            }
            count = min(options.workers, options.prefetch)
            self._workers = [_DecodingProcess(job, descriptor) for _ in range(count)]
        finally:
            os.close(descriptor)

    def batch(self, number: int) -> Batch:
        """Return batch `number`; the arrays are overwritten after the next call.

        Numbers may come in any order; only consecutive ones are there already. Raises InputError
        for a bad example or a worker that has died.
        """
        if number not in self._wanted[:1]:
            self._forget()
            self._wanted = range(number, number)
        self._ask(number + self._slots)
        self._wanted = self._wanted[1:]
        self._worker(number).answer()
        return slot_arrays(self._memory, self._options, number % self._slots)

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()

    def _worker(self, number: int) -> _DecodingProcess:
        return self._workers[number % len(self._workers)]

    def _ask(self, stop: int) -> None:
        """Ask for the batches up to `stop`, exclusive."""
        for number in range(self._wanted.stop, stop):
            self._worker(number).ask(number % self._slots, number)
        self._wanted = range(self._wanted.start, stop)

    def _forget(self) -> None:
        """Wait for the batches that nobody wants any more, so that their slots are free."""
        for number in self._wanted:
            with suppress(InputError):  # of a batch that is not needed, or it will come again
                self._worker(number).answer()


def open_source(options: SegDataOptions, examples: Sequence[Example]) -> Inline | Prefetcher:
    """Start the decoding processes that the options ask for, if any."""
    return (Prefetcher if options.workers else Inline)(options, examples)


class _DecodingProcess:
    """One decoding process; see layers/seg_worker.py for what is said over its pipes."""

    def __init__(self, job: dict[str, Any], descriptor: int) -> None:
        self._process = subprocess.Popen(
            child.module_command("lglstm.layers.seg_worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child.environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
            pass_fds=[descriptor],
            text=True,
            start_new_session=True,  # Ctrl-C reaches the training alone
        )
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._send(json.dumps(job))

    def ask(self, slot: int, number: int) -> None:
        self._send(f"{slot} {number}")

    def answer(self) -> None:
        """Wait until the oldest batch asked for is in its slot; raise InputError if it failed."""
        kind, _, rest = self._answers.readline().partition(" ")
        if kind == "error":
            raise InputError(json.loads(rest))
        if kind != "ok":
            raise self._died()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with suppress(BrokenPipeError):
                pipe.close()

    def _send(self, line: str) -> None:
        try:
            print(line, file=self._requests, flush=True)
        except BrokenPipeError as error:
            raise self._died() from error

    def _died(self) -> InputError:
        status = self._process.wait()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        return InputError(
            f"a process that decodes images ended unexpectedly ({how}); if memory ran out, lower "
            "workers or prefetch, and with workers: 0 errors are shown directly"
        )
