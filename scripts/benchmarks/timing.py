"""Rounds in which all that is timed takes turns, and the statistics of what was measured.

A machine that others share is now faster, now slower. So everything runs in every round, one right
after the other, and a ratio is taken within each round before the median is.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

Measured = Mapping[str, float]
"""What one run measured: seconds by name, such as those of PASSES."""

PASSES = ("forward", "backward", "update")


@dataclass(frozen=True)
class Spread:
    """The median of several measurements and their quartiles."""

    median: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (interpolated, so that two values have quartiles between them)."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def rounds(
    runs: Mapping[str, Callable[[], Measured | None]],
    repeats: int,
    fewer: Mapping[str, int] | None = None,
    tell: Callable[[str], None] = lambda name: None,
    deadline: float = math.inf,
) -> dict[str, list[Measured | None]]:
    """Call every run `repeats` times, in turns, each time in another order.

    runs: by name; None is a run that failed. fewer: how many rounds a slow one takes part in,
    evenly among all; those it misses are None, too. tell: is called after each run. deadline: on
    the clock time.monotonic; a round that would take as long as the longest so far and end later is
    not begun, and those after it are left out of the results. Warming up is the caller's.
    """
    results: dict[str, list[Measured | None]] = {name: [None] * repeats for name in runs}
    names = list(runs)
    longest = 0.0
    for i in range(repeats):
        started = time.monotonic()
        if i > 0 and started + longest > deadline:
            return {name: measured[:i] for name, measured in results.items()}
        first = i % len(names)
        for name in names[first:] + names[:first]:
            if takes_part(i, repeats, (fewer or {}).get(name, repeats)):
                results[name][i] = runs[name]()
                tell(name)
        longest = max(longest, time.monotonic() - started)
    return results


def takes_part(i: int, repeats: int, wanted: int) -> bool:
    """Whether round i is one of `wanted` rounds spread evenly over `repeats`."""
    return (i * wanted) // repeats != ((i + 1) * wanted) // repeats


def seconds_of(work: Callable[[], object]) -> float:
    """How long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def total(measured: Measured) -> float:
    """Seconds of forward and backward (and update) together."""
    return sum(measured[name] for name in PASSES if name in measured)


def of(results: Sequence[Measured | None], value: Callable[[Measured], float]) -> Spread:
    """The spread of a value over the rounds that were run."""
    return spread([value(measured) for measured in results if measured is not None])


def milliseconds(results: Sequence[Measured | None], name: str) -> dict[str, float]:
    """The spread of one measured time, for JSON."""
    return of(results, lambda measured: 1e3 * measured[name]).as_dict()


def ratio(
    numerator: Sequence[Measured | None],
    denominator: Sequence[Measured | None],
    above: Callable[[Measured], float] = total,
    below: Callable[[Measured], float] = total,
) -> Spread:
    """The spread of a quotient taken within each round that both took part in."""
    pairs = zip(numerator, denominator, strict=True)
    return spread([above(a) / below(b) for a, b in pairs if a is not None and b is not None])
