// A COCO or LVIS result file (a JSON list of objects) straight into columns: no object per detection, which
// is much cheaper than Python objects. Numbers are rounded as in Python.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "../checks.h"

namespace mrb {
namespace {

class Reader {
 public:
  Reader(const char* begin, int64_t length, uint8_t* mask_text)
      : begin_(begin), at_(begin), end_(begin + length), mask_text_(mask_text) {}

  void read_list() {
    expect('[', "a list of results");
    if (!accept(']')) {
      do {
        read_entry();
        ++entry_;
      } while (accept(','));
      expect(']', "',' or the end of the list");
    }
    space();
    require(at_ == end_, "the end of the file after the list");
  }

  std::vector<int64_t> images, categories, table;
  std::vector<double> scores, boxes, mask_scores;
  std::vector<uint8_t> has_box;
  int64_t mask_bytes = 0;

 private:
  void require(bool fine, const char* expected) const {
    TORCH_CHECK_VALUE(fine, "detection ", entry_, ": expected ", expected, " at byte ", at_ - begin_);
  }
  void space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
  }
  bool accept(char c) {
    space();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }
  void expect(char c, const char* expected) { require(accept(c), expected); }

  // Key or other short text without escapes; one with escapes is no known key and is returned unchanged.
  std::string_view key() {
    expect('"', "a key in quotes");
    const char* first = at_;
    skip_text();
    const std::string_view name(first, at_ - first - 1);
    expect(':', "':'");
    return name;
  }
  // From behind the opening quote to behind the closing one.
  void skip_text() {
    while (at_ < end_ && *at_ != '"') at_ += *at_ == '\\' && end_ - at_ > 1 ? 2 : 1;
    require(at_ < end_, "the end of a text");
    ++at_;
  }
  void skip_value() {
    space();
    require(at_ < end_ && *at_ != ',' && *at_ != ']' && *at_ != '}' && *at_ != ':', "a value");
    int64_t depth = 0;
    while (at_ < end_) {
      const char c = *at_;
      if (c == '"') {
        ++at_;
        skip_text();
        continue;
      }
      if ((c == ',' || c == ']' || c == '}') && depth == 0) return;
      depth += c == '[' || c == '{';
      depth -= c == ']' || c == '}';
      ++at_;
    }
  }
  double number(const char* what) {
    space();
    require(at_ < end_ && *at_ != '+', what);
    double value = 0;
    const auto [rest, error] = std::from_chars(at_, end_, value);
    if (error == std::errc::result_out_of_range) {
      // Beyond float64: 0 or infinity, as Python reads it.
      const std::string_view digits(at_, rest - at_);
      const size_t exponent = digits.find_first_of("eE");
      const bool tiny = exponent == std::string_view::npos
                            ? digits.substr(0, 1) == "0" || digits.substr(0, 2) == "-0"
                            : digits.substr(exponent + 1, 1) == "-";
      value = (tiny ? 0.0 : HUGE_VAL) * (*at_ == '-' ? -1.0 : 1.0);
    } else {
      require(error == std::errc(), what);
    }
    at_ = rest;
    return value;
  }
  int64_t integer(const char* what) {
    space();
    int64_t value = 0;
    const auto [rest, error] = std::from_chars(at_, end_, value);
    const bool whole =
        error == std::errc() && (rest == end_ || (*rest != '.' && *rest != 'e' && *rest != 'E'));
    if (whole) {
      at_ = rest;
      return value;
    }
    const double real = number(what);
    require(real == std::floor(real) && std::fabs(real) < 9e15, what);
    return static_cast<int64_t>(real);
  }

