"""The training loop behind `lglstm train`: Caffe's own solver, watched, recorded and resumable."""
