# LG-LSTM with Caffe on CUDA 11.8, or, with --build-arg CUDA=0, for the CPU alone: docs/docker.md.
# Caffe is built by `make setup`, as everywhere.

ARG BASE=debian:bookworm

FROM ${BASE} AS build
ARG DEBIAN_MIRROR=
ARG CUDA=1
ARG CUDA_ARCH="52 60 61 70 75 80 86 89 90"
ARG NCCL=0
WORKDIR /workspace
COPY docker/apt.sh docker/libraries.sh docker/
COPY scripts/debian-packages.txt scripts/
RUN if [ "$CUDA" != 0 ]; then cuda="nvidia-cuda-toolkit g++-11"; fi; \
    docker/apt.sh ca-certificates make $(sed 's/#.*//' scripts/debian-packages.txt) $cuda
COPY docker/nccl.txt docker/nccl.sh docker/
RUN [ "$NCCL" = 0 ] || docker/nccl.sh /opt/nccl
COPY Makefile pyproject.toml requirements.lock LICENSE ./
COPY scripts scripts
COPY data_prep data_prep
COPY layers layers
COPY lglstm lglstm
COPY models models
COPY prototxt_gen prototxt_gen
COPY pytorch pytorch
# Libraries of which nothing is used are left out: OpenCV's windows alone would bring all of Qt.
RUN export CUDA CUDA_ARCH NCCL NCCL_DIR=/opt/nccl LGLSTM_CACHE=/tmp/cache \
        LDFLAGS=-Wl,--as-needed && \
    make setup && \
    if [ "$NCCL" != 0 ]; then cp /opt/nccl/lib/libnccl.so.2 .venv/lib/; fi && \
    ninja -C /tmp/cache/caffe/*/build test_lg_lstm.testbin && \
    cp /tmp/cache/caffe/*/build/test/test_lg_lstm.testbin .venv/libexec/ && \
    docker/libraries.sh .venv/libexec/* .venv/lib/libcaffe.so \
        .venv/lib/python3*/site-packages/caffe/_caffe.so >packages.txt && \
    rm -r /tmp/cache
# For `docker run lg-lstm test`: of the tools that `make test` installs, pytest alone.
COPY requirements-dev.lock ./
RUN sed -n '/^\(iniconfig\|pluggy\|pytest\)==/,/# via/p' requirements-dev.lock >/tmp/pytest.lock && \
    .venv/bin/pip --disable-pip-version-check install -q --no-compile --require-hashes --no-deps \
        -r /tmp/pytest.lock && \
    .venv/bin/pytest --version

FROM ${BASE}
ARG DEBIAN_MIRROR=
ARG CUDA=1
LABEL org.opencontainers.image.title="LG-LSTM" \
      org.opencontainers.image.description="Object parsing with local-global LSTMs in BVLC Caffe" \
      org.opencontainers.image.licenses="BSD-2-Clause"
WORKDIR /workspace
COPY docker/apt.sh docker/
COPY --from=build /workspace/packages.txt /usr/share/lg-lstm/
# /usr/share/lg-lstm/debian.txt records the version of every package in the image. Any user of the
# host (docker run --user) may write into the home folder, data and runs.
RUN docker/apt.sh python3 $(cat /usr/share/lg-lstm/packages.txt) && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin && \
    dpkg-query -W >/usr/share/lg-lstm/debian.txt && \
    useradd --create-home --uid 1000 lglstm && \
    mkdir data runs && chmod 1777 data runs /home/lglstm
COPY --from=build /workspace/.venv .venv
COPY . .
# The NVIDIA variables make the container runtime bring the host's driver; the image holds none.
ENV HOME=/home/lglstm \
    PATH=/workspace/.venv/bin:/workspace/.venv/libexec:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER lglstm
HEALTHCHECK --interval=5m --timeout=1m --start-period=1m CMD ["lglstm", "doctor"]
ENTRYPOINT ["docker/entry.sh"]
