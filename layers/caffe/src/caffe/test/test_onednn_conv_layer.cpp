#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/onednn_conv_layer.hpp"
#include "caffe/util/onednn.hpp"
#include "google/protobuf/text_format.h"

#include "caffe/test/expect_near.hpp"
#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

// The engine of a layer that leaves it open.
class ConvolutionEngineTest : public ::testing::Test {
 protected:
  virtual void SetUp() { Caffe::set_mode(Caffe::CPU); }
  virtual void TearDown() { unsetenv("CAFFE_CONVOLUTION_ENGINE"); }

  ConvolutionParameter_Engine Engine(const char* name) {
    setenv("CAFFE_CONVOLUTION_ENGINE", name, 1);
    return ConvolutionEngineFromEnvironment(ConvolutionParameter_Engine_CUDNN);
  }
};

TEST_F(ConvolutionEngineTest, TestEnvironment) {
  EXPECT_EQ(ConvolutionParameter_Engine_CUDNN, Engine(""));
  EXPECT_EQ(ConvolutionParameter_Engine_CAFFE, Engine("caffe"));
  EXPECT_EQ(ConvolutionParameter_Engine_ONEDNN, Engine("onednn"));
  EXPECT_EQ(ConvolutionParameter_Engine_ONEDNN_WINOGRAD,
      Engine("onednn_winograd"));
  EXPECT_EQ(ConvolutionParameter_Engine_ONEDNN_WINOGRAD,
      Engine("onednn_bf16"));
}

TEST_F(ConvolutionEngineTest, TestUnsetLeavesTheEngine) {
  EXPECT_EQ(ConvolutionParameter_Engine_CUDNN,
      ConvolutionEngineFromEnvironment(ConvolutionParameter_Engine_CUDNN));
}

TEST_F(ConvolutionEngineTest, TestUnknownNameIsFatal) {
  EXPECT_DEATH(Engine("oneDNN"), "it must be caffe, onednn, "
      "onednn_winograd or onednn_bf16");
}

#ifdef USE_ONEDNN

/// What CAFFE_CONVOLUTION_ENGINE says, and the phase of the net.
struct EngineInPhase {
  const char* engine;
  Phase phase;
};

void PrintTo(const EngineInPhase& value, std::ostream* out) {
  *out << value.engine << " in " << Phase_Name(value.phase);
}

// Against Caffe's own engine in double precision, where it is exact.
class OneDNNConvolutionLayerTest
    : public ::testing::TestWithParam<EngineInPhase> {
 protected:
  struct Result {
    vector<double> top, bottom_diff, weight_diff, bias_diff;
    bool is_onednn, is_bf16;
    int num_passes;
  };

  virtual void SetUp() {
    Caffe::set_mode(Caffe::CPU);
    setenv("CAFFE_CONVOLUTION_ENGINE", GetParam().engine, 1);
  }
  virtual void TearDown() { unsetenv("CAFFE_CONVOLUTION_ENGINE"); }

  bool bf16() const { return GetParam().engine == string("onednn_bf16"); }
  bool trains() const { return GetParam().phase == TRAIN; }
  // Of the largest value: rounding errors of sums, of Winograd's transforms, or
  // of factors with 8 significant bits.
  double tolerance() const {
    return bf16() ? 1e-2 : GetParam().engine == string("onednn") ? 1e-5 : 1e-4;
  }

  LayerParameter Param(const string& convolution) {
    LayerParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString("name: 'conv' "
        "type: 'Convolution' phase: TRAIN convolution_param { " + convolution +
        " weight_filler { type: 'gaussian' std: 0.1 } "
        "bias_filler { type: 'gaussian' std: 0.1 } }", &param));
    return param;
  }

  // Two backward passes, since gradients of weights are added up.
  template <typename Dtype>
  Result Compute(LayerParameter param, const vector<int>& shape,
      const ConvolutionParameter_Engine engine, const bool learns = true) {
    param.mutable_convolution_param()->set_engine(engine);
    param.set_phase(GetParam().phase);
    shared_ptr<Layer<Dtype> > layer =
        LayerRegistry<Dtype>::CreateLayer(param);
    Blob<Dtype> bottom, top;
    vector<Blob<Dtype>*> bottoms(1, &bottom), tops(1, &top);
    bottom.Reshape(shape);
    layer->SetUp(bottoms, tops);
    Caffe::set_random_seed(1701);
    Fill(bottom.count(), bottom.mutable_cpu_data());
    for (int i = 0; i < layer->blobs().size(); ++i) {
      Fill(layer->blobs()[i]->count(), layer->blobs()[i]->mutable_cpu_data());
      caffe_set(layer->blobs()[i]->count(), Dtype(0),
          layer->blobs()[i]->mutable_cpu_diff());
      layer->set_param_propagate_down(i, learns);
    }
    layer->Forward(bottoms, tops);
    Fill(top.count(), top.mutable_cpu_diff());
    layer->Backward(tops, vector<bool>(1, true), bottoms);
    layer->Backward(tops, vector<bool>(1, true), bottoms);
    Result result;
    result.top = Values(top.count(), top.cpu_data());
    result.bottom_diff = Values(bottom.count(), bottom.cpu_diff());
    result.weight_diff = Values(layer->blobs()[0]->count(),
        layer->blobs()[0]->cpu_diff());
    if (layer->blobs().size() > 1) {
      result.bias_diff = Values(layer->blobs()[1]->count(),
          layer->blobs()[1]->cpu_diff());
    }
    OneDNNConvolutionLayer* own =
        dynamic_cast<OneDNNConvolutionLayer*>(layer.get());
    result.is_onednn = own != NULL;
    result.is_bf16 = own && own->is_bf16();
    result.num_passes = own ? own->num_passes() : 0;
    return result;
  }

  // The same numbers, exact in single precision, whatever Dtype is.
  template <typename Dtype>
  void Fill(const int count, Dtype* data) {
    vector<float> values(count);
    caffe_rng_gaussian<float>(count, 0, 1, values.data());
    std::copy(values.begin(), values.end(), data);
  }

  template <typename Dtype>
  vector<double> Values(const int count, const Dtype* data) {
    return vector<double>(data, data + count);
  }

  Result Check(const string& convolution, const int channels, const int height,
      const int width, const int num = 2) {
    SCOPED_TRACE(convolution);
    const int sizes[] = {num, channels, height, width};
    const vector<int> shape(sizes, sizes + 4);
    const LayerParameter param = Param(convolution);
    const Result expected = Compute<double>(param, shape,
        ConvolutionParameter_Engine_CAFFE);
    const Result actual = Compute<float>(param, shape,
        ConvolutionParameter_Engine_DEFAULT);
    EXPECT_TRUE(actual.is_onednn);
    ExpectNear(expected.top, actual.top, tolerance(), "top");
    ExpectNear(expected.bottom_diff, actual.bottom_diff, tolerance(), "bottom diff");
    ExpectNear(expected.weight_diff, actual.weight_diff, tolerance(), "weight diff");
    ExpectNear(expected.bias_diff, actual.bias_diff, tolerance(), "bias diff");
    return actual;
  }
};

