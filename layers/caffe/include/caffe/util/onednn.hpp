#ifndef CAFFE_UTIL_ONEDNN_HPP_
#define CAFFE_UTIL_ONEDNN_HPP_

#include <cstddef>

#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/mkl_alternate.hpp"

namespace dnnl {
struct engine;
struct stream;
}

namespace caffe {

/**
 * @brief Whether products are to be computed in bfloat16: asked for with
 *        CAFFE_CONVOLUTION_ENGINE=onednn_bf16, in CPU mode, by a net of this
 *        phase, on a processor with instructions for it (AVX512_BF16 or AMX).
 *
 * Factors are then rounded to bfloat16, that is to 8 significant bits with the
 * range of float; products are exact and their sums are in single precision.
 * Blobs stay in single precision, and so does all of training.
 */
bool onednn_bf16_wanted(const Phase phase);

#ifdef USE_ONEDNN
/// The CPU as oneDNN sees it.
const dnnl::engine& onednn_engine();
/// Where a thread has its primitives executed.
dnnl::stream& onednn_stream();
/// Memory that the layers of a thread use one after the other; grows, and keeps
/// its size. Valid until the next call.
char* onednn_workspace(const size_t bytes);

/**
 * @brief C = A B + beta C with factors rounded to bfloat16; row-major matrices
 *        with leading dimensions as for cblas_sgemm, A (after transposition)
 *        m x k and B k x n.
 */
void onednn_bf16_gemm(const CBLAS_TRANSPOSE transpose_a,
    const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
    const float* a, const int lda, const float* b, const int ldb,
    const float beta, float* c, const int ldc);
#endif  // USE_ONEDNN

}  // namespace caffe

#endif  // CAFFE_UTIL_ONEDNN_HPP_
