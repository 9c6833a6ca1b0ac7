#include "caffe/common.hpp"
#include "caffe/util/lg_lstm.hpp"
#include "caffe/util/lg_lstm_kernels.hpp"

namespace caffe {

namespace {

const int kBlockThreads = 128;  // of the kernels in which a block makes one value

template <typename Dtype>
__global__ void __launch_bounds__(CAFFE_CUDA_NUM_THREADS)
cell_forward_kernel(const LGLSTMKernelShape s,
    const Dtype* __restrict__ row_offset, const Dtype* __restrict__ memory,
    Dtype* __restrict__ gates, Dtype* __restrict__ hidden,
    Dtype* __restrict__ next_memory) {
  CUDA_KERNEL_LOOP(index, s.num * s.hidden * s.map()) {
    lg_lstm_cell_forward_thread(s, index, row_offset, memory, gates, hidden,
        next_memory);
  }
}

template <typename Dtype>
__global__ void __launch_bounds__(CAFFE_CUDA_NUM_THREADS)
cell_backward_kernel(const LGLSTMKernelShape s,
    const Dtype* __restrict__ gates, const Dtype* __restrict__ memory,
    const Dtype* __restrict__ hidden, const Dtype* __restrict__ next_memory,
    const Dtype* __restrict__ hidden_diff,
    const Dtype* __restrict__ next_memory_diff,
    const Dtype* __restrict__ global_diff,
    const int* __restrict__ global_index, Dtype* __restrict__ gates_diff,
    Dtype* __restrict__ memory_diff) {
  CUDA_KERNEL_LOOP(index, s.num * s.hidden * s.map()) {
    lg_lstm_cell_backward_thread(s, index, gates, memory, hidden, next_memory,
        hidden_diff, next_memory_diff, global_diff, global_index, gates_diff,
        memory_diff);
  }
}

// One block for each row: sums[row] = sum of values[row], always in the same
// order.
template <typename Dtype>
__global__ void row_sum_kernel(const int size, const Dtype* values,
    Dtype* sums) {
  __shared__ Dtype partial[kBlockThreads];
  const Dtype* row = values + blockIdx.x * size;
  Dtype sum = 0;
  for (int j = threadIdx.x; j < size; j += kBlockThreads) { sum += row[j]; }
  partial[threadIdx.x] = sum;
  for (int half = kBlockThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      partial[threadIdx.x] += partial[threadIdx.x + half];
    }
  }
  if (threadIdx.x == 0) { sums[blockIdx.x] = partial[0]; }
}

// One block for each grid cell of each hidden cell of each image.
template <typename Dtype>
__global__ void grid_max_kernel(const LGLSTMShape s, const Dtype* hidden,
    Dtype* global, int* global_index) {
  __shared__ LGLSTMLargest<Dtype> largest[kBlockThreads];
  largest[threadIdx.x] = lg_lstm_grid_max_thread(s, blockIdx.x, threadIdx.x,
      kBlockThreads, hidden);
  for (int half = kBlockThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      largest[threadIdx.x].Take(largest[threadIdx.x + half]);
    }
  }
  if (threadIdx.x == 0) {
    global[blockIdx.x] = largest[0].value;
    global_index[blockIdx.x] = largest[0].position;
  }
}

}  // namespace

template <typename Dtype>
void lg_lstm_cell_forward_gpu(const LGLSTMShape& shape, const Dtype* row_offset,
    const Dtype* memory, Dtype* gates, Dtype* hidden, Dtype* next_memory) {
  const LGLSTMKernelShape s(shape);
  // NOLINT_NEXT_LINE(whitespace/operators)
  cell_forward_kernel<Dtype><<<CAFFE_GET_BLOCKS(s.points()),
      CAFFE_CUDA_NUM_THREADS>>>(s, row_offset, memory, gates, hidden,
      next_memory);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void lg_lstm_cell_backward_gpu(const LGLSTMShape& shape, const Dtype* gates,
    const Dtype* memory, const Dtype* hidden, const Dtype* next_memory,
    const Dtype* hidden_diff, const Dtype* next_memory_diff,
    const Dtype* global_diff, const int* global_index, Dtype* gates_diff,
    Dtype* row_sum, Dtype* memory_diff) {
  const LGLSTMKernelShape s(shape);
  // NOLINT_NEXT_LINE(whitespace/operators)
  cell_backward_kernel<Dtype><<<CAFFE_GET_BLOCKS(s.points()),
      CAFFE_CUDA_NUM_THREADS>>>(s, gates, memory, hidden, next_memory,
      hidden_diff, next_memory_diff, global_diff, global_index, gates_diff,
      memory_diff);
  CUDA_POST_KERNEL_CHECK;
  // NOLINT_NEXT_LINE(whitespace/operators)
  row_sum_kernel<Dtype><<<s.num * s.rows(), kBlockThreads>>>(s.map(),
      gates_diff, row_sum);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void lg_lstm_grid_max_gpu(const LGLSTMShape& s, const Dtype* hidden,
    Dtype* global, int* global_index) {
  // NOLINT_NEXT_LINE(whitespace/operators)
  grid_max_kernel<Dtype><<<s.num * s.hidden * s.grid * s.grid,
      kBlockThreads>>>(s, hidden, global, global_index);
  CUDA_POST_KERNEL_CHECK;
}

#define INSTANTIATE_LG_LSTM_GPU(Dtype) \
  template void lg_lstm_cell_forward_gpu<Dtype>(const LGLSTMShape&, \
      const Dtype*, const Dtype*, Dtype*, Dtype*, Dtype*); \
  template void lg_lstm_cell_backward_gpu<Dtype>(const LGLSTMShape&, \
      const Dtype*, const Dtype*, const Dtype*, const Dtype*, const Dtype*, \
      const Dtype*, const Dtype*, const int*, Dtype*, Dtype*, Dtype*); \
  template void lg_lstm_grid_max_gpu<Dtype>(const LGLSTMShape&, const Dtype*, \
      Dtype*, int*)

INSTANTIATE_LG_LSTM_GPU(float);
INSTANTIATE_LG_LSTM_GPU(double);

}  // namespace caffe
