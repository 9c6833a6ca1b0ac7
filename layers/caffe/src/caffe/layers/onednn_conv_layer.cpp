#include "caffe/layers/onednn_conv_layer.hpp"

#include <cstdlib>
#include <string>
#include <unordered_map>
#include <vector>

#ifdef USE_ONEDNN
#include <dnnl.hpp>
#endif

#include "caffe/util/math_functions.hpp"
#include "caffe/util/onednn.hpp"
#include "caffe/util/onednn_maps.hpp"

namespace caffe {

#ifdef USE_ONEDNN

typedef dnnl::memory::desc Desc;
typedef dnnl::memory::format_tag Tag;
typedef dnnl::memory::data_type Type;

namespace {

/// oneDNN takes arrays that it only reads without const.
float* Writable(const float* data) { return const_cast<float*>(data); }

Desc Describe(const dnnl::memory::dims& dims, const Tag tag,
    const Type type = Type::f32) {
  return Desc(dims, type, tag);
}

/// Whether a kernel can be given the gradient of weights in bfloat16. For other
/// numbers of channels (100, say), and for maps 321 wide, the one with AMX of oneDNN
/// 2.6 reads and writes beyond its arrays; from a width of 33 on, about every other
/// one takes it up to ten times as long. Where they stay inside was tried with a page
/// without access on both sides.
bool IsForBF16Weights(const OneDNNGeometry& g, const bool amx) {
  const bool same = g.stride[0] == 1 && g.stride[1] == 1 &&
      g.out_height == g.height && g.out_width == g.width;
  return same && g.channels % 16 == 0 && g.outputs % 16 == 0 &&
      (!amx || g.width <= 32 || (39 <= g.width && g.width <= 44));
}

/// Copy maps (planes, height, width) to their phases, or the other way round.
/// Phase (i, j) of image n is image (n phases + i) phases + j.
void CopyPhases(const OneDNNGeometry& whole, const int channels, const int phases,
    float* map, float* parts, const bool to_parts) {
  const OneDNNGeometry part = whole.Cut(phases);
  const int planes = whole.num * channels;
#pragma omp parallel for
  for (int plane = 0; plane < planes; ++plane) {
    const int n = plane / channels, c = plane % channels;
    float* from = map + plane * whole.height * whole.width;
    for (int i = 0; i < phases * phases; ++i) {
      float* to = parts + ((n * phases * phases + i) * channels + c) *
          part.height * part.width;
      for (int y = 0; y < part.height; ++y) {
        const int map_y = y * phases + i / phases;
        for (int x = 0; x < part.width; ++x) {
          const int map_x = x * phases + i % phases;
          const bool inside = map_y < whole.height && map_x < whole.width;
          float* in_map = from + map_y * whole.width + map_x;
          float* in_part = to + y * part.width + x;
          if (to_parts) {
            *in_part = inside ? *in_map : 0;
          } else if (inside) {
            *in_map = *in_part;
          }
        }
      }
    }
  }
}

/**
 * @brief A bottom, top or weight array of a pass on its way between Caffe's
 *        layout and the one that oneDNN's kernel wants.
 */
class Operand {
 public:
  Operand() : channels_(0), phases_(1), bytes_(0) {}
  /// A map of `channels` (none: weights), of which the kernel wants `wanted`.
  Operand(const OneDNNGeometry& whole, const int channels, const int phases,
      const Desc& plain, const Desc& wanted, const bool is_output)
      : whole_(whole), channels_(channels), phases_(phases), bytes_(0),
        plain_(plain, onednn_engine(), DNNL_MEMORY_NONE),
        wanted_(wanted, onednn_engine(), DNNL_MEMORY_NONE) {
    if (phases_ > 1) { bytes_ += onednn_aligned(plain.get_size()); }
    if (plain != wanted) {
      bytes_ += onednn_aligned(wanted.get_size());
      if (is_output) {
        dnnl::primitive_attr attributes;
        if (channels_ == 0) {  // gradients of weights are added
          dnnl::post_ops sum;
          sum.append_sum(1.f);
          attributes.set_post_ops(sum);
        }
        reorder_ = dnnl::reorder(wanted_, plain_, attributes);
      } else {
        reorder_ = dnnl::reorder(plain_, wanted_);
      }
    }
  }
  /// Bytes of the workspace that it needs.
  size_t bytes() const { return bytes_; }