  void read_entry() {
    expect('{', "an object");
    bool image = false, category = false, score = false, box = false, mask = false;
    int64_t image_id = 0, category_id = 0;
    double value = 0, corners[4] = {0, 0, 0, 0};
    int64_t row[4] = {0, -1, 0, 0};
    if (!accept('}')) {
      do {
        space();
        const std::string_view name = key();
        if (name == "image_id") {
          image_id = integer("a whole number as image_id");
          image = true;
        } else if (name == "category_id") {
          category_id = integer("a whole number as category_id");
          category = true;
        } else if (name == "score") {
          value = number("a number as score");
          score = true;
        } else if (name == "mask_score") {
          mask_scores.push_back(number("a number as mask_score"));
        } else if (name == "bbox") {
          expect('[', "bbox as a list of 4 numbers");
          for (int i = 0; i < 4; ++i) {
            if (i) expect(',', "bbox as a list of 4 numbers");
            corners[i] = number("bbox as a list of 4 numbers");
          }
          expect(']', "bbox as a list of 4 numbers");
          box = true;
        } else if (name == "segmentation") {
          read_mask(row);
          mask = true;
        } else {
          skip_value();
        }
      } while (accept(','));
      expect('}', "',' or '}'");
    }
    TORCH_CHECK_VALUE(image && category && score && (box || mask), "detection ", entry_, ": missing ",
                      !image      ? "image_id"
                      : !category ? "category_id"
                      : !score    ? "score"
                                  : "bbox or segmentation");
    images.push_back(image_id);
    categories.push_back(category_id);
    scores.push_back(value);
    boxes.insert(boxes.end(), corners, corners + 4);
    has_box.push_back(box);
    table.insert(table.end(), row, row + 4);
  }

  void read_mask(int64_t* row) {
    const char* what = "segmentation as a compressed RLE (size and counts)";
    expect('{', what);
    bool size = false, counts = false;
    do {
      const std::string_view name = key();
      if (name == "size") {
        expect('[', what);
        row[2] = integer(what);
        expect(',', what);
        row[3] = integer(what);
        expect(']', what);
        size = true;
      } else if (name == "counts") {
        expect('"', what);
        read_counts(row);
        counts = true;
      } else {
        skip_value();
      }
    } while (accept(','));
    expect('}', "',' or '}'");
    require(size && counts, what);
  }

  // The only escape that compressed counts need is the backslash itself.
  void read_counts(int64_t* row) {
    row[0] = mask_bytes;
    for (; at_ < end_ && *at_ != '"'; ++at_) {
      if (*at_ == '\\') {
        require(end_ - at_ > 1 && at_[1] == '\\', "no other escape than \\\\ in counts");
        ++at_;
      }
      mask_text_[mask_bytes++] = static_cast<uint8_t>(*at_);
    }
    require(at_ < end_, "the end of a text");
    ++at_;
    row[1] = mask_bytes - row[0];
  }

  const char *begin_, *at_, *end_;
  uint8_t* mask_text_;  // as long as the file
  int64_t entry_ = 0;
};

template <typename T>
at::Tensor column(std::vector<T>&& all, at::ScalarType type, int64_t width = 0) {
  const std::vector<T> values = std::move(all);  // freed on return: the columns of a large file are large
  const int64_t count = values.size();
  at::Tensor out = at::empty({count}, at::TensorOptions().dtype(type));
  std::copy(values.begin(), values.end(), static_cast<T*>(out.mutable_data_ptr()));
  return width ? out.view({count / width, width}) : out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
parse_detections(const at::Tensor& json) {
  check_shape("parse_detections", "json", json, {-1}, "(bytes,)");
  check_dtype("parse_detections", "json", json, at::kByte);
  const at::Tensor bytes = json.contiguous();
  at::Tensor text = at::empty({bytes.size(0)}, bytes.options());
  Reader reader(reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>()), bytes.size(0),
                text.mutable_data_ptr<uint8_t>());
  reader.read_list();
  return {column(std::move(reader.images), at::kLong),   column(std::move(reader.categories), at::kLong),
          column(std::move(reader.scores), at::kDouble), column(std::move(reader.boxes), at::kDouble, 4),
          column(std::move(reader.has_box), at::kByte),  text.narrow(0, 0, reader.mask_bytes),
          column(std::move(reader.table), at::kLong, 4), column(std::move(reader.mask_scores), at::kDouble)};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("parse_detections", TORCH_FN(mrb::parse_detections));
}
