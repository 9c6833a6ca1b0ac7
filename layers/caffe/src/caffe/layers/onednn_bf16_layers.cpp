#include "caffe/layers/onednn_bf16_layers.hpp"

#include <vector>

#include "caffe/util/onednn_maps.hpp"

namespace caffe {

#ifdef USE_ONEDNN

void OneDNNReLULayer::Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top) {
  const bool leaky = this->layer_param_.relu_param().negative_slope() != 0;
  const shared_ptr<OneDNNSource> source = onednn_source(*bottom[0]);
  if (source && !leaky) {
    top[0]->data()->set_source(source->Rectified());
    return;
  }
  ReLULayer<float>::Forward_cpu(bottom, top);
  if (top[0]->num_axes() == 4) {
    OneDNNMaps(top[0]->shape(), top[0]->cpu_data()).CopyTo(
        top[0]->mutable_cpu_data());
  }
}

void OneDNNPoolingLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top) {
  const PoolingParameter_PoolMethod method =
      this->layer_param_.pooling_param().pool();
  has_positions_ = top.size() > 1 ||
      method == PoolingParameter_PoolMethod_STOCHASTIC;
  if (has_positions_) { return PoolingLayer<float>::Forward_cpu(bottom, top); }
  const OneDNNPooling pooling = {method == PoolingParameter_PoolMethod_MAX,
      {this->kernel_h_, this->kernel_w_}, {this->stride_h_, this->stride_w_},
      {this->pad_h_, this->pad_w_}};
  top[0]->data()->set_source(onednn_make_source(
      onednn_pool(pooling, *onednn_maps(*bottom[0]), top[0]->shape())));
}

void OneDNNPoolingLayer::Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  if (!has_positions_) {
    PoolingLayer<float>::Forward_cpu(bottom, top);
    has_positions_ = true;
  }
  PoolingLayer<float>::Backward_cpu(top, propagate_down, bottom);
}

#endif  // USE_ONEDNN

template <>
shared_ptr<Layer<float> > GetOneDNNReLULayer(const LayerParameter& param) {
  return shared_ptr<Layer<float> >(new OneDNNReLULayer(param));
}

template <>
shared_ptr<Layer<float> > GetOneDNNPoolingLayer(const LayerParameter& param) {
  return shared_ptr<Layer<float> >(new OneDNNPoolingLayer(param));
}

template <>
shared_ptr<Layer<double> > GetOneDNNReLULayer(const LayerParameter& param) {
  return shared_ptr<Layer<double> >(new ReLULayer<double>(param));
}

template <>
shared_ptr<Layer<double> > GetOneDNNPoolingLayer(const LayerParameter& param) {
  return shared_ptr<Layer<double> >(new PoolingLayer<double>(param));
}

}  // namespace caffe
