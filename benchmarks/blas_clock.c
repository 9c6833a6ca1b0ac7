/* Put before BLAS with LD_PRELOAD, this counts and times the matrix products of single precision
 * that a program asks for, and hands them on.
 *
 * The real cblas_sgemm is taken from the library that BLAS_CLOCK_LIBRARY names. Products that run
 * at the same time in several threads count once in the seconds: what is measured is the time in
 * which any of them runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void (*sgemm_t)(int, int, int, int, int, int, float, const float*, int, const float*, int,
                        float, float*, int);

struct product {
  int transpose_a, transpose_b, m, n, k, lda, ldb, ldc, adds, count;
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

static sgemm_t real_sgemm(void) {
  static sgemm_t found;
  if (!found) {
    const char* name = getenv("BLAS_CLOCK_LIBRARY");
    void* library = name ? dlopen(name, RTLD_LAZY) : NULL;
    found = library ? (sgemm_t)dlsym(library, "cblas_sgemm") : NULL;
    if (!found) {
      fprintf(stderr, "blas_clock: no cblas_sgemm in BLAS_CLOCK_LIBRARY=%s\n", name ? name : "");
      abort();
    }
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

void cblas_sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                 const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  const sgemm_t sgemm = real_sgemm();
  pthread_mutex_lock(&lock);
  if (recording) {
    const struct product made = {transpose_a, transpose_b, m, n, k, lda, ldb, ldc, beta != 0, 1};
    record(&made);
  }
  if (running++ == 0) began = now();
  pthread_mutex_unlock(&lock);
  sgemm(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  pthread_mutex_lock(&lock);
  if (--running == 0) seconds += now() - began;
  pthread_mutex_unlock(&lock);
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
