// Runs kernels; the .cu files are compiled with this first. A launch
// kernel<<<grid, block>>>(…) has become emulation::Launch(grid, block, kernel, …).
#ifndef EMULATION_KERNELS_H_
#define EMULATION_KERNELS_H_

#include <ucontext.h>

#include <functional>
#include <vector>

#include "cuda_runtime.h"

#define __CUDACC__
#define __global__
#define __host__
#define __device__
#define __launch_bounds__(threads)
#define __shared__ static  // blocks run one after the other
#define __syncthreads emulation::Pause

static struct { unsigned x; } threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

// A thread of a block: runs up to the next __syncthreads, then lets the others.
static ucontext_t block_context;
static ucontext_t* thread_context;
static std::function<void()>* thread_body;
static bool thread_ended;

static void Pause() { swapcontext(thread_context, &block_context); }

static void RunThread() {
  (*thread_body)();
  thread_ended = true;
  Pause();
}

static void RunBlock(std::function<void()> body) {
  const size_t kStack = 1 << 16;
  const unsigned threads = blockDim.x;
  std::vector<ucontext_t> contexts(threads);
  static std::vector<std::vector<char> > stacks;  // kept, as they are large
  stacks.resize(threads, std::vector<char>(kStack));
  for (unsigned t = 0; t < threads; ++t) {
    getcontext(&contexts[t]);
    contexts[t].uc_stack.ss_sp = stacks[t].data();
    contexts[t].uc_stack.ss_size = kStack;
    makecontext(&contexts[t], RunThread, 0);
  }
  thread_body = &body;
  for (unsigned ended = 0; ended < threads;) {
    ended = 0;
    for (unsigned t = threads; t-- > 0;) {  // last thread first
      threadIdx.x = t;
      thread_context = &contexts[t];
      thread_ended = false;
      swapcontext(&block_context, thread_context);
      ended += thread_ended;
    }
    if (ended % threads) { Fail("not all threads came to __syncthreads"); }
  }
}

// Last block first: their order is free.
template <typename... Parameters, typename... Arguments>
void Launch(const int grid, const int block, void (*kernel)(Parameters...),
    Arguments... arguments) {
  const int checked[] = {(CheckArgument(Parameters(arguments)), 0)...};
  (void)checked;
  gridDim.x = grid;
  blockDim.x = block;
  for (int b = grid - 1; b >= 0; --b) {
    blockIdx.x = b;
    RunBlock([&]() { kernel(Parameters(arguments)...); });
  }
}

}  // namespace emulation

#endif  // EMULATION_KERNELS_H_
