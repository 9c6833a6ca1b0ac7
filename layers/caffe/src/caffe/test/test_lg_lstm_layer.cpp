#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/lg_lstm_layer.hpp"
#include "caffe/util/math_functions.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

namespace caffe {

template <typename TypeParam>
class LGLSTMLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  LGLSTMLayerTest() : num_(2), height_(4), width_(3) {
    Caffe::set_random_seed(1701);
  }

  // Options of a layer with two hidden cells per LSTM and weights large enough
  // to bend the gates.
  LayerParameter Options(const int neighbors, const int grid,
      const bool share = true, const bool bias = false) {
    LayerParameter layer;
    LGLSTMParameter* param = layer.mutable_lg_lstm_param();
    param->set_num_output(2);
    param->set_neighbors(neighbors);
    param->set_global_grid(grid);
    param->set_share_spatial(share);
    param->set_bias_term(bias);
    param->mutable_weight_filler()->set_type("gaussian");
    param->mutable_weight_filler()->set_std(0.5);
    param->mutable_bias_filler()->set_type("gaussian");
    param->mutable_bias_filler()->set_std(0.5);
    return layer;
  }

  Blob<Dtype>* AddBlob(const int channels, const int height, const int width,
      vector<shared_ptr<Blob<Dtype> > >* blobs) {
    blobs->push_back(shared_ptr<Blob<Dtype> >(
        new Blob<Dtype>(num_, channels, height, width)));
    FillerParameter param;
    GaussianFiller<Dtype> filler(param);
    filler.Fill(blobs->back().get());
    return blobs->back().get();
  }

  // Fill bottoms of the right shapes for LGLSTM, or x for the transition.
  vector<Blob<Dtype>*> Bottoms(const LayerParameter& layer,
      const bool transition) {
    const LGLSTMParameter& param = layer.lg_lstm_param();
    const int cells = (param.neighbors() + 1) * param.num_output();
    vector<Blob<Dtype>*> bottom;
    if (transition) {
      bottom.push_back(AddBlob(3, height_, width_, &bottoms_));
      return bottom;
    }
    bottom.push_back(AddBlob(cells, height_, width_, &bottoms_));
    bottom.push_back(AddBlob(cells, height_, width_, &bottoms_));
    if (param.global_grid()) {
      bottom.push_back(AddBlob(param.num_output(), param.global_grid(),
          param.global_grid(), &bottoms_));
    }
    return bottom;
  }

  vector<Blob<Dtype>*> Tops(const LayerParameter& layer) {
    vector<Blob<Dtype>*> top;
    const int count = layer.lg_lstm_param().global_grid() ? 3 : 2;
    for (int i = 0; i < count; ++i) {
      tops_.push_back(shared_ptr<Blob<Dtype> >(new Blob<Dtype>()));
      top.push_back(tops_.back().get());
    }
    return top;
  }

  template <typename LayerType>
  void CheckGradient(const LayerParameter& options) {
    const bool transition =
        string(LayerType(options).type()) == "LGLSTMTransition";
    const vector<Blob<Dtype>*> bottom = Bottoms(options, transition);
    const vector<Blob<Dtype>*> top = Tops(options);
    LayerType layer(options);
    // The checker sums the squares of all tops, so that in float only the first
    // digits of a difference are left; double shows that the formulas are exact.
    const bool is_double = sizeof(Dtype) == sizeof(double);
    GradientChecker<Dtype> checker(is_double ? 1e-4 : 1e-2,
        is_double ? 1e-6 : 1e-2);
    checker.CheckGradient(&layer, bottom, top);
  }

  const int num_, height_, width_;
  vector<shared_ptr<Blob<Dtype> > > bottoms_;
  vector<shared_ptr<Blob<Dtype> > > tops_;
};

TYPED_TEST_CASE(LGLSTMLayerTest, TestDtypesAndDevices);

TYPED_TEST(LGLSTMLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  const int kNeighbors[] = {2, 4, 8};
  for (int i = 0; i < 3; ++i) {
    this->template CheckGradient<LGLSTMLayer<Dtype> >(
        this->Options(kNeighbors[i], 3));
  }
}

TYPED_TEST(LGLSTMLayerTest, TestGradientWithoutGlobal) {
  typedef typename TypeParam::Dtype Dtype;
  this->template CheckGradient<LGLSTMLayer<Dtype> >(this->Options(8, 0));
}

TYPED_TEST(LGLSTMLayerTest, TestGradientOwnSpatialWeights) {
  typedef typename TypeParam::Dtype Dtype;
  this->template CheckGradient<LGLSTMLayer<Dtype> >(
      this->Options(4, 2, false));
}

