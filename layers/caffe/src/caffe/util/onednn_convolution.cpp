#include "caffe/util/onednn_convolution.hpp"

#ifdef USE_ONEDNN

#include <dnnl.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

#include "caffe/util/cpu_threads.hpp"
#include "caffe/util/onednn.hpp"

namespace caffe {

typedef dnnl::memory::desc Desc;
typedef dnnl::memory::format_tag Tag;
typedef dnnl::memory::data_type Type;

bool OneDNNGeometry::has_phases() const {
  for (int i = 0; i < 2; ++i) {
    if (stride[i] != 1 || kernel[i] % 2 == 0 ||
        2 * pad[i] != dilation[i] * (kernel[i] - 1)) { return false; }
  }
  return dilation[0] == dilation[1] && dilation[0] > 1;
}

OneDNNGeometry OneDNNGeometry::Cut(const int phases) const {
  OneDNNGeometry g = *this;
  if (phases == 1) { return g; }
  g.num *= phases * phases;
  g.height = g.out_height = (height + phases - 1) / phases;
  g.width = g.out_width = (width + phases - 1) / phases;
  for (int i = 0; i < 2; ++i) {
    g.pad[i] /= phases;
    g.dilation[i] /= phases;
  }
  return g;
}

namespace {

/// Copy maps (N, H, W, C) to their phases, or the other way round. Phase (i, j)
/// of image n is image (n phases + i) phases + j.
template <typename Value>
void CopyPhases(const OneDNNGeometry& whole, const int channels,
    const int phases, const bool to_parts, Value* maps, Value* parts) {
  const OneDNNGeometry part = whole.Cut(phases);
  const size_t bytes = channels * sizeof(Value);
#pragma omp parallel for
  for (int row = 0; row < part.num * part.height; ++row) {
    const int image = row / part.height, phase = image % (phases * phases);
    const int y = row % part.height * phases + phase / phases;
    Value* in_part = parts + static_cast<size_t>(row) * part.width * channels;
    for (int i = 0; i < part.width; ++i, in_part += channels) {
      const int x = i * phases + phase % phases;
      const bool inside = y < whole.height && x < whole.width;
      Value* in_map = maps + ((static_cast<size_t>(image / (phases * phases)) *
          whole.height + y) * whole.width + x) * channels;
      if (!to_parts && inside) {
        std::memcpy(in_map, in_part, bytes);
      } else if (to_parts && inside) {
        std::memcpy(in_part, in_map, bytes);
      } else if (to_parts) {
        std::memset(in_part, 0, bytes);
      }
    }
  }
}

const int kLanes = 16;

/// Every step is a bijection of the hash and of the word.
inline uint64_t Mix(const uint64_t hash, const uint64_t word) {
  const uint64_t mixed = (hash ^ word) * 0x9e3779b97f4a7c15;
  return mixed ^ (mixed >> 32);
}

CAFFE_ROW_FUNCTION void MixRows(const int rows,
    const float* __restrict__ values, uint64_t* __restrict__ hashes) {
  for (int row = 0; row < rows; ++row) {
    for (int lane = 0; lane < kLanes; ++lane) {
      uint64_t word;
      std::memcpy(&word, values + (row * kLanes + lane) * 2, sizeof(word));
      hashes[lane] = Mix(hashes[lane], word);
    }
  }
}

/// A hash of the bits of an array. A single change is noticed for certain, of
/// several changes all but one case in 2^64.
uint64_t Hash(const size_t count, const float* array) {
  const size_t kBlock = 1 << 14;
  const int kRow = 2 * kLanes;
  const int blocks = (count + kBlock - 1) / kBlock;
  vector<uint64_t> hashes(blocks);
#pragma omp parallel for if(count >= kParallelCount)
  for (int block = 0; block < blocks; ++block) {
    const float* begin = array + block * kBlock;
    const int size = std::min(kBlock, count - block * kBlock);
    uint64_t lanes[kLanes] = {0};
    float rest[kRow] = {0};
    MixRows(size / kRow, begin, lanes);
    std::copy(begin + size / kRow * kRow, begin + size, rest);
    MixRows(1, rest, lanes);
    for (int lane = 0; lane < kLanes; ++lane) {
      hashes[block] = Mix(hashes[block], lanes[lane]);
    }
  }
  uint64_t hash = count;
  for (int block = 0; block < blocks; ++block) {
    hash = Mix(hash, hashes[block]);
  }
  return hash;
}

dnnl::memory Memory(const Desc& desc, const void* data) {
  return dnnl::memory(desc, onednn_engine(), const_cast<void*>(data));
}

}  // namespace

/// Weights and bias as they were, converted for a kernel.
class OneDNNConvolution::Parameters {
 public:
  Parameters(const uint64_t hash, const OneDNNGeometry& g, const Desc& wanted,
      const float* weight, const float* bias)
      : hash_(hash), weight_(wanted, onednn_engine()), bias_(g.outputs) {
    const Desc plain({g.outputs, g.channels, g.kernel[0], g.kernel[1]},
        Type::f32, Tag::oihw);
    dnnl::memory from = Memory(plain, weight);
    dnnl::reorder(from, weight_).execute(onednn_stream(), from, weight_);
    onednn_stream().wait();
    if (bias) { std::copy(bias, bias + g.outputs, bias_.begin()); }
    const int inputs = g.channels * g.kernel[0] * g.kernel[1];
    gain_ = 0;
    for (int output = 0; output < g.outputs; ++output) {
      double sum = 0;
      for (int i = 0; i < inputs; ++i) {
        sum += std::abs(weight[static_cast<size_t>(output) * inputs + i]);
      }
      // What is not a number is not below the limit either.
      gain_ = sum <= std::numeric_limits<float>::max() ?
          std::max(gain_, static_cast<float>(sum)) :
          std::numeric_limits<float>::infinity();
    }
  }

