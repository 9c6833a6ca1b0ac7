#include <algorithm>
#include <vector>

#include "caffe/layers/lg_lstm_layer.hpp"
#include "caffe/util/lg_lstm_gemm.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
int LGLSTMLayer<Dtype>::rows(const int i) const {
  const int sets = i == 0 ? shape_.sets - 1 : 1;
  return sets * shape_.gates * shape_.hidden;
}

template <typename Dtype>
int LGLSTMLayer<Dtype>::first_row(const int i) const {
  return i == 0 ? 0 : rows(0);
}

template <typename Dtype>
void LGLSTMLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
  LGLSTMBaseLayer<Dtype>::LayerSetUp(bottom, top);
  const int bottoms = this->has_global() ? 3 : 2;
  CHECK_EQ(bottom.size(), bottoms) << this->Label() << "with global_grid "
      << shape_.grid << " the bottoms are local, memory"
      << (bottoms == 3 ? " and global." : "; there is no global bottom.");
  const bool shared = this->layer_param_.lg_lstm_param().share_spatial();
  shape_.gates = 4;
  shape_.sets = (shared ? 1 : shape_.neighbors) + 1;
  if (this->blobs_.empty()) {
    vector<int> shape(3);
    shape[0] = shape_.sets - 1;
    shape[1] = shape_.gates * shape_.hidden;
    shape[2] = inputs();
    this->AddWeight(shape);
    this->AddWeight(vector<int>(shape.begin() + 1, shape.end()));
  }
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
void LGLSTMLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
  CHECK(bottom[0]->num_axes() == 4 && bottom[0]->shape(1) == local_inputs())
      << this->Label() << "the bottom local has shape "
      << bottom[0]->shape_string() << "; with neighbors " << shape_.neighbors
      << " and num_output " << shape_.hidden << " it must be (B, "
      << local_inputs() << ", H, W).";
  CHECK(bottom[1]->shape() == bottom[0]->shape()) << this->Label()
      << "the bottom memory has shape " << bottom[1]->shape_string()
      << "; it must be that of local, " << bottom[0]->shape_string() << ".";
  if (this->has_global()) {
    vector<int> shape(4, shape_.grid);
    shape[0] = bottom[0]->num();
    shape[1] = shape_.hidden;
    CHECK(bottom[2]->shape() == shape) << this->Label()
        << "the bottom global has shape " << bottom[2]->shape_string()
        << "; it must be (" << shape[0] << ", " << shape[1] << ", "
        << shape[2] << ", " << shape[3] << ").";
  }
  this->ReshapeCells(bottom, top);
}

template <typename Dtype>
Dtype* LGLSTMLayer<Dtype>::JoinedWeights() {
  // Needed within one call only, so all layers of a thread share the memory.
  static thread_local vector<Dtype> joined;
  joined.resize(std::max<size_t>(joined.size(), shape_.rows() * inputs()));
  for (int i = 0; i < 2; ++i) {
    caffe_copy(rows(i) * inputs(),
        this->blobs_[this->weight_index(i)]->cpu_data(),
        joined.data() + first_row(i) * inputs());
  }
  return joined.data();
}

template <typename Dtype>
void LGLSTMLayer<Dtype>::AddWeightDiffs(const Dtype* joined_diff) {
  for (int i = 0; i < 2; ++i) {
    const int index = this->weight_index(i);
    if (this->param_propagate_down_[index]) {
      caffe_axpy(rows(i) * inputs(), Dtype(1),
          joined_diff + first_row(i) * inputs(),
          this->blobs_[index]->mutable_cpu_diff());
    }
  }
}

template <typename Dtype>
const Dtype* LGLSTMLayer<Dtype>::PositionWeights(int* leading) {
  *leading = inputs();
  return JoinedWeights() + global_inputs();
}

