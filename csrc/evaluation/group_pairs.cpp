// Detections and ground truth sorted by (category, image) pair with counting sorts.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <numeric>

#include "curve_output.h"
#include "pairs.h"

namespace mrb {
namespace {

constexpr int64_t kMaxKeys = 1 << 24;  // memory is bounded by the number of images and of categories

// Rows in ascending order of their key, equal keys in the order of `rows`; a negative key leaves a row out.
std::vector<uint32_t> counting_sort(const std::vector<uint32_t>& rows, const int64_t* keys, int64_t num_keys,
                                    std::vector<int64_t>* starts) {
  std::vector<int64_t> next(num_keys + 1, 0);
  for (const uint32_t row : rows) {
    if (keys[row] >= 0) ++next[keys[row] + 1];
  }
  for (int64_t k = 0; k < num_keys; ++k) next[k + 1] += next[k];
  if (starts) *starts = next;
  std::vector<uint32_t> sorted(next[num_keys]);
  for (const uint32_t row : rows) {
    if (keys[row] >= 0) sorted[next[keys[row]]++] = row;
  }
  return sorted;
}

struct Side {
  const int64_t *images, *categories;
  std::vector<uint32_t> order;          // by category, image, row
  std::vector<int64_t> category_start;  // in `order`

  Side(const char* op, const char* names[2], const at::Tensor& image_column,
       const at::Tensor& category_column, int64_t num_images, int64_t num_categories) {
    check_shape(op, names[0], image_column, {-1}, "(N,)");
    const int64_t count = image_column.size(0);
    TORCH_CHECK_VALUE(count < UINT32_MAX, op, ": ", names[0], " is too long");
    images = check_indices(op, names[0], image_column, count, 0, num_images);
    categories = check_indices(op, names[1], category_column, count, -1, num_categories);
    std::vector<uint32_t> rows(count);
    std::iota(rows.begin(), rows.end(), 0);
    if (!std::is_sorted(images, images + count)) rows = counting_sort(rows, images, num_images, nullptr);
    order = counting_sort(rows, categories, num_categories, &category_start);
  }

  static const int64_t* check_indices(const char* op, const char* name, const at::Tensor& column,
                                      int64_t count, int64_t low, int64_t end) {
    const int64_t* value = check_column<int64_t>(op, name, column, at::kLong, count);
    for (int64_t i = 0; i < count; ++i) {
      TORCH_CHECK_VALUE(value[i] >= low && value[i] < end, op, ": ", name, "[", i, "] must be from ", low,
                        " to ", end - 1, ", got ", value[i]);
    }
    return value;
  }
};

// Stable by descending score; a pair has few detections.
void sort_by_score(uint32_t* first, uint32_t* last, const double* scores) {
  if (last - first > 32) {
    std::stable_sort(first, last, [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
    return;
  }
  for (uint32_t* at = first + 1; at < last; ++at) {
    const uint32_t row = *at;
    uint32_t* to = at;
    for (; to > first && scores[to[-1]] < scores[row]; --to) *to = to[-1];
    *to = row;
  }
}

template <typename T>
at::Tensor to_tensor(const std::vector<T>& values) {
  at::Tensor out = at::empty({static_cast<int64_t>(values.size())}, at::TensorOptions().dtype(at::kLong));
  std::copy(values.begin(), values.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> group_pairs(
    const at::Tensor& det_images, const at::Tensor& det_categories, const at::Tensor& scores,
    const at::Tensor& gt_images, const at::Tensor& gt_categories, int64_t num_images, int64_t num_categories,
    int64_t max_per_pair) {
  const char* op = "group_pairs";
  check_range(op, "num_images", num_images, 0, kMaxKeys);
  check_range(op, "num_categories", num_categories, 0, kMaxKeys);
  check_range(op, "max_per_pair", max_per_pair, 0, INT64_MAX);
  const char *det_names[] = {"det_images", "det_categories"}, *gt_names[] = {"gt_images", "gt_categories"};
  Side dets(op, det_names, det_images, det_categories, num_images, num_categories);
  const Side gts(op, gt_names, gt_images, gt_categories, num_images, num_categories);
  const int64_t detections = det_images.size(0);
  const double* score = check_column<double>(op, "scores", scores, at::kDouble, detections);
  check_scores(op, score, detections);
  std::vector<int64_t> pair_categories, det_start{0}, gt_start{0};
  int64_t kept = 0;
  for (int64_t category = 0; category < num_categories; ++category) {
    int64_t d = dets.category_start[category], g = gts.category_start[category];
    const int64_t det_end = dets.category_start[category + 1], gt_end = gts.category_start[category + 1];
    while (d < det_end || g < gt_end) {
      const int64_t det_image = d < det_end ? dets.images[dets.order[d]] : num_images;
      const int64_t gt_image = g < gt_end ? gts.images[gts.order[g]] : num_images;
      const int64_t image = std::min(det_image, gt_image), first = d;
      while (d < det_end && dets.images[dets.order[d]] == image) ++d;
      while (g < gt_end && gts.images[gts.order[g]] == image) ++g;
      sort_by_score(dets.order.data() + first, dets.order.data() + d, score);
      for (int64_t i = first; i < std::min(d, first + std::min(max_per_pair, d - first)); ++i) {
        dets.order[kept++] = dets.order[i];
      }
      pair_categories.push_back(category);
      det_start.push_back(kept);
      gt_start.push_back(g);
    }
  }
  dets.order.resize(kept);
  return {to_tensor(dets.order), to_tensor(gts.order), to_tensor(pair_categories), to_tensor(det_start),
          to_tensor(gt_start)};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) { m.impl("group_pairs", TORCH_FN(mrb::group_pairs)); }
