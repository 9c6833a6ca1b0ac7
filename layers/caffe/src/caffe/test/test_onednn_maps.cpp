#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/pooling_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/syncedmem.hpp"
#include "caffe/util/format.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/onednn.hpp"
#include "caffe/util/onednn_maps.hpp"
#include "google/protobuf/text_format.h"

#include "caffe/test/expect_near.hpp"
#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

// Data of a SyncedMemory that is elsewhere.
class SyncedMemorySourceTest : public ::testing::Test {
 protected:
  /// Writes one number everywhere, and counts how often.
  class Number : public SyncedMemory::Source {
   public:
    Number(const float number, int* times) : number_(number), times_(times) {}
    virtual void WriteTo(void* data) {
      std::fill_n(static_cast<float*>(data), kCount, number_);
      ++*times_;
    }

   private:
    const float number_;
    int* const times_;
  };

  SyncedMemorySourceTest() : memory_(kCount * sizeof(float)), times_(0) {}

  void SetNumber(const float number) {
    memory_.set_source(
        shared_ptr<SyncedMemory::Source>(new Number(number, &times_)));
  }
  const float* Data() { return static_cast<const float*>(memory_.cpu_data()); }

  static const int kCount = 5;
  SyncedMemory memory_;
  int times_;
};

TEST_F(SyncedMemorySourceTest, TestIsWrittenWhenAskedFor) {
  SetNumber(3);
  EXPECT_EQ(0, times_);
  EXPECT_TRUE(memory_.source() != NULL);
  EXPECT_EQ(SyncedMemory::HEAD_AT_CPU, memory_.head());
  for (int i = 0; i < kCount; ++i) { EXPECT_EQ(3, Data()[i]); }
  EXPECT_EQ(1, times_);
  EXPECT_TRUE(memory_.source() == NULL);
}

TEST_F(SyncedMemorySourceTest, TestLastSourceCounts) {
  SetNumber(3);
  SetNumber(4);
  EXPECT_EQ(4, Data()[0]);
  EXPECT_EQ(1, times_);
}

TEST_F(SyncedMemorySourceTest, TestPointerGivenOutSeesNewData) {
  const float* data = Data();
  EXPECT_EQ(0, data[0]);
  SetNumber(3);
  EXPECT_EQ(3, data[0]);
  EXPECT_TRUE(memory_.source() == NULL);
}

TEST_F(SyncedMemorySourceTest, TestOverwriting) {
  SetNumber(3);
  float* data = static_cast<float*>(memory_.mutable_cpu_data());
  EXPECT_EQ(3, data[0]);  // what is not overwritten stays
  data[1] = 7;
  EXPECT_EQ(3, Data()[0]);
  EXPECT_EQ(7, Data()[1]);
  float other[kCount] = {1, 2, 3, 4, 5};
  SyncedMemory memory(sizeof(other));
  memory.set_source(
      shared_ptr<SyncedMemory::Source>(new Number(3, &times_)));
  memory.set_cpu_data(other);
  EXPECT_EQ(other, memory.cpu_data());
  EXPECT_EQ(2, other[1]);
}

#ifdef USE_ONEDNN

// Nets whose layers pass bfloat16 on.
class OneDNNMapsTest : public ::testing::Test {
 protected:
  virtual void SetUp() {
    Caffe::set_mode(Caffe::CPU);
    setenv("CAFFE_CONVOLUTION_ENGINE", "onednn_bf16", 1);
    wanted_ = onednn_bf16_maps_wanted(TEST);
  }
  virtual void TearDown() { unsetenv("CAFFE_CONVOLUTION_ENGINE"); }