template <typename Dtype>
void LGLSTMLayer<Dtype>::AddGlobal_cpu(const Blob<Dtype>& global,
      const int first, const int rows, const Dtype* weight) {
  // (B, rows) += f (B, G^2 d) W_global^T
  lg_lstm_cpu_gemm(CblasNoTrans, CblasTrans, shape_.num, rows, global_inputs(),
      global.cpu_data(), global_inputs(), weight, inputs(), Dtype(1),
      this->row_offset_.mutable_cpu_data() + first, shape_.rows());
}

template <typename Dtype>
void LGLSTMLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
  if (!this->bf16_) { return ExactForward_cpu(bottom, top); }
  this->BiasForward_cpu();
  for (int i = 0; i < 2 && this->has_global(); ++i) {
    AddGlobal_cpu(*bottom[2], first_row(i), rows(i),
        this->blobs_[this->weight_index(i)]->cpu_data());
  }
  this->BF16Forward_cpu(*bottom[0], bottom[1], top);
}

template <typename Dtype>
void LGLSTMLayer<Dtype>::ExactForward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
  const int map = shape_.map();
  const Dtype* weight = JoinedWeights();
  this->BiasForward_cpu();
  if (this->has_global()) {
    AddGlobal_cpu(*bottom[2], 0, shape_.rows(), weight);
  }
  for (int b = 0; b < shape_.num; ++b) {  // (rows, HW) = W_local h
    this->Gemm(CblasNoTrans, CblasNoTrans, shape_.rows(), map,
        local_inputs(), weight + global_inputs(), inputs(),
        bottom[0]->cpu_data() + bottom[0]->offset(b), map, Dtype(0),
        this->gates(b), map);
  }
  this->CellsForward_cpu(bottom[1], top);
}

template <typename Dtype>
void LGLSTMLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
  if (this->bf16_) { ExactForward_cpu(bottom, top); }
  const int map = shape_.map();
  this->CellsBackward_cpu(top, bottom[1], propagate_down[1]);
  const Dtype* row_sum = this->row_offset_.cpu_diff();
  Dtype* weight = JoinedWeights();
  if (propagate_down[0]) {
    for (int b = 0; b < shape_.num; ++b) {
      this->Gemm(CblasTrans, CblasNoTrans, local_inputs(), map,
          shape_.rows(), weight + global_inputs(), inputs(),
          this->gates_diff(b), map, Dtype(0),
          bottom[0]->mutable_cpu_diff() + bottom[0]->offset(b), map);
    }
  }
  if (this->has_global() && propagate_down[2]) {
    lg_lstm_cpu_gemm(CblasNoTrans, CblasNoTrans, shape_.num, global_inputs(),
        shape_.rows(), row_sum, shape_.rows(), weight, inputs(), Dtype(0),
        bottom[2]->mutable_cpu_diff(), global_inputs());
  }
  const bool weights_learn =
      this->param_propagate_down_[this->weight_index(0)] ||
      this->param_propagate_down_[this->weight_index(1)];
  if (weights_learn && shape_.num > 0) {
    Dtype* weight_diff = weight;  // the weights are no longer needed
    if (this->has_global()) {
      lg_lstm_cpu_gemm(CblasTrans, CblasNoTrans, shape_.rows(),
          global_inputs(), shape_.num, row_sum, shape_.rows(),
          bottom[2]->cpu_data(), global_inputs(), Dtype(0), weight_diff,
          inputs());
    }
    for (int b = 0; b < shape_.num; ++b) {
      this->Gemm(CblasNoTrans, CblasTrans, shape_.rows(),
          local_inputs(), map, this->gates_diff(b), map,
          bottom[0]->cpu_data() + bottom[0]->offset(b), map, Dtype(b > 0),
          weight_diff + global_inputs(), inputs());
    }
    AddWeightDiffs(weight_diff);
  }
  this->BiasBackward_cpu();
}

#ifdef CPU_ONLY
STUB_GPU(LGLSTMLayer);
#endif

INSTANTIATE_CLASS(LGLSTMLayer);
REGISTER_LAYER_CLASS(LGLSTM);

}  // namespace caffe
