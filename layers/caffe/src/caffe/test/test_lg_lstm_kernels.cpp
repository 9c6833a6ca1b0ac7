#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/util/lg_lstm.hpp"
#include "caffe/util/lg_lstm_kernels.hpp"
#include "caffe/util/math_functions.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

// The threads of the CUDA kernels, run one after the other on the CPU, against
// the CPU layers' functions: needs no GPU.
template <typename Dtype>
class LGLSTMKernelsTest : public ::testing::Test {
 protected:
  LGLSTMKernelsTest() { Caffe::set_random_seed(1701); }

  LGLSTMShape Shape(const int neighbors, const bool share, const int gates,
      const int grid, const int height, const int width) {
    LGLSTMShape s;
    s.num = 2;
    s.hidden = 3;
    s.neighbors = neighbors;
    s.sets = share ? 2 : neighbors + 1;
    s.gates = gates;
    s.height = height;
    s.width = width;
    s.grid = grid;
    return s;
  }

  std::vector<Dtype> Random(const int count) {
    std::vector<Dtype> values(count);
    if (count) { caffe_rng_gaussian<Dtype>(count, 0, 1, values.data()); }
    return values;
  }

  // What is not written stays, and stands out.
  std::vector<Dtype> Unwritten(const size_t count) {
    return std::vector<Dtype>(count, Dtype(1e30));
  }

  // The CPU's exp and tanh are its own.
  void ExpectSame(const std::vector<Dtype>& expected,
      const std::vector<Dtype>& actual) {
    const Dtype tolerance = sizeof(Dtype) == sizeof(double) ? 1e-13 : 1e-6;
    ASSERT_EQ(expected.size(), actual.size());
    for (int i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(expected[i], actual[i],
          tolerance * std::max(Dtype(1), std::abs(expected[i]))) << "at " << i;
    }
  }

  // All threads of the three kernels, last one first: their order is free.
  void Check(const LGLSTMShape& s) {
    const LGLSTMKernelShape kernel_shape(s);
    const int cells = s.num * s.lstms() * s.hidden * s.map();
    const int globals = s.num * s.hidden * s.grid * s.grid;
    const std::vector<Dtype> offset = Random(s.num * s.rows());
    const std::vector<Dtype> memory = Random(cells);
    const Dtype* m = s.gates == 4 ? memory.data() : NULL;

    std::vector<Dtype> gates = Random(s.num * s.rows() * s.map());
    std::vector<Dtype> hidden = Unwritten(cells), next = Unwritten(cells);
    std::vector<Dtype> gates2 = gates, hidden2 = hidden, next2 = next;
    lg_lstm_cell_forward_cpu(s, offset.data(), m, gates.data(), hidden.data(),
        next.data());
    for (int i = kernel_shape.points() - 1; i >= 0; --i) {
      lg_lstm_cell_forward_thread(kernel_shape, i, offset.data(), m,
          gates2.data(), hidden2.data(), next2.data());
    }
    ExpectSame(gates, gates2);
    ExpectSame(hidden, hidden2);
    ExpectSame(next, next2);

    std::vector<Dtype> global(globals);
    std::vector<int> index(globals);
    lg_lstm_grid_max_cpu(s, hidden.data(), global.data(), index.data());
    CheckGridMax(s, hidden, global, index);

    const std::vector<Dtype> hidden_diff = Random(cells);
    const std::vector<Dtype> next_diff = Random(cells);
    const std::vector<Dtype> global_diff = Random(globals);
    const Dtype* of_global = s.grid ? global_diff.data() : NULL;
    std::vector<Dtype> gates_diff = Unwritten(gates.size());
    std::vector<Dtype> memory_diff = Unwritten(cells);
    std::vector<Dtype> gates_diff2 = gates_diff, memory_diff2 = memory_diff;
    std::vector<Dtype> row_sum(offset.size());
    lg_lstm_cell_backward_cpu(s, gates.data(), m, hidden.data(), next.data(),
        hidden_diff.data(), next_diff.data(), of_global, index.data(),
        gates_diff.data(), row_sum.data(), m ? memory_diff.data() : NULL);
    for (int i = kernel_shape.points() - 1; i >= 0; --i) {
      lg_lstm_cell_backward_thread(kernel_shape, i, gates.data(), m,
          hidden.data(), next.data(), hidden_diff.data(), next_diff.data(),
          of_global, index.data(), gates_diff2.data(),
          m ? memory_diff2.data() : NULL);
    }
    ExpectSame(gates_diff, gates_diff2);
    ExpectSame(memory_diff, memory_diff2);
  }

