"""Tables and the picture of `lglstm bench net`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.net import PARTS, TASKS
from benchmarks.report import (
    implementations_figure,
    left_out_row,
    number,
    one_at_a_time,
    spread,
    table,
)
from lglstm.common.plotting import Figure


def tables(result: dict[str, Any]) -> list[Table | str]:
    shown: list[Table | str] = []
    for case in result["cases"]:
        shown += [_table(case, result["compared_with"]), *one_at_a_time(case)]
    return shown


def title(case: dict[str, Any]) -> str:
    return f"{case['model']}, {TASKS[case['task']]}, batch {case['batch']}"


def _table(case: dict[str, Any], reference: str) -> Table:
    label = next(row["label"] for row in case["implementations"] if row["key"] == reference)
    passes = ["forward"] + (["backward", "update"] if case["task"] == "train" else [])
    columns = ["", *(f"{name} ms" for name in passes), "total ms", f"× {label}", "MiB", *PARTS]
    made = table(title(case), columns)
    for row in case["implementations"]:
        if "left_out" in row:
            left_out_row(made, row["label"], row["left_out"])
            continue
        made.add_row(
            row["label"],
            *(spread(row[f"{name}_ms"], False) for name in passes),
            spread(row["total_ms"]),
            spread(row["ratio"]),
            number(row["peak_mib"]),
            *(_part(row["parts_ms"], part) for part in PARTS),
        )
    return made


def _part(parts: dict[str, Any], part: str) -> str:
    """Milliseconds of one part of the net in all passes; Caffe alone tells them."""
    passes = [values["median"] for name, values in parts.items() if name.startswith(f"{part}_")]
    return number(sum(passes)) if passes else ""


def figure(result: dict[str, Any]) -> Figure:
    """A panel for each model and task: milliseconds of each implementation, with its ratio."""
    return implementations_figure(result["cases"], title, "ms")
