#ifndef CAFFE_UTIL_CPU_THREADS_HPP_
#define CAFFE_UTIL_CPU_THREADS_HPP_

// Before a function with loops that compare floating-point numbers: without it a
// comparison may not become a vector instruction, since it might raise a flag
// that nobody here reads.
#if defined(__GNUC__) && !defined(__clang__)
#define CAFFE_COMPARING_LOOPS __attribute__((optimize("no-trapping-math")))
#else
#define CAFFE_COMPARING_LOOPS
#endif

namespace caffe {

/// Values from which on a loop over an array is worth waking other threads for.
const int kParallelCount = 1 << 16;

}  // namespace caffe

#endif  // CAFFE_UTIL_CPU_THREADS_HPP_
