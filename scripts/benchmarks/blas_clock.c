/* Put before BLAS and oneDNN with LD_PRELOAD, this counts and times the matrix products of single
 * precision that a program asks for, and hands them on.
 *
 * The real cblas_sgemm is taken from the library that BLAS_CLOCK_BLAS names, the real dnnl_sgemm
 * from that of BLAS_CLOCK_ONEDNN. Products that run
 * at the same time in several threads count once in the seconds: what is measured is the time in
 * which any of them runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int64_t dim;
typedef void (*blas_sgemm)(int, int, int, int, int, int, float, const float*, int, const float*,
                           int, float, float*, int);
typedef int (*onednn_sgemm)(char, char, dim, dim, dim, float, const float*, dim, const float*, dim,
                            float, float*, dim);

enum { BLAS, ONEDNN };

struct product {
  int library, transpose_a, transpose_b, m, n, k, lda, ldb, ldc, adds, count;
};

#define MOST_PRODUCTS 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct product products[MOST_PRODUCTS];
static int known, running, recording;
static double began, seconds;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void* real(const char* variable, const char* function) {
  const char* name = getenv(variable);
  void* library = name ? dlopen(name, RTLD_LAZY) : NULL;
  void* found = library ? dlsym(library, function) : NULL;
  if (!found) {
    fprintf(stderr, "blas_clock: no %s in %s=%s\n", function, variable, name ? name : "");
    abort();
  }
  return found;
}

static void record(const struct product* made) {
  const size_t shape = offsetof(struct product, count);
  for (int i = 0; i < known; ++i) {
    if (memcmp(&products[i], made, shape) == 0) {
      ++products[i].count;
      return;
    }
  }
  if (known < MOST_PRODUCTS) products[known++] = *made;
}

static void begin(const struct product made) {
  pthread_mutex_lock(&lock);
  if (recording) record(&made);
  if (running++ == 0) began = now();
  pthread_mutex_unlock(&lock);
}

static void end(void) {
  pthread_mutex_lock(&lock);
  if (--running == 0) seconds += now() - began;
  pthread_mutex_unlock(&lock);
}

void cblas_sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                 const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  static blas_sgemm sgemm;
  if (!sgemm) sgemm = (blas_sgemm)real("BLAS_CLOCK_BLAS", "cblas_sgemm");
  begin((struct product){BLAS, transpose_a, transpose_b, m, n, k, lda, ldb, ldc, beta != 0, 1});
  sgemm(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  end();
}

static int as_cblas(char transpose) { return transpose == 'T' || transpose == 't' ? 112 : 111; }

int dnnl_sgemm(char transpose_a, char transpose_b, dim m, dim n, dim k, float alpha, const float* a,
               dim lda, const float* b, dim ldb, float beta, float* c, dim ldc) {
  static onednn_sgemm sgemm;
  if (!sgemm) sgemm = (onednn_sgemm)real("BLAS_CLOCK_ONEDNN", "dnnl_sgemm");
  begin((struct product){ONEDNN, as_cblas(transpose_a), as_cblas(transpose_b), (int)m, (int)n,
                         (int)k, (int)lda, (int)ldb, (int)ldc, beta != 0, 1});
  const int status =
      sgemm(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  end();
  return status;
}

/* Seconds in products so far. */
double blas_clock_seconds(void) { return seconds; }

/* Whether to note the shapes of the products from now on; beginning forgets those noted before. */
void blas_clock_record(int on) {
  if (on) known = 0;
  recording = on;
}

/* The products noted; returns how many kinds. */
int blas_clock_products(const struct product** noted) {
  *noted = products;
  return known;
}
