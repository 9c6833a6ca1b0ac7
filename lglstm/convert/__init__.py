"""Caffe weights to other frameworks and back, each conversion with its proof.

caffe/    prototxt and caffemodel without Caffe, and one net description for all targets
torch/    the networks as PyTorch modules; a folder that also works copied into another project
web/      a page that runs an ONNX model in the browser

conversion.py      one conversion from beginning to end; what `lglstm convert` calls
weights.py         files of weights in every format, read, checked and written
onnx_graph.py      nets as ONNX graphs of standard operators
page.py            the folder with the web page and a model
proof.py           both sides on the same inputs, compared number by number
caffe_process.py   runs Caffe, where it is installed, in a process of its own
"""