  /// What the kernel reads or writes when Caffe's array is `data` and the space
  /// at `space` is this operand's.
  dnnl::memory& Bind(float* data, char* space) {
    data_ = data;
    char* plain = reinterpret_cast<char*>(data);
    if (phases_ > 1) {
      plain = space;
      space += onednn_aligned(plain_.get_desc().get_size());
    }
    plain_.set_data_handle(plain);
    wanted_.set_data_handle(reorder_ ? space : plain);
    return wanted_;
  }
  /// Before the kernel reads it.
  void Load() { Copy(true); Reorder(plain_, wanted_); }
  /// After the kernel wrote it.
  void Store() { Reorder(wanted_, plain_); Copy(false); }

 private:
  void Reorder(dnnl::memory& from, dnnl::memory& to) {
    if (reorder_) { reorder_.execute(onednn_stream(), from, to); }
  }
  void Copy(const bool to_parts) {
    if (phases_ > 1) {
      CopyPhases(whole_, channels_, phases_, data_,
          static_cast<float*>(plain_.get_data_handle()), to_parts);
    }
  }

  OneDNNGeometry whole_;
  int channels_, phases_;
  size_t bytes_;
  dnnl::memory plain_, wanted_;
  dnnl::reorder reorder_;
  float* data_;
};

}  // namespace

class OneDNNConvolutionLayer::Pass {
 public:
  enum Kind { kForward, kBackwardBottom, kBackwardWeights };

  /// The fastest way that oneDNN has, or nothing if it has none.
  static shared_ptr<Pass> Plan(const Kind kind, const OneDNNGeometry& whole,
      const bool bias, const bool winograd, const bool bf16) {
    const int dilation = whole.has_phases() ? whole.dilation[0] : 1;
    shared_ptr<Pass> pass(new Pass());
    if (bf16 && pass->Make(kind, whole, 1, dnnl::algorithm::convolution_direct,
        bias, Type::bf16)) { return pass; }
    // Winograd's transforms cost more than they save on a photo's 3 channels.
    if (winograd && whole.channels >= 16 && pass->Make(kind, whole, dilation,
        dnnl::algorithm::convolution_winograd, bias, Type::f32)) {
      return pass;
    }
    // Direct kernels like a dilation of 2 best, except for the weights.
    const int phases = kind != kBackwardWeights && dilation % 2 == 0 ?
        dilation / 2 : 1;
    if (pass->Make(kind, whole, phases, dnnl::algorithm::convolution_direct,
        bias, Type::f32)) { return pass; }
    return shared_ptr<Pass>();
  }

  bool is_bf16() const { return is_bf16_; }

