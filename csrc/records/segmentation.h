// The segmentation of a record as JSON: polygons, run lengths as compressed text or as a list, or an empty
// list.
#pragma once

#include <vector>

#include "../evaluation/rle.h"
#include "json_cursor.h"

namespace mrb {

constexpr double kMaxCoordinate = 1 << 20;  // as MAX_COORDINATE of structures/mask_instances.py

// Codes of AnnotationColumns.segmentation (data/records/columns.py).
enum SegmentationCode : uint8_t { kNoMask = 0, kPolygons, kRleText, kRleList, kEmptyMask };

struct Segmentation {
  SegmentationCode code = kNoMask;
  std::vector<double> points;      // x, y, x, y, ... of all polygons
  std::vector<int64_t> part_ends;  // values of `points` up to the end of each polygon
  std::vector<uint8_t> counts;     // compressed text
  int64_t height = 0, width = 0;   // of run lengths

  // Reads the value at the cursor. False for whatever needs the rule of data/records: polygons of fewer than
  // three points, odd or far values, other types; the cursor is then somewhere inside the value. Whether run
  // lengths describe a mask is for `Runs::decode` to say.
  bool read(JsonCursor& cursor) {
    points.clear();
    part_ends.clear();
    counts.clear();
    const char c = cursor.peek();
    if (c == '[') return read_polygons(cursor);
    return c == '{' && read_runs(cursor);
  }

  RleText rle() const { return {counts.data(), static_cast<int64_t>(counts.size()), height, width}; }

 private:
  bool read_polygons(JsonCursor& cursor) {
    cursor.expect('[', "polygons");
    code = kEmptyMask;
    if (cursor.accept(']')) return true;
    code = kPolygons;
    do {
      if (cursor.peek() != '[') return false;
      cursor.expect('[', "a polygon");
      const size_t first = points.size();
      do {
        if (!cursor.at_number()) return false;
        const JsonNumber number = cursor.number("a coordinate");
        if (!(std::fabs(number.value) <= kMaxCoordinate)) return false;
        points.push_back(number.value);
      } while (cursor.accept(','));
      cursor.expect(']', "',' or ']'");
      const size_t values = points.size() - first;
      if (values < 6 || values % 2) return false;
      part_ends.push_back(static_cast<int64_t>(points.size()));
    } while (cursor.accept(','));
    cursor.expect(']', "',' or ']'");
    return true;
  }

  bool read_runs(JsonCursor& cursor) {
    cursor.expect('{', "run lengths");
    if (cursor.accept('}')) return false;
    bool has_size = false, has_counts = false;
    do {
      const std::string_view name = cursor.key();
      if (name == "size") {
        if (has_size || cursor.peek() != '[') return false;
        cursor.expect('[', "a size");
        if (!read_whole(cursor, &height) || !cursor.accept(',') || !read_whole(cursor, &width) ||
            !cursor.accept(']') || height < 1 || width < 1)
          return false;
        has_size = true;
      } else if (name == "counts") {
        if (has_counts) return false;
        has_counts = true;
        if (!(cursor.peek() == '"' ? read_text(cursor) : cursor.peek() == '[' && read_list(cursor)))
          return false;
      } else {
        if (name.find('\\') != std::string_view::npos) return false;
        cursor.skip_value();
      }
    } while (cursor.accept(','));
    cursor.expect('}', "',' or '}'");
    return has_size && has_counts;
  }

  static bool read_whole(JsonCursor& cursor, int64_t* out) {
    if (!cursor.at_number()) return false;
    const JsonNumber number = cursor.number("a whole number");
    *out = number.integer;
    return number.whole;
  }

  // The only escape that compressed text needs is that of the backslash.
  bool read_text(JsonCursor& cursor) {
    code = kRleText;
    bool escaped = false;
    const std::string_view text = cursor.text("compressed run lengths", &escaped);
    return append_unescaped(text, escaped, counts);
  }

  bool read_list(JsonCursor& cursor) {
    code = kRleList;
    cursor.expect('[', "run lengths");
    if (cursor.accept(']')) return true;
    int64_t before_last = 0, last = 0, count = 0;
    do {
      int64_t run = 0;
      if (!read_whole(cursor, &run) || run < 0 || run > kMaxMaskPixels) return false;
      append_rle_length(count > 2 ? run - before_last : run, counts);
      before_last = last, last = run, ++count;
    } while (cursor.accept(','));
    cursor.expect(']', "',' or ']'");
    return true;
  }

 public:
  // Appends a text of JSON with "\\" for a backslash; false for other escapes.
  static bool append_unescaped(std::string_view text, bool escaped, std::vector<uint8_t>& out) {
    if (!escaped) return out.insert(out.end(), text.begin(), text.end()), true;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\\' && text[++i] != '\\') return false;  // text() has checked that one follows
      out.push_back(static_cast<uint8_t>(text[i]));
    }
    return true;
  }
};

}  // namespace mrb
