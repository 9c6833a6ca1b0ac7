#include "caffe/util/onednn_maps.hpp"

#ifdef USE_ONEDNN

#include <dnnl.hpp>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "caffe/util/cpu_threads.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/onednn.hpp"

// As CAFFE_COMPARING_LOOPS, which the compiler does not take together with
// CAFFE_ROW_FUNCTION.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-trapping-math")
#endif

namespace caffe {

namespace {

typedef dnnl::memory::desc Desc;
typedef dnnl::memory::format_tag Tag;
typedef dnnl::memory::data_type Type;

const int kSign = 0x8000, kInfinity = 0x7f80;  // of a bfloat16

size_t Count(const vector<int>& shape) {
  size_t count = 1;
  for (int i = 0; i < shape.size(); ++i) { count *= shape[i]; }
  return count;
}

dnnl::memory Memory(const vector<int>& shape, const Tag tag, const Type type,
    const void* data) {
  const dnnl::memory::dims dims(shape.begin(), shape.end());
  return dnnl::memory(Desc(dims, type, tag), onednn_engine(),
      const_cast<void*>(data));
}

void Reorder(dnnl::memory from, dnnl::memory to) {
  dnnl::reorder(from, to).execute(onednn_stream(), from, to);
  onednn_stream().wait();
}

/// Maps that are there.
class Maps : public OneDNNSource {
 public:
  explicit Maps(const shared_ptr<const OneDNNMaps>& maps)
      : OneDNNSource(maps->shape()), maps_(maps) {}
  virtual void WriteTo(void* data) { maps_->CopyTo(static_cast<float*>(data)); }
  virtual shared_ptr<const OneDNNMaps> maps() { return maps_; }
  virtual shared_ptr<OneDNNSource> Rectified() {
    shared_ptr<OneDNNMaps> copy(new OneDNNMaps(shape()));
    std::memcpy(copy->mutable_data(), maps_->data(),
        Count(shape()) * sizeof(uint16_t));
    copy->set_bound(maps_->bound());
    copy->Rectify();
    return shared_ptr<OneDNNSource>(new Maps(copy));
  }

