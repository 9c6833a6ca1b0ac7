#include "caffe/util/onednn_maps.hpp"

#ifdef USE_ONEDNN

#include <dnnl.hpp>
#ifdef _OPENMP
#include <omp.h>
#endif

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

/// A whole number for a value that is a number: larger ones have larger ones. The
/// same again gives back the value's bits.
inline int16_t Ordered(const uint16_t value) {
  const int16_t bits = static_cast<int16_t>(value);
  return bits ^ ((bits >> 15) & 0x7fff);
}

CAFFE_ROW_FUNCTION void Order(const int count, const uint16_t* __restrict__ in,
    int16_t* __restrict__ best) {
  for (int i = 0; i < count; ++i) { best[i] = Ordered(in[i]); }
}

CAFFE_ROW_FUNCTION void TakeLarger(const int count,
    const uint16_t* __restrict__ in, int16_t* __restrict__ best) {
  for (int i = 0; i < count; ++i) {
    const int16_t value = Ordered(in[i]);
    best[i] = value > best[i] ? value : best[i];
  }
}

/// The largest of `taps` values side by side, for each channel. (A loop over the
/// taps within that over the channels would not become vector code.)
CAFFE_ROW_FUNCTION void TakeLargest(const int channels, const int taps,
    const int16_t* __restrict__ in, int16_t* __restrict__ best,
    uint16_t* __restrict__ out) {
  for (int c = 0; c < channels; ++c) { best[c] = in[c]; }
  for (int i = 1; i < taps; ++i) {
    in += channels;
    for (int c = 0; c < channels; ++c) {
      best[c] = in[c] > best[c] ? in[c] : best[c];
    }
  }
  for (int c = 0; c < channels; ++c) { out[c] = Ordered(best[c]); }
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

bool OneDNNSeen::SameAgain(const vector<shared_ptr<Blob<float> > >& blobs) {
  State state;
  for (int i = 0; i < blobs.size(); ++i) {
    const shared_ptr<SyncedMemory>& memory = blobs[i]->data();
    if (memory->is_lent()) {
      state_.clear();
      return false;
    }
    state.push_back(std::make_pair(memory, memory->writes()));
  }
  const bool same = state == state_;
  state_.swap(state);
  return same;
}

/// The matrix as the kernel likes it for so many positions.
class OneDNNProduct::Kernel {
 public:
  Kernel(const int positions, const int channels, const int rows,
      const uint16_t* weight)
      : positions_(positions), src_({positions, channels}, Type::bf16, Tag::ab),
        dst_({positions, rows}, Type::f32, Tag::ab) {
    const dnnl::matmul::primitive_desc way({src_,
        Desc({channels, rows}, Type::bf16, Tag::any), dst_}, onednn_engine());
    weight_ = dnnl::memory(way.weights_desc(), onednn_engine());
    product_ = dnnl::matmul(way);
    Reorder(Memory({channels, rows}, Tag::ab, Type::bf16, weight), weight_);
  }

  int positions() const { return positions_; }
  void Compute(const uint16_t* maps, float* products) const {
    product_.execute(onednn_stream(), {
        {DNNL_ARG_SRC, dnnl::memory(src_, onednn_engine(),
            const_cast<uint16_t*>(maps))},
        {DNNL_ARG_WEIGHTS, weight_},
        {DNNL_ARG_DST, dnnl::memory(dst_, onednn_engine(), products)}});
    onednn_stream().wait();
  }

 private:
  const int positions_;
  const Desc src_, dst_;
  dnnl::memory weight_;
  dnnl::matmul product_;
};

OneDNNProduct::OneDNNProduct() : rows_(0), channels_(0) {}

OneDNNProduct::~OneDNNProduct() {}

void OneDNNProduct::SetWeight(const int rows, const int channels,
    const float* weight, const int leading) {
  rows_ = rows;
  channels_ = channels;
  weight_.resize(static_cast<size_t>(channels) * rows);
  kernel_.reset();
  const dnnl::memory plain(Desc({channels, rows}, Type::f32,
      dnnl::memory::dims{1, leading}), onednn_engine(),
      const_cast<float*>(weight));
  Reorder(plain, Memory({channels, rows}, Tag::ab, Type::bf16,
      weight_.data()));
}

int OneDNNProduct::BlockSize(const int positions) {
#ifdef _OPENMP
  const int threads = omp_get_max_threads();
#else
  const int threads = 1;
#endif
  return std::min(positions, 224 * threads);
}

void OneDNNProduct::Compute(const OneDNNMaps& maps, const int first,
    const int count, float* products) {
  CHECK_EQ(channels_, maps.shape()[1]);
  const uint16_t* data = maps.data() + static_cast<size_t>(first) * channels_;
  if (!onednn_bf16_is_sound(channels_)) {  // multiplied as floats
    vector<float> in(static_cast<size_t>(count) * channels_);
    vector<float> factors(weight_.size());
    Reorder(Memory({count, channels_}, Tag::ab, Type::bf16, data),
        Memory({count, channels_}, Tag::ab, Type::f32, in.data()));
    Reorder(Memory({channels_, rows_}, Tag::ab, Type::bf16, weight_.data()),
        Memory({channels_, rows_}, Tag::ab, Type::f32, factors.data()));
    caffe_cpu_gemm(CblasNoTrans, CblasNoTrans, count, rows_, channels_, 1.f,
        in.data(), factors.data(), 0.f, products);
    return;
  }
  if (!kernel_ || kernel_->positions() != count) {
    kernel_.reset(new Kernel(count, channels_, rows_, weight_.data()));
  }
  kernel_->Compute(data, products);
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

namespace {

/// The part of the windows at place `i` along an axis that is inside a map.
struct Window {
  Window(const OneDNNPooling& pooling, const int axis, const int size,
      const int i) {
    const int start = i * pooling.stride[axis] - pooling.pad[axis];
    const int stop = std::min(start + pooling.kernel[axis],
        size + pooling.pad[axis]);
    begin = std::max(start, 0);
    end = std::min(stop, size);
    padded = stop - start;
  }
  int begin, end;
  int padded;  // its size with the padding, which Caffe's average counts
};

/// Maps of a pooling.
struct Pooled {
  const OneDNNPooling& pooling;
  const int channels, height, width, top_width;
};

/// One row of the average, or of a maximum of whatever values.
void PoolRow(const Pooled& p, const uint16_t* image, const Window& rows,
    float* result, uint16_t* out) {
  for (int i = 0; i < p.top_width; ++i, out += p.channels) {
    const Window columns(p.pooling, 1, p.width, i);
    std::fill(result, result + p.channels, p.pooling.maximum ? -FLT_MAX : 0.f);
    for (int y = rows.begin; y < rows.end; ++y) {
      for (int x = columns.begin; x < columns.end; ++x) {
        const uint16_t* in = image +
            (static_cast<size_t>(y) * p.width + x) * p.channels;
        if (p.pooling.maximum) {
          TakeMaximum(p.channels, in, result);
        } else {
          Add(p.channels, in, result);
        }
      }
    }
    if (!p.pooling.maximum) {
      Divide(p.channels, rows.padded * columns.padded, result);
    }
    Round(p.channels, result, out);
  }
}

/// One row of a maximum of numbers: down the columns first, then along the row.
/// `best` has room for a row of the bottom and one position more.
void PoolRowOfNumbers(const Pooled& p, const uint16_t* image,
    const Window& rows, int16_t* best, uint16_t* out) {
  const int size = p.width * p.channels;
  image += static_cast<size_t>(rows.begin) * size;
  Order(size, image, best);
  for (int y = rows.begin + 1; y < rows.end; ++y) {
    TakeLarger(size, image += size, best);
  }
  for (int i = 0; i < p.top_width; ++i, out += p.channels) {
    const Window columns(p.pooling, 1, p.width, i);
    TakeLargest(p.channels, columns.end - columns.begin,
        best + columns.begin * p.channels, best + size, out);
  }
}

}  // namespace

shared_ptr<OneDNNMaps> onednn_pool(const OneDNNPooling& pooling,
    const OneDNNMaps& bottom, const vector<int>& shape) {
  shared_ptr<OneDNNMaps> top(new OneDNNMaps(shape));
  const Pooled p = {pooling, shape[1], bottom.shape()[2], bottom.shape()[3],
      shape[3]};
  const size_t image_size = static_cast<size_t>(p.height) * p.width * p.channels;
  // Windows farther apart than wide may lie outside, where there is no maximum.
  const bool numbers = pooling.maximum && std::isfinite(bottom.bound()) &&
      pooling.stride[0] <= pooling.kernel[0] &&
      pooling.stride[1] <= pooling.kernel[1];
#pragma omp parallel if(Count(bottom.shape()) >= kParallelCount)
  {
    vector<float> result(numbers ? 0 : p.channels);
    vector<int16_t> best(numbers ? (p.width + 1) * p.channels : 0);
#pragma omp for
    for (int row = 0; row < shape[0] * shape[2]; ++row) {
      const uint16_t* image = bottom.data() + row / shape[2] * image_size;
      uint16_t* out = top->mutable_data() +
          static_cast<size_t>(row) * p.top_width * p.channels;
      const Window rows(pooling, 0, p.height, row % shape[2]);
      if (numbers) {
        PoolRowOfNumbers(p, image, rows, best.data(), out);
      } else {
        PoolRow(p, image, rows, result.data(), out);
      }
    }
  }
  top->set_bound(bottom.bound());
  return top;
}

}  // namespace caffe

#endif  // USE_ONEDNN
