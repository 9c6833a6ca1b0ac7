#ifndef CAFFE_UTIL_ONEDNN_MAPS_HPP_
#define CAFFE_UTIL_ONEDNN_MAPS_HPP_

#include <stdint.h>

#include <utility>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/syncedmem.hpp"

namespace caffe {

#ifdef USE_ONEDNN

/**
 * @brief Maps (N, C, H, W) in bfloat16, in memory in the order (N, H, W, C): the
 *        channels of a position side by side, as oneDNN's kernels like them.
 */
class OneDNNMaps {
 public:
  /// Maps to be written.
  explicit OneDNNMaps(const vector<int>& shape);
  /// A copy of Caffe's array, rounded.
  OneDNNMaps(const vector<int>& shape, const float* array);
  ~OneDNNMaps();

  const vector<int>& shape() const { return shape_; }
  const uint16_t* data() const { return data_; }
  uint16_t* mutable_data() { return data_; }
  /// Write Caffe's array.
  void CopyTo(float* array) const;
  /// Replace each x by max(x, 0); what is not a number stays so.
  void Rectify();

  /// What no value exceeds in magnitude; infinite if nothing is known.
  float bound() const { return bound_; }
  void set_bound(const float bound) { bound_ = bound; }

 private:
  const vector<int> shape_;
  uint16_t* data_;
  float bound_;

  DISABLE_COPY_AND_ASSIGN(OneDNNMaps);
};

/**
 * @brief The data of a blob on its way between layers that compute in bfloat16
 *        (see onednn_bf16_maps_wanted).
 *
 * Such a layer leaves a source with its top instead of writing Caffe's array, and
 * takes its bottom's maps from the source that it finds there. Whoever else asks
 * the blob for its data gets Caffe's array as ever: it is written then.
 */
class OneDNNSource : public SyncedMemory::Source {
 public:
  explicit OneDNNSource(const vector<int>& shape) : shape_(shape) {}
  /// Of the blob that it was made for.
  const vector<int>& shape() const { return shape_; }
  /// The data, rounded to bfloat16.
  virtual shared_ptr<const OneDNNMaps> maps() = 0;
  /// Where max(x, 0) of each value x is, rounded to bfloat16.
  virtual shared_ptr<OneDNNSource> Rectified() = 0;

 private:
  const vector<int> shape_;
};

/// The source that a blob has; empty if its data is in Caffe's array, or if it was
/// reshaped since.
shared_ptr<OneDNNSource> onednn_source(const Blob<float>& blob);
/// A blob's data: the maps of its source, or else a rounded copy.
shared_ptr<const OneDNNMaps> onednn_maps(const Blob<float>& blob);
/// A source that has these maps.
shared_ptr<OneDNNSource> onednn_make_source(
    const shared_ptr<const OneDNNMaps>& maps);

/// Floats of maps from Caffe's order to (N, H, W, C), and back.
void onednn_to_maps(const vector<int>& shape, const float* array, float* maps);
void onednn_from_maps(const vector<int>& shape, const float* maps,
    float* array);

/// Remembers the data of blobs as it was.
class OneDNNSeen {
 public:
  /// Remember it; false if it may have changed since the last call.
  bool SameAgain(const vector<shared_ptr<Blob<float> > >& blobs);

 private:
  /// Memory, and how often it had been given out for writing.
  typedef vector<std::pair<shared_ptr<SyncedMemory>, uint64_t> > State;

  State state_;  // empty if a change since would not show in it
};

/// The product of every position's channels with a matrix that seldom changes.
class OneDNNProduct {
 public:
  OneDNNProduct();
  ~OneDNNProduct();
  /// Take (rows, C) weights, row-major with leading dimension `leading`, rounded
  /// to bfloat16.
  void SetWeight(const int rows, const int channels, const float* weight,
      const int leading);
  /// How many of so many positions to multiply at a time. With these numbers the
  /// products of a core stay in its cache, and oneDNN 2.6 is at its best: for others
  /// (1302, 1696) it takes up to seven times as long a position.
  static int BlockSize(const int positions);
  /// Write (count, rows) for `count` positions of (N, H, W), from `first` on: sums
  /// in single precision.
  void Compute(const OneDNNMaps& maps, const int first, const int count,
      float* products);

 private:
  class Kernel;

  int rows_, channels_;
  vector<uint16_t> weight_;      // (C, rows)
  shared_ptr<Kernel> kernel_;    // for as many positions as last time

  DISABLE_COPY_AND_ASSIGN(OneDNNProduct);
};

/// The largest magnitude in an array; infinite if a value is not finite.
float onednn_bound(const size_t count, const float* array);

/// The windows of a 2-D pooling.
struct OneDNNPooling {
  bool maximum;  // else the average
  int kernel[2], stride[2], pad[2];
};

/// What PoolingLayer computes, rounded to bfloat16; `shape` is the top's.
shared_ptr<OneDNNMaps> onednn_pool(const OneDNNPooling& pooling,
    const OneDNNMaps& bottom, const vector<int>& shape);

#endif  // USE_ONEDNN

}  // namespace caffe

#endif  // CAFFE_UTIL_ONEDNN_MAPS_HPP_
