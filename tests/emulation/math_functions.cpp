// Caffe's GPU functions that the LG-LSTM layers and Blob use.
#include "caffe/common.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

void caffe_gpu_memcpy(const size_t size, const void* from, void* to) {
  memmove(to, from, size);
}

template <typename Dtype>
void caffe_gpu_set(const int count, const Dtype value, Dtype* y) {
  emulation::CheckArgument(y);
  for (int i = 0; i < count; ++i) { y[i] = value; }
}
template void caffe_gpu_set<int>(const int, const int, int*);
template void caffe_gpu_set<float>(const int, const float, float*);
template void caffe_gpu_set<double>(const int, const double, double*);

#define EMULATED(Dtype) \
  template <> void caffe_gpu_axpy<Dtype>(const int count, const Dtype a, \
      const Dtype* x, Dtype* y) { \
    emulation::CheckArgument(x); \
    emulation::CheckArgument(y); \
    for (int i = 0; i < count; ++i) { y[i] += a * x[i]; } \
  } \
  template <> void caffe_gpu_asum<Dtype>(const int, const Dtype*, Dtype*) { \
    emulation::Fail("asum is not emulated"); \
  } \
  template <> void caffe_gpu_dot<Dtype>(const int, const Dtype*, \
      const Dtype*, Dtype*) { \
    emulation::Fail("dot is not emulated"); \
  } \
  template <> void caffe_gpu_scal<Dtype>(const int, const Dtype, Dtype*) { \
    emulation::Fail("scal is not emulated"); \
  }
EMULATED(float)
EMULATED(double)

}  // namespace caffe
