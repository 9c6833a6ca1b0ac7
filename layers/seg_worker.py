"""The process that decodes batches ahead; started by layers/seg_prefetch.py, not by users.

It reads lines from standard input: first the job as JSON, then `slot batch` for every batch wanted.
It writes the batch into that slot of the shared memory and answers `ok slot`, or `error` and the
sentence as JSON. It ends when its input is closed, so it never outlives its parent.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from typing import TextIO

import cv2
import numpy as np

from lglstm.common.errors import InputError
from lglstm.layers import seg_options
from lglstm.layers.seg_batches import Batches
from lglstm.layers.seg_list import Example
from lglstm.layers.seg_options import SegDataOptions


def slot_bytes(options: SegDataOptions) -> int:
    """Bytes of one batch: data, then label, float32."""
    return 4 * (int(np.prod(options.data_shape)) + int(np.prod(options.label_shape)))


def slot_arrays(
    memory: mmap.mmap, options: SegDataOptions, slot: int
) -> tuple[np.ndarray, np.ndarray]:
    """Data (B, 3, H, W) and label (B, 1, h, w), float32, as they lie in a slot of the memory."""
    values = np.frombuffer(memory, np.float32, slot_bytes(options) // 4, slot * slot_bytes(options))
    data, label = np.split(values, [int(np.prod(options.data_shape))])
    return data.reshape(options.data_shape), label.reshape(options.label_shape)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""
    if not (first := requests.readline()):  # the parent was killed before it could say anything
        return
    job = json.loads(first)
    options = seg_options.parse(job["options"])
    batches = Batches(options, [Example(*example) for example in job["examples"]])
    # Left open until the process ends: an error on the way out may still hold arrays in it.
    memory = mmap.mmap(job["memory"], 0)
    for line in requests:
        slot, number = map(int, line.split())
        try:
            batches.fill(number, *slot_arrays(memory, options, slot))
        except InputError as error:
            print("error", json.dumps(str(error)), file=answers, flush=True)
        else:
            print("ok", slot, file=answers, flush=True)


def main() -> None:
    """Serve the data layer that started this process."""
    # Ctrl-C is for the training, which may continue to a snapshot and needs its batches until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)  # the cores belong to the net; more workers is the way to use more
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        serve(sys.stdin, answers)
    except BrokenPipeError:  # the parent has gone
        os._exit(0)


if __name__ == "__main__":
    main()
