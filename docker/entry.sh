#!/bin/sh
# What `docker run lg-lstm WORDS…` does: a program of this list, the tests, or lglstm WORDS….
set -eu

case "${1:-}" in
    caffe | lglstm | python | python3 | pytest | sh | bash) exec "$@" ;;
    "") exec lglstm --help ;;
    test)
        shift
        # Of each test, number 2 and 3 are those of float and double on the GPU.
        [ -e /dev/nvidiactl ] && filter='*' || filter='-*/2.*:*/3.*'
        test_lg_lstm.testbin --gtest_filter="$filter"
        exec python -m pytest -p no:cacheprovider "$@"
        ;;
    *) exec lglstm "$@" ;;
esac
