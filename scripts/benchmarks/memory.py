"""How much memory this process took since a mark, at its highest, from Linux's own counts."""

from __future__ import annotations

import re
from pathlib import Path

MIB = 2**20


class PeakMemory:
    """The most memory held since the object was made, beyond what was held then.

    Linux counts the resident pages and remembers the highest count, which `5` written into
    `clear_refs` forgets. Where that may not be written, an earlier peak hides a lower later one.
    """

    def __init__(self) -> None:
        self._before = _status("VmRSS" if self.forget() else "VmHWM")

    @staticmethod
    def forget() -> bool:
        """Let the highest count begin anew at what is held now; false where that is refused."""
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return False
        return True

    def mib(self) -> float:
        return (_status("VmHWM") - self._before) / MIB


def available_mib() -> float:
    """Memory that programs can still take on this machine, MiB."""
    return _kib("/proc/meminfo", "MemAvailable") / 1024


def _status(field: str) -> int:
    """A memory count of this process in bytes."""
    return _kib("/proc/self/status", field) * 1024


def _kib(file: str, field: str) -> int:
    (kib,) = re.findall(rf"^{field}:\s+(\d+)", Path(file).read_text(), re.MULTILINE)
    return int(kib)