  static string Convolution(const string& name, const string& bottom,
      const int outputs, const int kernel, const int dilation = 1) {
    const int pad = dilation * (kernel - 1) / 2;
    return "layer { name: '" + name + "' type: 'Convolution' bottom: '" +
        bottom + "' top: '" + name + "' convolution_param { num_output: " +
        format_int(outputs) + " kernel_size: " + format_int(kernel) +
        " pad: " + format_int(pad) + " dilation: " + format_int(dilation) +
        " weight_filler { type: 'msra' } "
        "bias_filler { type: 'gaussian' std: 0.1 } } } ";
  }
  static string InPlace(const string& type, const string& blob) {
    return "layer { name: '" + blob + "_" + type + "' type: '" + type +
        "' bottom: '" + blob + "' top: '" + blob + "' } ";
  }
  static string Pooling(const string& name, const string& bottom,
      const string& options) {
    return "layer { name: '" + name + "' type: 'Pooling' bottom: '" + bottom +
        "' top: '" + name + "' pooling_param { " + options + " } } ";
  }
  /// As LargeFOV's backbone has them.
  static string Layers() {
    return Convolution("conv1", "data", 16, 3) + InPlace("ReLU", "conv1") +
        Pooling("pool1", "conv1", "pool: MAX kernel_size: 3 stride: 2 pad: 1") +
        Convolution("conv2", "pool1", 32, 3, 2) + InPlace("ReLU", "conv2") +
        Pooling("pool2", "conv2", "pool: MAX kernel_size: 3 stride: 1 pad: 1") +
        Pooling("pool3", "pool2", "pool: AVE kernel_size: 3 stride: 1 pad: 1") +
        Convolution("conv3", "pool3", 32, 3, 12) + InPlace("ReLU", "conv3") +
        InPlace("Dropout", "conv3") + Convolution("conv4", "conv3", 16, 1) +
        Pooling("pool4", "conv4", "pool: AVE kernel_size: 3 stride: 2") +
        Convolution("score", "pool4", 5, 1);
  }

  template <typename Dtype>
  shared_ptr<Net<Dtype> > MakeNet(const string& layers) {
    NetParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "state { phase: TEST } force_backward: true "
        "layer { name: 'data' type: 'Input' top: 'data' input_param { shape { "
        "dim: 2 dim: 3 dim: 22 dim: 17 } } } " + layers, &param));
    shared_ptr<Net<Dtype> > net(new Net<Dtype>(param));
    Caffe::set_random_seed(1701);
    // The same numbers, exact in single precision, whatever Dtype is.
    for (int i = 0; i < net->learnable_params().size(); ++i) {
      Blob<Dtype>* blob = net->learnable_params()[i];
      Fill(1.f / std::sqrt(blob->count() / blob->shape(0)), blob);
    }
    Fill(1, net->blob_by_name("data").get());
    return net;
  }

  template <typename Dtype>
  static void Fill(const float std, Blob<Dtype>* blob) {
    vector<float> values(blob->count());
    caffe_rng_gaussian<float>(values.size(), 0, std, values.data());
    std::copy(values.begin(), values.end(), blob->mutable_cpu_data());
  }

  template <typename Dtype>
  static vector<double> Values(const Net<Dtype>& net, const string& name) {
    const Blob<Dtype>& blob = *net.blob_by_name(name);
    return vector<double>(blob.cpu_data(), blob.cpu_data() + blob.count());
  }
  static bool IsElsewhere(const Net<float>& net, const string& name) {
    return net.blob_by_name(name)->data()->source() != NULL;
  }

  /// Gradients of all parameters when that of every score is 1.
  template <typename Dtype>
  void BackwardFromOnes(Net<Dtype>* net) {
    Blob<Dtype>* score = net->blob_by_name("score").get();
    caffe_set(score->count(), Dtype(1), score->mutable_cpu_diff());
    net->ClearParamDiffs();
    net->Backward();
  }

  void ExpectNear(const vector<double>& expected, const vector<double>& actual,
      const string& what) {
    caffe::ExpectNear(expected, actual, 2e-2, what);
    EXPECT_NE(vector<double>(expected.size(), 0), expected) << what;
  }

  bool wanted_;  // false where the processor cannot
};

const char* const kBlobs[] = {"conv1", "pool1", "conv2", "pool2", "pool3",
    "conv3", "conv4", "pool4", "score"};
const int kNumBlobs = 9;

TEST_F(OneDNNMapsTest, TestDataStaysElsewhereAndIsRight) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  net->Forward();
  for (int i = 0; i < kNumBlobs; ++i) {
    EXPECT_EQ(wanted_, IsElsewhere(*net, kBlobs[i])) << kBlobs[i];
  }
  shared_ptr<Net<double> > exact = MakeNet<double>(Layers());
  exact->Forward();
  for (int i = 0; i < kNumBlobs; ++i) {
    ExpectNear(Values(*exact, kBlobs[i]), Values(*net, kBlobs[i]), kBlobs[i]);
  }
}

