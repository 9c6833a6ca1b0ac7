#include "caffe/util/lg_lstm.hpp"

#include <stdint.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/util/cpu_threads.hpp"

#define LG_LSTM_INLINE inline __attribute__((always_inline))

// Without this a comparison of floating-point numbers may not become a vector
// instruction, since it might raise a flag that nobody here reads.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-trapping-math")
#endif

namespace caffe {

bool lg_lstm_has_directions(const int neighbors) {
  return neighbors == 2 || neighbors == 4 || neighbors == 8;
}

LGLSTMOffset lg_lstm_offset(const int neighbors, const int lstm) {
  static const LGLSTMOffset kStay = {0, 0};
  static const LGLSTMOffset k2[] = {{-1, 0}, {0, -1}};
  static const LGLSTMOffset k8[] = {{-1, -1}, {-1, 0}, {-1, 1}, {0, -1},
                                    {0, 1},   {1, -1}, {1, 0},  {1, 1}};
  if (lstm == neighbors) { return kStay; }
  return neighbors == 2 ? k2[lstm] : k8[lstm];  // 4 are the first of the 8
}

namespace {

// exp(x) - 1 without branches or calls, so that a loop over it becomes vector
// code: x = n log(2) + r, a Taylor series of r that is exact to rounding, and
// 2^n put together from its bits. Relative error of a few roundings, also for
// small x. Beyond +-80, where the callers' results have saturated, x is cut.
template <typename Dtype> struct Expm1;

template <> struct Expm1<float> {
  typedef int32_t Int;
  static const int kDegree = 8;
  static const int kMantissaBits = 23;
  static const Int kBias = 127;
  static LG_LSTM_INLINE float round_magic() { return 12582912.f; }  // 1.5 2^23
  static LG_LSTM_INLINE float log2_high() { return 0.693359375f; }
  static LG_LSTM_INLINE float log2_low() { return -2.12194440e-4f; }
};

template <> struct Expm1<double> {
  typedef int64_t Int;
  static const int kDegree = 14;
  static const int kMantissaBits = 52;
  static const Int kBias = 1023;
  static LG_LSTM_INLINE double round_magic() { return 6755399441055744.; }
  static LG_LSTM_INLINE double log2_high() { return 6.93145751953125e-1; }
  static LG_LSTM_INLINE double log2_low() { return 1.42860682030941723212e-6; }
};

template <typename To, typename From>
LG_LSTM_INLINE To bits_of(const From from) {
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

const double kInverseFactorial[] = {1, 1, 1. / 2, 1. / 6, 1. / 24, 1. / 120,
    1. / 720, 1. / 5040, 1. / 40320, 1. / 362880, 1. / 3628800, 1. / 39916800,
    1. / 479001600, 1. / 6227020800, 1. / 87178291200};

template <int kDegree, typename Dtype>
LG_LSTM_INLINE Dtype fast_expm1(Dtype x) {
  typedef Expm1<Dtype> T;
  typedef typename T::Int Int;
  const Dtype kLimit = 80;
  x = x < -kLimit ? -kLimit : (x > kLimit ? kLimit : x);  // NaN passes
  // Adding 1.5 * 2^mantissa rounds to the nearest integer, in the low bits.
  const Dtype shifted = x * Dtype(1.44269504088896340736) + T::round_magic();
  const Dtype n = shifted - T::round_magic();
  const Dtype r = (x - n * T::log2_high()) - n * T::log2_low();
  Dtype series = Dtype(kInverseFactorial[kDegree]);
  for (int k = kDegree - 1; k > 0; --k) {
    series = series * r + Dtype(kInverseFactorial[k]);
  }
  series *= r;
  const Int exponent =
      bits_of<Int>(shifted) - bits_of<Int>(T::round_magic()) + T::kBias;
  const Dtype scale = bits_of<Dtype>(
      static_cast<Int>(static_cast<uint64_t>(exponent) << T::kMantissaBits));
  return scale * series + (scale - Dtype(1));
}

template <typename Dtype, int kDegree = Expm1<Dtype>::kDegree>
LG_LSTM_INLINE Dtype fast_sigmoid(const Dtype x) {
  return Dtype(1) / (Dtype(2) + fast_expm1<kDegree>(-x));
}

template <typename Dtype, int kDegree = Expm1<Dtype>::kDegree>
LG_LSTM_INLINE Dtype fast_tanh(const Dtype x) {
  const Dtype e = fast_expm1<kDegree>(Dtype(2) * x);
  return e / (e + Dtype(2));
}

template <typename Dtype>
LG_LSTM_INLINE void sigmoid_row_body(const int size, const Dtype offset,
    Dtype* __restrict__ row) {
#pragma omp simd
  for (int j = 0; j < size; ++j) { row[j] = fast_sigmoid(row[j] + offset); }
}

template <typename Dtype>
LG_LSTM_INLINE void tanh_row_body(const int size, const Dtype offset,
    Dtype* __restrict__ row) {
#pragma omp simd
  for (int j = 0; j < size; ++j) { row[j] = fast_tanh(row[j] + offset); }
}

// m' = f m + u c,  h' = tanh(o m');  without f, m' = u c.
template <typename Dtype>
LG_LSTM_INLINE void cell_row_body(const int size, const Dtype* __restrict__ u,
    const Dtype* __restrict__ f, const Dtype* __restrict__ o,
    const Dtype* __restrict__ c, const Dtype* __restrict__ m,
    Dtype* __restrict__ next_m, Dtype* __restrict__ h) {
  if (f) {
#pragma omp simd
    for (int j = 0; j < size; ++j) {
      next_m[j] = f[j] * m[j] + u[j] * c[j];
      h[j] = fast_tanh(o[j] * next_m[j]);
    }
  } else {
#pragma omp simd
    for (int j = 0; j < size; ++j) {
      next_m[j] = u[j] * c[j];
      h[j] = fast_tanh(o[j] * next_m[j]);
    }
  }
}

// The gradients of the gate activations, added to *_diff.
template <bool kForget, bool kMemoryDiff, typename Dtype>
LG_LSTM_INLINE void cell_row_diff_loop(const int size,
    const Dtype* __restrict__ u, const Dtype* __restrict__ f,
    const Dtype* __restrict__ o, const Dtype* __restrict__ c,
    const Dtype* __restrict__ m, const Dtype* __restrict__ next_m,
    const Dtype* __restrict__ h, const Dtype* __restrict__ h_diff,
    const Dtype* __restrict__ next_m_diff, Dtype* __restrict__ u_diff,
    Dtype* __restrict__ f_diff, Dtype* __restrict__ o_diff,
    Dtype* __restrict__ c_diff, Dtype* __restrict__ m_diff) {
#pragma omp simd
  for (int j = 0; j < size; ++j) {
    const Dtype z_diff = h_diff[j] * (Dtype(1) - h[j] * h[j]);  // z = o m'
    const Dtype memory_diff = next_m_diff[j] + z_diff * o[j];
    o_diff[j] += z_diff * next_m[j];
    u_diff[j] += memory_diff * c[j];
    c_diff[j] += memory_diff * u[j];
    if (kForget) { f_diff[j] += memory_diff * m[j]; }
    if (kMemoryDiff) { m_diff[j] = memory_diff * f[j]; }
  }
}

// Without a forget gate (f NULL) there is no memory; m_diff may be NULL.
template <typename Dtype>
LG_LSTM_INLINE void cell_row_diff_body(const int size, const Dtype* u,
    const Dtype* f, const Dtype* o, const Dtype* c, const Dtype* m,
    const Dtype* next_m, const Dtype* h, const Dtype* h_diff,
    const Dtype* next_m_diff, Dtype* u_diff, Dtype* f_diff, Dtype* o_diff,
    Dtype* c_diff, Dtype* m_diff) {
  if (!f) {
    cell_row_diff_loop<false, false>(size, u, f, o, c, m, next_m, h, h_diff,
        next_m_diff, u_diff, f_diff, o_diff, c_diff, m_diff);
  } else if (!m_diff) {
    cell_row_diff_loop<true, false>(size, u, f, o, c, m, next_m, h, h_diff,
        next_m_diff, u_diff, f_diff, o_diff, c_diff, m_diff);
  } else {
    cell_row_diff_loop<true, true>(size, u, f, o, c, m, next_m, h, h_diff,
        next_m_diff, u_diff, f_diff, o_diff, c_diff, m_diff);
  }
}

// From the gradient of an activation to that of its product; returns the sum.
template <typename Dtype>
LG_LSTM_INLINE Dtype sigmoid_row_diff_body(const int size,
    const Dtype* __restrict__ y, Dtype* __restrict__ diff) {
  Dtype sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int j = 0; j < size; ++j) {
    diff[j] *= y[j] * (Dtype(1) - y[j]);
    sum += diff[j];
  }
  return sum;
}

template <typename Dtype>
LG_LSTM_INLINE Dtype tanh_row_diff_body(const int size,
    const Dtype* __restrict__ y, Dtype* __restrict__ diff) {
  Dtype sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int j = 0; j < size; ++j) {
    diff[j] *= Dtype(1) - y[j] * y[j];
    sum += diff[j];
  }
  return sum;
}

// Templates cannot have clones, so each type gets its own function.
#define LG_LSTM_ROW_FUNCTIONS(Dtype) \
  CAFFE_ROW_FUNCTION void sigmoid_row(const int size, const Dtype offset, \
      Dtype* row) { \
    sigmoid_row_body(size, offset, row); \
  } \
  CAFFE_ROW_FUNCTION void tanh_row(const int size, const Dtype offset, \
      Dtype* row) { \
    tanh_row_body(size, offset, row); \
  } \
  CAFFE_ROW_FUNCTION void cell_row(const int size, const Dtype* u, \
      const Dtype* f, const Dtype* o, const Dtype* c, const Dtype* m, \
      Dtype* next_m, Dtype* h) { \
    cell_row_body(size, u, f, o, c, m, next_m, h); \
  } \
  CAFFE_ROW_FUNCTION void cell_row_diff(const int size, const Dtype* u, \
      const Dtype* f, const Dtype* o, const Dtype* c, const Dtype* m, \
      const Dtype* next_m, const Dtype* h, const Dtype* h_diff, \
      const Dtype* next_m_diff, Dtype* u_diff, Dtype* f_diff, \
      Dtype* o_diff, Dtype* c_diff, Dtype* m_diff) { \
    cell_row_diff_body(size, u, f, o, c, m, next_m, h, h_diff, next_m_diff, \
        u_diff, f_diff, o_diff, c_diff, m_diff); \
  } \
  CAFFE_ROW_FUNCTION Dtype sigmoid_row_diff(const int size, const Dtype* y, \
      Dtype* diff) { \
    return sigmoid_row_diff_body(size, y, diff); \
  } \
  CAFFE_ROW_FUNCTION Dtype tanh_row_diff(const int size, const Dtype* y, \
      Dtype* diff) { \
    return tanh_row_diff_body(size, y, diff); \
  }

LG_LSTM_ROW_FUNCTIONS(float)
LG_LSTM_ROW_FUNCTIONS(double)

// to(y, x) = from(y + offset.y, x + offset.x), zero where that lies outside;
// offsets are -1, 0 or 1. In raster order this is one move of the whole map,
// less the column whose values came from the row before or after.
template <typename Dtype>
void shift_map(const int height, const int width, const LGLSTMOffset offset,
    const Dtype* from, Dtype* to) {
  const int size = height * width;
  const int step = offset.y * width + offset.x;
  const int first = std::min(size, std::max(0, -step));
  const int last = std::max(first, std::min(size, size - step));
  std::fill(to, to + first, Dtype(0));
  std::copy(from + first + step, from + last + step, to + first);
  std::fill(to + last, to + size, Dtype(0));
  if (offset.x != 0) {
    for (int i = offset.x > 0 ? width - 1 : 0; i < size; i += width) {
      to[i] = 0;
    }
  }
}

// The four gate maps of one hidden cell, in a blob of gates.
template <typename Dtype>
struct Gates {
  Gates(const LGLSTMShape& s, const int image, const int set, const int cell,
      Dtype* gates) {
    const int stride = s.hidden * s.map();
    u = gates + (static_cast<size_t>(image) * s.rows() +
        set * s.gates * s.hidden + cell) * s.map();
    f = s.gates == 4 ? u + stride : NULL;
    o = u + (s.gates - 2) * stride;
    c = o + stride;
  }
  Dtype* u;
  Dtype* f;
  Dtype* o;
  Dtype* c;
};

// Calls body(image, cell, scratch) for every image and hidden cell on all
// cores; scratch holds two maps and is the thread's own.
template <typename Dtype, typename Body>
void for_each_cell(const LGLSTMShape& s, const Body& body) {
#pragma omp parallel
  {
    std::vector<Dtype> scratch(2 * s.map());
#pragma omp for schedule(static)
    for (int item = 0; item < s.num * s.hidden; ++item) {
      body(item / s.hidden, item % s.hidden, scratch.data());
    }
  }
}

// Start of the map of one LSTM's hidden cell in a (B, (N+1) d, H, W) blob.
inline size_t cell_map(const LGLSTMShape& s, const int image, const int lstm,
    const int cell) {
  return (static_cast<size_t>(image) * s.lstms() * s.hidden +
      lstm * s.hidden + cell) * s.map();
}

}  // namespace