TEST_P(OneDNNConvolutionLayerTest, TestNetworksShapes) {
  Check("num_output: 16 kernel_size: 3 pad: 1", 3, 13, 17);
  Check("num_output: 32 kernel_size: 3 pad: 1", 16, 13, 17);
  Check("num_output: 24 kernel_size: 3 pad: 1", 40, 9, 8, 3);
  Check("num_output: 32 kernel_size: 1", 48, 9, 7);
  Check("num_output: 16 kernel_size: 5 pad: 2", 16, 11, 9);
}

TEST_P(OneDNNConvolutionLayerTest, TestDilationInPhases) {
  // Maps larger and smaller than the dilation, divisible by it or not.
  Check("num_output: 32 kernel_size: 3 pad: 2 dilation: 2", 16, 9, 12);
  Check("num_output: 32 kernel_size: 3 pad: 12 dilation: 12", 16, 41, 29);
  Check("num_output: 32 kernel_size: 3 pad: 12 dilation: 12", 16, 8, 5);
  Check("num_output: 32 kernel_size: 3 pad: 3 dilation: 3", 16, 11, 7);
  Check("num_output: 32 kernel_size: 5 pad: 8 dilation: 4", 16, 11, 7);
}

TEST_P(OneDNNConvolutionLayerTest, TestDilationWithoutPhases) {
  Check("num_output: 16 kernel_size: 3 pad: 0 dilation: 2", 16, 9, 12);
  Check("num_output: 16 kernel_size: 3 pad: 2 dilation: 2 stride: 2", 16, 9, 8);
  Check("num_output: 16 kernel_h: 3 kernel_w: 5 pad_h: 2 pad_w: 4 "
      "dilation: 2", 16, 9, 12);
  Check("num_output: 16 kernel_size: 3 pad: 2 pad: 1 dilation: 2 dilation: 1",
      16, 9, 12);
}

TEST_P(OneDNNConvolutionLayerTest, TestOtherShapes) {
  Check("num_output: 16 kernel_size: 3 stride: 2", 16, 9, 12);
  Check("num_output: 16 kernel_size: 2", 16, 9, 12);
  Check("num_output: 7 kernel_h: 1 kernel_w: 3 pad_w: 1", 5, 1, 12);
  Check("num_output: 16 kernel_size: 3 pad: 1 bias_term: false", 16, 9, 12);
  Check("num_output: 1 kernel_size: 1", 1, 1, 1, 1);
}

TEST_P(OneDNNConvolutionLayerTest, TestWhatIsLeftToCaffe) {
  EXPECT_EQ(0, Check("num_output: 16 kernel_size: 3 pad: 1 group: 2",
      16, 9, 12).num_passes);
}

