// A strict cursor over JSON text (RFC 8259, and Python's NaN and Infinity): every byte that it passes is
// checked, nothing behind the end is read, nesting is bounded and costs no recursion.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

namespace mrb {

constexpr int kMaxJsonDepth = 128;

// Thrown where the text is no JSON, or not what a reader takes: `prefix` and `message` say what is wrong at
// `at`.
struct JsonError {
  const char *prefix, *message, *at;

  std::string text() const { return std::string(prefix) + message; }
};

struct JsonNumber {
  double value = 0;
  int64_t integer = 0;  // where `whole`
  bool whole = false;   // written without fraction and exponent, and within 64 bits
  bool huge = false;    // written so, but beyond 64 bits
};

class JsonCursor {
 public:
  JsonCursor(const char* begin, const char* end) : at(begin), end_(end) {}

  const char* at;
  bool lone_surrogate = false;  // set by text() and skip_value(), never cleared here

  [[noreturn]] void fail(const char* expected) const { throw JsonError{"expected ", expected, at}; }
  [[noreturn]] void refuse(const char* message) const { throw JsonError{"", message, at}; }
  void require(bool fine, const char* expected) const {
    if (!fine) fail(expected);
  }
  bool done() const { return at == end_; }
  bool at_number() {
    const char c = peek();
    return c == '-' || is_digit(c);
  }
  // The next byte behind white space, 0 at the end.
  char peek() {
    while (at < end_ && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) ++at;
    return at < end_ ? *at : '\0';
  }
  bool accept(char c) {
    if (at < end_ && *at == c) return ++at, true;
    if (peek() != c || at == end_) return false;
    return ++at, true;
  }
  void expect(char c, const char* expected) {
    if (!accept(c)) fail(expected);
  }

  // The text between quotes as it is written, with `escaped` set where it holds a backslash.
  std::string_view text(const char* expected, bool* escaped = nullptr) {
    expect('"', expected);
    const char* first = at;
    const bool any = skip_text();
    if (escaped) *escaped = any;
    return {first, static_cast<size_t>(at - first - 1)};
  }

  // A key and the colon behind it; a key with escapes is returned as it is written.
  std::string_view key() {
    const std::string_view name = text("a key in quotes");
    expect(':', "':'");
    return name;
  }

  JsonNumber number(const char* expected);

  void skip_value();

 private:
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  bool skip_digits() {
    const char* first = at;
    while (at < end_ && is_digit(*at)) ++at;
    return at > first;
  }
  bool accept_word(std::string_view word) {
    if (static_cast<size_t>(end_ - at) < word.size() || std::string_view(at, word.size()) != word)
      return false;
    at += word.size();
    return true;
  }
  bool skip_text();
  void skip_escape();
  void skip_code_point();
  int hex_code();

