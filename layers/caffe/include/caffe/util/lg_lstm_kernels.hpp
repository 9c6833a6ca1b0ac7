#ifndef CAFFE_UTIL_LG_LSTM_KERNELS_HPP_
#define CAFFE_UTIL_LG_LSTM_KERNELS_HPP_

#include <math.h>

#include "caffe/util/lg_lstm.hpp"

/**
 * What one thread of each CUDA kernel of src/caffe/util/lg_lstm.cu does. Plain
 * C++, so that a test can go through all threads of a kernel on the CPU.
 */
namespace caffe {

/// LGLSTMShape with all that a kernel needs to know, to be passed by value.
struct LGLSTMKernelShape : public LGLSTMShape {
  explicit LGLSTMKernelShape(const LGLSTMShape& shape) : LGLSTMShape(shape) {
    for (int lstm = 0; lstm < lstms(); ++lstm) {
      offset[lstm] = lg_lstm_offset(neighbors, lstm);
    }
  }
  /// Threads of the cell kernels: one for each hidden cell at each position.
  int points() const { return num * hidden * map(); }

  LGLSTMOffset offset[9];  // of the at most 8 spatial LSTMs and the depth LSTM
};

/// Thread `index` of a cell kernel: one hidden cell at one position of an image.
struct LGLSTMPoint {
  LG_LSTM_HOST_DEVICE LGLSTMPoint(const LGLSTMKernelShape& shape,
      const int index)
      : s(shape), position(index % s.map()),
        cell(index / s.map() % s.hidden), image(index / s.map() / s.hidden),
        y(position / s.width), x(position % s.width) {}

  /// Where LSTM n's value is in a (B, (N+1) d, H, W) array.
  LG_LSTM_HOST_DEVICE int of_lstm(const int lstm) const {
    return ((image * s.lstms() + lstm) * s.hidden + cell) * s.map() + position;
  }
  /// Where the value of a gate is in a (B, sets, gates, d, H W) array.
  LG_LSTM_HOST_DEVICE int of_gate(const int set, const int gate) const {
    return row(set, gate) * s.map() + position;
  }
  LG_LSTM_HOST_DEVICE int row(const int set, const int gate) const {
    return ((image * s.sets + set) * s.gates + gate) * s.hidden + cell;
  }
  /// Whether what comes from, goes to the neighbor of LSTM n is in the map, and
  /// how far away that neighbor's value is.
  LG_LSTM_HOST_DEVICE bool receives(const int lstm) const {
    return inside(y + s.offset[lstm].y, x + s.offset[lstm].x);
  }
  LG_LSTM_HOST_DEVICE bool sends(const int lstm) const {
    return inside(y - s.offset[lstm].y, x - s.offset[lstm].x);
  }
  LG_LSTM_HOST_DEVICE int step(const int lstm) const {
    return s.offset[lstm].y * s.width + s.offset[lstm].x;
  }
  LG_LSTM_HOST_DEVICE bool inside(const int at_y, const int at_x) const {
    return at_y >= 0 && at_y < s.height && at_x >= 0 && at_x < s.width;
  }
  /// Where the grid cell that covers this position is in a (B, d, G, G) array:
  /// g is the largest with lg_lstm_grid_start(g) <= y.
  LG_LSTM_HOST_DEVICE int of_grid() const {
    const int grid_y = ((2 * y + 1) * s.grid - 1) / (2 * s.height);
    const int grid_x = ((2 * x + 1) * s.grid - 1) / (2 * s.width);
    return ((image * s.hidden + cell) * s.grid + grid_y) * s.grid + grid_x;
  }

