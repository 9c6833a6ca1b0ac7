"""Caffe weights to other frameworks and back, each conversion with its proof.

caffe/    prototxt and caffemodel without Caffe, and one net description for all targets
torch/    the networks as PyTorch modules; a folder that also works copied into another project
onnx.py   the networks as ONNX graphs of standard operators
weights.py    npz, safetensors, HDF5 and PyTorch files of weights
proof.py  runs Caffe and the converted model on the same inputs and compares
web/      a page that runs the ONNX file in the browser
"""