TEST_F(OneDNNMapsTest, TestLookingChangesNothing) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  net->Forward();
  const vector<double> score = Values(*net, "score");
  vector<vector<double> > first(kNumBlobs);
  for (int i = 0; i < kNumBlobs; ++i) { first[i] = Values(*net, kBlobs[i]); }
  net->Forward();  // now the arrays have been looked at
  for (int i = 0; i < kNumBlobs; ++i) {
    EXPECT_FALSE(IsElsewhere(*net, kBlobs[i])) << kBlobs[i];
    EXPECT_EQ(first[i], Values(*net, kBlobs[i])) << kBlobs[i];
  }
  EXPECT_EQ(score, Values(*net, "score"));
  shared_ptr<Net<float> > other = MakeNet<float>(Layers());
  for (int i = 0; i < other->layers().size(); ++i) {  // looked at on the way
    other->ForwardFromTo(i, i);
    const vector<Blob<float>*>& tops = other->top_vecs()[i];
    for (int j = 0; j < tops.size(); ++j) { tops[j]->cpu_data(); }
  }
  EXPECT_EQ(score, Values(*other, "score"));
}

TEST_F(OneDNNMapsTest, TestBeforeReLU) {
  shared_ptr<Net<float> > net = MakeNet<float>(
      Convolution("conv1", "data", 16, 3) + InPlace("ReLU", "conv1"));
  net->ForwardFromTo(0, 1);
  const vector<double> before = Values(*net, "conv1");
  EXPECT_LT(*std::min_element(before.begin(), before.end()), -0.1);
  net->ForwardFromTo(2, 2);
  const vector<double> after = Values(*net, "conv1");
  EXPECT_EQ(0, *std::min_element(after.begin(), after.end()));
  EXPECT_GT(*std::max_element(after.begin(), after.end()), 0.1);
}

TEST_F(OneDNNMapsTest, TestSomebodyOverwritesATop) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  net->Forward();
  const vector<double> score = Values(*net, "score");
  float* conv1 = net->blob_by_name("conv1")->mutable_cpu_data();
  for (int pass = 0; pass < 2; ++pass) {  // the second time by the old pointer
    std::fill_n(conv1, net->blob_by_name("conv1")->count(), pass + 1);
    net->ForwardFrom(3);
    EXPECT_EQ(pass + 1, Values(*net, "pool1")[0]);
    EXPECT_NE(score, Values(*net, "score"));
    net->Forward();
    EXPECT_EQ(score, Values(*net, "score"));
  }
}

TEST_F(OneDNNMapsTest, TestChangedWeights) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  const vector<shared_ptr<Blob<float> > >& blobs =
      net->layer_by_name("conv2")->blobs();
  net->Forward();
  const vector<double> score = Values(*net, "score");
  for (int i = 0; i < 2; ++i) {
    float* changed = blobs[i]->mutable_cpu_data() + (i == 0 ? 1234 : 7);
    const float old = *changed;
    *changed += 10;
    net->Forward();
    EXPECT_NE(score, Values(*net, "score")) << i;
    *(blobs[i]->mutable_cpu_data() + (i == 0 ? 1234 : 7)) = old;
    net->Forward();
    EXPECT_EQ(score, Values(*net, "score")) << i;
  }
}

TEST_F(OneDNNMapsTest, TestLentWeightsChangeAtAnyTime) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  const shared_ptr<Blob<float> >& blob =
      net->layer_by_name("conv2")->blobs()[0];
  blob->data()->Lend();
  float* weight = blob->mutable_cpu_data() + 1234;
  const float old = *weight;
  net->Forward();
  const vector<double> score = Values(*net, "score");
  *weight += 10;
  net->Forward();
  EXPECT_NE(score, Values(*net, "score"));
  *weight = old;
  blob->data()->EndLoan();  // right after the change
  net->Forward();
  EXPECT_EQ(score, Values(*net, "score"));
}

TEST_F(OneDNNMapsTest, TestWeightsInOtherMemory) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  shared_ptr<Net<float> > other = MakeNet<float>(Layers());
  for (int i = 0; i < other->params().size(); ++i) {
    Fill(1, other->params()[i].get());
  }
  net->Forward();
  const vector<double> score = Values(*net, "score");
  other->Forward();
  net->ShareTrainedLayersWith(other.get());
  net->Forward();
  EXPECT_NE(score, Values(*net, "score"));
  EXPECT_EQ(Values(*other, "score"), Values(*net, "score"));
}