  const LGLSTMKernelShape& s;
  const int position, cell, image, y, x;
};

/// The gates of one LSTM at a point, or their gradients.
template <typename Dtype>
struct LGLSTMGates {
  Dtype u, f, o, c;
};

template <typename Dtype>
LG_LSTM_HOST_DEVICE inline LGLSTMGates<Dtype> lg_lstm_load_gates(
    const LGLSTMPoint& at, const int set, const Dtype* gates) {
  const int last = at.s.gates - 1;
  LGLSTMGates<Dtype> g;
  g.u = gates[at.of_gate(set, 0)];
  g.f = last == 3 ? gates[at.of_gate(set, 1)] : Dtype(0);
  g.o = gates[at.of_gate(set, last - 1)];
  g.c = gates[at.of_gate(set, last)];
  return g;
}

template <typename Dtype>
LG_LSTM_HOST_DEVICE inline void lg_lstm_store_gates(const LGLSTMPoint& at,
    const int set, const LGLSTMGates<Dtype>& g, Dtype* gates) {
  const int last = at.s.gates - 1;
  gates[at.of_gate(set, 0)] = g.u;
  if (last == 3) { gates[at.of_gate(set, 1)] = g.f; }
  gates[at.of_gate(set, last - 1)] = g.o;
  gates[at.of_gate(set, last)] = g.c;
}

template <typename Dtype>
LG_LSTM_HOST_DEVICE inline Dtype lg_lstm_sigmoid(const Dtype x) {
  return Dtype(1) / (Dtype(1) + exp(-x));
}

/// The products plus their row's constant, through sigmoid and tanh.
template <typename Dtype>
LG_LSTM_HOST_DEVICE inline LGLSTMGates<Dtype> lg_lstm_activate(
    const LGLSTMPoint& at, const int set, const Dtype* row_offset,
    const LGLSTMGates<Dtype>& product) {
  const int last = at.s.gates - 1;
  LGLSTMGates<Dtype> g;
  g.u = lg_lstm_sigmoid(product.u + row_offset[at.row(set, 0)]);
  g.f = last == 3 ?
      lg_lstm_sigmoid(product.f + row_offset[at.row(set, 1)]) : Dtype(0);
  g.o = lg_lstm_sigmoid(product.o + row_offset[at.row(set, last - 1)]);
  g.c = tanh(product.c + row_offset[at.row(set, last)]);
  return g;
}

/// From the gradients of the activations g to those of the products.
template <typename Dtype>
LG_LSTM_HOST_DEVICE inline LGLSTMGates<Dtype> lg_lstm_activate_diff(
    const LGLSTMGates<Dtype>& g, const LGLSTMGates<Dtype>& diff) {
  LGLSTMGates<Dtype> product;
  product.u = diff.u * g.u * (Dtype(1) - g.u);
  product.f = diff.f * g.f * (Dtype(1) - g.f);
  product.o = diff.o * g.o * (Dtype(1) - g.o);
  product.c = diff.c * (Dtype(1) - g.c * g.c);
  return product;
}

/**
 * @brief Thread `index` of lg_lstm_cell_forward_gpu: Eq. (1) of all LSTMs for
 *        one hidden cell at one position.
 *
 * LSTMs with the same gate set follow each other; their gates are activated
 * once. Every element of hidden is written by one thread: by that of the
 * position it comes from, or, if that lies outside the map, by its own.
 */
template <typename Dtype>
LG_LSTM_HOST_DEVICE inline void lg_lstm_cell_forward_thread(
    const LGLSTMKernelShape& s, const int index, const Dtype* row_offset,
    const Dtype* memory, Dtype* gates, Dtype* hidden, Dtype* next_memory) {
  const LGLSTMPoint at(s, index);
  LGLSTMGates<Dtype> g = {0, 0, 0, 0};
  for (int lstm = 0; lstm < s.lstms(); ++lstm) {
    const int set = s.gate_set(lstm);
    if (lstm == 0 || set != s.gate_set(lstm - 1)) {
      g = lg_lstm_activate(at, set, row_offset,
          lg_lstm_load_gates<Dtype>(at, set, gates));
      lg_lstm_store_gates(at, set, g, gates);
    }
    const int here = at.of_lstm(lstm);
    Dtype next = g.u * g.c;
    if (s.gates == 4) { next += g.f * memory[here]; }
    next_memory[here] = next;
    if (at.sends(lstm)) { hidden[here - at.step(lstm)] = tanh(g.o * next); }
    if (!at.receives(lstm)) { hidden[here] = 0; }
  }
}

/**
 * @brief Thread `index` of lg_lstm_cell_backward_gpu, less the row sums: the
 *        gradients of the products and of the memory cells for one hidden cell
 *        at one position.
 *
 * The hidden cell that this position sent to a neighbor, and its gradient, are
 * read where they arrived. One that left the map has no gradient.
 */
template <typename Dtype>
LG_LSTM_HOST_DEVICE inline void lg_lstm_cell_backward_thread(
    const LGLSTMKernelShape& s, const int index, const Dtype* gates,
    const Dtype* memory, const Dtype* hidden, const Dtype* next_memory,
    const Dtype* hidden_diff, const Dtype* next_memory_diff,
    const Dtype* global_diff, const int* global_index, Dtype* gates_diff,
    Dtype* memory_diff) {
  const LGLSTMPoint at(s, index);
  LGLSTMGates<Dtype> g = {0, 0, 0, 0}, diff = {0, 0, 0, 0};
  for (int lstm = 0; lstm < s.lstms(); ++lstm) {
    const int set = s.gate_set(lstm);
    if (lstm == 0 || set != s.gate_set(lstm - 1)) {
      g = lg_lstm_load_gates<Dtype>(at, set, gates);
      diff.u = diff.f = diff.o = diff.c = 0;
    }
    const int here = at.of_lstm(lstm);
    Dtype h = 0, h_diff = 0;
    if (at.sends(lstm)) {
      h = hidden[here - at.step(lstm)];
      h_diff = hidden_diff[here - at.step(lstm)];
    }
    if (lstm == s.neighbors && global_diff &&
        global_index[at.of_grid()] == at.position) {
      h_diff += global_diff[at.of_grid()];
    }
    const Dtype z_diff = h_diff * (Dtype(1) - h * h);  // z = o m'
    const Dtype next_diff = next_memory_diff[here] + z_diff * g.o;
    diff.u += next_diff * g.c;
    diff.o += z_diff * next_memory[here];
    diff.c += next_diff * g.u;
    if (s.gates == 4) {
      diff.f += next_diff * memory[here];
      if (memory_diff) { memory_diff[here] = next_diff * g.f; }
    }
    if (lstm == s.neighbors || set != s.gate_set(lstm + 1)) {
      lg_lstm_store_gates(at, set, lg_lstm_activate_diff(g, diff), gates_diff);
    }
  }
}

/// The largest value seen so far and its position, the first of equals.
template <typename Dtype>
struct LGLSTMLargest {
  Dtype value;
  int position;

