#ifndef CAFFE_UTIL_ONEDNN_HPP_
#define CAFFE_UTIL_ONEDNN_HPP_

#include <cstddef>

#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"

namespace dnnl {
struct engine;
struct stream;
}

namespace caffe {

/**
 * @brief Whether products are to be computed in bfloat16: asked for with
 *        CAFFE_CONVOLUTION_ENGINE=onednn_bf16, in CPU mode, on a processor with
 *        AMX or one of AMD's with AVX512_BF16. With AVX512_BF16 alone, Intel's
 *        take twice as long as in single precision (docs/performance.md).
 *
 * Factors are then rounded to bfloat16, that is to 8 significant bits with the
 * range of float; products are exact and their sums are in single precision.
 *
 * In nets of the phase TRAIN these are the factors in convolutions and LG-LSTM
 * layers, where onednn_bf16_is_fast. In those of the phase TEST, values stay in
 * bfloat16 between layers, too (onednn_bf16_maps_wanted, OneDNNSource); whoever
 * looks at a blob, or changes it, has Caffe's array.
 */
bool onednn_bf16_wanted();
/// Whether layers of this phase pass maps of bfloat16 to each other.
inline bool onednn_bf16_maps_wanted(const Phase phase) {
  return phase == TEST && onednn_bf16_wanted();
}

#ifdef USE_ONEDNN
/// Whether a kernel of oneDNN, by its name, multiplies in bfloat16 faster than
/// others do in float: on AMD's processors any, on Intel's those with AMX.
bool onednn_bf16_is_fast(const string& kernel);

/// The CPU as oneDNN sees it.
const dnnl::engine& onednn_engine();
/// Where a thread has its primitives executed.
dnnl::stream& onednn_stream();
/// Memory that the layers of a thread use one after the other; grows, and keeps
/// its size. Valid until the next call.
char* onednn_workspace(const size_t bytes);
/// Bytes of an array in it after which the next is aligned as the first.
inline size_t onednn_aligned(const size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

/// Whether oneDNN 2.6 can be given products of matrices in bfloat16 whose sums have
/// so many terms. For 63, its kernel ends in an illegal instruction.
inline bool onednn_bf16_is_sound(const int terms) {
  return terms % 2 == 0 || terms > 64;
}

/**
 * @brief C = A B + beta C, row-major with leading dimensions, with A and B rounded
 *        to bfloat16.
 *
 * A (after transposition) is m x k, B is k x n, C is m x n; beta is 0 or 1. Does
 * nothing and returns false where that is no faster than in single precision (it
 * is with AMX) or not sound.
 */
bool onednn_bf16_gemm(const bool transpose_a, const bool transpose_b,
    const int m, const int n, const int k, const float* a, const int lda,
    const float* b, const int ldb, const float beta, float* c, const int ldc);
#endif  // USE_ONEDNN

}  // namespace caffe

#endif  // CAFFE_UTIL_ONEDNN_HPP_
