#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layers/lg_lstm_layer.hpp"
#include "caffe/util/lg_lstm_gemm.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/onednn.hpp"
#include "caffe/util/onednn_maps.hpp"

namespace caffe {

template <typename Dtype>
string LGLSTMBaseLayer<Dtype>::Label() const {
  return string(this->type()) + " layer \"" + this->layer_param_.name() + "\": ";
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
  const LGLSTMParameter& param = this->layer_param_.lg_lstm_param();
  CHECK(lg_lstm_has_directions(param.neighbors())) << Label()
      << "neighbors is " << param.neighbors() << "; it must be 2, 4 or 8.";
  CHECK_GT(param.num_output(), 0) << Label()
      << "num_output, the hidden cells of one LSTM, must be at least 1.";
  CHECK_LE(param.num_output(), 65536) << Label()
      << "num_output, the hidden cells of one LSTM, must be at most 65,536.";
  CHECK_LE(param.global_grid(), 1024) << Label()
      << "global_grid, the global cells along an axis, must be at most 1,024.";
  const int tops = param.global_grid() > 0 ? 3 : 2;
  CHECK_EQ(top.size(), tops) << Label() << "with global_grid "
      << param.global_grid() << " the tops are local, memory"
      << (tops == 3 ? " and global." : "; there is no global top.");
  shape_.hidden = param.num_output();
  shape_.neighbors = param.neighbors();
  shape_.grid = param.global_grid();
  bias_term_ = param.bias_term();
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::AddWeight(const vector<int>& shape) {
  LGLSTMParameter param = this->layer_param_.lg_lstm_param();
  if (!param.has_weight_filler()) {  // sec. 4.1
    param.mutable_weight_filler()->set_type("uniform");
    param.mutable_weight_filler()->set_min(-0.1);
    param.mutable_weight_filler()->set_max(0.1);
  }
  shared_ptr<Blob<Dtype> > weight(new Blob<Dtype>(shape));
  shared_ptr<Filler<Dtype> > filler(GetFiller<Dtype>(param.weight_filler()));
  filler->Fill(weight.get());
  this->blobs_.push_back(weight);
  if (bias_term_) {
    shared_ptr<Blob<Dtype> > bias(
        new Blob<Dtype>(vector<int>(shape.begin(), shape.end() - 1)));
    filler.reset(GetFiller<Dtype>(param.bias_filler()));
    filler->Fill(bias.get());
    this->blobs_.push_back(bias);
  }
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::ReshapeCells(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
  for (int i = 0; i < bottom.size(); ++i) {
    CHECK(bottom[i] != top[i]) << Label() << "it cannot work in place, since "
        << "its backward pass needs the bottoms; give the tops other names.";
  }
  const int num = bottom[0]->num();
  const int height = bottom[0]->height();
  const int width = bottom[0]->width();
  CHECK(height >= shape_.grid && width >= shape_.grid) << Label()
      << "a map of " << height << " x " << width << " positions cannot be "
      << "divided into a global grid of " << shape_.grid << " x "
      << shape_.grid << " cells; use a larger map or a smaller global_grid.";
  shape_.num = num;
  shape_.height = height;
  shape_.width = width;
  vector<int> shape(4);
  shape[0] = num;
  shape[1] = shape_.lstms() * shape_.hidden;
  shape[2] = height;
  shape[3] = width;
  top[0]->Reshape(shape);
  top[1]->Reshape(shape);
  if (has_global()) {
    shape[1] = shape_.hidden;
    shape[2] = shape[3] = shape_.grid;
    top[2]->Reshape(shape);
    global_index_.Reshape(shape);
  }
  shape[1] = shape_.sets;
  shape[2] = shape_.gates * shape_.hidden;
  shape[3] = shape_.map();
  gates_.Reshape(shape);
  shape.resize(3);
  row_offset_.Reshape(shape);
}

template <typename Dtype>
Dtype* LGLSTMBaseLayer<Dtype>::gates(const int image) {
  return gates_.mutable_cpu_data() + gates_.offset(image);
}

template <typename Dtype>
Dtype* LGLSTMBaseLayer<Dtype>::gates_diff(const int image) {
  return gates_.mutable_cpu_diff() + gates_.offset(image);
}

#ifdef USE_ONEDNN
namespace {

/// Memory cells in the order (B, H, W, channels).
class MemoryCells : public SyncedMemory::Source {
 public:
  explicit MemoryCells(const vector<int>& shape)
      : shape_(shape), cells_(  // a vector would fill them first
            new float[static_cast<size_t>(shape[0]) * shape[1] * shape[2] *
                shape[3]]) {}
  virtual void WriteTo(void* data) {
    onednn_from_maps(shape_, cells_.get(), static_cast<float*>(data));
  }
  float* mutable_cells() { return cells_.get(); }
  const float* cells() const { return cells_.get(); }

  /// Those of a blob, whoever made it.
  static shared_ptr<const MemoryCells> Of(const Blob<float>& blob) {
    shared_ptr<MemoryCells> cells =
        boost::dynamic_pointer_cast<MemoryCells>(blob.data()->source());
    if (!cells || cells->shape_ != blob.shape()) {
      cells.reset(new MemoryCells(blob.shape()));
      onednn_to_maps(blob.shape(), blob.cpu_data(), cells->mutable_cells());
    }
    return cells;
  }

 private:
  const vector<int> shape_;
  const std::unique_ptr<float[]> cells_;
};

}  // namespace

template <>
void LGLSTMBaseLayer<float>::BF16Forward_cpu(const Blob<float>& input,
      const Blob<float>* memory, const vector<Blob<float>*>& top) {
  shared_ptr<const MemoryCells> cells;
  if (memory) { cells = MemoryCells::Of(*memory); }
  if (!seen_.SameAgain(this->blobs_)) {
    int leading;
    const float* weight = PositionWeights(&leading);
    product_.SetWeight(shape_.rows(), input.channels(), weight, leading);
  }
  const shared_ptr<const OneDNNMaps> maps = onednn_maps(input);
  shared_ptr<OneDNNMaps> hidden(new OneDNNMaps(top[0]->shape()));
  shared_ptr<MemoryCells> next(new MemoryCells(top[1]->shape()));
  const int positions = shape_.num * shape_.map();
  const int block = OneDNNProduct::BlockSize(positions);
  float* gates = reinterpret_cast<float*>(onednn_workspace(
      sizeof(float) * block * shape_.rows()));
  for (int i = 0; i < positions; i += block) {
    // The last block is as large as the others and may overlap the one before.
    const int first = std::min(i, positions - block);
    product_.Compute(*maps, first, block, gates);
    lg_lstm_cell_forward_bf16(shape_, first, block, row_offset_.cpu_data(),
        cells ? cells->cells() : NULL, gates, hidden->mutable_data(),
        next->mutable_cells());
  }
  if (has_global()) {
    lg_lstm_grid_max_bf16(shape_, hidden->data(), top[2]->mutable_cpu_data());
  }
  top[0]->data()->set_source(onednn_make_source(hidden));
  top[1]->data()->set_source(next);
}
#else
template <>
void LGLSTMBaseLayer<float>::BF16Forward_cpu(const Blob<float>&,
      const Blob<float>*, const vector<Blob<float>*>&) {
  LOG(FATAL) << "needs oneDNN.";
}
#endif  // USE_ONEDNN

template <>
void LGLSTMBaseLayer<double>::BF16Forward_cpu(const Blob<double>&,
      const Blob<double>*, const vector<Blob<double>*>&) {
  LOG(FATAL) << "oneDNN computes in single precision only.";
}

template <>
void LGLSTMBaseLayer<float>::Gemm(const CBLAS_TRANSPOSE transpose_a,
    const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
    const float* a, const int lda, const float* b, const int ldb,
    const float beta, float* c, const int ldc) const {
#ifdef USE_ONEDNN
  if (bf16_products_ && onednn_bf16_gemm(transpose_a == CblasTrans,
      transpose_b == CblasTrans, m, n, k, a, lda, b, ldb, beta, c, ldc)) {
    return;
  }
#endif
  lg_lstm_cpu_gemm(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, beta, c,
      ldc);
}

template <>
void LGLSTMBaseLayer<double>::Gemm(const CBLAS_TRANSPOSE transpose_a,
    const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
    const double* a, const int lda, const double* b, const int ldb,
    const double beta, double* c, const int ldc) const {
  lg_lstm_cpu_gemm(transpose_a, transpose_b, m, n, k, a, lda, b, ldb, beta, c,
      ldc);
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::CellsForward_cpu(const Blob<Dtype>* memory,
      const vector<Blob<Dtype>*>& top) {
  lg_lstm_cell_forward_cpu(shape_, row_offset_.cpu_data(),
      memory ? memory->cpu_data() : NULL, gates_.mutable_cpu_data(),
      top[0]->mutable_cpu_data(), top[1]->mutable_cpu_data());
  if (has_global()) {
    lg_lstm_grid_max_cpu(shape_, top[0]->cpu_data(), top[2]->mutable_cpu_data(),
        global_index_.mutable_cpu_data());
  }
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::CellsBackward_cpu(const vector<Blob<Dtype>*>& top,
      Blob<Dtype>* memory, const bool propagate_to_memory) {
  lg_lstm_cell_backward_cpu(shape_, gates_.cpu_data(),
      memory ? memory->cpu_data() : NULL, top[0]->cpu_data(),
      top[1]->cpu_data(), top[0]->cpu_diff(), top[1]->cpu_diff(),
      has_global() ? top[2]->cpu_diff() : NULL,
      has_global() ? global_index_.cpu_data() : NULL,
      gates_.mutable_cpu_diff(), row_offset_.mutable_cpu_diff(),
      propagate_to_memory ? memory->mutable_cpu_diff() : NULL);
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::BiasForward_cpu() {
  if (!bias_term_) {
    caffe_set(row_offset_.count(), Dtype(0), row_offset_.mutable_cpu_data());
    return;
  }
  for (int image = 0; image < shape_.num; ++image) {
    Dtype* offset = row_offset_.mutable_cpu_data() + image * shape_.rows();
    for (int i = 0; i < num_weights(); ++i) {
      const Blob<Dtype>& bias = *this->blobs_[bias_index(i)];
      caffe_copy(bias.count(), bias.cpu_data(), offset);
      offset += bias.count();
    }
  }
}

template <typename Dtype>
void LGLSTMBaseLayer<Dtype>::BiasBackward_cpu() {
  if (!bias_term_) { return; }
  for (int image = 0; image < shape_.num; ++image) {
    const Dtype* sum = row_offset_.cpu_diff() + image * shape_.rows();
    for (int i = 0; i < num_weights(); ++i) {
      Blob<Dtype>* bias = this->blobs_[bias_index(i)].get();
      if (this->param_propagate_down_[bias_index(i)]) {
        caffe_axpy(bias->count(), Dtype(1), sum, bias->mutable_cpu_diff());
      }
      sum += bias->count();
    }
  }
}

INSTANTIATE_CLASS(LGLSTMBaseLayer);

}  // namespace caffe