  uint64_t hash() const { return hash_; }
  const dnnl::memory& weight() const { return weight_; }
  const float* bias() const { return bias_.data(); }
  /// What no sum of products, with no matter how many of them added, exceeds for
  /// bottoms up to `bound`, with room for rounding.
  float Bound(const float bound) const {
    const float sum =
        1.1f * (gain_ * bound + onednn_bound(bias_.size(), bias_.data()));
    return std::isfinite(sum) ? sum : std::numeric_limits<float>::infinity();
  }

 private:
  const uint64_t hash_;
  dnnl::memory weight_;
  vector<float> bias_;
  float gain_;
};

class OneDNNConvolution::Kernel {
 public:
  /// What comes out: Caffe's floats, or maps, of a ReLU or not.
  enum Way { kExact, kRounded, kRectified, kWays };

  Kernel(const OneDNNGeometry& geometry, const bool bias)
      : geometry_(geometry), phases_(1), has_bias_(bias) {
    if (geometry.has_phases()) {  // the kernels like a dilation of 1, or of 4
      const int dilation = geometry.dilation[0];
      phases_ = dilation <= 4 ? dilation : dilation % 4 == 0 ? dilation / 4 : 1;
    }
    part_ = geometry.Cut(phases_);
  }

  /// False if oneDNN has no compiled kernel.
  bool Make() {
    weight_ = Desc({part_.outputs, part_.channels, part_.kernel[0],
        part_.kernel[1]}, Type::bf16, Tag::any);
    for (int way = kWays - 1; way >= 0; --way) {
      const dnnl::convolution_forward::primitive_desc made =
          Describe(static_cast<Way>(way));
      if (!made) { return false; }
      const string implementation = made.impl_info_str();
      // The others are plain loops.
      if (implementation.compare(0, 3, "jit") != 0 &&
          implementation.compare(0, 3, "brg") != 0) { return false; }
      weight_ = made.weights_desc();
      primitives_[way] = dnnl::convolution_forward(made);
    }
    return true;
  }

  const OneDNNGeometry& geometry() const { return geometry_; }
  const Desc& weight() const { return weight_; }

  /// Write `top`: floats in Caffe's order for kExact, else maps.
  void Compute(const Way way, const OneDNNMaps& bottom,
      const Parameters& parameters, void* top) const {
    const Desc src = Maps(part_.channels, Type::bf16, part_);
    const Desc dst = TopMaps(way, part_);
    const Desc whole = TopMaps(way, geometry_);
    const bool cut = phases_ > 1, exact = way == kExact;
    const size_t src_bytes = cut ? onednn_aligned(src.get_size()) : 0;
    const size_t dst_bytes = cut ? onednn_aligned(dst.get_size()) : 0;
    char* space = onednn_workspace(src_bytes + dst_bytes +
        (exact ? whole.get_size() : 0));
    const void* in = bottom.data();
    void* ordered = exact ? space + src_bytes + dst_bytes : top;
    void* out = ordered;
    if (cut) {
      CopyPhases(geometry_, part_.channels, phases_, true,
          const_cast<uint16_t*>(bottom.data()),
          reinterpret_cast<uint16_t*>(space));
      in = space;
      out = space + src_bytes;
    }
    std::unordered_map<int, dnnl::memory> arguments;
    arguments[DNNL_ARG_SRC] = Memory(src, in);
    arguments[DNNL_ARG_WEIGHTS] = parameters.weight();
    arguments[DNNL_ARG_DST] = Memory(dst, out);
    if (has_bias_) {
      arguments[DNNL_ARG_BIAS] = Memory(Bias(), parameters.bias());
    }
    primitives_[way].execute(onednn_stream(), arguments);
    onednn_stream().wait();
    if (cut && exact) {
      CopyPhases(geometry_, part_.outputs, phases_, false,
          static_cast<float*>(ordered), static_cast<float*>(out));
    } else if (cut) {
      CopyPhases(geometry_, part_.outputs, phases_, false,
          static_cast<uint16_t*>(ordered), static_cast<uint16_t*>(out));
    }
    if (exact) {
      dnnl::memory from = Memory(whole, ordered), to = Memory(
          Desc(whole.dims(), Type::f32, Tag::nchw), top);
      dnnl::reorder(from, to).execute(onednn_stream(), from, to);
      onednn_stream().wait();
    }
  }

