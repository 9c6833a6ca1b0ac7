#ifndef CAFFE_ONEDNN_CONV_LAYER_HPP_
#define CAFFE_ONEDNN_CONV_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/conv_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/onednn_convolution.hpp"

namespace caffe {

#ifdef USE_ONEDNN
/**
 * @brief ConvolutionLayer whose CPU side is computed by oneDNN: without the
 *        columns of im2col, and optionally by Winograd's algorithm.
 *
 * Same parameters, blobs and results, up to the order in which floating-point
 * numbers are added. Direct convolution is as exact as Caffe's own; Winograd's
 * F(4x4, 3x3), for kernels of 3x3 and stride 1 on processors with AVX-512, needs
 * a quarter of the multiplications and its rounding errors are larger
 * (docs/performance.md has both measured).
 *
 * A convolution with dilation d, stride 1 and "same" padding does not mix
 * positions whose coordinates differ modulo d. The map is therefore cut into
 * phases, which oneDNN sees as more images with less dilation: its kernels are
 * faster there, and Winograd's is possible at all.
 *
 * Where the engine is left open and CAFFE_CONVOLUTION_ENGINE is onednn_bf16, the
 * factors of products are rounded to bfloat16 (see onednn_bf16_wanted) if the
 * processor can multiply those; elsewhere Winograd's algorithm computes. In the
 * phase TEST, bottoms and tops then pass between layers as OneDNNSource, and
 * weights are converted again only when they have changed. In training, blobs,
 * gradients and the weights that are updated stay in single precision; what is
 * faster with Winograd's algorithm is left to it: everything where not
 * onednn_bf16_is_fast, and, with AMX, gradients of weights for maps of some widths.
 *
 * What oneDNN has no fast kernel for (groups, 1-D and 3-D convolution, some
 * shapes) is left to ConvolutionLayer, as is everything on a GPU. oneDNN computes
 * in single precision, so there is no such layer for double.
 */
class OneDNNConvolutionLayer : public ConvolutionLayer<float> {
 public:
  OneDNNConvolutionLayer(const LayerParameter& param, const bool winograd);
  virtual ~OneDNNConvolutionLayer() {}
  virtual void Reshape(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);

  /// How many of the three passes (forward, gradient of the bottom, gradient of
  /// the weights) oneDNN computes; ConvolutionLayer does the others.
  int num_passes() const {
    return (forward_ || bf16_forward_) + !!backward_bottom_ +
        !!backward_weights_;
  }

  /// Whether it rounds the factors of the forward pass to bfloat16.
  bool is_bf16() const;

  class Pass;

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);

 private:
  const bool winograd_, bf16_;
  vector<int> planned_shape_;  // the bottom's shape that the passes are for
  shared_ptr<OneDNNConvolution> bf16_forward_;  // takes the place of forward_
  // Empty where ConvolutionLayer computes.
  shared_ptr<Pass> forward_, backward_bottom_, backward_weights_;
};
#endif  // USE_ONEDNN

/**
 * @brief The engine of a Convolution layer whose prototxt leaves it open: in CPU
 *        mode what the environment variable CAFFE_CONVOLUTION_ENGINE says (caffe,
 *        onednn, onednn_winograd, or onednn_bf16, which is ONEDNN_WINOGRAD with
 *        products of bfloat16), `otherwise` if it is not set or on a GPU.
 */
ConvolutionParameter_Engine ConvolutionEngineFromEnvironment(
    const ConvolutionParameter_Engine otherwise);

/// A Convolution layer with engine ONEDNN or ONEDNN_WINOGRAD; for double, which
/// oneDNN does not compute, one with engine CAFFE. Fatal without oneDNN.
template <typename Dtype>
shared_ptr<Layer<Dtype> > GetOneDNNConvolutionLayer(
    const LayerParameter& param, const ConvolutionParameter_Engine engine);

}  // namespace caffe

#endif  // CAFFE_ONEDNN_CONV_LAYER_HPP_
