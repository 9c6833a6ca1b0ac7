#ifndef CAFFE_UTIL_LG_LSTM_GEMM_HPP_
#define CAFFE_UTIL_LG_LSTM_GEMM_HPP_

#ifdef USE_ONEDNN
#include <dnnl.h>
#endif

#include "caffe/common.hpp"
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
#ifdef USE_ONEDNN
  // A tenth faster than OpenBLAS, except for the long sums of weight gradients.
  if (transpose_b == CblasNoTrans) {
    CHECK_EQ(dnnl_success, dnnl_sgemm(transpose_a == CblasNoTrans ? 'N' : 'T',
        'N', m, n, k, 1.f, a, lda, b, ldb, beta, c, ldc));
    return;
  }
#endif
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

#ifndef CPU_ONLY
/**
 * @brief The same on the GPU, for `batch` matrices each stride apart in a, b
 *        and c; stride 0 of a or b takes the same matrix for all. Single
 *        precision is computed in single precision (no TF32) unless the handle
 *        is told otherwise.
 */
inline void lg_lstm_gpu_gemm(const CBLAS_TRANSPOSE transpose_a,
    const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
    const float* a, const int lda, const int stride_a, const float* b,
    const int ldb, const int stride_b, const float beta, float* c,
    const int ldc, const int stride_c, const int batch) {
  const float alpha = 1;
  // cuBLAS has columns first: it computes C^T = B^T A^T.
  CUBLAS_CHECK(cublasSgemmStridedBatched(Caffe::cublas_handle(),
      transpose_b == CblasNoTrans ? CUBLAS_OP_N : CUBLAS_OP_T,
      transpose_a == CblasNoTrans ? CUBLAS_OP_N : CUBLAS_OP_T, n, m, k, &alpha,
      b, ldb, stride_b, a, lda, stride_a, &beta, c, ldc, stride_c, batch));
}

inline void lg_lstm_gpu_gemm(const CBLAS_TRANSPOSE transpose_a,
    const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
    const double* a, const int lda, const int stride_a, const double* b,
    const int ldb, const int stride_b, const double beta, double* c,
    const int ldc, const int stride_c, const int batch) {
  const double alpha = 1;
  CUBLAS_CHECK(cublasDgemmStridedBatched(Caffe::cublas_handle(),
      transpose_b == CblasNoTrans ? CUBLAS_OP_N : CUBLAS_OP_T,
      transpose_a == CblasNoTrans ? CUBLAS_OP_N : CUBLAS_OP_T, n, m, k, &alpha,
      b, ldb, stride_b, a, lda, stride_a, &beta, c, ldc, stride_c, batch));
}

/// One product, without batch.
template <typename Dtype>
inline void lg_lstm_gpu_gemm(const CBLAS_TRANSPOSE transpose_a,
    const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
    const Dtype* a, const int lda, const Dtype* b, const int ldb,
    const Dtype beta, Dtype* c, const int ldc) {
  lg_lstm_gpu_gemm(transpose_a, transpose_b, m, n, k, a, lda, 0, b, ldb, 0,
      beta, c, ldc, 0, 1);
}
#endif  // CPU_ONLY

}  // namespace caffe

#endif  // CAFFE_UTIL_LG_LSTM_GEMM_HPP_
