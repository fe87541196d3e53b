// A JSON list of objects read by several threads. The text is cut where an object seems to begin; the cuts
// count only when every part ends exactly where the next one begins, between two objects of the list.
// Otherwise (a cut inside a text or a nested list, or an error) one thread reads the whole list again.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "json_cursor.h"

namespace mrb {

constexpr int64_t kBytesPerPart = 1 << 18;

// Behind `from` the first '{' that follows '}' and ',' (and white space), or `end`.
inline const char* guess_object(const char* from, const char* end) {
  for (const char* at = from; at < end; ++at) {
    at = static_cast<const char*>(std::memchr(at, '}', end - at));
    if (!at) return end;
    JsonCursor next(at + 1, end);
    if (next.accept(',') && next.peek() == '{') return next.at;
  }
  return end;
}

// The part of a list from one object to another. `Reader` is made from both positions and the arguments of
// read_list, and has read_object(JsonCursor&), which reads one object and may throw JsonError.
template <typename Reader>
struct ListPart {
  template <typename... Args>
  ListPart(const char* first, const char* last, const Args&... args)
      : until(last), end(first), reader(first, last, args...) {}

  const char *until, *end;  // `end`: what was read, up to the next object or behind the list
  bool closed = false;      // the end of the list was reached
  std::optional<JsonError> error;
  Reader reader;

  void read(const char* text_end) {
    JsonCursor cursor(end, text_end);
    try {
      while (!closed && cursor.at < until) {
        reader.read_object(cursor);
        closed = !cursor.accept(',');
        if (closed) cursor.expect(']', "',' or the end of the list");
        if (!closed) cursor.peek();
        end = cursor.at;
      }
    } catch (const JsonError& problem) {
      error = problem;
    }
  }
};

// Reads the list whose '[' is at the cursor; leaves the cursor behind its ']' unless the only part has an
// error.
template <typename Reader, typename... Args>
std::vector<ListPart<Reader>> read_list(JsonCursor& cursor, const char* text_end, const Args&... args) {
  std::vector<ListPart<Reader>> parts;
  cursor.expect('[', "a list");
  if (cursor.accept(']')) return parts;
  const char* first = cursor.at;
  const int64_t bytes = text_end - first;
  const int64_t count = std::clamp<int64_t>(bytes / kBytesPerPart, 1, 4 * at::get_num_threads());
  std::vector<const char*> cuts{first};
  for (int64_t i = 1; i < count; ++i) {
    const char* cut = guess_object(std::max(cuts.back(), first + bytes * i / count), text_end);
    if (cut < text_end && cut > cuts.back()) cuts.push_back(cut);
  }
  cuts.push_back(text_end);
  for (size_t i = 0; i + 1 < cuts.size(); ++i) parts.emplace_back(cuts[i], cuts[i + 1], args...);
  at::parallel_for(0, parts.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) parts[i].read(text_end);
  });
  bool fit = parts.back().closed;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    fit = fit && !parts[i].error && !parts[i].closed && parts[i].end == cuts[i + 1];
  }
  if (!fit && parts.size() > 1) {
    parts.clear();
    parts.emplace_back(first, text_end, args...);
    parts[0].read(text_end);
  }
  ListPart<Reader>& last = parts.back();
  cursor.at = last.end;
  if (!last.error && !last.closed)
    last.error = JsonError{"expected ", "a value or the end of the list", text_end};
  return parts;
}

}  // namespace mrb