template <typename Dtype>
void lg_lstm_cell_forward_cpu(const LGLSTMShape& s, const Dtype* row_offset,
    const Dtype* memory, Dtype* gates, Dtype* hidden, Dtype* next_memory) {
  const int size = s.map();
  for_each_cell<Dtype>(s, [&](const int image, const int cell, Dtype* scratch) {
    for (int set = 0; set < s.sets; ++set) {
      const Gates<Dtype> g(s, image, set, cell, gates);
      const Dtype* offset = row_offset + image * s.rows() +
          set * s.gates * s.hidden + cell;
      sigmoid_row(size, offset[0], g.u);
      if (g.f) { sigmoid_row(size, offset[s.hidden], g.f); }
      sigmoid_row(size, offset[(s.gates - 2) * s.hidden], g.o);
      tanh_row(size, offset[(s.gates - 1) * s.hidden], g.c);
    }
    for (int lstm = 0; lstm < s.lstms(); ++lstm) {
      const Gates<Dtype> g(s, image, s.gate_set(lstm), cell, gates);
      const size_t at = cell_map(s, image, lstm, cell);
      const bool stays = lstm == s.neighbors;
      Dtype* h = stays ? hidden + at : scratch;
      cell_row(size, g.u, g.f, g.o, g.c, g.f ? memory + at : NULL,
          next_memory + at, h);
      if (!stays) {
        shift_map(s.height, s.width, lg_lstm_offset(s.neighbors, lstm), h,
            hidden + at);
      }
    }
  });
}