  /// Like the loop in raster order, whatever the order of the calls is.
  LG_LSTM_HOST_DEVICE void Take(const LGLSTMLargest& other) {
    if (other.value > value ||
        (other.value == value && other.position < position)) {
      *this = other;
    }
  }
};

/**
 * @brief Thread `thread` of `threads` of the block of lg_lstm_grid_max_gpu that
 *        finds element `out` of global: the largest of its share.
 *
 * Every thread begins with the first position, so that all have one, and a NaN
 * there stays, as on the CPU.
 */
template <typename Dtype>
LG_LSTM_HOST_DEVICE inline LGLSTMLargest<Dtype> lg_lstm_grid_max_thread(
    const LGLSTMShape& s, const int out, const int thread, const int threads,
    const Dtype* hidden) {
  const int grid_x = out % s.grid;
  const int grid_y = out / s.grid % s.grid;
  const int cell = out / (s.grid * s.grid) % s.hidden;
  const int image = out / (s.grid * s.grid) / s.hidden;
  const int top = lg_lstm_grid_start(grid_y, s.height, s.grid);
  const int bottom = lg_lstm_grid_start(grid_y + 1, s.height, s.grid);
  const int left = lg_lstm_grid_start(grid_x, s.width, s.grid);
  const int width = lg_lstm_grid_start(grid_x + 1, s.width, s.grid) - left;
  const Dtype* map = hidden + s.map() *
      ((image * s.lstms() + s.neighbors) * s.hidden + cell);
  const int first = top * s.width + left;
  LGLSTMLargest<Dtype> largest = {map[first], first};
  for (int i = thread; i < (bottom - top) * width; i += threads) {
    const int position = first + i / width * s.width + i % width;
    const LGLSTMLargest<Dtype> here = {map[position], position};
    largest.Take(here);
  }
  return largest;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_LG_LSTM_KERNELS_HPP_
