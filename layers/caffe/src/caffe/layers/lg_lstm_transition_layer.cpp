#include <vector>

#include "caffe/layers/lg_lstm_layer.hpp"

namespace caffe {

template <typename Dtype>
void LGLSTMTransitionLayer<Dtype>::LayerSetUp(
      const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LGLSTMBaseLayer<Dtype>::LayerSetUp(bottom, top);
  LGLSTMShape& s = this->shape_;
  s.gates = 3;
  s.sets = s.lstms();
  CHECK_EQ(bottom[0]->num_axes(), 4) << this->Label() << "the bottom has shape "
      << bottom[0]->shape_string() << "; it must be (B, C, H, W).";
  if (this->blobs_.empty()) {
    vector<int> shape(3);
    shape[0] = s.lstms();
    shape[1] = s.gates * s.hidden;
    shape[2] = bottom[0]->channels();
    this->AddWeight(shape);
  }
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
void LGLSTMTransitionLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
  CHECK_EQ(bottom[0]->channels(), this->blobs_[0]->shape(2)) << this->Label()
      << "the bottom has " << bottom[0]->channels() << " channels, but the "
      << "weights are for " << this->blobs_[0]->shape(2) << ".";
  this->ReshapeCells(bottom, top);
}

template <typename Dtype>
void LGLSTMTransitionLayer<Dtype>::Forward_cpu(
      const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (!this->bf16_) { return ExactForward_cpu(bottom, top); }
  this->BiasForward_cpu();
  this->BF16Forward_cpu(*bottom[0], NULL, top);
}

template <typename Dtype>
const Dtype* LGLSTMTransitionLayer<Dtype>::PositionWeights(int* leading) {
  *leading = this->blobs_[0]->shape(2);
  return this->blobs_[0]->cpu_data();
}

template <typename Dtype>
void LGLSTMTransitionLayer<Dtype>::ExactForward_cpu(
      const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const LGLSTMShape& s = this->shape_;
  const int channels = bottom[0]->channels();
  this->BiasForward_cpu();
  for (int b = 0; b < s.num; ++b) {
    this->Gemm(CblasNoTrans, CblasNoTrans, s.rows(), s.map(), channels,
        this->blobs_[0]->cpu_data(), channels,
        bottom[0]->cpu_data() + bottom[0]->offset(b), s.map(),
        Dtype(0), this->gates(b), s.map());
  }
  this->CellsForward_cpu(NULL, top);
}

template <typename Dtype>
void LGLSTMTransitionLayer<Dtype>::Backward_cpu(
      const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
  const LGLSTMShape& s = this->shape_;
  const int channels = bottom[0]->channels();
  if (this->bf16_) { ExactForward_cpu(bottom, top); }
  this->CellsBackward_cpu(top, NULL, false);
  for (int b = 0; b < s.num; ++b) {
    if (this->param_propagate_down_[0]) {
      this->Gemm(CblasNoTrans, CblasTrans, s.rows(), channels, s.map(),
          this->gates_diff(b), s.map(),
          bottom[0]->cpu_data() + bottom[0]->offset(b), s.map(),
          Dtype(1), this->blobs_[0]->mutable_cpu_diff(), channels);
    }
    if (propagate_down[0]) {
      this->Gemm(CblasTrans, CblasNoTrans, channels, s.map(), s.rows(),
          this->blobs_[0]->cpu_data(), channels, this->gates_diff(b), s.map(),
          Dtype(0), bottom[0]->mutable_cpu_diff() + bottom[0]->offset(b),
          s.map());
    }
  }
  this->BiasBackward_cpu();
}

#ifdef CPU_ONLY
STUB_GPU(LGLSTMTransitionLayer);
#endif

INSTANTIATE_CLASS(LGLSTMTransitionLayer);
REGISTER_LAYER_CLASS(LGLSTMTransition);

}  // namespace caffe
