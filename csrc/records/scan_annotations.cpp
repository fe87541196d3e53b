// An annotation file of COCO or LVIS format straight into columns: the spans of its sections and of every
// annotation, and the values of all ordinary annotations.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../checks.h"
#include "annotation_reader.h"
#include "list_parts.h"

namespace mrb {
namespace {

using Parts = std::vector<ListPart<AnnotationReader>>;

class FileScanner {
 public:
  FileScanner(const char* begin, const char* end) : begin_(begin), end_(end), cursor_(begin, end) {}

  std::vector<int64_t> sections;  // begin and end of key and of value, of every key of the file
  Parts parts;

  // Throws JsonError.
  void read() {
    if (end_ - begin_ >= 3 && std::memcmp(begin_, "\xEF\xBB\xBF", 3) == 0) cursor_.at += 3;
    cursor_.expect('{', "an object in braces");
    if (!cursor_.accept('}')) {
      do {
        read_section();
      } while (cursor_.accept(','));
      cursor_.expect('}', "',' or '}'");
    }
    cursor_.peek();
    cursor_.require(cursor_.done(), "nothing after the end");
  }

 private:
  void read_section() {
    const std::string_view name = cursor_.key();
    cursor_.peek();
    const int64_t first = name.data() - begin_, start = cursor_.at - begin_;
    if (name == "annotations" && cursor_.peek() == '[') {
      // Of several lists of one name the last counts, as for Python's reader.
      parts = read_list<AnnotationReader>(cursor_, end_);
      if (!parts.empty() && parts.back().error) throw *parts.back().error;
    } else {
      cursor_.skip_value();
    }
    const int64_t last = first + static_cast<int64_t>(name.size()), end = cursor_.at - begin_;
    sections.insert(sections.end(), {first, last, start, end});
  }

  const char *begin_, *end_;
  JsonCursor cursor_;
};

// The columns in the order of the schema (ops.cpp); the rows of every part are freed behind it.
std::vector<at::Tensor> make_columns(Parts& parts, const char* file_begin) {
  std::vector<int64_t> first(parts.size() + 1, 0);
  for (size_t p = 0; p < parts.size(); ++p) {
    first[p + 1] = first[p] + static_cast<int64_t>(parts[p].reader.rows.size());
  }
  const int64_t count = first.back();
  const auto column = [&](at::ScalarType type, int64_t width = 0) {
    const auto options = at::TensorOptions().dtype(type);
    return width ? at::empty({count, width}, options) : at::empty({count}, options);
  };
  std::vector<at::Tensor> all = {
      column(at::kLong), column(at::kLong), column(at::kLong), column(at::kDouble, 4), column(at::kDouble),
      column(at::kBool), column(at::kBool), column(at::kByte), column(at::kFloat, 4),  column(at::kLong),
      column(at::kBool), column(at::kLong), column(at::kLong)};
  const auto longs = [&](int index) { return all[index].mutable_data_ptr<int64_t>(); };
  int64_t *ids = longs(0), *images = longs(1), *categories = longs(2), *visible = longs(9),
          *begins = longs(11), *ends = longs(12);
  double *boxes = all[3].mutable_data_ptr<double>(), *areas = all[4].mutable_data_ptr<double>();
  bool *crowd = all[5].mutable_data_ptr<bool>(), *ignore = all[6].mutable_data_ptr<bool>(),
       *unusual = all[10].mutable_data_ptr<bool>();
  uint8_t* codes = all[7].mutable_data_ptr<uint8_t>();
  float* extents = all[8].mutable_data_ptr<float>();
  at::parallel_for(0, parts.size(), 1, [&](int64_t from, int64_t to) {
    for (int64_t p = from; p < to; ++p) {
      int64_t i = first[p];
      for (const AnnotationRow& row : parts[p].reader.rows) {
        ids[i] = row.id, images[i] = row.image_id, categories[i] = row.category_id;
        std::copy(row.box, row.box + 4, boxes + 4 * i);
        areas[i] = row.area, crowd[i] = row.crowd, ignore[i] = row.ignore, codes[i] = row.segmentation;
        std::copy(row.extent, row.extent + 4, extents + 4 * i);
        visible[i] = row.visible, unusual[i] = row.unusual;
        begins[i] = row.begin - file_begin, ends[i] = row.end - file_begin;
        ++i;
      }
      std::vector<AnnotationRow>().swap(parts[p].reader.rows);
    }
  });
  return all;
}

std::tuple<at::Tensor, std::vector<at::Tensor>, int64_t, std::string> scan_annotations(
    const at::Tensor& json) {
  check_shape("scan_annotations", "json", json, {-1}, "(bytes,)");
  check_dtype("scan_annotations", "json", json, at::kByte);
  const at::Tensor bytes = json.contiguous();
  const char* begin = reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>());
  FileScanner scanner(begin, begin + bytes.size(0));
  int64_t error_at = -1;
  std::string message;
  try {
    scanner.read();
  } catch (const JsonError& error) {
    error_at = error.at - begin;
    message = error.text();
    scanner.parts.clear();
  }
  const int64_t count = scanner.sections.size();
  at::Tensor sections = at::empty({count / 4, 4}, at::TensorOptions().dtype(at::kLong));
  std::copy(scanner.sections.begin(), scanner.sections.end(), sections.mutable_data_ptr<int64_t>());
  return {sections, make_columns(scanner.parts, begin), error_at, message};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("scan_annotations", TORCH_FN(mrb::scan_annotations));
}
