#ifndef CAFFE_TEST_EXPECT_NEAR_HPP_
#define CAFFE_TEST_EXPECT_NEAR_HPP_

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"

namespace caffe {

/// Expect finite numbers that differ by no more than `tolerance` times the largest
/// magnitude of those expected. `what`: their name in a failure.
inline void ExpectNear(const vector<double>& expected,
    const vector<double>& actual, const double tolerance, const string& what) {
  ASSERT_EQ(expected.size(), actual.size()) << what;
  double largest = 0, worst = 0;
  for (int i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::isfinite(actual[i])) << what;
    largest = std::max(largest, std::abs(expected[i]));
    worst = std::max(worst, std::abs(expected[i] - actual[i]));
  }
  EXPECT_LE(worst, tolerance * largest) << what;
}

}  // namespace caffe

#endif  // CAFFE_TEST_EXPECT_NEAR_HPP_
