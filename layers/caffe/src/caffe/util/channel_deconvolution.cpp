#include "caffe/util/channel_deconvolution.hpp"

#include <algorithm>
#include <cstddef>

#include "caffe/util/cpu_threads.hpp"

namespace caffe {

namespace {

/// Add to a row of the top what a row of the bottom gives it through a row of the
/// kernel.
template <typename Dtype>
void AddRow(const ChannelDeconvolution& d, const Dtype* bottom,
    const Dtype* weight, Dtype* top) {
  const int stride = d.stride[1];
  for (int k = 0; k < d.kernel[1]; ++k) {
    const int shift = k * d.dilation[1] - d.pad[1];
    // Those positions of the bottom that reach a position of the top.
    const int begin = shift < 0 ? (-shift + stride - 1) / stride : 0;
    const int end = std::min(d.width,
        (d.out_width - shift + stride - 1) / stride);
    const Dtype factor = weight[k];
    for (int x = begin; x < end; ++x) {
      const Dtype product = factor * bottom[x];
      top[x * stride + shift] += product;
    }
  }
}

}  // namespace

template <typename Dtype>
void ChannelDeconvolution::Forward(const Dtype* bottom, const Dtype* weight,
    Dtype* top) const {
  const int rows = channels * out_height;
#pragma omp parallel for if(rows * out_width >= kParallelCount)
  for (int row = 0; row < rows; ++row) {
    const int channel = row / out_height, y = row % out_height;
    Dtype* out = top + static_cast<size_t>(row) * out_width;
    std::fill(out, out + out_width, Dtype(0));
    for (int k = 0; k < kernel[0]; ++k) {
      const int from = y + pad[0] - k * dilation[0];
      if (from < 0 || from % stride[0] || from / stride[0] >= height) {
        continue;
      }
      AddRow(*this, bottom + (static_cast<size_t>(channel) * height +
          from / stride[0]) * width,
          weight + (channel * kernel[0] + k) * kernel[1], out);
    }
  }
}

template void ChannelDeconvolution::Forward<float>(const float*, const float*,
    float*) const;
template void ChannelDeconvolution::Forward<double>(const double*,
    const double*, double*) const;

}  // namespace caffe