  /// Compute with Caffe's arrays. The gradient of the weights is added to
  /// `weight`, that of the bias to `bias` unless that is NULL.
  void Run(float* bottom, float* weight, float* bias, float* top) {
    char* space = onednn_workspace(bottom_.bytes() + weight_.bytes() +
        top_.bytes() + bias_.get_size());
    dnnl::memory src = bottom_.Bind(bottom, space);
    dnnl::memory weights = weight_.Bind(weight, space += bottom_.bytes());
    dnnl::memory dst = top_.Bind(top, space += weight_.bytes());
    float* bias_diff = reinterpret_cast<float*>(space + top_.bytes());
    dnnl::memory biases(bias_, onednn_engine(), DNNL_MEMORY_NONE);
    std::unordered_map<int, dnnl::memory> arguments;
    if (bias_.get_size() > 0) {
      arguments[kind_ == kForward ? DNNL_ARG_BIAS : DNNL_ARG_DIFF_BIAS] = biases;
      biases.set_data_handle(kind_ == kForward ? bias : bias_diff);
    }
    if (kind_ == kForward) {
      bottom_.Load();
      weight_.Load();
      arguments[DNNL_ARG_SRC] = src;
      arguments[DNNL_ARG_WEIGHTS] = weights;
      arguments[DNNL_ARG_DST] = dst;
      primitive_.execute(onednn_stream(), arguments);
      top_.Store();
    } else if (kind_ == kBackwardBottom) {
      top_.Load();
      weight_.Load();
      arguments[DNNL_ARG_DIFF_DST] = dst;
      arguments[DNNL_ARG_WEIGHTS] = weights;
      arguments[DNNL_ARG_DIFF_SRC] = src;
      primitive_.execute(onednn_stream(), arguments);
      bottom_.Store();
    } else {
      top_.Load();
      bottom_.Load();
      arguments[DNNL_ARG_DIFF_DST] = dst;
      arguments[DNNL_ARG_SRC] = src;
      arguments[DNNL_ARG_DIFF_WEIGHTS] = weights;
      primitive_.execute(onednn_stream(), arguments);
      weight_.Store();
    }
    onednn_stream().wait();
    if (kind_ == kBackwardWeights && bias) {
      caffe_axpy(outputs_, 1.f, bias_diff, bias);
    }
  }

 private:
  /// Prepare a way to compute with factors of a type; false if oneDNN has no
  /// compiled kernel for it.
  bool Make(const Kind kind, const OneDNNGeometry& whole, const int phases,
      const dnnl::algorithm algorithm, const bool bias, const Type factors) {
    using dnnl::convolution_backward_data;
    using dnnl::convolution_backward_weights;
    using dnnl::convolution_forward;
    const OneDNNGeometry g = whole.Cut(phases);
    const dnnl::memory::dims bottom = {g.num, g.channels, g.height, g.width};
    const dnnl::memory::dims weight =
        {g.outputs, g.channels, g.kernel[0], g.kernel[1]};
    const dnnl::memory::dims top =
        {g.num, g.outputs, g.out_height, g.out_width};
    const dnnl::memory::dims stride = {g.stride[0], g.stride[1]};
    const dnnl::memory::dims pad = {g.pad[0], g.pad[1]};
    const dnnl::memory::dims dilation =  // oneDNN counts the holes
        {g.dilation[0] - 1, g.dilation[1] - 1};
    const Desc any_bottom = Describe(bottom, Tag::any, factors);
    const Desc any_weight = Describe(weight, Tag::any, factors);
    const Desc any_top = Describe(top, Tag::any, factors);
    bias_ = bias ? Describe({g.outputs}, Tag::x) : Desc();
    const convolution_forward::primitive_desc forward({
        dnnl::prop_kind::forward_training, algorithm, any_bottom, any_weight,
        bias_, kind == kForward ? Describe(top, Tag::any) : any_top, stride,
        dilation, pad, pad}, onednn_engine(), true);
    if (!forward) { return false; }
    Desc bottom_wanted, weight_wanted, top_wanted;
    string implementation;
    if (kind == kForward) {
      bottom_wanted = forward.src_desc();
      weight_wanted = forward.weights_desc();
      top_wanted = forward.dst_desc();
      implementation = forward.impl_info_str();
      primitive_ = convolution_forward(forward);
    } else if (kind == kBackwardBottom) {
      const convolution_backward_data::primitive_desc backward({algorithm,
          Describe(bottom, Tag::any), any_weight, any_top, stride, dilation, pad, pad},
          onednn_engine(), forward, true);
      if (!backward) { return false; }
      bottom_wanted = backward.diff_src_desc();
      weight_wanted = backward.weights_desc();
      top_wanted = backward.diff_dst_desc();
      implementation = backward.impl_info_str();
      primitive_ = convolution_backward_data(backward);
    } else {
      const convolution_backward_weights::primitive_desc backward({algorithm,
          any_bottom, Describe(weight, Tag::any), bias_, any_top, stride, dilation, pad, pad},
          onednn_engine(), forward, true);
      if (!backward) { return false; }
      bottom_wanted = backward.src_desc();
      weight_wanted = backward.diff_weights_desc();
      top_wanted = backward.diff_dst_desc();
      implementation = backward.impl_info_str();
      primitive_ = convolution_backward_weights(backward);
    }
    // The others are matrix products or plain loops, no faster than Caffe's.
    if (implementation.compare(0, 3, "jit") != 0 &&
        implementation.compare(0, 3, "brg") != 0) { return false; }
    if (factors == Type::bf16 && (!onednn_bf16_is_fast(implementation) ||
        (kind == kBackwardWeights && !IsForBF16Weights(whole,
        implementation.find("amx") != string::npos)))) { return false; }
    is_bf16_ = factors == Type::bf16;
    kind_ = kind;
    outputs_ = g.outputs;
    bottom_ = Operand(whole, g.channels, phases, Describe(bottom, Tag::nchw),
        bottom_wanted, kind == kBackwardBottom);
    weight_ = Operand(whole, 0, 1, Describe(weight, Tag::oihw), weight_wanted,
        kind == kBackwardWeights);
    top_ = Operand(whole, g.outputs, phases, Describe(top, Tag::nchw),
        top_wanted, kind == kForward);
    return true;
  }

