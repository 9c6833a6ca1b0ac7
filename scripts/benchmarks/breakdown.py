"""Where the time and the memory of the C++ LSTM layers go: matrix products, and all the rest.

The products are timed inside the layers by blas_clock, and once more alone, at the same shapes and
leading dimensions, in the same rounds. They are compared with a large square product, the rest with
copying as many bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import counts
from benchmarks.counts import Cost, StackSize
from benchmarks.memory import MIB
from benchmarks.timing import Measured, of, ratio

Runs = Sequence[Measured | None]

WAYS = {"forward": ("forward",), "backward": ("backward",), "both": ("forward", "backward")}


def breakdown(
    size: StackSize,
    runs: Runs,
    limits: Runs,
    rates: Mapping[str, int],
    peak_mib: float,
) -> dict[str, Any]:
    """runs: of the C++ layers; limits, rates: of the machine in the same rounds; see Machine."""
    flop, moved = counts.lstm_flop(size), counts.cells_bytes(size)
    return {
        "products": {way: _products(way, flop, runs, limits, rates) for way in WAYS},
        "alone": _alone(runs, limits, rates),
        "cells": {way: _cells(way, moved, runs, limits, rates) for way in WAYS},
        "memory": memory(size, peak_mib),
    }


def memory(size: StackSize, peak_mib: float) -> dict[str, float]:
    """What the LSTM layers took, when a whole net took `peak_mib`, against what they need."""
    needed, around = counts.needed_bytes(size) / MIB, counts.surrounding_bytes(size) / MIB
    used = peak_mib - around
    return {
        "needed_mib": needed,
        "around_mib": around,
        "used_mib": used,
        "ratio": used / needed,
    }


def _products(
    way: str, flop: Cost, runs: Runs, limits: Runs, rates: Mapping[str, int]
) -> dict[str, Any]:
    operations = _work(flop, way)

    def rate(m: Measured) -> float:
        return operations / _seconds(m, "products", way)

    return {
        "ms": of(runs, lambda m: 1e3 * _seconds(m, "products", way)).as_dict(),
        "gflop": operations / 1e9,
        "gflops": of(runs, lambda m: rate(m) / 1e9).as_dict(),
        "of_gemm": ratio(runs, limits, rate, lambda m: rates["square"] / m["square"]).as_dict(),
    }


def _alone(runs: Runs, limits: Runs, rates: Mapping[str, int]) -> dict[str, Any]:
    """The same products without the layers; `inside`: their time, divided by that in the layers."""

    def of_square(m: Measured) -> float:
        return rates["replay"] / m["replay"] / (rates["square"] / m["square"])

    inside = ratio(limits, runs, lambda m: m["replay"], lambda m: _seconds(m, "products", "both"))
    return {
        "ms": of(limits, lambda m: 1e3 * m["replay"]).as_dict(),
        "gflop": rates["replay"] / 1e9,
        "gflops": of(limits, lambda m: rates["replay"] / m["replay"] / 1e9).as_dict(),
        "of_gemm": of(limits, of_square).as_dict(),
        "inside": inside.as_dict(),
    }


def _cells(
    way: str, moved: Cost, runs: Runs, limits: Runs, rates: Mapping[str, int]
) -> dict[str, Any]:
    size = _work(moved, way)

    def rest(m: Measured) -> float:
        return _seconds(m, "lstm", way) - _seconds(m, "products", way)

    def bound(m: Measured) -> float:
        return size * m["copy"] / rates["copy"]

    return {
        "ms": of(runs, lambda m: 1e3 * rest(m)).as_dict(),
        "mb": size / 1e6,
        "gbs": of(runs, lambda m: size / rest(m) / 1e9).as_dict(),
        "times_copy": ratio(runs, limits, rest, bound).as_dict(),
    }


def _work(cost: Cost, way: str) -> int:
    return sum(getattr(cost, each) for each in WAYS[way])


def _seconds(measured: Measured, part: str, way: str) -> float:
    return sum(measured[f"{part}_{each}"] for each in WAYS[way])
