#include "caffe/util/onednn.hpp"

#include <cstdlib>
#include <string>
#include <vector>

#ifdef USE_ONEDNN
#include <dnnl.hpp>
#endif


namespace caffe {

#ifdef USE_ONEDNN
namespace {

/// Whether products in bfloat16 are faster than in float without AMX, too.
bool IsAMD() {
#ifdef __x86_64__
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

}  // namespace
#endif  // USE_ONEDNN

bool onednn_bf16_wanted() {
#ifdef USE_ONEDNN
  const char* engine = getenv("CAFFE_CONVOLUTION_ENGINE");
  // Sets of instructions, a bit for each.
  const int needed = IsAMD() ? dnnl_cpu_isa_avx512_core_bf16
      : dnnl_cpu_isa_avx512_core_amx;
  return engine && string(engine) == "onednn_bf16" &&
      Caffe::mode() == Caffe::CPU &&
      (dnnl_get_effective_cpu_isa() & needed) == needed;
#else
  return false;
#endif
}

#ifdef USE_ONEDNN

bool onednn_bf16_is_fast(const string& kernel) {
  return IsAMD() || kernel.find("amx") != string::npos;
}

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

typedef dnnl::memory::desc Desc;
typedef dnnl::memory::data_type Type;

/// A matrix of floats where it is.
dnnl::memory Matrix(const int rows, const int columns, const bool transposed,
    const int leading, const float* data) {
  const dnnl::memory::dims strides = {transposed ? 1 : leading,
      transposed ? leading : 1};
  return dnnl::memory(Desc({rows, columns}, Type::f32, strides),
      onednn_engine(), const_cast<float*>(data));
}

/// What its copy in bfloat16 is to be: as the kernel likes it.
Desc Rounded(const int rows, const int columns) {
  return Desc({rows, columns}, Type::bf16, dnnl::memory::format_tag::any);
}

}  // namespace

bool onednn_bf16_gemm(const bool transpose_a, const bool transpose_b,
    const int m, const int n, const int k, const float* a, const int lda,
    const float* b, const int ldb, const float beta, float* c, const int ldc) {
  if (!onednn_bf16_is_sound(k)) { return false; }
  dnnl::memory from_a = Matrix(m, k, transpose_a, lda, a);
  dnnl::memory from_b = Matrix(k, n, transpose_b, ldb, b);
  dnnl::memory product = Matrix(m, n, false, ldc, c);
  dnnl::primitive_attr attributes;
  if (beta != 0) {
    CHECK_EQ(beta, 1);
    dnnl::post_ops sum;
    sum.append_sum(1.f);
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::primitive_desc way({Rounded(m, k), Rounded(k, n),
      product.get_desc()}, attributes, onednn_engine(), true);
  if (!way || !onednn_bf16_is_fast(way.impl_info_str())) { return false; }
  const size_t bytes_a = onednn_aligned(way.src_desc().get_size());
  char* space = onednn_workspace(bytes_a + way.weights_desc().get_size());
  dnnl::memory to_a(way.src_desc(), onednn_engine(), space);
  dnnl::memory to_b(way.weights_desc(), onednn_engine(), space + bytes_a);
  dnnl::reorder(from_a, to_a).execute(onednn_stream(), from_a, to_a);
  dnnl::reorder(from_b, to_b).execute(onednn_stream(), from_b, to_b);
  dnnl::matmul(way).execute(onednn_stream(), {{DNNL_ARG_SRC, to_a},
      {DNNL_ARG_WEIGHTS, to_b}, {DNNL_ARG_DST, product}});
  onednn_stream().wait();
  return true;
}

#endif  // USE_ONEDNN

}  // namespace caffe
