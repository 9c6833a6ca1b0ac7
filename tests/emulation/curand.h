// Caffe's core creates a generator of cuRAND; nothing here draws from it.
#ifndef EMULATION_CURAND_H_
#define EMULATION_CURAND_H_

typedef void* curandGenerator_t;
typedef int curandStatus_t;
enum {
  CURAND_STATUS_SUCCESS, CURAND_STATUS_VERSION_MISMATCH,
  CURAND_STATUS_NOT_INITIALIZED, CURAND_STATUS_ALLOCATION_FAILED,
  CURAND_STATUS_TYPE_ERROR, CURAND_STATUS_OUT_OF_RANGE,
  CURAND_STATUS_LENGTH_NOT_MULTIPLE, CURAND_STATUS_LAUNCH_FAILURE,
  CURAND_STATUS_PREEXISTING_FAILURE, CURAND_STATUS_INITIALIZATION_FAILED,
  CURAND_STATUS_ARCH_MISMATCH, CURAND_STATUS_INTERNAL_ERROR,
  CURAND_STATUS_DOUBLE_PRECISION_REQUIRED, CURAND_RNG_PSEUDO_DEFAULT
};

inline curandStatus_t curandCreateGenerator(curandGenerator_t* generator,
    int) {
  *generator = generator;  // anything but NULL
  return 0;
}
inline curandStatus_t curandDestroyGenerator(curandGenerator_t) { return 0; }
inline curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t,
    unsigned) {
  return 0;
}
inline curandStatus_t curandSetGeneratorOffset(curandGenerator_t, int) {
  return 0;
}

#endif  // EMULATION_CURAND_H_
