"""What HDF5 keeps in the file itself: the rest could be read from any file of the machine."""

from __future__ import annotations

import h5py


def is_own(group: h5py.Group, name: str) -> bool:
    """Whether a member is stored in the file, and is no link, which could lead into another."""
    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def holds_its_numbers(dataset: h5py.Dataset) -> bool:
    """Whether the numbers are in the file, and not put together from others."""
    return not (dataset.external or dataset.is_virtual)
