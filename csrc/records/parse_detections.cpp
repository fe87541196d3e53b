// A COCO or LVIS result file (a JSON list of objects) straight into columns: no object per detection.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../checks.h"
#include "detection_reader.h"
#include "list_parts.h"

namespace mrb {
namespace {

using Parts = std::vector<ListPart<DetectionReader>>;

struct Failure {
  int64_t entry = -1, byte = -1;
  std::string message;
};

// The columns in the order of the schema (ops.cpp); the rows of every part are freed behind it.
std::vector<at::Tensor> make_columns(Parts& parts, const at::Tensor& text) {
  std::vector<int64_t> first(parts.size() + 1, 0);
  int64_t points = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    first[p + 1] = first[p] + static_cast<int64_t>(parts[p].reader.rows.size());
    points += static_cast<int64_t>(parts[p].reader.keypoints.size());
  }
  const int64_t count = first.back();
  const auto column = [&](at::ScalarType type, int64_t length, int64_t width = 0) {
    const auto options = at::TensorOptions().dtype(type);
    return width ? at::empty({length, width}, options) : at::empty({length}, options);
  };
  std::vector<at::Tensor> all = {
      column(at::kLong, count),      column(at::kLong, count),   column(at::kDouble, count),
      column(at::kDouble, count, 4), column(at::kBool, count),   text,
      column(at::kLong, count, 4),   column(at::kLong, count),   column(at::kDouble, count),
      column(at::kLong, count),      column(at::kDouble, points)};
  int64_t *images = all[0].mutable_data_ptr<int64_t>(), *categories = all[1].mutable_data_ptr<int64_t>(),
          *table = all[6].mutable_data_ptr<int64_t>(), *areas = all[7].mutable_data_ptr<int64_t>(),
          *lengths = all[9].mutable_data_ptr<int64_t>();
  double *scores = all[2].mutable_data_ptr<double>(), *boxes = all[3].mutable_data_ptr<double>(),
         *mask_scores = all[8].mutable_data_ptr<double>(), *keypoints = all[10].mutable_data_ptr<double>();
  bool* has_box = all[4].mutable_data_ptr<bool>();
  at::parallel_for(0, parts.size(), 1, [&](int64_t from, int64_t to) {
    for (int64_t p = from; p < to; ++p) {
      int64_t i = first[p];
      for (const DetectionRow& row : parts[p].reader.rows) {
        images[i] = row.image_id, categories[i] = row.category_id, scores[i] = row.score;
        std::copy(row.box, row.box + 4, boxes + 4 * i);
        std::copy(row.mask, row.mask + 4, table + 4 * i);
        has_box[i] = row.has_box, areas[i] = row.area, mask_scores[i] = row.mask_score;
        lengths[i] = row.keypoint_values;
        ++i;
      }
      std::vector<DetectionRow>().swap(parts[p].reader.rows);
    }
  });
  for (const auto& part : parts) {
    keypoints = std::copy(part.reader.keypoints.begin(), part.reader.keypoints.end(), keypoints);
  }
  return all;
}

std::tuple<std::vector<at::Tensor>, int64_t, int64_t, std::string> parse_detections(const at::Tensor& json) {
  check_shape("parse_detections", "json", json, {-1}, "(bytes,)");
  check_dtype("parse_detections", "json", json, at::kByte);
  const at::Tensor bytes = json.contiguous();
  const char* begin = reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>());
  const char* end = begin + bytes.size(0);
  at::Tensor text = at::empty({bytes.size(0)}, bytes.options());
  JsonCursor cursor(begin, end);
  Parts parts;
  Failure failure;
  try {
    if (end - begin >= 3 && std::memcmp(begin, "\xEF\xBB\xBF", 3) == 0) cursor.at += 3;
    if (cursor.peek() != '[') cursor.fail("a list of results");
    parts = read_list<DetectionReader>(cursor, end, begin, text.mutable_data_ptr<uint8_t>());
    if (!parts.empty() && parts.back().error) throw *parts.back().error;
    cursor.peek();
    cursor.require(cursor.done(), "the end of the file after the list");
  } catch (const JsonError& error) {
    failure = {0, error.at - begin, error.text()};
    for (const auto& part : parts) failure.entry += part.reader.rows.size();
    parts.clear();
  }
  return {make_columns(parts, text), failure.entry, failure.byte, failure.message};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("parse_detections", TORCH_FN(mrb::parse_detections));
}
