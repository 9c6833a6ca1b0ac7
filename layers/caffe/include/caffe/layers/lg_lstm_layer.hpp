#ifndef CAFFE_LG_LSTM_LAYER_HPP_
#define CAFFE_LG_LSTM_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/lg_lstm.hpp"
#include "caffe/util/onednn.hpp"
#include "caffe/util/onednn_maps.hpp"

namespace caffe {

/**
 * @brief What LGLSTMTransitionLayer and LGLSTMLayer have in common: N + 1 LSTMs
 *        at every position of a map, N spatial ones whose hidden cells go to
 *        the neighbors and one along the depth of the network, of "Semantic
 *        Object Parsing with Local-Global Long Short-Term Memory" (Liang et
 *        al., CVPR 2016).
 *
 * Each LSTM computes, with H the input at a position and m its memory cells,
 *
 *   u = sigmoid(W_u H), f = sigmoid(W_f H), o = sigmoid(W_o H),
 *   c = tanh(W_c H),    m' = f m + u c,     h' = tanh(o m')          (Eq. 1)
 *
 * (not h' = o tanh(m'), and without bias unless bias_term is set). The derived
 * layers say what H is and do the matrix products; this class does the rest.
 *
 * Tops, with d = num_output, N = neighbors, G = global_grid:
 *   -# local (B, (N+1) d, H, W): the hidden cells that arrive at each position,
 *      d channels for each spatial LSTM, then the depth LSTM's. Spatial LSTMs
 *      are ordered by where their hidden cells come from, in raster order:
 *        N = 8: top-left, top, top-right, left, right, bottom-left, bottom,
 *               bottom-right;   N = 4: the first four of these;   N = 2: top, left.
 *      From outside the map comes zero.
 *   -# memory (B, (N+1) d, H, W): the memory cells m', where they were computed.
 *   -# global (B, d, G, G): the maximum of the depth LSTM's hidden cells in
 *      each cell of a grid; cell g of an axis of length L begins at
 *      floor(g L / G + 1/2). Absent when global_grid is 0.
 *
 * These are the bottoms of the next LGLSTMLayer. Memory held besides the blobs:
 * the gates and, in training, their gradient: 2 * 4 d * sets values for each
 * position, where sets is 2 if the spatial weights are shared, else N + 1.
 *
 * Memory traffic outside the matrix products, in values for each position (4
 * gates; on the GPU each is read or written once, so this is all there is):
 *   forward   8 d sets + 3 (N+1) d: products in, gates out; memory in, memory
 *             and hidden cells out.
 *   backward  12 d sets + 6 (N+1) d: gates in, gradients of the products out,
 *             and in again for their sums; memory, hidden cells and the
 *             gradients of both tops in, gradient of memory out.
 * With d = 64, N = 8 and shared weights 2,752 and 4,992 values: 11 and 20 KB.
 *
 * Where onednn_bf16_maps_wanted, the factors of all large products are rounded to
 * bfloat16, and so are the hidden cells. Their layout is then oneDNN's, as is that
 * of the memory cells, until somebody reads these tops. A backward pass, which such
 * nets hardly need, first computes the forward pass in single precision. In
 * training, where onednn_bf16_wanted, the factors of these products are rounded in
 * both passes, and everything else is in single precision.
 */
template <typename Dtype>
class LGLSTMBaseLayer : public Layer<Dtype> {
 public:
  explicit LGLSTMBaseLayer(const LayerParameter& param)
      : Layer<Dtype>(param), bf16_(sizeof(Dtype) == sizeof(float) &&
            onednn_bf16_maps_wanted(param.phase())),
        bf16_products_(sizeof(Dtype) == sizeof(float) && !bf16_ &&
            onednn_bf16_wanted()) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline int MinTopBlobs() const { return 2; }
  virtual inline int MaxTopBlobs() const { return 3; }