 private:
  const shared_ptr<const OneDNNMaps> maps_;
};

inline float Float(const uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

inline uint16_t Rounded(const float value) {  // to the nearest, of two the even
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
  // What is not a number must not become infinite.
  return (value == value ? rounded : bits | 0x400000) >> 16;
}

CAFFE_ROW_FUNCTION void TakeMaximum(const int count,
    const uint16_t* __restrict__ in, float* __restrict__ best) {
  for (int c = 0; c < count; ++c) {
    const float value = Float(in[c]);
    best[c] = value > best[c] ? value : best[c];
  }
}

CAFFE_ROW_FUNCTION void Add(const int count, const uint16_t* __restrict__ in,
    float* __restrict__ sum) {
  for (int c = 0; c < count; ++c) { sum[c] += Float(in[c]); }
}

CAFFE_ROW_FUNCTION void Divide(const int count, const float divisor,
    float* values) {
  for (int c = 0; c < count; ++c) { values[c] /= divisor; }
}

CAFFE_ROW_FUNCTION void Round(const int count,
    const float* __restrict__ values, uint16_t* __restrict__ out) {
  for (int c = 0; c < count; ++c) { out[c] = Rounded(values[c]); }
}

CAFFE_ROW_FUNCTION void RectifyRow(const int count,
    uint16_t* values) {
  for (int i = 0; i < count; ++i) {
    const bool number = (values[i] & ~kSign) <= kInfinity;
    values[i] = number && (values[i] & kSign) ? 0 : values[i];
  }
}

}  // namespace

OneDNNMaps::OneDNNMaps(const vector<int>& shape)
    : shape_(shape), data_(NULL),
      bound_(std::numeric_limits<float>::infinity()) {
  CHECK_EQ(shape.size(), 4);
  void* data = NULL;
  CHECK_EQ(0, posix_memalign(&data, 64,
      std::max<size_t>(Count(shape), 1) * sizeof(uint16_t)))
      << "no memory for maps of " << Count(shape) << " values.";
  data_ = static_cast<uint16_t*>(data);
}

OneDNNMaps::OneDNNMaps(const vector<int>& shape, const float* array)
    : OneDNNMaps(shape) {
  bound_ = onednn_bound(Count(shape), array);
  Reorder(Memory(shape, Tag::nchw, Type::f32, array),
      Memory(shape, Tag::nhwc, Type::bf16, data_));
}

OneDNNMaps::~OneDNNMaps() { free(data_); }

void OneDNNMaps::CopyTo(float* array) const {
  Reorder(Memory(shape_, Tag::nhwc, Type::bf16, data_),
      Memory(shape_, Tag::nchw, Type::f32, array));
}

void OneDNNMaps::Rectify() {
  const int rows = shape_[0] * shape_[2], width = shape_[1] * shape_[3];
#pragma omp parallel for if(rows * width >= kParallelCount)
  for (int row = 0; row < rows; ++row) {
    RectifyRow(width, data_ + static_cast<size_t>(row) * width);
  }
}

void onednn_to_maps(const vector<int>& shape, const float* array,
    float* maps) {
  Reorder(Memory(shape, Tag::nchw, Type::f32, array),
      Memory(shape, Tag::nhwc, Type::f32, maps));
}

void onednn_from_maps(const vector<int>& shape, const float* maps,
    float* array) {
  Reorder(Memory(shape, Tag::nhwc, Type::f32, maps),
      Memory(shape, Tag::nchw, Type::f32, array));
}

void onednn_product(const OneDNNMaps& maps, const int rows, const float* weight,
    const int leading, float* products) {
  const int channels = maps.shape()[1];
  const int positions = maps.shape()[0] * maps.shape()[2] * maps.shape()[3];
  const dnnl::memory src(Desc({positions, channels}, Type::bf16, Tag::ab),
      onednn_engine(), const_cast<uint16_t*>(maps.data()));
  const dnnl::memory plain(Desc({channels, rows}, Type::f32,
      dnnl::memory::dims{1, leading}), onednn_engine(),
      const_cast<float*>(weight));
  if (!onednn_bf16_is_sound(channels)) {  // rounded, and multiplied as floats
    vector<float> in(static_cast<size_t>(positions) * channels);
    vector<float> factors(static_cast<size_t>(channels) * rows);
    vector<uint16_t> rounded(factors.size());
    const dnnl::memory floats(Desc({channels, rows}, Type::f32, Tag::ab),
        onednn_engine(), factors.data());
    const dnnl::memory halves(Desc({channels, rows}, Type::bf16, Tag::ab),
        onednn_engine(), rounded.data());
    Reorder(src, dnnl::memory(Desc({positions, channels}, Type::f32, Tag::ab),
        onednn_engine(), in.data()));
    Reorder(plain, halves);
    Reorder(halves, floats);
    caffe_cpu_gemm(CblasNoTrans, CblasNoTrans, positions, rows, channels, 1.f,
        in.data(), factors.data(), 0.f, products);
    return;
  }
  const Desc out({positions, rows}, Type::f32, Tag::ab);
  const Desc any({channels, rows}, Type::bf16, Tag::any);
  const dnnl::matmul::primitive_desc way({src.get_desc(), any, out},
      onednn_engine());
  dnnl::memory rounded(way.weights_desc(), onednn_engine(),
      onednn_workspace(way.weights_desc().get_size()));
  Reorder(plain, rounded);
  dnnl::matmul(way).execute(onednn_stream(), {{DNNL_ARG_SRC, src},
      {DNNL_ARG_WEIGHTS, rounded},
      {DNNL_ARG_DST, dnnl::memory(out, onednn_engine(), products)}});
  onednn_stream().wait();
}

shared_ptr<OneDNNSource> onednn_source(const Blob<float>& blob) {
  const shared_ptr<OneDNNSource> source =
      boost::dynamic_pointer_cast<OneDNNSource>(blob.data()->source());
  return source && source->shape() == blob.shape() ? source :
      shared_ptr<OneDNNSource>();
}

shared_ptr<const OneDNNMaps> onednn_maps(const Blob<float>& blob) {
  const shared_ptr<OneDNNSource> source = onednn_source(blob);
  return source ? source->maps() : shared_ptr<const OneDNNMaps>(
      new OneDNNMaps(blob.shape(), blob.cpu_data()));
}

shared_ptr<OneDNNSource> onednn_make_source(
    const shared_ptr<const OneDNNMaps>& maps) {
  return shared_ptr<OneDNNSource>(new Maps(maps));
}

float onednn_bound(const size_t count,
    const float* array) {
  int32_t largest = 0;  // magnitudes are ordered as their bits
#pragma omp parallel for reduction(max : largest) if(count >= kParallelCount)
  for (size_t i = 0; i < count; ++i) {
    int32_t bits;
    std::memcpy(&bits, array + i, sizeof(bits));
    largest = std::max(largest, bits & 0x7fffffff);
  }
  float bound;
  std::memcpy(&bound, &largest, sizeof(bound));
  return std::isfinite(bound) ? bound : std::numeric_limits<float>::infinity();
}

shared_ptr<OneDNNMaps> onednn_pool(const OneDNNPooling& pooling,
    const OneDNNMaps& bottom, const vector<int>& shape) {
  shared_ptr<OneDNNMaps> top(new OneDNNMaps(shape));
  const int channels = shape[1], top_height = shape[2], top_width = shape[3];
  const int height = bottom.shape()[2], width = bottom.shape()[3];
  const int rows = shape[0] * top_height;
#pragma omp parallel if(Count(bottom.shape()) >= kParallelCount)
  {
    vector<float> result(channels);
#pragma omp for
    for (int row = 0; row < rows; ++row) {
      const uint16_t* image = bottom.data() +
          static_cast<size_t>(row / top_height) * height * width * channels;
      uint16_t* out = top->mutable_data() +
          static_cast<size_t>(row) * top_width * channels;
      const int first_y = row % top_height * pooling.stride[0] - pooling.pad[0];
      const int end_y = std::min(first_y + pooling.kernel[0],
          height + pooling.pad[0]);
      for (int i = 0; i < top_width; ++i, out += channels) {
        const int first_x = i * pooling.stride[1] - pooling.pad[1];
        const int end_x = std::min(first_x + pooling.kernel[1],
            width + pooling.pad[1]);
        std::fill(result.begin(), result.end(),
            pooling.maximum ? -FLT_MAX : 0.f);
        for (int y = std::max(first_y, 0); y < std::min(end_y, height); ++y) {
          for (int x = std::max(first_x, 0); x < std::min(end_x, width); ++x) {
            const uint16_t* in = image +
                (static_cast<size_t>(y) * width + x) * channels;
            if (pooling.maximum) {
              TakeMaximum(channels, in, result.data());
            } else {
              Add(channels, in, result.data());
            }
          }
        }
        if (!pooling.maximum) {  // as in Caffe, padding up to the pad counts
          Divide(channels, (end_y - first_y) * (end_x - first_x),
              result.data());
        }
        Round(channels, result.data(), out);
      }
    }
  }
  top->set_bound(bottom.bound());
  return top;
}

}  // namespace caffe

#endif  // USE_ONEDNN
