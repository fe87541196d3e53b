// The columns of one annotation record, for records that are ordinary in every way. All others are left to
// the rule in Python (data/records/annotation.py), which reads them from their span of bytes.
#pragma once

#include <vector>

#include "segmentation.h"

namespace mrb {

struct AnnotationRow {
  const char *begin = nullptr, *end = nullptr;  // of the record
  int64_t id = 0, image_id = 0, category_id = 0, visible = -1;
  double box[4] = {0, 0, 0, 0};
  double area = std::numeric_limits<double>::quiet_NaN();
  float extent[4];
  bool crowd = false, ignore = false, unusual = false;
  SegmentationCode segmentation = kNoMask;
};

class AnnotationReader {
 public:
  AnnotationReader(const char* begin, const char* end) { rows.reserve((end - begin) / kBytesPerRow + 1); }

  std::vector<AnnotationRow> rows;

  void read_object(JsonCursor& cursor) {
    row_ = AnnotationRow();
    std::fill(row_.extent, row_.extent + 4, std::numeric_limits<float>::quiet_NaN());
    seen_ = 0;
    cursor.peek();
    row_.begin = cursor.at;
    cursor.lone_surrogate = false;
    if (cursor.peek() == '{') {
      cursor.expect('{', "an object");
      if (!cursor.accept('}')) {
        do {
          read_field(cursor);
        } while (cursor.accept(','));
        cursor.expect('}', "',' or '}'");
      }
    } else {
      cursor.skip_value();
    }
    row_.end = cursor.at;
    constexpr unsigned kNeeded = 1u << kId | 1u << kImage | 1u << kCategory | 1u << kBox | 1u << kArea;
    row_.unusual |= (seen_ & kNeeded) != kNeeded || cursor.lone_surrogate;
    rows.push_back(row_);
  }

 private:
  enum Field { kId, kImage, kCategory, kBox, kArea, kCrowd, kIgnore, kMask, kKeypoints, kFields };

  static int field_of(std::string_view name) {
    static constexpr std::string_view kNames[] = {"id",      "image_id", "category_id",  "bbox",     "area",
                                                  "iscrowd", "ignore",   "segmentation", "keypoints"};
    for (int field = 0; field < kFields; ++field) {
      if (name == kNames[field]) return field;
    }
    return kFields;
  }

  void read_field(JsonCursor& cursor) {
    const std::string_view name = cursor.key();
    const int field = field_of(name);
    if (field == kFields) {
      row_.unusual |= name.find('\\') != std::string_view::npos;  // may spell a known key
      cursor.skip_value();
      return;
    }
    row_.unusual |= (seen_ >> field & 1) != 0;
    seen_ |= 1u << field;
    cursor.peek();
    const char* value = cursor.at;
    if (read_known(cursor, field)) return;
    row_.unusual = true;
    cursor.at = value;
    cursor.skip_value();
  }

  bool read_known(JsonCursor& cursor, int field) {
    switch (field) {
      case kId:
        return read_id(cursor, &row_.id);
      case kImage:
        return read_id(cursor, &row_.image_id);
      case kCategory:
        return read_id(cursor, &row_.category_id);
      case kBox:
        return read_box(cursor);
      case kArea:
        return read_finite(cursor, &row_.area) && row_.area >= 0;
      case kCrowd:
        return read_flag(cursor, &row_.crowd);
      case kIgnore:
        return read_flag(cursor, &row_.ignore);
      case kMask:
        return read_mask(cursor);
      default:
        return read_keypoints(cursor);
    }
  }

  static bool read_id(JsonCursor& cursor, int64_t* out) {
    if (!cursor.at_number()) return false;
    const JsonNumber number = cursor.number("a number");
    *out = number.integer;
    return number.whole;
  }

  static bool read_finite(JsonCursor& cursor, double* out) {
    if (!cursor.at_number()) return false;
    const JsonNumber number = cursor.number("a number");
    *out = number.value;
    return std::isfinite(number.value) && !number.huge;
  }

  static bool read_flag(JsonCursor& cursor, bool* out) {
    const char c = cursor.peek();
    if (c == 't' || c == 'f') {
      cursor.skip_value();  // nothing else than true and false begins so
      *out = c == 't';
      return true;
    }
    int64_t value = 0;
    if (!read_id(cursor, &value)) return false;
    *out = value == 1;
    return value == 0 || value == 1;
  }

  bool read_box(JsonCursor& cursor) {
    if (!cursor.accept('[')) return false;
    for (int i = 0; i < 4; ++i) {
      if ((i && !cursor.accept(',')) || !read_finite(cursor, row_.box + i)) return false;
    }
    return cursor.accept(']');
  }

  bool read_mask(JsonCursor& cursor) {
    if (!mask_.read(cursor)) return false;
    row_.segmentation = mask_.code;
    if (mask_.code == kPolygons) {
      double low[2] = {mask_.points[0], mask_.points[1]}, high[2] = {low[0], low[1]};
      for (size_t i = 2; i < mask_.points.size(); ++i) {
        low[i % 2] = std::min(low[i % 2], mask_.points[i]);
        high[i % 2] = std::max(high[i % 2], mask_.points[i]);
      }
      for (int i = 0; i < 2; ++i) {
        row_.extent[i] = static_cast<float>(low[i]);
        row_.extent[2 + i] = static_cast<float>(high[i]);
      }
    } else if (mask_.code != kEmptyMask) {
      if (runs_.decode(mask_.rle()) != kRleValid) return false;
      if (runs_.area == 0) return true;
      int64_t box[4];
      runs_.tight_box(mask_.height, box);
      for (int i = 0; i < 4; ++i) {
        row_.extent[i] = static_cast<float>(i < 2 ? box[i] : box[i - 2] + box[i]);
      }
    }
    return true;
  }

  bool read_keypoints(JsonCursor& cursor) {
    if (!cursor.accept('[')) return false;
    int64_t count = 0;
    row_.visible = 0;
    if (cursor.accept(']')) return true;
    do {
      double value = 0;
      if (!read_finite(cursor, &value)) return false;
      row_.visible += ++count % 3 == 0 && value > 0;
    } while (cursor.accept(','));
    return cursor.accept(']') && count % 3 == 0;
  }

  static constexpr int64_t kBytesPerRow =
      128;  // usual records are longer; memory that is not used costs nothing

  AnnotationRow row_;
  Segmentation mask_;
  Runs runs_;
  unsigned seen_ = 0;
};

}  // namespace mrb
