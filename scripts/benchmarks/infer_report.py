"""Table and picture of `lglstm bench infer`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

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
    rows = result["implementations"]
    baseline = next(row["label"] for row in rows if row["key"] == result["compared_with"])
    columns = ["", "ms", f"× {baseline}", "MiB", "score differs by", "same label", "rank"]
    made = table(title(result), columns)
    for row in rows:
        if "left_out" in row:
            left_out_row(made, row["label"], row["left_out"])
            continue
        made.add_row(
            row["label"],
            spread(row["total_ms"]),
            spread(row["ratio"]),
            number(row["peak_mib"]),
            f"{row['score_difference']:.0e}",
            f"{100 * row['same_label']:.2f} %",
            str(row["rank"]),
        )
    return [made, *one_at_a_time(result)]


def title(result: dict[str, Any]) -> str:
    return f"{result['model']}, one image"


def figure(result: dict[str, Any]) -> Figure:
    """Milliseconds of each implementation, with its ratio."""
    return implementations_figure([result], title, "ms")