  const char* end_;
};

// From behind the opening quote to behind the closing one; returns whether there is a backslash.
inline bool JsonCursor::skip_text() {
  constexpr uint64_t kOnes = 0x0101010101010101u, kHigh = kOnes << 7;
  bool escaped = false;
  for (;;) {
    while (end_ - at >= 8) {  // eight bytes at a time while they are ordinary
      uint64_t word;
      std::memcpy(&word, at, 8);
      const uint64_t quote = word ^ (kOnes * '"'), slash = word ^ (kOnes * '\\');
      const uint64_t odd =
          ((quote - kOnes) & ~quote) | ((slash - kOnes) & ~slash) | ((word - kOnes * 0x20) & ~word) | word;
      if (odd & kHigh) break;
      at += 8;
    }
    require(at < end_, "the end of a text");
    const unsigned char c = *at;
    if (c == '"') return ++at, escaped;
    if (c == '\\') {
      escaped = true;
      skip_escape();
    } else if (c >= 0x80) {
      skip_code_point();
    } else {
      require(c >= 0x20, "no control character in a text");
      ++at;
    }
  }
}

inline int JsonCursor::hex_code() {
  require(end_ - at >= 6 && at[1] == 'u', "an escape of four hexadecimal digits");
  int code = 0;
  for (int i = 2; i < 6; ++i) {
    const char c = at[i], low = static_cast<char>(c | 0x20);
    require(is_digit(c) || (low >= 'a' && low <= 'f'), "an escape of four hexadecimal digits");
    code = code * 16 + (is_digit(c) ? c - '0' : low - 'a' + 10);
  }
  at += 6;
  return code;
}

inline void JsonCursor::skip_escape() {
  require(end_ - at >= 2, "the end of a text");
  if (at[1] != 'u') {
    require(std::strchr("\"\\/bfnrt", at[1]) != nullptr && at[1] != '\0', "a known escape");
    at += 2;
    return;
  }
  const int code = hex_code();
  if (code < 0xD800 || code > 0xDFFF) return;
  const bool paired = code < 0xDC00 && end_ - at >= 6 && at[0] == '\\' && at[1] == 'u';
  if (!paired) {
    lone_surrogate = true;
    return;
  }
  const char* second = at;
  const int low = hex_code();
  if (low >= 0xDC00 && low <= 0xDFFF) return;
  lone_surrogate = true;
  at = second;
}

// One code point of UTF-8 of two bytes or more.
inline void JsonCursor::skip_code_point() {
  const unsigned char lead = *at;
  const int length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  bool fine = lead >= 0xC2 && lead <= 0xF4 && end_ - at >= length;
  int code = lead & (0xFF >> (length + 1));
  for (int i = 1; fine && i < length; ++i) {
    const unsigned char next = at[i];
    fine = (next & 0xC0) == 0x80;
    code = code << 6 | (next & 0x3F);
  }
  fine = fine && (length < 3 || code >= (length == 3 ? 0x800 : 0x10000)) && code <= 0x10FFFF;
  require(fine, "text in UTF-8");
  if (code >= 0xD800 && code <= 0xDFFF) lone_surrogate = true;
  at += length;
}

// Position of the first digit that is not 0, counted from the decimal point, with the exponent added: whether
// a number beyond float64 is tiny (0 in Python) or huge (infinity).
inline int64_t decimal_magnitude(std::string_view word) {
  const size_t mark = std::min(word.find_first_of("eE"), word.size());
  const size_t point = std::min(word.find('.'), mark), first = word.find_first_of("123456789");
  int64_t exponent = 0;
  if (mark < word.size()) {
    const char* sign = word.data() + mark + 1;
    const auto error = std::from_chars(sign + (*sign == '+'), word.data() + word.size(), exponent).ec;
    constexpr int64_t kFar = int64_t{1} << 60;
    if (error != std::errc()) exponent = *sign == '-' ? -kFar : kFar;
    exponent = std::clamp(exponent, -kFar, kFar);
  }
  return static_cast<int64_t>(point) - static_cast<int64_t>(first) + exponent;
}

// Rounded as in Python. Exact for up to 2^53 and 22 decimal places by one division, else by from_chars.
inline JsonNumber JsonCursor::number(const char* expected) {
  static constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  peek();
  const char* first = at;
  const bool negative = at < end_ && *at == '-';
  if (negative) ++at;
  if (at < end_ && (*at == 'N' || *at == 'I')) {
    JsonNumber special;
    if (accept_word("Infinity")) {
      special.value = negative ? -HUGE_VAL : HUGE_VAL;
      return special;
    }
    special.value = std::numeric_limits<double>::quiet_NaN();
    if (!negative && accept_word("NaN")) return special;
  }
  uint64_t digits = 0;
  const char* start = at;
  for (; at < end_ && is_digit(*at); ++at) digits = digits * 10 + static_cast<uint64_t>(*at - '0');
  int64_t length = at - start, places = 0;
  if (length == 0 || (length > 1 && *start == '0')) {
    at = first;
    fail(expected);
  }
  JsonNumber result;
  if (at < end_ && *at == '.') {
    const char* point = ++at;
    for (; at < end_ && is_digit(*at); ++at) digits = digits * 10 + static_cast<uint64_t>(*at - '0');
    places = at - point;
    require(places > 0, "a digit behind the decimal point");
    length += places;
  } else if (at == end_ || (*at != 'e' && *at != 'E')) {
    if (length <= 18) {
      result.integer = negative ? -static_cast<int64_t>(digits) : static_cast<int64_t>(digits);
      result.whole = true;
    } else {
      result.whole = std::from_chars(first, at, result.integer).ec == std::errc();
      result.huge = !result.whole;
    }
  }
  bool exponent = false;
  if (at < end_ && (*at == 'e' || *at == 'E')) {
    exponent = true;
    ++at;
    if (at < end_ && (*at == '+' || *at == '-')) ++at;
    require(skip_digits(), "a digit in the exponent");
  }
  if (!exponent && length <= 18 && digits <= (uint64_t{1} << 53) && places <= 22) {
    const double value = static_cast<double>(digits) / kPowers[places];
    result.value = negative && !(result.whole && digits == 0) ? -value : value;  // the integer -0 is 0
    return result;
  }
  const auto [rest, error] = std::from_chars(first, at, result.value);
  if (error == std::errc::result_out_of_range) {
    result.value = (decimal_magnitude({start, static_cast<size_t>(at - start)}) < 0 ? 0.0 : HUGE_VAL) *
                   (negative ? -1.0 : 1.0);
  }
  return result;
}

inline void JsonCursor::skip_value() {
  char closing[kMaxJsonDepth];
  int depth = 0;
  for (;;) {
    const char c = peek();
    bool opened = false;
    if (c == '{' || c == '[') {
      require(depth < kMaxJsonDepth, "nesting of at most 128 levels");
      ++at;
      closing[depth++] = c == '{' ? '}' : ']';
      opened = !accept(closing[depth - 1]);
      if (!opened) --depth;
    } else if (c == '"') {
      ++at;
      skip_text();
    } else if (c == '-' || is_digit(c)) {
      number("a value");
    } else {
      require(accept_word("true") || accept_word("false") || accept_word("null") || accept_word("NaN") ||
                  accept_word("Infinity"),
              "a value");
    }
    while (!opened) {
      if (depth == 0) return;
      opened = accept(',');
      if (opened) break;
      const char close = closing[--depth];
      expect(close, close == '}' ? "',' or '}'" : "',' or ']'");
    }
    if (closing[depth - 1] == '}') key();
  }
}

}  // namespace mrb
