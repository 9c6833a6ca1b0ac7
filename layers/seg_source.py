"""The batches of a train net's data layer, for trainings without Caffe.

data = open_training_data("models/horse/train.prototxt", rank=0, world_size=2)
photos, labels = data.batch(0)             # float32 (B, 3, H, W) and (B, 1, h, w)
"""

from __future__ import annotations

import os
from dataclasses import replace

from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.layers import seg_options
from lglstm.layers.seg_list import read_list
from lglstm.layers.seg_prefetch import Inline, Prefetcher, open_source


def open_training_data(
    train_net: str | os.PathLike[str], rank: int = 0, world_size: int = 1
) -> Inline | Prefetcher:
    """The batches that the SegData layer of a train net would give process `rank`.

    Raises InputError unless the net has one such layer, whose list is there.
    """
    net, _ = read_prototxt(train_net, "TRAIN")
    options = replace(seg_options.of_net(net, train_net), rank=rank, world_size=world_size)
    return open_source(options, read_list(options.list, options.root))
