"""LG-LSTM in BVLC Caffe: object parsing with local-global LSTMs (Liang et al., CVPR 2016).

    parser = lglstm.Parser("horse", "runs/horse_iter_8820.caffemodel")
    result = parser.parse("horse.jpg")      # result.label_map, result.areas, result.overlay

Importing the package imports nothing else: `Parser` loads Caffe when it is first used.
"""

from __future__ import annotations

# Not imported from `typing`: this file is run before the user's folders are out of the way.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from lglstm.parser import Parser as Parser
    from lglstm.parser import Parsing as Parsing

__version__ = "0.2.0"
__all__ = ["Parser", "Parsing", "__version__"]


def __getattr__(name: str) -> object:
    if name in ("Parser", "Parsing"):
        from lglstm import parser

        return getattr(parser, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
