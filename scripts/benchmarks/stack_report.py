"""Tables and the picture of `lglstm bench stack`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.breakdown import WAYS
from benchmarks.report import (
    implementations_figure,
    left_out_row,
    number,
    one_at_a_time,
    percent,
    spread,
    table,
)
from lglstm.common.plotting import Figure


def tables(result: dict[str, Any]) -> list[Table | str]:
    """For each size the implementations, then where the C++ layers spend their time."""
    shown: list[Table | str] = []
    for case in result["cases"]:
        shown += [_implementations(case), *one_at_a_time(case), _limits(case)]
        if "breakdown" not in case and any(row["key"] == "cpp" for row in case["implementations"]):
            shown.append("Where the time of the C++ layers goes is not measured without gcc.")
        if "breakdown" in case:
            shown += [_breakdown(case["breakdown"]), _memory(case["breakdown"]["memory"])]
    return shown


def title(case: dict[str, Any]) -> str:
    size = case["size"]
    return (
        f"{size['height']} × {size['width']} positions, batch {size['batch']}, "
        f"{size['channels']} channels, d {size['hidden']}, N {size['neighbors']}, "
        f"{size['layers']} layers"
    )


def _implementations(case: dict[str, Any]) -> Table:
    made = table(
        title(case),
        [
            "",
            "forward ms",
            "backward ms",
            "total ms",
            "× C++",
            "GFLOP",
            "GFLOP/s",
            "of GEMM",
            "MiB",
        ],
    )
    for row in case["implementations"]:
        if "left_out" in row:
            left_out_row(made, row["label"], row["left_out"])
            continue
        made.add_row(
            row["label"],
            spread(row["forward_ms"], False),
            spread(row["backward_ms"], False),
            spread(row["total_ms"]),
            spread(row["ratio"]),
            number(row["gflop"]),
            spread(row["gflops"], False),
            percent(row["of_gemm"]),
            number(row["peak_mib"]),
        )
    return made


def _limits(case: dict[str, Any]) -> str:
    return (
        f"The machine in these rounds: large matrix products {spread(case['gemm'])} GFLOP/s, "
        f"copying {spread(case['copy'])} GB/s."
    )


def _breakdown(breakdown: dict[str, Any]) -> Table:
    made = table("The LSTM layers in C++", ["", "ms", "work", "rate", "against the machine"])
    for way in WAYS:
        part = breakdown["products"][way]
        made.add_row(
            f"matrix products, {way}",
            spread(part["ms"]),
            f"{number(part['gflop'])} GFLOP",
            f"{spread(part['gflops'], False)} GFLOP/s",
            f"{percent(part['of_gemm'])} of GEMM",
        )
    alone = breakdown["alone"]
    made.add_row(
        "the same products alone",
        spread(alone["ms"]),
        f"{number(alone['gflop'])} GFLOP",
        f"{spread(alone['gflops'], False)} GFLOP/s",
        f"{percent(alone['of_gemm'])} of GEMM",
    )
    for way in WAYS:
        part = breakdown["cells"][way]
        made.add_row(
            f"all else, {way}",
            spread(part["ms"]),
            f"{number(part['mb'])} MB",
            f"{spread(part['gbs'], False)} GB/s",
            f"{spread(part['times_copy'])} × copying",
        )
    return made


def _memory(memory: dict[str, float]) -> str:
    return (
        f"Memory of the LSTM layers: {number(memory['used_mib'])} MiB, "
        f"{memory['ratio']:.2f} × the {number(memory['needed_mib'])} MiB of their tops, the tops' "
        "gradients and one set of gate activations."
    )


def figure(result: dict[str, Any]) -> Figure:
    """A panel for each size: milliseconds of each implementation, with its ratio to the first."""
    return implementations_figure(result["cases"], title, "forward + backward, ms")
