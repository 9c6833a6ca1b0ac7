"""The table and the picture of `lglstm bench data`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.report import bars, number, spread, table
from lglstm.common.plotting import Figure


def tables(result: dict[str, Any]) -> list[Table | str]:
    made = table(
        f"{result['model']}: {result['pictures']}",
        ["", "ms per image", "images/s", "× what training needs"],
    )
    for row in result["implementations"]:
        made.add_row(
            row["label"],
            spread(row["ms_per_image"]),
            spread(row["images_s"]),
            spread(row["times_need"]),
        )
    need = (
        f"An iteration of {result['batch']} images takes {spread(result['iteration_s'])} s: "
        f"training needs {number(result['need_images_s']['median'])} images/s."
    )
    return [made, need]


def figure(result: dict[str, Any]) -> Figure:
    """Images per second for each number of processes, and a line at what training needs."""
    made = Figure(figsize=(7, 4.2), layout="constrained")
    axes = made.subplots()
    rows = result["implementations"]
    bars(axes, [row["label"] for row in rows], [row["images_s"] for row in rows])
    need = result["need_images_s"]["median"]
    axes.axvline(need, color="C3", linestyle="--")
    axes.set(xlabel="images per second (more is better)")
    axes.set_title(
        f"Data layer of {result['model']}; dashed: what training needs, {number(need)} images/s",
        fontsize=10,
    )
    return made