namespace {

const int kBF16Degree = 5;  // of expm1, where the results are rounded

// To bfloat16: to the nearest, of two the even. What is not a number stays so.
LG_LSTM_INLINE uint16_t bf16_bits(const float value) {
  const uint32_t bits = bits_of<uint32_t>(value);
  const uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
  return (value == value ? rounded : bits | 0x400000) >> 16;
}

LG_LSTM_INLINE float bf16_value(const uint16_t bits) {
  return bits_of<float>(static_cast<uint32_t>(bits) << 16);
}

// The gates of one position and set: rows of `size` values, the last of c.
CAFFE_ROW_FUNCTION void gates_of_position(const int gates, const int size,
    const float* __restrict__ offset, float* __restrict__ values) {
  const int sigmoids = (gates - 1) * size;
#pragma omp simd
  for (int j = 0; j < sigmoids; ++j) {
    values[j] = fast_sigmoid<float, kBF16Degree>(values[j] + offset[j]);
  }
#pragma omp simd
  for (int j = sigmoids; j < sigmoids + size; ++j) {
    values[j] = fast_tanh<float, kBF16Degree>(values[j] + offset[j]);
  }
}

// The cells of one LSTM at one position; m is NULL without a forget gate.
CAFFE_ROW_FUNCTION void cell_of_position(const int size,
    const float* __restrict__ gates, const float* __restrict__ m,
    float* __restrict__ next_m, uint16_t* __restrict__ h) {
  const float* u = gates;
  const float* f = gates + size;
  const float* o = gates + (m ? 2 : 1) * size;
  const float* c = o + size;
  if (m) {
#pragma omp simd
    for (int j = 0; j < size; ++j) { next_m[j] = f[j] * m[j] + u[j] * c[j]; }
  } else {
#pragma omp simd
    for (int j = 0; j < size; ++j) { next_m[j] = u[j] * c[j]; }
  }
#pragma omp simd
  for (int j = 0; j < size; ++j) {
    h[j] = bf16_bits(fast_tanh<float, kBF16Degree>(o[j] * next_m[j]));
  }
}

}  // namespace

