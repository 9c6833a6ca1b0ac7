"""The numbers of a run's CSV as TensorBoard's event files, for `lglstm train --tensorboard`."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

from lglstm.common.errors import InputError
from lglstm.training.log import PLAIN, TEST

ITERATION = PLAIN[0]
FILES = "events.out.tfevents.*"
SECONDS_KEPT = 10
"""How long an event may wait in memory before it is written."""


def require_tensorboard() -> None:
    """Raise InputError if event files cannot be written here."""
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "--tensorboard: the package tensorboard is not installed; pip install tensorboard, or "
            "leave the option out: the CSV beside the snapshots has the same numbers"
        )


class EventLog:
    """Event files in `folder`: one scalar per number of a row, `train/…`, `test/…` or `run/…`.

    A new run (`start` 0) removes the files of an earlier one. A resumed run adds a file, which says
    that what earlier ones hold from iteration `start` on does not count.
    """

    def __init__(self, folder: Path, start: int):
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if not start and folder.is_dir():
            for path in folder.glob(FILES):
                path.unlink()
        folder.mkdir(exist_ok=True)
        self._writer = EventFileWriter(str(folder), flush_secs=SECONDS_KEPT)
        if start:
            session = SessionLog(status=SessionLog.START)
            self._add(start, session_log=session)

    def write(self, row: dict[str, float]) -> None:
        """Add a row of the CSV."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=tag(column), simple_value=value)
            for column, value in row.items()
            if column != ITERATION
        ]
        self._add(int(row[ITERATION]), summary=Summary(value=values))

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, **content: object) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, **content))


def tag(column: str) -> str:
    """Where TensorBoard shows a column of the CSV."""
    if column in PLAIN:
        return f"run/{column}"
    return f"test/{column.removeprefix(TEST)}" if column.startswith(TEST) else f"train/{column}"
