#ifndef CAFFE_UTIL_TF32_HPP_
#define CAFFE_UTIL_TF32_HPP_

#include <cstdlib>
#include <cstring>

namespace caffe {

/**
 * @brief Whether products of single-precision numbers may be computed in TF32,
 *        that is with 10 bits of each factor, by cuBLAS and cuDNN: only if the
 *        environment has CAFFE_TF32=1.
 */
inline bool caffe_tf32() {
  const char* value = std::getenv("CAFFE_TF32");
  return value && std::strcmp(value, "1") == 0;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_TF32_HPP_
