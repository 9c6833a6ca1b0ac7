// The products of cuBLAS that the LG-LSTM layers use, from their definition.
#ifndef EMULATION_CUBLAS_V2_H_
#define EMULATION_CUBLAS_V2_H_

#include "cuda_runtime.h"

typedef void* cublasHandle_t;
typedef int cublasStatus_t;
enum {
  CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_NOT_INITIALIZED,
  CUBLAS_STATUS_ALLOC_FAILED, CUBLAS_STATUS_INVALID_VALUE,
  CUBLAS_STATUS_ARCH_MISMATCH, CUBLAS_STATUS_MAPPING_ERROR,
  CUBLAS_STATUS_EXECUTION_FAILED, CUBLAS_STATUS_INTERNAL_ERROR,
  CUBLAS_STATUS_NOT_SUPPORTED, CUBLAS_STATUS_LICENSE_ERROR,
  CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH
};
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };

inline cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = handle;  // anything but NULL
  return 0;
}
inline cublasStatus_t cublasDestroy(cublasHandle_t) { return 0; }
inline cublasStatus_t cublasSetMathMode(cublasHandle_t, int) { return 0; }

namespace emulation {

// Element (row, column) of a matrix with columns first, or of its transpose.
template <typename T>
struct Matrix {
  Matrix(T* data, const cublasOperation_t operation, const int rows,
      const int columns, const int ld)
      : data(data), row_step(operation == CUBLAS_OP_N ? 1 : ld),
        column_step(operation == CUBLAS_OP_N ? ld : 1) {
    if (ld < (operation == CUBLAS_OP_N ? rows : columns)) {
      Fail("a leading dimension is too small");
    }
    CheckArgument(data);
    CheckArgument(&(*this)(rows - 1, columns - 1));
  }
  T& operator()(const int row, const int column) const {
    return data[row * row_step + column * column_step];
  }
  T* data;
  size_t row_step, column_step;
};

template <typename T>
cublasStatus_t Gemm(cublasHandle_t, cublasOperation_t transpose_a,
    cublasOperation_t transpose_b, int m, int n, int k, const T* alpha,
    const T* a, int lda, long long stride_a,  // NOLINT(runtime/int)
    const T* b, int ldb, long long stride_b,  // NOLINT(runtime/int)
    const T* beta, T* c, int ldc, long long stride_c,  // NOLINT(runtime/int)
    int batch) {
  for (int i = 0; i < batch; ++i) {
    const Matrix<const T> A(a + i * stride_a, transpose_a, m, k, lda);
    const Matrix<const T> B(b + i * stride_b, transpose_b, k, n, ldb);
    const Matrix<T> C(c + i * stride_c, CUBLAS_OP_N, m, n, ldc);
    for (int row = 0; row < m; ++row) {
      for (int column = 0; column < n; ++column) {
        T sum = 0;
        for (int l = 0; l < k; ++l) { sum += A(row, l) * B(l, column); }
        const T old = *beta == 0 ? T(0) : *beta * C(row, column);
        C(row, column) = *alpha * sum + old;
      }
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace emulation

#define cublasSgemmStridedBatched emulation::Gemm<float>
#define cublasDgemmStridedBatched emulation::Gemm<double>

#endif  // EMULATION_CUBLAS_V2_H_
