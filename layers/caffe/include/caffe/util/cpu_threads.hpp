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

// Before a function with loops over an array: it is compiled once per instruction
// set, and the loader picks the best that the processor has. No other flag is
// needed: the library runs on any x86-64, and elsewhere the plain version is used.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CAFFE_ROW_FUNCTION \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CAFFE_ROW_FUNCTION
#endif

namespace caffe {

/// Values from which on a loop over an array is worth waking other threads for.
const int kParallelCount = 1 << 16;

}  // namespace caffe

#endif  // CAFFE_UTIL_CPU_THREADS_HPP_
