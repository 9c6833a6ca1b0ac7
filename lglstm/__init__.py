"""LG-LSTM in BVLC Caffe: object parsing with local-global LSTMs (Liang et al., CVPR 2016)."""

__version__ = "0.2.0"
