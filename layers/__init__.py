"""Python layers for Caffe: LG-LSTM, the data layer and the image-label target.

`equations.py` has the equations of LG-LSTM in NumPy; `lg_lstm.py` makes Python layers of them.

`caffe/` is what is added to Caffe's own source.
"""