  void CheckGridMax(const LGLSTMShape& s, const std::vector<Dtype>& hidden,
      const std::vector<Dtype>& global, const std::vector<int>& index) {
    const int kThreads = 8;  // fewer and more than the positions of a cell
    for (int out = 0; out < global.size(); ++out) {
      LGLSTMLargest<Dtype> largest = lg_lstm_grid_max_thread(s, out,
          kThreads - 1, kThreads, hidden.data());
      for (int thread = kThreads - 2; thread >= 0; --thread) {
        largest.Take(lg_lstm_grid_max_thread(s, out, thread, kThreads,
            hidden.data()));
      }
      EXPECT_EQ(index[out], largest.position);
      if (!std::isnan(global[out])) { EXPECT_EQ(global[out], largest.value); }
    }
  }
};

TYPED_TEST_CASE(LGLSTMKernelsTest, TestDtypes);

TYPED_TEST(LGLSTMKernelsTest, TestCells) {
  const int kNeighbors[] = {2, 4, 8};
  for (int i = 0; i < 3; ++i) {
    this->Check(this->Shape(kNeighbors[i], true, 4, 3, 5, 4));
    this->Check(this->Shape(kNeighbors[i], false, 4, 2, 3, 7));
    this->Check(this->Shape(kNeighbors[i], false, 3, 3, 4, 8));
  }
}

TYPED_TEST(LGLSTMKernelsTest, TestThinMaps) {
  this->Check(this->Shape(8, true, 4, 0, 1, 1));
  this->Check(this->Shape(8, true, 4, 1, 1, 5));
  this->Check(this->Shape(4, true, 3, 1, 5, 1));
}

TYPED_TEST(LGLSTMKernelsTest, TestGridCellOfEveryPosition) {
  for (int length = 1; length < 50; ++length) {
    for (int grid = 1; grid <= length; ++grid) {
      LGLSTMShape shape = this->Shape(2, true, 4, grid, length, 1);
      shape.num = shape.hidden = 1;
      shape.width = grid;  // so that grid column x covers map column x
      const LGLSTMKernelShape s(shape);
      for (int y = 0, g = 0; y < length; ++y) {
        if (y == lg_lstm_grid_start(g + 1, length, grid)) { ++g; }
        const int x = y % grid;
        EXPECT_EQ(g * grid + x, LGLSTMPoint(s, y * grid + x).of_grid());
      }
    }
  }
}

// Among equals the first in raster order is taken, and a NaN as the CPU does.
TYPED_TEST(LGLSTMKernelsTest, TestGridMaxOfEqualsAndNotANumber) {
  const LGLSTMShape s = this->Shape(2, true, 4, 2, 6, 7);
  const int kValues = s.num * s.lstms() * s.hidden * s.map();
  for (int kind = 0; kind < 3; ++kind) {
    std::vector<TypeParam> hidden(kValues);
    for (int i = 0; i < kValues; ++i) {
      hidden[i] = kind == 0 ? 0 : i % 3;
      if (kind == 2 && i % 5 == 0) { hidden[i] = NAN; }
    }
    const int globals = s.num * s.hidden * s.grid * s.grid;
    std::vector<TypeParam> global(globals);
    std::vector<int> index(globals);
    lg_lstm_grid_max_cpu(s, hidden.data(), global.data(), index.data());
    this->CheckGridMax(s, hidden, global, index);
  }
}

}  // namespace caffe
