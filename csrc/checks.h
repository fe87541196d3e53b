// Argument checks shared by the CPU and CUDA kernels. Every message names the operation, the argument, what
// was expected and what was given; shapes and values raise ValueError in Python, data types TypeError.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <string>

namespace mrb {

inline std::string shape_text(const at::Tensor& tensor) {
  std::ostringstream text;
  text << "(";
  for (int64_t d = 0; d < tensor.dim(); ++d) text << (d ? ", " : "") << tensor.size(d);
  text << (tensor.dim() == 1 ? ",)" : ")");
  return text.str();
}

// `sizes` holds the expected sizes, -1 for any; `layout` names them for the message, such as "(N, 4)".
inline void check_shape(const char* op, const char* name, const at::Tensor& tensor,
                        std::initializer_list<int64_t> sizes, const char* layout) {
  bool fits = tensor.defined() && tensor.dim() == static_cast<int64_t>(sizes.size());
  int64_t d = 0;
  for (int64_t size : sizes) {
    if (!fits) break;
    fits = size < 0 || tensor.size(d) == size;
    ++d;
  }
  TORCH_CHECK_VALUE(fits, op, ": ", name, " must have shape ", layout, ", got ",
                    tensor.defined() ? shape_text(tensor) : "an undefined tensor");
}

inline void check_floating(const char* op, const char* name, const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16,
                   op, ": ", name, " must be float32, float64, float16 or bfloat16, got ", type);
}

inline void check_dtype(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType expected) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == expected, op, ": ", name, " must be ", expected, ", got ",
                   tensor.scalar_type());
}

inline void check_device(const char* op, const char* name, const at::Tensor& tensor, const char* other_name,
                         const at::Tensor& other) {
  TORCH_CHECK_VALUE(tensor.device() == other.device(), op, ": ", name, " must be on ", other.device(),
                    " like ", other_name, ", got ", tensor.device());
}

inline void check_range(const char* op, const char* name, int64_t value, int64_t low, int64_t high) {
  TORCH_CHECK_VALUE(value >= low && value <= high, op, ": ", name, " must be from ", low, " to ", high,
                    ", got ", value);
}

inline void check_fraction(const char* op, const char* name, double value) {
  TORCH_CHECK_VALUE(value >= 0.0 && value <= 1.0, op, ": ", name, " must be from 0 to 1, got ", value);
}

}  // namespace mrb
