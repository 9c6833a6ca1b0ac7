"""Caffe weights to other frameworks and back, each conversion with its proof.

conversion.py      one conversion from beginning to end: it calls the next three in order
read.py            the model: its nets, and its weights from a file of any format
write.py           the model in another format
prove.py           the file that was made against its source, number by number

options.py         what a user asks for
description.py     what a result says of itself: names and colors of its labels, how photos go in
onnx_graph.py      nets as ONNX graphs of standard operators
onnx_nodes.py      nodes and constants of a graph under construction
onnx_photo.py      photos to a net and scores to label maps inside a graph
precision.py       graphs in float16 and int8, and what that costs
samples.py         what both sides of a proof run on, and stored outputs of Caffe
runtimes.py        nets run by Caffe, PyTorch and ONNX Runtime
caffe_process.py   runs Caffe, where it is installed, in a process of its own
page.py            the folder with the web page and a model
init_weights.py    initial weights of a net from a VGG-16

torch/             the networks as PyTorch modules; a folder that also works in another project
web/               a page that runs an ONNX model in the browser
"""