  Kind kind_;
  bool is_bf16_;
  int outputs_;
  dnnl::primitive primitive_;
  Operand bottom_, weight_, top_;
  Desc bias_;
};

OneDNNConvolutionLayer::OneDNNConvolutionLayer(const LayerParameter& param,
    const bool winograd)
    : ConvolutionLayer<float>(param), winograd_(winograd),
      bf16_(param.convolution_param().engine() ==
          ConvolutionParameter_Engine_DEFAULT && onednn_bf16_wanted()) {}

bool OneDNNConvolutionLayer::is_bf16() const {
  return bf16_forward_ || (forward_ && forward_->is_bf16());
}

void OneDNNConvolutionLayer::Reshape(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top) {
  ConvolutionLayer<float>::Reshape(bottom, top);
  if (bottom[0]->shape() == planned_shape_) { return; }
  planned_shape_ = bottom[0]->shape();
  bf16_forward_.reset();
  forward_.reset();
  backward_bottom_.reset();
  backward_weights_.reset();
  if (this->num_spatial_axes_ != 2 || this->group_ != 1) { return; }
  OneDNNGeometry g;
  g.num = this->num_;
  g.channels = this->channels_;
  g.height = this->input_shape(1);
  g.width = this->input_shape(2);
  g.outputs = this->num_output_;
  g.out_height = this->output_shape_[0];
  g.out_width = this->output_shape_[1];
  for (int i = 0; i < 2; ++i) {
    g.kernel[i] = this->kernel_shape_.cpu_data()[i];
    g.stride[i] = this->stride_.cpu_data()[i];
    g.pad[i] = this->pad_.cpu_data()[i];
    g.dilation[i] = this->dilation_.cpu_data()[i];
  }
  const bool bias = this->bias_term_;
  const bool trains = this->phase_ == TRAIN;
  if (bf16_ && !trains && bottom[0]->num_axes() == 4) {
    bf16_forward_ = OneDNNConvolution::Plan(g, bias);
  }
  const auto plan = [&](const Pass::Kind kind) {
    return Pass::Plan(kind, g, bias, winograd_, bf16_ && trains);
  };
  if (!bf16_forward_) { forward_ = plan(Pass::kForward); }
  if (trains) {
    backward_bottom_ = plan(Pass::kBackwardBottom);
    backward_weights_ = plan(Pass::kBackwardWeights);
  }
}

void OneDNNConvolutionLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top) {
  if (!forward_ && !bf16_forward_) {
    return ConvolutionLayer<float>::Forward_cpu(bottom, top);
  }
  for (int i = 0; i < bottom.size(); ++i) {
    if (bf16_forward_) {
      top[i]->data()->set_source(
          bf16_forward_->Start(onednn_maps(*bottom[i]), this->blobs_));
    } else {
      const float* bias = this->bias_term_ ? this->blobs_[1]->cpu_data() : NULL;
      forward_->Run(Writable(bottom[i]->cpu_data()),
          Writable(this->blobs_[0]->cpu_data()), Writable(bias),
          top[i]->mutable_cpu_data());
    }
  }
}