TEST_F(OneDNNMapsTest, TestChangeAfterThePassComesTooLate) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  net->Forward();
  const vector<double> score = Values(*net, "score");
  net->Forward();
  shared_ptr<Net<float> > other = MakeNet<float>(Layers());
  other->Forward();
  for (int i = 0; i < other->learnable_params().size(); ++i) {
    Fill(1, other->learnable_params()[i]);
  }
  Fill(1, other->blob_by_name("data").get());
  EXPECT_EQ(score, Values(*other, "score"));
}

TEST_F(OneDNNMapsTest, TestNetsThatShareWeights) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  shared_ptr<Net<float> > other = MakeNet<float>(Layers());
  other->ShareTrainedLayersWith(net.get());
  other->Forward();
  for (int i = 0; i < net->learnable_params().size(); ++i) {
    caffe_scal(net->learnable_params()[i]->count(), 1.5f,
        net->learnable_params()[i]->mutable_cpu_data());
  }
  net->Forward();
  other->Forward();
  EXPECT_EQ(Values(*net, "score"), Values(*other, "score"));
}

TEST_F(OneDNNMapsTest, TestNewShapesBetweenPasses) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  net->Forward();
  shared_ptr<Net<double> > exact = MakeNet<double>(Layers());
  const int heights[] = {30, 9, 22};
  for (int i = 0; i < 3; ++i) {
    // A smaller map is smaller in the same memory.
    net->blob_by_name("data")->Reshape(i + 1, 3, heights[i], 17);
    exact->blob_by_name("data")->Reshape(i + 1, 3, heights[i], 17);
    Caffe::set_random_seed(i);
    Fill(1, net->blob_by_name("data").get());
    Caffe::set_random_seed(i);
    Fill(1, exact->blob_by_name("data").get());
    net->Reshape();
    exact->Reshape();
    net->Forward();
    exact->Forward();
    ExpectNear(Values(*exact, "score"), Values(*net, "score"), "score");
    ExpectNear(Values(*exact, "pool1"), Values(*net, "pool1"), "pool1");
  }
}

TEST_F(OneDNNMapsTest, TestReshapedBlobKeepsItsNumbers) {
  shared_ptr<Net<float> > net = MakeNet<float>(
      Convolution("conv1", "data", 16, 3) + "layer { name: 'flat' "
      "type: 'Flatten' bottom: 'conv1' top: 'flat' } layer { name: 'rows' "
      "type: 'Reshape' bottom: 'conv1' top: 'rows' reshape_param { shape { "
      "dim: 0 dim: 8 dim: -1 dim: 17 } } } " +
      Convolution("conv2", "rows", 16, 3));
  net->Forward();
  const vector<double> rows = Values(*net, "rows");
  EXPECT_EQ(Values(*net, "conv1"), rows);
  EXPECT_EQ(rows, Values(*net, "flat"));
  const vector<double> conv2 = Values(*net, "conv2");
  net->Forward();
  EXPECT_EQ(conv2, Values(*net, "conv2"));
}

TEST_F(OneDNNMapsTest, TestSplitWithOtherReaders) {
  const string split = Convolution("conv1", "data", 16, 3) +
      "layer { name: 'relu' type: 'ReLU' bottom: 'conv1' top: 'relu' } " +
      Convolution("conv2", "relu", 16, 3) + Convolution("conv3", "relu", 16, 1) +
      "layer { name: 'sum' type: 'Eltwise' bottom: 'conv2' bottom: 'conv3' "
      "bottom: 'conv1' bottom: 'relu' top: 'sum' } ";
  shared_ptr<Net<float> > net = MakeNet<float>(split);
  shared_ptr<Net<double> > exact = MakeNet<double>(split);
  exact->Forward();
  for (int pass = 0; pass < 2; ++pass) {
    net->Forward();
    ExpectNear(Values(*exact, "sum"), Values(*net, "sum"), "sum");
    ExpectNear(Values(*exact, "conv1"), Values(*net, "conv1"), "conv1");
    ExpectNear(Values(*exact, "relu"), Values(*net, "relu"), "relu");
  }
}

TEST_F(OneDNNMapsTest, TestLeakyReLU) {
  const string leaky = Convolution("conv1", "data", 16, 3) +
      "layer { name: 'relu' type: 'ReLU' bottom: 'conv1' top: 'conv1' "
      "relu_param { negative_slope: 0.5 } } " +
      Convolution("conv2", "conv1", 16, 3);
  shared_ptr<Net<float> > net = MakeNet<float>(leaky);
  shared_ptr<Net<double> > exact = MakeNet<double>(leaky);
  net->Forward();
  exact->Forward();
  ExpectNear(Values(*exact, "conv1"), Values(*net, "conv1"), "conv1");
  ExpectNear(Values(*exact, "conv2"), Values(*net, "conv2"), "conv2");
}

