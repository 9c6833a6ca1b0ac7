#include <cstdlib>
#include <string>

// OpenBLAS chooses its kernels by the processor's model when it is loaded, and takes
// those of 2004 ("Prescott": no AVX) for a model that is newer than itself. What is in
// Debian 12 does so on Emerald and Granite Rapids, where a product then takes five
// times as long. Its own choice is made again here, by what the processor can do.
//
// The functions are those that OpenBLAS calls itself when it is loaded; an OpenBLAS
// for one processor only, and other BLAS libraries, lack them.
extern "C" {
__attribute__((weak)) char* openblas_get_corename();
__attribute__((weak)) void gotoblas_dynamic_quit();
__attribute__((weak)) void gotoblas_dynamic_init();
}

namespace caffe {

namespace {

#ifdef __x86_64__
const char* CoreOfThisProcessor() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd")) { return "SkylakeX"; }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ?
      "Haswell" : NULL;
}

/// Made once, when this library is loaded, which is after OpenBLAS is.
struct ChoiceOfCore {
  ChoiceOfCore() {
    const char* kVariable = "OPENBLAS_CORETYPE";
    if (!openblas_get_corename || !gotoblas_dynamic_quit ||
        !gotoblas_dynamic_init || getenv(kVariable) ||
        std::string(openblas_get_corename()) != "Prescott") { return; }
    const char* core = CoreOfThisProcessor();
    if (!core) { return; }
    setenv(kVariable, core, 1);
    gotoblas_dynamic_quit();
    gotoblas_dynamic_init();
    unsetenv(kVariable);  // other libraries' OpenBLAS may know the processor
  }
} choice_of_core;
#endif

}  // namespace

}  // namespace caffe
