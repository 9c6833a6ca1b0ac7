#ifndef CAFFE_UTIL_LG_LSTM_HPP_
#define CAFFE_UTIL_LG_LSTM_HPP_

#include <stdint.h>

#include <vector>

// What the CPU and a CUDA kernel both compute with.
#ifdef __CUDACC__
#define LG_LSTM_HOST_DEVICE __host__ __device__
#else
#define LG_LSTM_HOST_DEVICE
#endif

namespace caffe {

/**
 * @brief The sizes that the element-wise part of an LG-LSTM layer works on.
 *
 * A layer has neighbors + 1 LSTMs: one for each direction, then the depth LSTM.
 * Each reads its gates from one gate set; a set holds gates * hidden rows of
 * height * width values, gate by gate in the order u, f, o, c (u, o, c without
 * a forget gate). With two sets, the spatial LSTMs share the first; else LSTM
 * n has set n.
 */
struct LGLSTMShape {
  int num;        // B, images
  int hidden;     // d, hidden cells of one LSTM
  int neighbors;  // N, spatial LSTMs: 2, 4 or 8
  int sets;       // 2 (spatial weights shared) or N + 1
  int gates;      // 4, or 3 without the forget gate
  int height;
  int width;
  int grid;       // G; 0 without global hidden cells

  LG_LSTM_HOST_DEVICE int lstms() const { return neighbors + 1; }
  LG_LSTM_HOST_DEVICE int map() const { return height * width; }
  LG_LSTM_HOST_DEVICE int rows() const { return sets * gates * hidden; }
  LG_LSTM_HOST_DEVICE int gate_set(const int lstm) const {
    return sets == lstms() ? lstm : (lstm == neighbors ? 1 : 0);
  }
};

/// The neighbor that a hidden cell comes from, relative to where it arrives.
struct LGLSTMOffset {
  int y;
  int x;
};

/// Whether n is a number of neighbors that has directions: 2, 4 or 8.
bool lg_lstm_has_directions(const int neighbors);

/**
 * @brief Where the hidden cells of LSTM n come from, in raster order: 8 is all
 *        neighbors, 4 is top-left, top, top-right, left, and 2 is top, left.
 *        The depth LSTM, n = neighbors, stays in its place.
 */
LGLSTMOffset lg_lstm_offset(const int neighbors, const int lstm);

/// First row (column) of grid cell g on an axis: floor(g * length / grid + 1/2).
LG_LSTM_HOST_DEVICE inline int lg_lstm_grid_start(const int g,
    const int length, const int grid) {
  return (2 * g * length + grid) / (2 * grid);
}

/**
 * @brief Eq. (1) for all LSTMs and positions, after the matrix products.
 *
 * @param row_offset (B, rows) is added to each row of gates: what does not
 *        depend on the position, that is the global part and the bias.
 * @param memory (B, (N+1) d, H, W), the memory cells m; NULL stands for zero,
 *        and for a shape without forget gates.
 * @param gates (B, rows, H, W): on entry the products W H, on return the gate
 *        activations.
 * @param hidden (B, (N+1) d, H, W), written: h' at the position where it arrives.
 * @param next_memory (B, (N+1) d, H, W), written: m'.
 */
template <typename Dtype>
void lg_lstm_cell_forward_cpu(const LGLSTMShape& shape, const Dtype* row_offset,
    const Dtype* memory, Dtype* gates, Dtype* hidden, Dtype* next_memory);

/**
 * @brief The same for `count` positions of (B, H, W), from `first` on, with the
 *        values of a position side by side, in the order (B, H, W, channels), and
 *        hidden cells rounded to bfloat16.
 *
 * The activations are exact to 1e-5.
 *
 * @param gates (count, rows), of these positions alone; left undefined.
 */
void lg_lstm_cell_forward_bf16(const LGLSTMShape& shape, const int first,
    const int count, const float* row_offset, const float* memory, float* gates,
    uint16_t* hidden, float* next_memory);

/// Global hidden cells (B, d, G, G) of such hidden cells.
void lg_lstm_grid_max_bf16(const LGLSTMShape& shape, const uint16_t* hidden,
    float* global);

/**
 * @brief The gradient of lg_lstm_cell_forward_cpu.
 *
 * @param global_diff (B, d, G, G) and global_index (B, d, G, G): gradient of
 *        the global hidden cells and the positions they were taken from; NULL
 *        without global hidden cells.
 * @param gates_diff (B, rows, H, W), written: gradient of the products.
 * @param row_sum (B, rows), written: gates_diff summed over the positions.
 * @param memory_diff written unless NULL: gradient of memory.
 */
template <typename Dtype>
void lg_lstm_cell_backward_cpu(const LGLSTMShape& shape, const Dtype* gates,
    const Dtype* memory, const Dtype* hidden, const Dtype* next_memory,
    const Dtype* hidden_diff, const Dtype* next_memory_diff,
    const Dtype* global_diff, const int* global_index, Dtype* gates_diff,
    Dtype* row_sum, Dtype* memory_diff);

/**
 * @brief Global hidden cells: the maximum of the depth LSTM's hidden cells in
 *        each grid cell, and the position (in raster order, the first of
 *        equals) it was found at.
 */
template <typename Dtype>
void lg_lstm_grid_max_cpu(const LGLSTMShape& shape, const Dtype* hidden,
    Dtype* global, int* global_index);

#ifndef CPU_ONLY
// The same on the GPU, with arrays in its memory. Nothing is added in an order
// that could change: the same input gives the same bits.
template <typename Dtype>
void lg_lstm_cell_forward_gpu(const LGLSTMShape& shape, const Dtype* row_offset,
    const Dtype* memory, Dtype* gates, Dtype* hidden, Dtype* next_memory);
template <typename Dtype>
void lg_lstm_cell_backward_gpu(const LGLSTMShape& shape, const Dtype* gates,
    const Dtype* memory, const Dtype* hidden, const Dtype* next_memory,
    const Dtype* hidden_diff, const Dtype* next_memory_diff,
    const Dtype* global_diff, const int* global_index, Dtype* gates_diff,
    Dtype* row_sum, Dtype* memory_diff);
template <typename Dtype>
void lg_lstm_grid_max_gpu(const LGLSTMShape& shape, const Dtype* hidden,
    Dtype* global, int* global_index);
#endif

}  // namespace caffe

#endif  // CAFFE_UTIL_LG_LSTM_HPP_