TEST_F(OneDNNMapsTest, TestBackward) {
  shared_ptr<Net<float> > net = MakeNet<float>(Layers());
  shared_ptr<Net<double> > exact = MakeNet<double>(Layers());
  for (int pass = 0; pass < 2; ++pass) {
    net->Forward();
    exact->Forward();
    BackwardFromOnes(net.get());
    BackwardFromOnes(exact.get());
    // Where two inputs of a maximum are nearly equal, rounding decides.
    EXPECT_NEAR(1, net->layer_by_name("conv3")->blobs()[0]->asum_diff() /
        exact->layer_by_name("conv3")->blobs()[0]->asum_diff(), 0.02);
    EXPECT_NEAR(1, net->layer_by_name("conv1")->blobs()[0]->asum_diff() /
        exact->layer_by_name("conv1")->blobs()[0]->asum_diff(), 0.1);
  }
}

TEST_F(OneDNNMapsTest, TestWhatIsNotANumberStaysVisible) {
  const float kNaN = std::numeric_limits<float>::quiet_NaN();
  const string layers = Convolution("conv1", "data", 16, 3) +
      InPlace("ReLU", "conv1") + Convolution("conv2", "conv1", 16, 3) +
      InPlace("ReLU", "conv2") + Convolution("score", "conv2", 5, 1);
  for (int where = 0; where < 3; ++where) {
    shared_ptr<Net<float> > net = MakeNet<float>(layers);
    Blob<float>* blob = where == 0 ? net->blob_by_name("data").get() :
        net->layer_by_name("conv1")->blobs()[where - 1].get();
    for (int sign = 0; sign < 2; ++sign) {
      blob->mutable_cpu_data()[5] = sign ? -kNaN : kNaN;
      net->Forward();
      const vector<double> score = Values(*net, "score");
      double sum = 0;
      for (int i = 0; i < score.size(); ++i) { sum += score[i]; }
      EXPECT_TRUE(std::isnan(sum)) << where << sign;
    }
  }
}

TEST_F(OneDNNMapsTest, TestProducts) {
  if (!wanted_) { return; }
  const int kWidth = 17, kHeight = 19, rows = 30, leading = 75;
  const int channels[] = {1, 62, 63, 64, 65, 70};  // oneDNN's kernel fails for 63
  for (int i = 0; i < 6; ++i) {
    const int count = kWidth * kHeight, terms = channels[i];
    Blob<float> map(1, terms, kHeight, kWidth);
    Blob<float> weight(vector<int>(1, rows * leading));
    Fill(1, &map);
    Fill(1, &weight);
    vector<double> expected(rows * count);
    for (int k = 0; k < rows * count; ++k) {  // (H W, rows)
      for (int c = 0; c < terms; ++c) {
        expected[k] += static_cast<double>(map.cpu_data()[c * count + k / rows])
            * weight.cpu_data()[k % rows * leading + c];
      }
    }
    vector<float> products(expected.size(), 1);
    OneDNNProduct product;
    product.SetWeight(rows, terms, weight.cpu_data(), leading);
    product.Compute(OneDNNMaps(vector<int>{1, terms, 1, 3}, map.cpu_data()), 0,
        3, products.data());
    const int part = 100;  // the rest first, then what is before it
    product.Compute(*onednn_maps(map), part, count - part,
        products.data() + part * rows);
    product.Compute(*onednn_maps(map), 0, part, products.data());
    ExpectNear(expected, vector<double>(products.begin(), products.end()),
        "product of maps");
    if (!onednn_bf16_gemm(true, true, count, rows, terms, map.cpu_data(), count,
        weight.cpu_data(), leading, 0, products.data(), rows)) { continue; }
    EXPECT_TRUE(onednn_bf16_gemm(true, true, count, rows, terms, map.cpu_data(),
        count, weight.cpu_data(), leading, 1, products.data(), rows));
    for (int k = 0; k < expected.size(); ++k) { expected[k] *= 2; }
    ExpectNear(expected, vector<double>(products.begin(), products.end()),
        "two products");
  }
}

