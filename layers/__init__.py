"""Python layers for Caffe: the LG-LSTM layers to read, the data layer and the image-label target.

`caffe/` is what is added to Caffe's own source.
"""