void lg_lstm_cell_forward_bf16(const LGLSTMShape& s, const int first,
    const int count, const float* row_offset, const float* memory, float* gates,
    uint16_t* hidden, float* next_memory) {
  const int cells = s.lstms() * s.hidden, set_rows = s.gates * s.hidden;
#pragma omp parallel
  {
    std::vector<uint16_t> lost(s.hidden);  // of what leaves the map
#pragma omp for schedule(static)
    for (int i = 0; i < count; ++i) {
      const int position = first + i, image = position / s.map();
      const int y = position / s.width % s.height, x = position % s.width;
      float* g = gates + static_cast<size_t>(i) * s.rows();
      for (int set = 0; set < s.sets; ++set) {
        gates_of_position(s.gates, s.hidden,
            row_offset + image * s.rows() + set * set_rows, g + set * set_rows);
      }
      const auto inside = [&](const int at_y, const int at_x) {
        return at_y >= 0 && at_y < s.height && at_x >= 0 && at_x < s.width;
      };
      for (int lstm = 0; lstm < s.lstms(); ++lstm) {
        const LGLSTMOffset from = lg_lstm_offset(s.neighbors, lstm);
        const ptrdiff_t step = from.y * s.width + from.x;
        const size_t at =
            static_cast<size_t>(position) * cells + lstm * s.hidden;
        cell_of_position(s.hidden, g + s.gate_set(lstm) * set_rows,
            memory ? memory + at : NULL, next_memory + at,
            inside(y - from.y, x - from.x) ? hidden + at - step * cells :
            lost.data());
        if (!inside(y + from.y, x + from.x)) {
          std::fill_n(hidden + at, s.hidden, 0);
        }
      }
    }
  }
}

