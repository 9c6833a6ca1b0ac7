#include "caffe/util/onednn.hpp"

#include <cstdlib>
#include <string>
#include <vector>

#ifdef USE_ONEDNN
#include <dnnl.hpp>
#endif


namespace caffe {

bool onednn_bf16_wanted(const Phase phase) {
#ifdef USE_ONEDNN
  const char* engine = getenv("CAFFE_CONVOLUTION_ENGINE");
  // The constants are sets of bits: AMX includes AVX512_BF16.
  return phase == TEST && engine && string(engine) == "onednn_bf16" &&
      Caffe::mode() == Caffe::CPU && (dnnl_get_effective_cpu_isa() &
      dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
#else
  return false;
#endif
}

#ifdef USE_ONEDNN

typedef dnnl::memory::desc Desc;
typedef dnnl::memory::dims Dims;

const dnnl::engine& onednn_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& onednn_stream() {
  static thread_local dnnl::stream stream(onednn_engine());
  return stream;
}

char* onednn_workspace(const size_t bytes) {
  static thread_local vector<char> space;
  const size_t kAlignment = 64;
  if (space.size() < bytes + kAlignment) {
    vector<char>().swap(space);  // before, not after, the larger one is there
    space.resize(bytes + kAlignment);
  }
  const size_t address = reinterpret_cast<size_t>(space.data());
  return space.data() + (kAlignment - address % kAlignment) % kAlignment;
}

namespace {

/// A matrix of floats in memory, transposed or not.
dnnl::memory Matrix(const int rows, const int columns, const int leading,
    const CBLAS_TRANSPOSE transpose, const float* data) {
  const bool plain = transpose == CblasNoTrans;
  const Desc desc({rows, columns}, dnnl::memory::data_type::f32,
      plain ? Dims{leading, 1} : Dims{1, leading});
  return dnnl::memory(desc, onednn_engine(), const_cast<float*>(data));
}

Desc BF16Desc(const int rows, const int columns) {
  return Desc({rows, columns}, dnnl::memory::data_type::bf16,
      dnnl::memory::format_tag::any);
}

}  // namespace

void onednn_bf16_gemm(const CBLAS_TRANSPOSE transpose_a,
    const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
    const float* a, const int lda, const float* b, const int ldb,
    const float beta, float* c, const int ldc) {
  const dnnl::engine& engine = onednn_engine();
  dnnl::memory a_float = Matrix(m, k, lda, transpose_a, a);
  dnnl::memory b_float = Matrix(k, n, ldb, transpose_b, b);
  dnnl::memory product = Matrix(m, n, ldc, CblasNoTrans, c);
  dnnl::primitive_attr attributes;
  if (beta != 0) {
    dnnl::post_ops sum;
    sum.append_sum(beta);
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::primitive_desc way({BF16Desc(m, k), BF16Desc(k, n),
      product.get_desc()}, attributes, engine);
  const size_t a_bytes = (way.src_desc().get_size() + 63) / 64 * 64;
  char* space = onednn_workspace(a_bytes + way.weights_desc().get_size());
  dnnl::memory a_rounded(way.src_desc(), engine, space);
  dnnl::memory b_rounded(way.weights_desc(), engine, space + a_bytes);
  dnnl::stream& stream = onednn_stream();
  dnnl::reorder(a_float, a_rounded).execute(stream, a_float, a_rounded);
  dnnl::reorder(b_float, b_rounded).execute(stream, b_float, b_rounded);
  dnnl::matmul(way).execute(stream, {{DNNL_ARG_SRC, a_rounded},
      {DNNL_ARG_WEIGHTS, b_rounded}, {DNNL_ARG_DST, product}});
  stream.wait();
}

#endif  // USE_ONEDNN

}  // namespace caffe
