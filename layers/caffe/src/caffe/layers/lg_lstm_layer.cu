#include <vector>

#include "caffe/layers/lg_lstm_layer.hpp"
#include "caffe/util/lg_lstm_gemm.hpp"

namespace caffe {

template <typename Dtype>
void LGLSTMLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
  const int map = shape_.map();
  this->BiasForward_gpu();
  for (int i = 0; i < 2; ++i) {
    const Dtype* weight = this->blobs_[this->weight_index(i)]->gpu_data();
    if (this->has_global()) {  // (B, rows) = f (B, G^2 d) W_global^T + bias
      lg_lstm_gpu_gemm(CblasNoTrans, CblasTrans, shape_.num, rows(i),
          global_inputs(), bottom[2]->gpu_data(), global_inputs(), weight,
          inputs(), Dtype(1),
          this->row_offset_.mutable_gpu_data() + first_row(i), shape_.rows());
    }
    // (rows, HW) = W_local h for each image
    lg_lstm_gpu_gemm(CblasNoTrans, CblasNoTrans, rows(i), map, local_inputs(),
        weight + global_inputs(), inputs(), 0,
        bottom[0]->gpu_data(), map, bottom[0]->count(1), Dtype(0),
        this->gates_.mutable_gpu_data() + first_row(i) * map, map,
        this->gates_.count(1), shape_.num);
  }
  this->CellsForward_gpu(bottom[1], top);
}

template <typename Dtype>
void LGLSTMLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
  const int map = shape_.map();
  this->CellsBackward_gpu(top, bottom[1], propagate_down[1]);
  for (int i = 0; i < 2; ++i) {
    const int index = this->weight_index(i);
    const Dtype* weight = this->blobs_[index]->gpu_data();
    const bool add = i > 0;  // both weights contribute to the same bottom
    const Dtype* row_sum = this->row_offset_.gpu_diff() + first_row(i);
    const Dtype* gates_diff = this->gates_.gpu_diff() + first_row(i) * map;
    if (this->param_propagate_down_[index]) {
      Dtype* weight_diff = this->blobs_[index]->mutable_gpu_diff();
      if (this->has_global()) {
        lg_lstm_gpu_gemm(CblasTrans, CblasNoTrans, rows(i), global_inputs(),
            shape_.num, row_sum, shape_.rows(), bottom[2]->gpu_data(),
            global_inputs(), Dtype(1), weight_diff, inputs());
      }
      for (int b = 0; b < shape_.num; ++b) {  // a sum, so one after the other
        lg_lstm_gpu_gemm(CblasNoTrans, CblasTrans, rows(i), local_inputs(),
            map, gates_diff + this->gates_.offset(b), map,
            bottom[0]->gpu_data() + bottom[0]->offset(b), map, Dtype(1),
            weight_diff + global_inputs(), inputs());
      }
    }
    if (propagate_down[0]) {
      lg_lstm_gpu_gemm(CblasTrans, CblasNoTrans, local_inputs(), map, rows(i),
          weight + global_inputs(), inputs(), 0, gates_diff, map,
          this->gates_.count(1), Dtype(add), bottom[0]->mutable_gpu_diff(),
          map, bottom[0]->count(1), shape_.num);
    }
    if (this->has_global() && propagate_down[2]) {
      lg_lstm_gpu_gemm(CblasNoTrans, CblasNoTrans, shape_.num,
          global_inputs(), rows(i), row_sum, shape_.rows(), weight, inputs(),
          Dtype(add), bottom[2]->mutable_gpu_diff(), global_inputs());
    }
  }
  this->BiasBackward_gpu();
}

INSTANTIATE_LAYER_GPU_FUNCS(LGLSTMLayer);

}  // namespace caffe
