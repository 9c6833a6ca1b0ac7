#ifndef CAFFE_UTIL_ONEDNN_CONVOLUTION_HPP_
#define CAFFE_UTIL_ONEDNN_CONVOLUTION_HPP_

#include <stdint.h>

#include <vector>

#include "caffe/common.hpp"
#include "caffe/util/onednn_maps.hpp"

namespace caffe {

#ifdef USE_ONEDNN

/// The numbers of a 2-D convolution with one group.
struct OneDNNGeometry {
  int num, channels, height, width;
  int outputs, out_height, out_width;
  int kernel[2], stride[2], pad[2], dilation[2];

  /// Whether it is stride 1 with output as large as input and the same dilation
  /// along both axes: then it does not mix the phases of a map.
  bool has_phases() const;
  /// What each of the phases * phases parts of every image has to do; their
  /// height and width are rounded up, the rest is zero.
  OneDNNGeometry Cut(const int phases) const;
};

/**
 * @brief Forward pass of a convolution with factors in bfloat16.
 *
 * It is not computed before its result is asked for, since only then it is known
 * whether a ReLU is to be applied, and whether bfloat16 or Caffe's array is wanted.
 * What it computes from is kept until then: a later change of the weights, or of
 * the bottom, changes nothing any more.
 *
 * A result that passes a ReLU is rounded to bfloat16, whoever reads it. Any other
 * is exact (sums in single precision) in Caffe's array.
 */
class OneDNNConvolution {
 public:
  /// Empty if oneDNN has no compiled kernel for it.
  static shared_ptr<OneDNNConvolution> Plan(const OneDNNGeometry& geometry,
      const bool bias);

  /// The top's data for maps, and weights and, if the plan has it, bias.
  shared_ptr<OneDNNSource> Start(const shared_ptr<const OneDNNMaps>& bottom,
      const vector<shared_ptr<Blob<float> > >& blobs);

 private:
  class Kernel;
  class Parameters;
  class Result;

  shared_ptr<const Kernel> kernel_;
  shared_ptr<const Parameters> parameters_;  // of the last pass
  OneDNNSeen seen_;
};

#endif  // USE_ONEDNN

}  // namespace caffe

#endif  // CAFFE_UTIL_ONEDNN_CONVOLUTION_HPP_
