// Masks of annotation records that are still JSON: rasterised or decoded when they are needed.
#pragma once

#include <vector>

#include "../checks.h"
#include "../masks/polygon_runs.h"
#include "segmentation.h"

namespace mrb {

// G records in a text: begin and end of each, and height and width of its image.
struct RecordTable {
  const char* text;
  const int64_t *spans, *sizes;
};

inline RecordTable check_records(const char* op, const at::Tensor& records, const at::Tensor& spans,
                                 const at::Tensor& sizes, int64_t count) {
  check_shape(op, "records", records, {-1}, "(bytes,)");
  check_dtype(op, "records", records, at::kByte);
  check_shape(op, "spans", spans, {count, 2}, "(G, 2)");
  check_dtype(op, "spans", spans, at::kLong);
  check_shape(op, "sizes", sizes, {count, 2}, "(G, 2)");
  check_dtype(op, "sizes", sizes, at::kLong);
  TORCH_CHECK_VALUE(records.is_contiguous() && spans.is_contiguous() && sizes.is_contiguous(), op,
                    ": records, spans and sizes must be contiguous");
  const int64_t* span = spans.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK_VALUE(
        span[2 * i] >= 0 && span[2 * i] <= span[2 * i + 1] && span[2 * i + 1] <= records.size(0), op,
        ": span ", i, " is outside the records");
  }
  return {reinterpret_cast<const char*>(records.const_data_ptr<uint8_t>()), span,
          sizes.const_data_ptr<int64_t>()};
}

// One mask; buffers are kept from one record to the next.
class RecordMask {
 public:
  Runs runs;
  int64_t height = 0, width = 0;

  // Reads the segmentation of record `row`, or polygons alone. False, and no pixels, when there is none or it
  // cannot be used; run lengths bring their own size.
  bool read(const RecordTable& records, int64_t row) {
    height = records.sizes[2 * row], width = records.sizes[2 * row + 1];
    const int64_t* span = records.spans + 2 * row;
    JsonCursor cursor(records.text + span[0], records.text + span[1]);
    bool fine = false;
    try {
      fine = (cursor.peek() == '[' || find(cursor)) && segmentation_.read(cursor) && decode();
    } catch (const JsonError&) {
    }
    if (!fine) runs.bounds.clear(), runs.area = 0;
    return fine;
  }

 private:
  // Moves to the value of the last key "segmentation", as Python's reader.
  static bool find(JsonCursor& cursor) {
    const char* value = nullptr;
    if (!cursor.accept('{')) return false;
    do {
      const std::string_view name = cursor.key();
      if (name.find('\\') != std::string_view::npos) return false;  // may spell it
      if (name == "segmentation") value = cursor.at;
      cursor.skip_value();
    } while (cursor.accept(','));
    if (value) cursor.at = value;
    return value != nullptr;
  }

  bool decode() {
    if (segmentation_.code == kRleText || segmentation_.code == kRleList) {
      height = segmentation_.height, width = segmentation_.width;
      return runs.decode(segmentation_.rle()) == kRleValid;
    }
    if (!rasterizer_.begin(height, width)) return false;
    int64_t first = 0;
    for (const int64_t end : segmentation_.part_ends) {
      if (!rasterizer_.add(segmentation_.points.data() + first, (end - first) / 2)) return false;
      first = end;
    }
    rasterizer_.finish(runs);
    return true;
  }

  Segmentation segmentation_;
  PolygonRasterizer rasterizer_;
};

}  // namespace mrb
