#!/bin/sh
# Puts NCCL's header and library into FOLDER/include and FOLDER/lib, where Caffe's build (NCCL_DIR)
# looks for them.
set -eu

python3 -m venv /tmp/nccl
/tmp/nccl/bin/pip -q install --require-hashes --no-deps --only-binary :all: -r docker/nccl.txt
mkdir -p "$1"
cp -r /tmp/nccl/lib/python3*/site-packages/nvidia/nccl/include /tmp/nccl/lib/python3*/site-packages/nvidia/nccl/lib "$1"
ln -s libnccl.so.2 "$1/lib/libnccl.so"
rm -r /tmp/nccl
