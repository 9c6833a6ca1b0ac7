#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/deconv_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

/// Options along one axis.
struct Axis {
  int size, kernel, stride, pad, dilation;
};

class ChannelDeconvolutionTest : public CPUDeviceTest<float> {
 protected:
  static const int kChannels = 3;

  static LayerParameter Options(const Axis& y, const Axis& x, const int group) {
    LayerParameter layer;
    ConvolutionParameter* options = layer.mutable_convolution_param();
    options->set_num_output(kChannels);
    options->set_group(group);
    options->set_kernel_h(y.kernel);
    options->set_kernel_w(x.kernel);
    options->set_stride_h(y.stride);
    options->set_stride_w(x.stride);
    options->set_pad_h(y.pad);
    options->set_pad_w(x.pad);
    options->add_dilation(y.dilation);
    options->add_dilation(x.dilation);
    options->mutable_weight_filler()->set_type("gaussian");
    options->mutable_bias_filler()->set_type("gaussian");
    return layer;
  }

  /// The same sums by gemm and col2im: one group, zero between other channels.
  void Compare(const Axis& y, const Axis& x) {
    Blob<float> bottom(2, kChannels, y.size, x.size), by_channel, by_gemm;
    FillerParameter filler;
    GaussianFiller<float>(filler).Fill(&bottom);
    const vector<Blob<float>*> bottoms(1, &bottom);
    const vector<Blob<float>*> tops(1, &by_channel), others(1, &by_gemm);
    DeconvolutionLayer<float> layer(Options(y, x, kChannels));
    DeconvolutionLayer<float> whole(Options(y, x, 1));
    layer.SetUp(bottoms, tops);
    whole.SetUp(bottoms, others);
    const int kernel = y.kernel * x.kernel;
    Blob<float>* weight = whole.blobs()[0].get();
    caffe_set(weight->count(), 0.f, weight->mutable_cpu_data());
    for (int c = 0; c < kChannels; ++c) {
      caffe_copy(kernel, layer.blobs()[0]->cpu_data() + c * kernel,
          weight->mutable_cpu_data() + weight->offset(c, c));
    }
    whole.blobs()[1]->CopyFrom(*layer.blobs()[1]);
    layer.Forward(bottoms, tops);
    whole.Forward(bottoms, others);
    ASSERT_EQ(by_gemm.shape(), by_channel.shape());
    for (int i = 0; i < by_gemm.count(); ++i) {
      ASSERT_EQ(by_gemm.cpu_data()[i], by_channel.cpu_data()[i]) << i;
    }
  }
};

TEST_F(ChannelDeconvolutionTest, TestEqualsGemmBitByBit) {
  const Axis axes[] = {
      {41, 16, 8, 4, 1}, {7, 4, 2, 1, 1}, {6, 3, 1, 1, 2}, {5, 2, 3, 0, 1},
      {4, 5, 3, 4, 2}, {1, 3, 2, 1, 1}, {9, 1, 1, 0, 1}};
  for (int i = 0; i < 7; ++i) {
    for (int j = 0; j < 7; ++j) {
      SCOPED_TRACE(i * 10 + j);
      Compare(axes[i], axes[j]);
    }
  }
}

}  // namespace caffe
