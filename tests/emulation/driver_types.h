// All in cuda_runtime.h.
