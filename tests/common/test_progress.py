"""Progress: a bar on a terminal, a line now and then elsewhere, both from the same calls."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lglstm.common import progress
from lglstm.common.progress import Bar, progress_bar


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def test_a_terminal_gets_a_bar_with_count_time_and_status() -> None:
    screen = console(terminal=True)
    with progress_bar("photos", screen) as report:
        for k in range(1, 4):
            report(k, 3, f"loss {k}")
    text = screen.file.getvalue()
    assert "photos" in text and "3/3" in text and "left" in text and "loss 3" in text


def test_without_a_terminal_there_is_a_line_every_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = console(terminal=False)
    with progress_bar("photos", log) as report:
        for k in range(1, 101):
            now[0] += 1
            report(k, 100, "[loss]")
    assert log.file.getvalue().splitlines() == [f"photos: {k} of 100  [loss]" for k in (30, 60, 90)]


def test_a_bar_without_times_draws_when_told_but_not_more_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 1000)
    screen = console(terminal=True)
    bar = Bar("train", screen, total=1000, status="starting")
    begun = len(screen.file.getvalue())
    for k in range(1, 1000):
        bar(k, 1000, f"loss {k}")
    assert screen.file.getvalue().count("loss") <= 1
    bar(1000, 1000, "loss 1000")
    assert "1000/1000" in screen.file.getvalue()[begun:]
    bar.close()
