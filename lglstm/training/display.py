"""What a training run shows: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

from rich.text import Text

from lglstm.common.console import plain_console
from lglstm.common.progress import Bar

# Plain lines for a solver that sets no `display`.
DEFAULT_INTERVAL = 20


class Display:
    """Reports on a run from iteration `start` to `total`; `stream` is where it writes.

    `plain` forces lines instead of a bar, which would fight with Caffe's log on one terminal.
    """

    def __init__(
        self, name: str, start: int, total: int, interval: int, stream: TextIO, plain: bool = False
    ):
        self.console = plain_console(file=stream, highlight=False, soft_wrap=True)
        self.start, self.total = start, total
        self.interval = interval or DEFAULT_INTERVAL
        self.began = time.monotonic()
        self.bar: Bar | None = None
        if self.console.is_terminal and not plain:
            self.bar = Bar(name, self.console, done=start, total=total, status="starting")

    def iteration(self, iteration: int, loss: float, data_share: float) -> None:
        """Show that iteration number `iteration` is done; `data_share` of its time was waiting."""
        done = iteration + 1
        status = f"loss {loss:.4f}  {self._pace(done)}"
        if data_share >= 0.05:
            status += f"  ({data_share:.0%} waiting for data)"
        if self.bar is not None:
            self.bar(done, self.total, status)
        elif done == self.start + 1 or done % self.interval == 0 or done == self.total:
            self.console.print(f"iteration {done}/{self.total}  {status}", markup=False)

    def testing(self, batch: int, batches: int) -> None:
        if self.bar is not None:
            self.bar.say(f"testing {batch}/{batches}")

    def tested(self, iteration: int, scores: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.note(f"iteration {iteration}/{self.total}  {values}")

    def note(self, text: str) -> None:
        """A line that stays, above the bar."""
        self.console.print(Text(text))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _pace(self, done: int) -> str:
        """Speed and time left at the mean pace so far, tests and snapshots included."""
        rate = (done - self.start) / max(time.monotonic() - self.began, 1e-9)
        speed = f"{rate:.2f} it/s" if rate >= 1 else f"{1 / rate:.1f} s/it"
        return f"{speed}  {clock((self.total - done) / rate)} left"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
