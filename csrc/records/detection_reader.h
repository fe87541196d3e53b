// One entry of a COCO or LVIS result list, read strictly: what it says is used as it is written, or refused.
#pragma once

#include <string>
#include <vector>

#include "segmentation.h"

namespace mrb {

// Stands in the place of a mask's height for polygons: the text is theirs as JSON, and their image not known.
constexpr int64_t kPolygonText = -1;

struct DetectionRow {
  int64_t image_id = 0, category_id = 0;
  double score = 0, mask_score = std::numeric_limits<double>::quiet_NaN();
  double box[4] = {0, 0, 0, 0};
  int64_t mask[4] = {0, -1, 0, 0};  // begin in the text of all masks, length (-1: no mask), height, width
  int64_t area = 0;                 // pixels of the mask
  int64_t keypoint_values = -1;     // -1: none
  bool has_box = false;
};

class DetectionReader {
 public:
  // `text` is as long as the file that begins at `file`: masks are written where the part of the file is that
  // they are read from, and take no more room than that.
  DetectionReader(const char* begin, const char* end, const char* file, uint8_t* text)
      : file_(file), text_(text), free_(begin - file), limit_(end - file) {
    rows.reserve((end - begin) / kBytesPerRow + 1);
  }

  std::vector<DetectionRow> rows;
  std::vector<double> keypoints;  // of all rows that have some

  void read_object(JsonCursor& cursor) {
    row_ = DetectionRow();
    seen_ = 0;
    polygons_ = false;
    cursor.lone_surrogate = false;
    cursor.expect('{', "an object");
    if (!cursor.accept('}')) {
      do {
        read_field(cursor);
      } while (cursor.accept(','));
      cursor.expect('}', "',' or '}'");
    }
    cursor.require(!cursor.lone_surrogate, "text without lone surrogates (halves of a character)");
    cursor.require(!polygons_ || has(kBox),
                   "segmentation as a compressed RLE (size and counts), or polygons beside a bbox");
    if (!has(kImage)) cursor.refuse("missing image_id");
    if (!has(kCategory)) cursor.refuse("missing category_id");
    if (!has(kScore)) cursor.refuse("missing score");
    if (!has(kBox) && !has(kMask) && !has(kKeypoints))
      cursor.refuse("missing bbox, segmentation or keypoints");
    row_.has_box = has(kBox);
    rows.push_back(row_);
  }

 private:
  enum Field { kImage, kCategory, kScore, kMaskScore, kBox, kMask, kKeypoints, kFields };

  bool has(Field field) const { return (seen_ >> field & 1) != 0; }

  void read_field(JsonCursor& cursor) {
    static constexpr std::string_view kNames[] = {"image_id", "category_id",  "score",    "mask_score",
                                                  "bbox",     "segmentation", "keypoints"};
    const char* start = cursor.at;
    const std::string_view name = cursor.key();
    const auto field = static_cast<Field>(std::find(kNames, kNames + kFields, name) - kNames);
    if (field == kFields) {
      cursor.skip_value();
      return;
    }
    if (has(field)) cursor.at = start;
    cursor.require(!has(field), "every key once in an object");
    seen_ |= 1u << field;
    switch (field) {
      case kImage:
        row_.image_id = whole(cursor, "a whole number as image_id");
        break;
      case kCategory:
        row_.category_id = whole(cursor, "a whole number as category_id");
        break;
      case kScore:
        row_.score = finite(cursor, "a number as score (finite)");
        break;
      case kMaskScore:
        row_.mask_score = finite(cursor, "a number as mask_score (finite)");
        break;
      case kBox:
        read_box(cursor);
        break;
      case kMask:
        read_mask(cursor);
        break;
      default:
        read_keypoints(cursor);
    }
  }

  static const char* malformed_mask(RleProblem problem) {
    static constexpr const char* kTexts[] = {
        "",
        "malformed segmentation (its size is negative or too large)",
        "malformed segmentation (a character that is not of the compressed format)",
        "malformed segmentation (its counts end in the middle of a number)",
        "malformed segmentation (a run of negative length)",
        "malformed segmentation (its runs do not add up to height * width)"};
    return kTexts[problem];
  }

  static double finite(JsonCursor& cursor, const char* what) {
    cursor.peek();
    const char* start = cursor.at;
    const double value = cursor.number(what).value;
    if (!std::isfinite(value)) cursor.at = start;
    cursor.require(std::isfinite(value), what);
    return value;
  }