void lg_lstm_grid_max_bf16(const LGLSTMShape& s, const uint16_t* hidden,
    float* global) {
  const int cells = s.lstms() * s.hidden, grid = s.grid * s.grid;
#pragma omp parallel for
  for (int item = 0; item < s.num * grid; ++item) {
    const int image = item / grid, cell = item % grid;
    const int gy = cell / s.grid, gx = cell % s.grid;
    const int top = lg_lstm_grid_start(gy, s.height, s.grid);
    const int bottom = lg_lstm_grid_start(gy + 1, s.height, s.grid);
    const int left = lg_lstm_grid_start(gx, s.width, s.grid);
    const int right = lg_lstm_grid_start(gx + 1, s.width, s.grid);
    for (int j = 0; j < s.hidden; ++j) {
      float* out = global + (image * s.hidden + j) * grid + cell;
      for (int y = top; y < bottom; ++y) {
        for (int x = left; x < right; ++x) {
          const float h = bf16_value(hidden[((static_cast<size_t>(image) *
              s.height + y) * s.width + x) * cells + s.neighbors * s.hidden +
              j]);
          if ((y == top && x == left) || h > *out) { *out = h; }
        }
      }
    }
  }
}

template <typename Dtype>
void lg_lstm_cell_backward_cpu(const LGLSTMShape& s, const Dtype* gates,
    const Dtype* memory, const Dtype* hidden, const Dtype* next_memory,
    const Dtype* hidden_diff, const Dtype* next_memory_diff,
    const Dtype* global_diff, const int* global_index, Dtype* gates_diff,
    Dtype* row_sum, Dtype* memory_diff) {
  const int size = s.map();
  const int cells = s.grid * s.grid;
  for_each_cell<Dtype>(s, [&](const int image, const int cell, Dtype* scratch) {
    for (int set = 0; set < s.sets; ++set) {
      const Gates<Dtype> diff(s, image, set, cell, gates_diff);
      std::fill(diff.u, diff.u + size, Dtype(0));
      if (diff.f) { std::fill(diff.f, diff.f + size, Dtype(0)); }
      std::fill(diff.o, diff.o + size, Dtype(0));
      std::fill(diff.c, diff.c + size, Dtype(0));
    }
    for (int lstm = 0; lstm < s.lstms(); ++lstm) {
      const int set = s.gate_set(lstm);
      const Gates<const Dtype> g(s, image, set, cell, gates);
      const Gates<Dtype> diff(s, image, set, cell, gates_diff);
      const size_t at = cell_map(s, image, lstm, cell);
      const Dtype* h = hidden + at;
      const Dtype* h_diff = hidden_diff + at;
      if (lstm != s.neighbors) {
        // Back to where the hidden cells came from; those that left the map
        // have no gradient.
        LGLSTMOffset back = lg_lstm_offset(s.neighbors, lstm);
        back.y = -back.y;
        back.x = -back.x;
        shift_map(s.height, s.width, back, h, scratch);
        shift_map(s.height, s.width, back, h_diff, scratch + size);
        h = scratch;
        h_diff = scratch + size;
      } else if (global_diff) {
        std::copy(h_diff, h_diff + size, scratch);
        const int first = (image * s.hidden + cell) * cells;
        for (int g = first; g < first + cells; ++g) {
          scratch[global_index[g]] += global_diff[g];
        }
        h_diff = scratch;
      }
      cell_row_diff(size, g.u, g.f, g.o, g.c, g.f ? memory + at : NULL,
          next_memory + at, h, h_diff, next_memory_diff + at, diff.u, diff.f,
          diff.o, diff.c, memory_diff ? memory_diff + at : NULL);
    }
    for (int set = 0; set < s.sets; ++set) {
      const Gates<const Dtype> g(s, image, set, cell, gates);
      const Gates<Dtype> diff(s, image, set, cell, gates_diff);
      Dtype* sum = row_sum + image * s.rows() + set * s.gates * s.hidden + cell;
      sum[0] = sigmoid_row_diff(size, g.u, diff.u);
      if (g.f) { sum[s.hidden] = sigmoid_row_diff(size, g.f, diff.f); }
      sum[(s.gates - 2) * s.hidden] = sigmoid_row_diff(size, g.o, diff.o);
      sum[(s.gates - 1) * s.hidden] = tanh_row_diff(size, g.c, diff.c);
    }
  });
}