TYPED_TEST(LGLSTMLayerTest, TestGradientBias) {
  typedef typename TypeParam::Dtype Dtype;
  this->template CheckGradient<LGLSTMLayer<Dtype> >(
      this->Options(4, 3, true, true));
  this->template CheckGradient<LGLSTMLayer<Dtype> >(
      this->Options(2, 0, false, true));
}

TYPED_TEST(LGLSTMLayerTest, TestGradientTransition) {
  typedef typename TypeParam::Dtype Dtype;
  this->template CheckGradient<LGLSTMTransitionLayer<Dtype> >(
      this->Options(8, 3));
  this->template CheckGradient<LGLSTMTransitionLayer<Dtype> >(
      this->Options(2, 0, true, true));
}

// All weights zero: every gate is 1/2 and c is 0, so m' = m / 2 and
// h' = tanh(m / 4), each at the place that its direction leads to.
TYPED_TEST(LGLSTMLayerTest, TestForwardByHand) {
  typedef typename TypeParam::Dtype Dtype;
  LayerParameter options = this->Options(8, 2);
  options.mutable_lg_lstm_param()->mutable_weight_filler()->set_type(
      "constant");
  const vector<Blob<Dtype>*> bottom = this->Bottoms(options, false);
  const vector<Blob<Dtype>*> top = this->Tops(options);
  LGLSTMLayer<Dtype> layer(options);
  layer.SetUp(bottom, top);
  layer.Forward(bottom, top);
  const Blob<Dtype>& memory = *bottom[1];
  for (int n = 0; n < 9; ++n) {
    const LGLSTMOffset from = lg_lstm_offset(8, n);
    for (int y = 0; y < this->height_; ++y) {
      for (int x = 0; x < this->width_; ++x) {
        const int from_y = y + from.y, from_x = x + from.x;
        const bool inside = from_y >= 0 && from_y < this->height_ &&
            from_x >= 0 && from_x < this->width_;
        const int channel = 2 * n + 1;
        EXPECT_NEAR(inside ?
            tanh(memory.data_at(1, channel, from_y, from_x) / 4) : 0,
            top[0]->data_at(1, channel, y, x), 1e-6);
        EXPECT_NEAR(memory.data_at(1, channel, y, x) / 2,
            top[1]->data_at(1, channel, y, x), 1e-6);
      }
    }
  }
  // Of 4 x 3 positions, grid cell (1, 0) of 2 x 2 covers rows 2, 3 and
  // columns 0, 1.
  Dtype largest = -1;
  for (int y = 2; y < 4; ++y) {
    for (int x = 0; x < 2; ++x) {
      largest = std::max(largest, top[0]->data_at(0, 16, y, x));
    }
  }
  EXPECT_EQ(largest, top[2]->data_at(0, 0, 1, 0));
}

// With the gates saturated far beyond what exp can hold the result stays
// finite, and exact.
TYPED_TEST(LGLSTMLayerTest, TestSaturation) {
  typedef typename TypeParam::Dtype Dtype;
  LayerParameter options = this->Options(2, 0);
  options.mutable_lg_lstm_param()->mutable_weight_filler()->set_std(1e4);
  const vector<Blob<Dtype>*> bottom = this->Bottoms(options, false);
  const vector<Blob<Dtype>*> top = this->Tops(options);
  LGLSTMLayer<Dtype> layer(options);
  layer.SetUp(bottom, top);
  layer.Forward(bottom, top);
  for (int i = 0; i < top[1]->count(); ++i) {
    const Dtype m = bottom[1]->cpu_data()[i], next = top[1]->cpu_data()[i];
    // u, f are 0 or 1 and c is -1 or 1.
    Dtype nearest = 10;
    for (int f = 0; f < 2; ++f) {
      for (int uc = -1; uc < 2; ++uc) {
        nearest = std::min(nearest, Dtype(fabs(f * m + uc - next)));
      }
    }
    EXPECT_LT(nearest, 1e-5);
    EXPECT_LE(fabs(top[0]->cpu_data()[i]), 1);
  }
}

TYPED_TEST(LGLSTMLayerTest, TestNotANumberIsNotHidden) {
  typedef typename TypeParam::Dtype Dtype;
  LayerParameter options = this->Options(2, 0);
  const vector<Blob<Dtype>*> bottom = this->Bottoms(options, true);
  const vector<Blob<Dtype>*> top = this->Tops(options);
  bottom[0]->mutable_cpu_data()[bottom[0]->offset(0, 1, 2, 1)] = NAN;
  LGLSTMTransitionLayer<Dtype> layer(options);
  layer.SetUp(bottom, top);
  layer.Forward(bottom, top);
  EXPECT_TRUE(std::isnan(top[1]->data_at(0, 5, 2, 1)));
  EXPECT_TRUE(std::isnan(top[0]->data_at(0, 5, 2, 1)));
  EXPECT_FALSE(std::isnan(top[0]->data_at(0, 5, 2, 2)));
}

}  // namespace caffe