  // Also written as 7.0 or 1e1.
  static int64_t whole(JsonCursor& cursor, const char* what) {
    cursor.peek();
    const char* start = cursor.at;
    const JsonNumber number = cursor.number(what);
    if (number.whole) return number.integer;
    const bool fits =
        !number.huge && number.value == std::floor(number.value) && std::fabs(number.value) < 9e15;
    if (!fits) cursor.at = start;
    cursor.require(fits, what);
    return static_cast<int64_t>(number.value);
  }

  void read_box(JsonCursor& cursor) {
    const char* what = "bbox as a list of 4 numbers";
    cursor.expect('[', what);
    for (int i = 0; i < 4; ++i) {
      if (i) cursor.expect(',', what);
      row_.box[i] = finite(cursor, what);
    }
    cursor.expect(']', what);
  }

  void read_keypoints(JsonCursor& cursor) {
    const char* what = "keypoints as a list of finite numbers x, y, visibility, ...";
    cursor.expect('[', what);
    row_.keypoint_values = 0;
    if (cursor.accept(']')) return;
    do {
      keypoints.push_back(finite(cursor, what));
      ++row_.keypoint_values;
    } while (cursor.accept(','));
    cursor.expect(']', what);
  }

  void read_mask(JsonCursor& cursor) {
    const char* what = "segmentation as a compressed RLE (size and counts)";
    if (cursor.peek() == '[') return read_polygons(cursor);
    cursor.expect('{', what);
    const char* start = cursor.at - 1;
    bool size = false, counts = false;
    do {
      const std::string_view name = cursor.key();
      if (name == "size") {
        cursor.require(!size, "every key once in an object");
        cursor.expect('[', what);
        row_.mask[2] = whole(cursor, what);
        cursor.expect(',', what);
        row_.mask[3] = whole(cursor, what);
        cursor.expect(']', what);
        size = true;
      } else if (name == "counts") {
        cursor.require(!counts, "every key once in an object");
        read_counts(cursor, what);
        counts = true;
      } else {
        cursor.skip_value();
      }
    } while (cursor.accept(','));
    cursor.expect('}', "',' or '}'");
    cursor.require(size && counts, what);
    cursor.require(row_.mask[2] > 0 && row_.mask[3] > 0, "segmentation with a positive height and width");
    const RleText rle{text_ + row_.mask[0], row_.mask[1], row_.mask[2], row_.mask[3]};
    const RleProblem problem = measure_rle(rle, &row_.area);
    if (problem == kRleValid) return;
    cursor.at = start;
    cursor.refuse(malformed_mask(problem));
  }

  // The only escape that compressed counts need is that of the backslash.
  void read_counts(JsonCursor& cursor, const char* what) {
    bool escaped = false;
    const std::string_view text = cursor.text(what, &escaped);
    if (!escaped) return keep(cursor, text);
    row_.mask[0] = free_;
    for (size_t i = 0; i < text.size(); ++i) {
      cursor.require(text[i] != '\\' || text[++i] == '\\', "no other escape than \\\\ in counts");
      cursor.require(free_ < limit_, "an object that ends here");
      text_[free_++] = static_cast<uint8_t>(text[i]);
    }
    row_.mask[1] = free_ - row_.mask[0];
  }

  void read_polygons(JsonCursor& cursor) {
    polygons_ = true;
    const char* start = cursor.at;
    const bool fine = polygon_.read(cursor);
    if (!fine) cursor.at = start;
    cursor.require(fine, "segmentation as polygons of 3 points or more, each a list x, y, x, y, ...");
    keep(cursor, {start, static_cast<size_t>(cursor.at - start)});
    row_.mask[2] = row_.mask[3] = kPolygonText;
  }

  void keep(const JsonCursor& cursor, std::string_view text) {
    const int64_t length = static_cast<int64_t>(text.size());
    cursor.require(length <= limit_ - free_, "an object that ends here");
    std::memcpy(text_ + free_, text.data(), text.size());
    row_.mask[0] = free_, row_.mask[1] = length;
    free_ += length;
  }

  static constexpr int64_t kBytesPerRow =
      64;  // usual entries are longer; memory that is not used costs nothing

  const char* file_;
  uint8_t* text_;
  int64_t free_, limit_;
  DetectionRow row_;
  Segmentation polygon_;
  unsigned seen_ = 0;
  bool polygons_ = false;
};

}  // namespace mrb
