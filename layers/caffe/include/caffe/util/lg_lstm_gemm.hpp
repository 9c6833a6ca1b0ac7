#ifndef CAFFE_UTIL_LG_LSTM_GEMM_HPP_
#define CAFFE_UTIL_LG_LSTM_GEMM_HPP_

#include "caffe/util/mkl_alternate.hpp"

namespace caffe {

/**
 * @brief C = A B + beta C for row-major matrices with leading dimensions, which
 *        caffe_cpu_gemm lacks: the weights' global and local columns are
 *        multiplied where they stand.
 *
 * A (after transposition) is m x k, B is k x n, C is m x n.
 */
inline void lg_lstm_cpu_gemm(const CBLAS_TRANSPOSE transpose_a,
    const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
    const float* a, const int lda, const float* b, const int ldb,
    const float beta, float* c, const int ldc) {
  cblas_sgemm(CblasRowMajor, transpose_a, transpose_b, m, n, k, 1.f, a, lda, b,
      ldb, beta, c, ldc);
}

inline void lg_lstm_cpu_gemm(const CBLAS_TRANSPOSE transpose_a,
    const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
    const double* a, const int lda, const double* b, const int ldb,
    const double beta, double* c, const int ldc) {
  cblas_dgemm(CblasRowMajor, transpose_a, transpose_b, m, n, k, 1., a, lda, b,
      ldb, beta, c, ldc);
}

}  // namespace caffe

#endif  // CAFFE_UTIL_LG_LSTM_GEMM_HPP_