 private:
  static Desc Maps(const int channels, const Type type,
      const OneDNNGeometry& g) {
    return Desc({g.num, channels, g.height, g.width}, type, Tag::nhwc);
  }
  static Desc TopMaps(const Way way, const OneDNNGeometry& g) {
    return Desc({g.num, g.outputs, g.out_height, g.out_width},
        way == kExact ? Type::f32 : Type::bf16, Tag::nhwc);
  }
  Desc Bias() const {
    return has_bias_ ? Desc({part_.outputs}, Type::f32, Tag::x) : Desc();
  }
  dnnl::convolution_forward::primitive_desc Describe(const Way way) const {
    dnnl::primitive_attr attributes;
    if (way == kRectified) {
      dnnl::post_ops relu;
      relu.append_eltwise(1.f, dnnl::algorithm::eltwise_relu, 0.f, 0.f);
      attributes.set_post_ops(relu);
    }
    const dnnl::memory::dims stride = {part_.stride[0], part_.stride[1]};
    const dnnl::memory::dims pad = {part_.pad[0], part_.pad[1]};
    const dnnl::memory::dims dilation =  // oneDNN counts the holes
        {part_.dilation[0] - 1, part_.dilation[1] - 1};
    return dnnl::convolution_forward::primitive_desc({
        dnnl::prop_kind::forward_inference,
        dnnl::algorithm::convolution_direct,
        Maps(part_.channels, Type::bf16, part_), weight_, Bias(),
        TopMaps(way, part_), stride, dilation, pad, pad}, attributes,
        onednn_engine(), true);
  }

  OneDNNGeometry geometry_, part_;
  int phases_;
  bool has_bias_;
  Desc weight_;
  dnnl::convolution_forward primitives_[kWays];
};

class OneDNNConvolution::Result : public OneDNNSource {
 public:
  Result(const shared_ptr<const Kernel>& kernel,
      const shared_ptr<const Parameters>& parameters,
      const shared_ptr<const OneDNNMaps>& bottom, const vector<int>& shape,
      const bool rectified)
      : OneDNNSource(shape), kernel_(kernel), parameters_(parameters),
        bottom_(bottom), rectified_(rectified) {}

  virtual void WriteTo(void* data) {
    if (rectified_) {
      maps()->CopyTo(static_cast<float*>(data));
    } else {
      kernel_->Compute(Kernel::kExact, *bottom_, *parameters_, data);
    }
  }

  virtual shared_ptr<const OneDNNMaps> maps() {
    if (maps_) { return maps_; }
    shared_ptr<OneDNNMaps> maps(new OneDNNMaps(shape()));
    maps->set_bound(parameters_->Bound(bottom_->bound()));
    // oneDNN's ReLU makes zero of what is not a number.
    const bool fused = rectified_ && std::isfinite(maps->bound());
    kernel_->Compute(fused ? Kernel::kRectified : Kernel::kRounded, *bottom_,
        *parameters_, maps->mutable_data());
    if (rectified_ && !fused) { maps->Rectify(); }
    maps_ = maps;
    if (rectified_) { bottom_.reset(); }  // all there is to know is in maps_
    return maps_;
  }

  virtual shared_ptr<OneDNNSource> Rectified() {
    if (rectified_) { return onednn_make_source(maps()); }
    return shared_ptr<OneDNNSource>(new Result(kernel_, parameters_, bottom_,
        shape(), true));
  }

 private:
  const shared_ptr<const Kernel> kernel_;
  const shared_ptr<const Parameters> parameters_;
  shared_ptr<const OneDNNMaps> bottom_;
  const bool rectified_;
  shared_ptr<const OneDNNMaps> maps_;
};

shared_ptr<OneDNNConvolution> OneDNNConvolution::Plan(
    const OneDNNGeometry& geometry, const bool bias) {
  shared_ptr<Kernel> kernel(new Kernel(geometry, bias));
  shared_ptr<OneDNNConvolution> plan;
  if (kernel->Make()) {
    plan.reset(new OneDNNConvolution());
    plan->kernel_ = kernel;
  }
  return plan;
}

shared_ptr<OneDNNSource> OneDNNConvolution::Start(
    const shared_ptr<const OneDNNMaps>& bottom,
    const vector<shared_ptr<Blob<float> > >& blobs) {
  const OneDNNGeometry& g = kernel_->geometry();
  if (!seen_.SameAgain(blobs)) {
    const float* weight = blobs[0]->cpu_data();
    const float* bias = blobs.size() > 1 ? blobs[1]->cpu_data() : NULL;
    uint64_t hash = Hash(blobs[0]->count(), weight);
    if (bias) { hash = Mix(hash, Hash(g.outputs, bias)); }
    if (!parameters_ || parameters_->hash() != hash) {
      parameters_.reset(new Parameters(hash, g, kernel_->weight(), weight,
          bias));
    }
  }
  vector<int> shape(bottom->shape());
  shape[1] = g.outputs;
  shape[2] = g.out_height;
  shape[3] = g.out_width;
  return shared_ptr<OneDNNSource>(new Result(kernel_, parameters_, bottom,
      shape, false));
}

}  // namespace caffe

#endif  // USE_ONEDNN
