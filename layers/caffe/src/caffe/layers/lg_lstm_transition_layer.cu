#include <vector>

#include "caffe/layers/lg_lstm_layer.hpp"
#include "caffe/util/lg_lstm_gemm.hpp"

namespace caffe {

template <typename Dtype>
void LGLSTMTransitionLayer<Dtype>::Forward_gpu(
      const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const LGLSTMShape& s = this->shape_;
  const int channels = bottom[0]->channels();
  this->BiasForward_gpu();
  lg_lstm_gpu_gemm(CblasNoTrans, CblasNoTrans, s.rows(), s.map(), channels,
      this->blobs_[0]->gpu_data(), channels, 0,
      bottom[0]->gpu_data(), s.map(), bottom[0]->count(1), Dtype(0),
      this->gates_.mutable_gpu_data(), s.map(), this->gates_.count(1), s.num);
  this->CellsForward_gpu(NULL, top);
}

template <typename Dtype>
void LGLSTMTransitionLayer<Dtype>::Backward_gpu(
      const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
  const LGLSTMShape& s = this->shape_;
  const int channels = bottom[0]->channels();
  this->CellsBackward_gpu(top, NULL, false);
  const Dtype* gates_diff = this->gates_.gpu_diff();
  if (this->param_propagate_down_[0]) {
    for (int b = 0; b < s.num; ++b) {  // a sum, so one after the other
      lg_lstm_gpu_gemm(CblasNoTrans, CblasTrans, s.rows(), channels, s.map(),
          gates_diff + this->gates_.offset(b), s.map(),
          bottom[0]->gpu_data() + bottom[0]->offset(b), s.map(), Dtype(1),
          this->blobs_[0]->mutable_gpu_diff(), channels);
    }
  }
  if (propagate_down[0]) {
    lg_lstm_gpu_gemm(CblasTrans, CblasNoTrans, channels, s.map(), s.rows(),
        this->blobs_[0]->gpu_data(), channels, 0, gates_diff, s.map(),
        this->gates_.count(1), Dtype(0), bottom[0]->mutable_gpu_diff(),
        s.map(), bottom[0]->count(1), s.num);
  }
  this->BiasBackward_gpu();
}

INSTANTIATE_LAYER_GPU_FUNCS(LGLSTMTransitionLayer);

}  // namespace caffe