void OneDNNConvolutionLayer::Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  // ConvolutionLayer does what is left when oneDNN's part is switched off.
  vector<bool> parameters_left = this->param_propagate_down_;
  vector<bool> bottoms_left = propagate_down;
  const bool weights = backward_weights_ && parameters_left[0];
  const bool bias = this->bias_term_ && parameters_left[1];
  if (weights) { parameters_left.assign(parameters_left.size(), false); }
  for (int i = 0; i < top.size(); ++i) {
    float* top_diff = Writable(top[i]->cpu_diff());
    if (weights) {
      backward_weights_->Run(Writable(bottom[i]->cpu_data()),
          this->blobs_[0]->mutable_cpu_diff(),
          bias ? this->blobs_[1]->mutable_cpu_diff() : NULL, top_diff);
    }
    if (backward_bottom_ && bottoms_left[i]) {
      backward_bottom_->Run(bottom[i]->mutable_cpu_diff(),
          Writable(this->blobs_[0]->cpu_data()), NULL, top_diff);
      bottoms_left[i] = false;
    }
  }
  this->param_propagate_down_.swap(parameters_left);
  ConvolutionLayer<float>::Backward_cpu(top, bottoms_left, bottom);
  this->param_propagate_down_.swap(parameters_left);
}

#endif  // USE_ONEDNN

ConvolutionParameter_Engine ConvolutionEngineFromEnvironment(
    const ConvolutionParameter_Engine otherwise) {
  const char* name = getenv("CAFFE_CONVOLUTION_ENGINE");
  const string engine = name ? name : "";
  if (engine.empty() || Caffe::mode() == Caffe::GPU) { return otherwise; }
  if (engine == "caffe") { return ConvolutionParameter_Engine_CAFFE; }
  if (engine == "onednn") { return ConvolutionParameter_Engine_ONEDNN; }
  CHECK(engine == "onednn_winograd" || engine == "onednn_bf16")
      << "CAFFE_CONVOLUTION_ENGINE=" << engine
      << ": it must be caffe, onednn, onednn_winograd or onednn_bf16.";
  return ConvolutionParameter_Engine_ONEDNN_WINOGRAD;
}

template <>
shared_ptr<Layer<float> > GetOneDNNConvolutionLayer(
    const LayerParameter& param, const ConvolutionParameter_Engine engine) {
#ifdef USE_ONEDNN
  return shared_ptr<Layer<float> >(new OneDNNConvolutionLayer(param,
      engine == ConvolutionParameter_Engine_ONEDNN_WINOGRAD));
#else
  LOG(FATAL) << "Layer " << param.name() << " asks for the engine "
      << ConvolutionParameter_Engine_Name(engine) << ", but this Caffe was "
      << "built without oneDNN (CMake option USE_ONEDNN).";
  return shared_ptr<Layer<float> >();
#endif
}

template <>
shared_ptr<Layer<double> > GetOneDNNConvolutionLayer(
    const LayerParameter& param, const ConvolutionParameter_Engine engine) {
  return shared_ptr<Layer<double> >(new ConvolutionLayer<double>(param));
}

}  // namespace caffe