// The layers in bfloat16 against those in double precision.
TEST_F(OneDNNMapsTest, TestLGLSTM) {
  const string first = Convolution("conv1", "data", 16, 3) +
      InPlace("ReLU", "conv1") + "layer { name: 't' type: 'LGLSTMTransition' "
      "bottom: 'conv1' top: 'h0' top: 'm0' top: 'g0' lg_lstm_param { ";
  const string second = "num_output: 6 bias_term: true } } "
      "layer { name: 'l' type: 'LGLSTM' bottom: 'h0' bottom: 'm0' bottom: 'g0' "
      "top: 'h1' top: 'm1' top: 'g1' lg_lstm_param { num_output: 6 "
      "bias_term: true ";
  const string blobs[] = {"h0", "m0", "g0", "h1", "m1", "g1"};
  const string options[] = {"", "neighbors: 4 ", "neighbors: 2 ",
      "share_spatial: false "};
  for (int i = 0; i < 4; ++i) {
    SCOPED_TRACE(options[i]);
    const string layers = first + options[i] + second + options[i] + "} } " +
        Convolution("score", "h1", 5, 1);
    shared_ptr<Net<float> > net = MakeNet<float>(layers);
    shared_ptr<Net<double> > exact = MakeNet<double>(layers);
    exact->Forward();
    net->Forward();
    EXPECT_EQ(wanted_, IsElsewhere(*net, "h1"));
    EXPECT_EQ(wanted_, IsElsewhere(*net, "m1"));
    const vector<double> score = Values(*net, "score");
    ExpectNear(Values(*exact, "score"), score, "score");
    for (int j = 0; j < 6; ++j) {
      ExpectNear(Values(*exact, blobs[j]), Values(*net, blobs[j]), blobs[j]);
    }
    net->Forward();  // from Caffe's arrays: all have been looked at
    EXPECT_FALSE(IsElsewhere(*net, "h1"));
    EXPECT_EQ(score, Values(*net, "score"));
    for (int j = 0; j < 2; ++j) {
      BackwardFromOnes(net.get());
      BackwardFromOnes(exact.get());
      EXPECT_NEAR(1, net->layer_by_name("l")->blobs()[0]->asum_diff() /
          exact->layer_by_name("l")->blobs()[0]->asum_diff(), 0.02);
      EXPECT_NEAR(1, net->layer_by_name("t")->blobs()[0]->asum_diff() /
          exact->layer_by_name("t")->blobs()[0]->asum_diff(), 0.02);
      net->Forward();
    }
  }
}

TEST_F(OneDNNMapsTest, TestPoolingEqualsCaffes) {
  if (!wanted_) { return; }
  const char* const options[] = {
      "kernel_size: 3 stride: 2 pad: 1", "kernel_size: 3 stride: 1 pad: 1",
      "kernel_size: 2 stride: 2", "kernel_h: 1 kernel_w: 4 stride: 3",
      "kernel_size: 3 stride: 2 round_mode: FLOOR", "global_pooling: true",
      "kernel_size: 5 stride: 2 pad_h: 2 pad_w: 4"};
  for (int i = 0; i < 14; ++i) {
    const string pooling = string(i % 2 ? "pool: AVE " : "pool: MAX ") +
        options[i / 2];
    SCOPED_TRACE(pooling);
    const string layers = Convolution("conv1", "data", 16, 3) +
        InPlace("ReLU", "conv1") + Pooling("pool1", "conv1", pooling);
    shared_ptr<Net<float> > net = MakeNet<float>(layers);
    net->Forward();
    const vector<double> fast = Values(*net, "pool1");
    PoolingLayer<float> layer(net->layer_by_name("pool1")->layer_param());
    Blob<float> top;
    const vector<Blob<float>*> bottoms(1, net->blob_by_name("conv1").get());
    const vector<Blob<float>*> tops(1, &top);
    layer.SetUp(bottoms, tops);
    layer.Forward(bottoms, tops);
    const vector<double> expected(top.cpu_data(), top.cpu_data() + top.count());
    ASSERT_EQ(expected.size(), fast.size());
    for (int j = 0; j < fast.size(); ++j) {
      if (i % 2) {
        ASSERT_NEAR(expected[j], fast[j], std::abs(expected[j]) / 256);
      } else {
        ASSERT_EQ(expected[j], fast[j]);
      }
    }
  }
}

#endif  // USE_ONEDNN

}  // namespace caffe