template <typename Dtype>
void lg_lstm_grid_max_cpu(const LGLSTMShape& s, const Dtype* hidden,
    Dtype* global, int* global_index) {
  for_each_cell<Dtype>(s, [&](const int image, const int cell, Dtype*) {
    const Dtype* h = hidden + cell_map(s, image, s.neighbors, cell);
    int out = (image * s.hidden + cell) * s.grid * s.grid;
    for (int gy = 0; gy < s.grid; ++gy) {
      const int top = lg_lstm_grid_start(gy, s.height, s.grid);
      const int bottom = lg_lstm_grid_start(gy + 1, s.height, s.grid);
      for (int gx = 0; gx < s.grid; ++gx, ++out) {
        const int left = lg_lstm_grid_start(gx, s.width, s.grid);
        const int right = lg_lstm_grid_start(gx + 1, s.width, s.grid);
        int best = top * s.width + left;
        for (int y = top; y < bottom; ++y) {
          for (int j = y * s.width + left; j < y * s.width + right; ++j) {
            if (h[j] > h[best]) { best = j; }
          }
        }
        global[out] = h[best];
        global_index[out] = best;
      }
    }
  });
}

#define INSTANTIATE_LG_LSTM(Dtype) \
  template void lg_lstm_cell_forward_cpu<Dtype>(const LGLSTMShape&, \
      const Dtype*, const Dtype*, Dtype*, Dtype*, Dtype*); \
  template void lg_lstm_cell_backward_cpu<Dtype>(const LGLSTMShape&, \
      const Dtype*, const Dtype*, const Dtype*, const Dtype*, const Dtype*, \
      const Dtype*, const Dtype*, const int*, Dtype*, Dtype*, Dtype*); \
  template void lg_lstm_grid_max_cpu<Dtype>(const LGLSTMShape&, const Dtype*, \
      Dtype*, int*)

INSTANTIATE_LG_LSTM(float);
INSTANTIATE_LG_LSTM(double);

}  // namespace caffe
