#include "caffe/util/onednn.hpp"

#include <cstdlib>
#include <string>
#include <vector>

#ifdef USE_ONEDNN
#include <dnnl.hpp>
#endif


namespace caffe {

bool onednn_bf16_wanted() {
#ifdef USE_ONEDNN
  const char* engine = getenv("CAFFE_CONVOLUTION_ENGINE");
  // The constants are sets of bits: AMX includes AVX512_BF16.
  return engine && string(engine) == "onednn_bf16" &&
      Caffe::mode() == Caffe::CPU && (dnnl_get_effective_cpu_isa() &
      dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
#else
  return false;
#endif
}

#ifdef USE_ONEDNN

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

#endif  // USE_ONEDNN

}  // namespace caffe
