#ifndef CAFFE_UTIL_CHANNEL_DECONVOLUTION_HPP_
#define CAFFE_UTIL_CHANNEL_DECONVOLUTION_HPP_

namespace caffe {

/**
 * @brief A 2-D deconvolution in which each channel has a kernel of its own: as many
 *        groups as channels in and out. Enlarging by a bilinear filler is one.
 */
struct ChannelDeconvolution {
  int channels, height, width, out_height, out_width;
  int kernel[2], stride[2], pad[2], dilation[2];

  /**
   * @brief Write `top` (channels, out_height, out_width) from `bottom` (channels,
   *        height, width) and `weight` (channels, kernel[0], kernel[1]).
   *
   * The products are added in the order of Caffe's gemm and col2im, which go
   * through kernel-size copies of the bottom; so the sums have the same bits.
   */
  template <typename Dtype>
  void Forward(const Dtype* bottom, const Dtype* weight, Dtype* top) const;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_CHANNEL_DECONVOLUTION_HPP_