#ifdef __x86_64__
TEST_P(OneDNNConvolutionLayerTest, TestOneDNNComputes) {
  if (!__builtin_cpu_supports("avx2")) { return; }
  const int passes = trains() ? 3 : 1;
  EXPECT_EQ(passes, Check("num_output: 32 kernel_size: 3 pad: 1", 32, 13, 17)
      .num_passes);
  EXPECT_EQ(passes, Check("num_output: 32 kernel_size: 3 pad: 2 dilation: 2",
      32, 13, 17).num_passes);
}
#endif

TEST_P(OneDNNConvolutionLayerTest, TestWeightsThatDoNotLearn) {
  const int sizes[] = {2, 16, 9, 12};
  const Result result = Compute<float>(
      Param("num_output: 16 kernel_size: 3 pad: 1"),
      vector<int>(sizes, sizes + 4), ConvolutionParameter_Engine_DEFAULT, false);
  EXPECT_EQ(vector<double>(result.weight_diff.size(), 0), result.weight_diff);
  EXPECT_EQ(vector<double>(result.bias_diff.size(), 0), result.bias_diff);
}

TEST_P(OneDNNConvolutionLayerTest, TestNewShapes) {
  LayerParameter param = Param("num_output: 16 kernel_size: 3 pad: 1");
  shared_ptr<Layer<float> > layer = LayerRegistry<float>::CreateLayer(param);
  Blob<float> bottom(2, 16, 9, 12), top;
  vector<Blob<float>*> bottoms(1, &bottom), tops(1, &top);
  layer->SetUp(bottoms, tops);
  for (int num = 3; num > 0; --num) {  // images of ones: all are the same
    bottom.Reshape(num, 16, 9 + num, 12);
    caffe_set(bottom.count(), 1.f, bottom.mutable_cpu_data());
    layer->Forward(bottoms, tops);
    ASSERT_EQ(num, top.num());
    for (int i = 0; i < top.count(); ++i) {
      ASSERT_NEAR(top.cpu_data()[i % top.count(1)], top.cpu_data()[i], 1e-5);
    }
    const int center = top.offset(0, 3, 5, 5);
    float expected = layer->blobs()[1]->cpu_data()[3];
    for (int k = 0; k < 16 * 9; ++k) {
      expected += layer->blobs()[0]->cpu_data()[3 * 16 * 9 + k];
    }
    EXPECT_NEAR(expected, top.cpu_data()[center], 10 * tolerance());
  }
}

TEST_P(OneDNNConvolutionLayerTest, TestBF16IsWhatWasAskedFor) {
  const int sizes[] = {1, 32, 13, 17};
  const vector<int> shape(sizes, sizes + 4);
  const LayerParameter param = Param("num_output: 32 kernel_size: 3 pad: 1");
  const Result open = Compute<float>(param, shape,
      ConvolutionParameter_Engine_DEFAULT);
  const Result named = Compute<float>(param, shape,
      ConvolutionParameter_Engine_ONEDNN_WINOGRAD);
  EXPECT_FALSE(named.is_bf16);
  const bool maps = onednn_bf16_maps_wanted(GetParam().phase);
  EXPECT_EQ(onednn_bf16_wanted() && !trains(), maps);
  if (maps) { EXPECT_TRUE(open.is_bf16); }
  if (!onednn_bf16_wanted()) { EXPECT_FALSE(open.is_bf16); }
  if (open.is_bf16) {  // it rounds
    EXPECT_NE(named.top, open.top);
  } else if (bf16()) {
    EXPECT_EQ(named.top, open.top);
    EXPECT_EQ(named.bottom_diff, open.bottom_diff);
    EXPECT_EQ(named.weight_diff, open.weight_diff);
  }
}

TEST_P(OneDNNConvolutionLayerTest, TestWhereBF16WeightsAreNotSound) {
  if (!bf16()) { return; }
  Check("num_output: 1 kernel_size: 3 pad: 6 dilation: 6", 100, 14, 14);
  Check("num_output: 64 kernel_size: 5 pad: 12 dilation: 6", 100, 50, 4);
  for (int width = 31; width < 47; ++width) {
    Check("num_output: 32 kernel_size: 3 pad: 1", 32, 9, width);
  }
  Check("num_output: 64 kernel_size: 3 pad: 1", 64, 9, 321);
}

INSTANTIATE_TEST_CASE_P(Engines, OneDNNConvolutionLayerTest,
    ::testing::Values(EngineInPhase{"onednn", TRAIN},
        EngineInPhase{"onednn_winograd", TRAIN},
        EngineInPhase{"onednn_bf16", TRAIN}, EngineInPhase{"onednn_bf16", TEST}));

TEST(OneDNNConvolutionTest, TestDoubleIsCaffes) {
  LayerParameter param;
  param.set_type("Convolution");
  param.mutable_convolution_param()->set_engine(
      ConvolutionParameter_Engine_ONEDNN);
  shared_ptr<Layer<double> > layer = LayerRegistry<double>::CreateLayer(param);
  EXPECT_TRUE(dynamic_cast<ConvolutionLayer<double>*>(layer.get()) != NULL);
}

#endif  // USE_ONEDNN

}  // namespace caffe
