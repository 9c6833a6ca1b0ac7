"""An object in a process of its own, which sleeps until it is called.

Why processes: the number of threads must be set before a library starts; Caffe and PyTorch each
bring an OpenMP runtime, and two in one process fight; and only a process of its own tells how much
memory an implementation takes. The two ends talk over a pipe:

    worker = Worker("benchmarks.torch_stack:TorchStack", "factored", threads=2)
    worker.build(size)                      # calls TorchStack("factored").build(size) over there
"""

from __future__ import annotations

import importlib
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from lglstm.common import child
from lglstm.common.errors import InputError

ENDING_S = 10


class WorkerError(RuntimeError):
    """What went wrong in a worker: the last line that it said."""


class Worker:
    """The near end: any method called on it runs on the object at the far end.

    target: "module:Class", made there with `arguments`. threads: of every library over there.
    environment: variables to set, or with None to remove, before it starts.
    Raises InputError if the far end does, WorkerError for anything else that fails there.
    """

    def __init__(
        self,
        target: str,
        *arguments: Any,
        threads: int,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        near, far = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen(
            child.module_command(__name__, str(far.fileno()), target),
            pass_fds=[far.fileno()],
            env=_environment(threads, environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        far.close()
        self._pipe = Connection(near.detach())
        try:
            self.call("__init__", *arguments)
        except BaseException:
            self.close()
            raise

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *arguments: self.call(method, *arguments)

    def call(self, method: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((method, arguments))
            kind, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if kind == "input error":
            raise InputError(answer)
        if kind == "error":
            raise WorkerError(answer.strip().splitlines()[-1])
        return answer

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _death(self) -> WorkerError:
        status = self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip()
        last = said.splitlines()[-1] if said else "it said nothing"
        if status == -9:
            last = "it was killed, which Linux does when memory runs out"
        return WorkerError(f"the process ended with status {status}: {last}")


def _environment(threads: int, changes: Mapping[str, str | None]) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    result = child.environment() | dict.fromkeys(names, str(threads)) | {"GLOG_minloglevel": "2"}
    for name, value in changes.items():
        result.pop(name, None)
        if value is not None:
            result[name] = value
    return result


def serve(pipe: Connection, target: str) -> None:
    """The far end: answer calls until the pipe is closed."""
    module, name = target.split(":")
    served: Any = None
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            if method == "__init__":
                served = getattr(importlib.import_module(module), name)(*arguments)
                answer = None
            else:
                answer = getattr(served, method)(*arguments)
            pipe.send(("result", answer))
        except InputError as error:
            pipe.send(("input error", str(error)))
        except Exception:
            pipe.send(("error", traceback.format_exc()))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), sys.argv[2])
