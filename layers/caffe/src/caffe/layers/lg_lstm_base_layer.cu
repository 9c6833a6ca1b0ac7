#include <vector>

#include "caffe/layers/lg_lstm_layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::CellsForward_gpu(const Blob<Dtype>* memory,
      const vector<Blob<Dtype>*>& top) {
  lg_lstm_cell_forward_gpu(shape_, row_offset_.gpu_data(),
      memory ? memory->gpu_data() : NULL, gates_.mutable_gpu_data(),
      top[0]->mutable_gpu_data(), top[1]->mutable_gpu_data());
  if (has_global()) {
    lg_lstm_grid_max_gpu(shape_, top[0]->gpu_data(), top[2]->mutable_gpu_data(),
        global_index_.mutable_gpu_data());
  }
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::CellsBackward_gpu(const vector<Blob<Dtype>*>& top,
      Blob<Dtype>* memory, const bool propagate_to_memory) {
  lg_lstm_cell_backward_gpu(shape_, gates_.gpu_data(),
      memory ? memory->gpu_data() : NULL, top[0]->gpu_data(),
      top[1]->gpu_data(), top[0]->gpu_diff(), top[1]->gpu_diff(),
      has_global() ? top[2]->gpu_diff() : NULL,
      has_global() ? global_index_.gpu_data() : NULL,
      gates_.mutable_gpu_diff(), row_offset_.mutable_gpu_diff(),
      propagate_to_memory ? memory->mutable_gpu_diff() : NULL);
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::BiasForward_gpu() {
  if (!bias_term_) {
    caffe_gpu_set(row_offset_.count(), Dtype(0),
        row_offset_.mutable_gpu_data());
    return;
  }
  for (int image = 0; image < shape_.num; ++image) {
    Dtype* offset = row_offset_.mutable_gpu_data() + image * shape_.rows();
    for (int i = 0; i < num_weights(); ++i) {
      const Blob<Dtype>& bias = *this->blobs_[bias_index(i)];
      caffe_copy(bias.count(), bias.gpu_data(), offset);
      offset += bias.count();
    }
  }
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::BiasBackward_gpu() {
  if (!bias_term_) { return; }
  for (int image = 0; image < shape_.num; ++image) {
    const Dtype* sum = row_offset_.gpu_diff() + image * shape_.rows();
    for (int i = 0; i < num_weights(); ++i) {
      Blob<Dtype>* bias = this->blobs_[bias_index(i)].get();
      if (this->param_propagate_down_[bias_index(i)]) {
        caffe_gpu_axpy(bias->count(), Dtype(1), sum, bias->mutable_gpu_diff());
      }
      sum += bias->count();
    }
  }
}

#define INSTANTIATE_LG_LSTM_BASE_GPU(Dtype) \
  template void LGLSTMBaseLayer<Dtype>::CellsForward_gpu( \
      const Blob<Dtype>*, const vector<Blob<Dtype>*>&); \
  template void LGLSTMBaseLayer<Dtype>::CellsBackward_gpu( \
      const vector<Blob<Dtype>*>&, Blob<Dtype>*, const bool); \
  template void LGLSTMBaseLayer<Dtype>::BiasForward_gpu(); \
  template void LGLSTMBaseLayer<Dtype>::BiasBackward_gpu()

INSTANTIATE_LG_LSTM_BASE_GPU(float);
INSTANTIATE_LG_LSTM_BASE_GPU(double);

}  // namespace caffe
