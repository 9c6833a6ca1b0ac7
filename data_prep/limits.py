"""How much may be read from one file: a few bytes of it can claim to hold any number of numbers."""

from __future__ import annotations

from dataclasses import dataclass

from lglstm.common.images import MAX_PIXELS


@dataclass(frozen=True)
class Limits:
    """What a file of a data set can hold, in bytes of memory.

    value: of one array. total: of everything that is in memory at once.
    """

    value: int
    total: int


LIMITS = Limits(value=4 * MAX_PIXELS, total=4 * MAX_PIXELS)
"""For files of which nothing is known: no label map has more pixels than a photo may have."""

TEXT_BYTES = 1 << 16
"""No name or sentence in these sets is longer."""

OBJECT_BYTES = 256
"""What an array needs in memory even if it is empty."""


class TooMuch(ValueError):
    """A file claims to hold more than its data set can."""


class Budget:
    """Counts what is read, before memory is spent on it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.renew()

    def renew(self) -> None:
        """Begin anew: what was read so far is out of memory."""
        self.left = self.limits.total

    def take(self, size: int, largest: int | None = None) -> None:
        """Count `size` bytes of one value; raise TooMuch if it, or all together, is too large.

        largest: the limit for this value, by default that of an array.
        """
        self.left -= size
        if size > (self.limits.value if largest is None else largest) or self.left < 0:
            raise TooMuch
