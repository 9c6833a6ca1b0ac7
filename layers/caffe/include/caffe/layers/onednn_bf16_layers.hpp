#ifndef CAFFE_ONEDNN_BF16_LAYERS_HPP_
#define CAFFE_ONEDNN_BF16_LAYERS_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/pooling_layer.hpp"
#include "caffe/layers/relu_layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

#ifdef USE_ONEDNN
/**
 * @brief ReLULayer that leaves its top with a OneDNNSource if its bottom has one.
 *
 * Its results are rounded to bfloat16 wherever the bottom comes from, so that a
 * net computes the same whoever looks at its blobs.
 */
class OneDNNReLULayer : public ReLULayer<float> {
 public:
  explicit OneDNNReLULayer(const LayerParameter& param)
      : ReLULayer<float>(param) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
};

/**
 * @brief PoolingLayer that leaves its top with a OneDNNSource: maxima without a
 *        top for their positions, and averages, of values rounded to bfloat16.
 */
class OneDNNPoolingLayer : public PoolingLayer<float> {
 public:
  explicit OneDNNPoolingLayer(const LayerParameter& param)
      : PoolingLayer<float>(param), has_positions_(false) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);

 private:
  bool has_positions_;  // whether PoolingLayer computed, and knows the maxima's
};
#else
typedef ReLULayer<float> OneDNNReLULayer;
typedef PoolingLayer<float> OneDNNPoolingLayer;
#endif  // USE_ONEDNN

/// The layers that a net takes where onednn_bf16_maps_wanted; for double, which oneDNN
/// does not compute, Caffe's own.
template <typename Dtype>
shared_ptr<Layer<Dtype> > GetOneDNNReLULayer(const LayerParameter& param);
template <typename Dtype>
shared_ptr<Layer<Dtype> > GetOneDNNPoolingLayer(const LayerParameter& param);

}  // namespace caffe

#endif  // CAFFE_ONEDNN_BF16_LAYERS_HPP_