 protected:
  /// What to begin an error message with: the layer's type and name.
  string Label() const;
  /// Add blobs_[index] with the filler of the layer's parameters, and a bias
  /// blob of the shape without its last axis behind it if there is one.
  void AddWeight(const vector<int>& shape);
  /// Index in blobs_ of weight blob i, and of its bias.
  int weight_index(const int i) const { return bias_term_ ? 2 * i : i; }
  int bias_index(const int i) const { return 2 * i + 1; }
  int num_weights() const { return this->blobs_.size() / (bias_term_ ? 2 : 1); }
  /// Shape the tops and what is kept for the backward pass.
  void ReshapeCells(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  /// The weights (rows, C) that every position of the first bottom is multiplied
  /// with, as long as the next layer isn't called, and their leading dimension.
  virtual const Dtype* PositionWeights(int* leading) = 0;
  /// Forward pass in bfloat16 (bf16_), with what is added to each row of gates in
  /// row_offset_: products of `input` with its weights, and the tops.
  void BF16Forward_cpu(const Blob<Dtype>& input, const Blob<Dtype>* memory,
      const vector<Blob<Dtype>*>& top);
  /// lg_lstm_cpu_gemm, of factors in bfloat16 (bf16_products_) where that is faster.
  void Gemm(const CBLAS_TRANSPOSE transpose_a,
      const CBLAS_TRANSPOSE transpose_b, const int m, const int n, const int k,
      const Dtype* a, const int lda, const Dtype* b, const int ldb,
      const Dtype beta, Dtype* c, const int ldc) const;
  /// From the products in gates_ and the constants in row_offset_ to the tops.
  void CellsForward_cpu(const Blob<Dtype>* memory,
      const vector<Blob<Dtype>*>& top);
  /// From the tops' gradients to gates_.diff, its sums over the positions in
  /// row_offset_.diff, and the gradient of memory if it is wanted.
  void CellsBackward_cpu(const vector<Blob<Dtype>*>& top, Blob<Dtype>* memory,
      const bool propagate_to_memory);
#ifndef CPU_ONLY
  void CellsForward_gpu(const Blob<Dtype>* memory,
      const vector<Blob<Dtype>*>& top);
  void CellsBackward_gpu(const vector<Blob<Dtype>*>& top, Blob<Dtype>* memory,
      const bool propagate_to_memory);
  void BiasForward_gpu();
  void BiasBackward_gpu();
#endif
  /// Write the bias of each gate row into row_offset_, zero without bias.
  void BiasForward_cpu();
  /// Add the bias' gradient from row_offset_.diff.
  void BiasBackward_cpu();

  bool has_global() const { return shape_.grid > 0; }
  Dtype* gates(const int image);
  Dtype* gates_diff(const int image);

  LGLSTMShape shape_;
  bool bias_term_;
  const bool bf16_;            // whether the forward pass is in bfloat16
  const bool bf16_products_;   // whether products round their factors to it
  Blob<Dtype> gates_;          // (B, sets, gates * d, H * W)
  Blob<Dtype> row_offset_;     // (B, sets, gates * d)
  Blob<int> global_index_;     // (B, d, G, G)
#ifdef USE_ONEDNN
  OneDNNSeen seen_;            // the weights in product_
  OneDNNProduct product_;
#endif
};

/**
 * @brief Makes hidden and memory cells from convolutional features (sec. 3.1):
 *        N + 1 LSTMs with weights of their own, H = x, and zero memory.
 *
 * With zero memory the forget gate multiplies nothing, so it is neither stored
 * nor computed. share_spatial is not for this layer: with shared weights all
 * spatial memories would be equal, and stay so.
 *
 * Bottom: x (B, C, H, W). Tops: local, memory[, global].
 * Blobs: weight (N+1, 3 d, C), rows u, o, c[; bias (N+1, 3 d)].
 *
 * Arithmetic: 6 (N+1) d C operations for each position forward, twice that
 * backward, in one matrix product for each image and operand.
 */
template <typename Dtype>
class LGLSTMTransitionLayer : public LGLSTMBaseLayer<Dtype> {
 public:
  explicit LGLSTMTransitionLayer(const LayerParameter& param)
      : LGLSTMBaseLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "LGLSTMTransition"; }
  virtual inline int ExactNumBottomBlobs() const { return 1; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  void ExactForward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  virtual const Dtype* PositionWeights(int* leading);
};

/**
 * @brief One local-global LSTM layer (sec. 3.2.2): LSTM n computes its hidden
 *        and memory cells from its own memory and from the input
 *
 *          H = [f, h_1 ... h_N, h_e]                                   (Eq. 3)
 *
 * of the position, the same for all LSTMs: the global hidden cells f, the
 * hidden cells that arrive from the N neighbors, and the depth LSTM's.
 *
 * Bottoms: local (B, (N+1) d, H, W), memory (the same shape)[, global
 * (B, d, G, G)]: the tops of the layer before. Tops: local, memory[, global].
 * Blobs: spatial (S, 4 d, K)[, bias (S, 4 d)], depth (4 d, K)[, bias (4 d)] with
 * K = (G^2 + N + 1) d, columns in the order of Eq. (3), rows u, f, o, c;
 * S = 1 when share_spatial is set (W^s of Eq. 4), else N.
 *
 * f is the same at every position, so W f is computed once for each image, and
 * H is never built. With shared weights the spatial LSTMs have the same gates;
 * they are computed once. Arithmetic: 8 (S+1) (N+1) d^2 operations for each
 * position forward, twice that backward.
 */
template <typename Dtype>
class LGLSTMLayer : public LGLSTMBaseLayer<Dtype> {
 public:
  explicit LGLSTMLayer(const LayerParameter& param)
      : LGLSTMBaseLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "LGLSTM"; }
  virtual inline int MinBottomBlobs() const { return 2; }
  virtual inline int MaxBottomBlobs() const { return 3; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  void ExactForward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);

  int local_inputs() const { return shape_.lstms() * shape_.hidden; }
  int global_inputs() const {
    return shape_.grid * shape_.grid * shape_.hidden;
  }
  int inputs() const { return global_inputs() + local_inputs(); }
  /// Gate rows of weight blob i (0 spatial, 1 depth), and where they begin.
  int rows(const int i) const;
  int first_row(const int i) const;
  /// Both weight blobs one below the other (rows, K), for one product instead of
  /// two. Valid until the next layer's call.
  Dtype* JoinedWeights();
  virtual const Dtype* PositionWeights(int* leading);
  /// Add the product of the global hidden cells with some rows of weights, from
  /// `first` on, to row_offset_.
  void AddGlobal_cpu(const Blob<Dtype>& global, const int first,
      const int rows, const Dtype* weight);
  /// Add the gradient of the joined weights to that of each blob that learns.
  void AddWeightDiffs(const Dtype* joined_diff);

  using LGLSTMBaseLayer<Dtype>::shape_;
};

}  // namespace caffe

#endif  // CAFFE_LG_LSTM_LAYER_HPP_
