// As much of CUDA as Caffe's core and the LG-LSTM layers use, on the CPU: "GPU"
// memory is memory that cudaMalloc gave out, and kernels run one block after the
// other. scripts/emulate_gpu.py says what for.
#ifndef EMULATION_CUDA_RUNTIME_H_
#define EMULATION_CUDA_RUNTIME_H_

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#define CUDART_VERSION 13000

typedef int cudaError_t;
typedef void* cudaStream_t;
typedef void* cudaEvent_t;
enum { cudaSuccess = 0, cudaStreamNonBlocking = 1 };
enum cudaMemcpyKind { cudaMemcpyDefault, cudaMemcpyHostToDevice };
enum cudaDeviceAttr {
  cudaDevAttrClockRate, cudaDevAttrGpuOverlap, cudaDevAttrKernelExecTimeout
};
struct cudaPointerAttributes { int device; };
struct cudaDeviceProp {
  char name[64];
  int major, minor, regsPerBlock, warpSize, maxThreadsPerBlock;
  int maxThreadsDim[3], maxGridSize[3], multiProcessorCount;
  size_t totalGlobalMem, sharedMemPerBlock, memPitch, totalConstMem;
  size_t textureAlignment;
};

namespace emulation {

inline void Fail(const char* why) {
  fprintf(stderr, "emulated GPU: %s\n", why);
  abort();
}

// Start and size of every piece of GPU memory.
inline std::map<const char*, size_t>& Memory() {
  static std::map<const char*, size_t> memory;
  return memory;
}

template <typename T>
void CheckArgument(const T&) {}

template <typename T>
void CheckArgument(T* pointer) {
  if (!pointer) { return; }
  const char* p = reinterpret_cast<const char*>(pointer);
  std::map<const char*, size_t>::iterator piece = Memory().upper_bound(p);
  if (piece == Memory().begin() || p >= (--piece)->first + piece->second) {
    Fail("a pointer does not point into its memory");
  }
}

}  // namespace emulation

inline cudaError_t cudaMalloc(void** pointer, const size_t size) {
  *pointer = malloc(size);
  memset(*pointer, 0x7f, size);  // huge numbers
  emulation::Memory()[static_cast<char*>(*pointer)] = size;
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* pointer) {
  emulation::Memory().erase(static_cast<char*>(pointer));
  free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* to, const int value, const size_t size) {
  emulation::CheckArgument(static_cast<char*>(to));
  memset(to, value, size);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, const size_t size,
    cudaMemcpyKind) {
  memmove(to, from, size);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from,
    const size_t size, const cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, size, kind);
}
inline cudaError_t cudaMallocHost(void** pointer, const size_t size) {
  *pointer = malloc(size);
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* pointer) {
  free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  memset(properties, 0, sizeof(*properties));
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = 0;
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
    const void*) {
  return attributes->device = 0;
}
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, int) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }

#endif  // EMULATION_CUDA_RUNTIME_H_
