"""Which engine computes convolutions on the CPU: an environment variable chooses it.

docs/performance.md has them measured. Caffe's own engine is the default, because it is Caffe's.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

VARIABLE = "CAFFE_CONVOLUTION_ENGINE"
DEFAULT = "caffe"
ENGINES = (DEFAULT, "onednn", "onednn_winograd", "onednn_bf16")
AVX512_BF16, AMX = 0xE7, 0x3E7  # dnnl_cpu_isa_avx512_core_bf16 and …_amx, sets of bits


def asked() -> str:
    """The engine that the variable names, which may be none of ENGINES."""
    return os.environ.get(VARIABLE) or DEFAULT


def onednn_library() -> str | None:
    """The oneDNN that this process has loaded, with Caffe as a rule; None without one."""
    mapped = Path("/proc/self/maps").read_text()
    found = re.search(r"/\S*/libdnnl\S*$", mapped, re.MULTILINE)
    return found.group() if found else None


def bf16_is_fast(onednn: str) -> bool:
    """Whether onednn_bf16 computes in bfloat16 here, as `onednn_bf16_wanted` decides in C++."""
    is_amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text().split()
    needed = AVX512_BF16 if is_amd else AMX
    return ctypes.CDLL(onednn).dnnl_get_effective_cpu_isa() & needed == needed


def faster(bf16: bool) -> str:
    """What to choose instead of Caffe's own engine, as part of a sentence."""
    engines = "onednn_bf16 or onednn_winograd" if bf16 else "onednn_winograd"
    return f"{VARIABLE}={engines} is faster on a CPU"
