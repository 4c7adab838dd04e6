// The few facts of ONNX Runtime's C API that `library.cpp` uses, by their numbers, so that no header of it is needed.
//
// The API is a table of functions that is only ever added to, so they hold from version 1.17 (API 17) on.

#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>

namespace {

constexpr uint32_t kApi = 17;  // the first with everything below
struct Status;                 // null: fine
struct ApiBase {
  const void* (*get_api)(uint32_t version);  // null where ONNX Runtime is older
  const char* (*version)();
};
enum Entry : size_t {  // positions in the table of functions
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kCreateTypeAndShape = 57,
  kSetElementType = 58,
  kSetDimensions = 59,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kContextGetInput = 90,
  kContextGetOutput = 91,
  kReleaseTypeAndShape = 99,
  kContextGetStream = 193,
  kInferGetInput = 268,
  kInferSetOutput = 270,
};
void* const* api = nullptr;

template <typename... Args>
Status* call(Entry entry, Args... args) {
  return reinterpret_cast<Status* (*)(Args...)>(api[entry])(args...);
}

Status* failure(const std::string& text, int code = 1 /* ORT_FAIL */) {
  return reinterpret_cast<Status* (*)(int, const char*)>(api[kCreateStatus])(code, text.c_str());
}

struct Failed : std::exception {
  Status* status;
  explicit Failed(Status* s) : status(s) {}
};

template <typename... Args>
void must(Entry entry, Args... args) {
  if (Status* status = call(entry, args...)) throw Failed(status);
}

struct CustomOp {  // as ONNX Runtime reads it, up to API 17
  uint32_t version;
  void* (*create)(const CustomOp*, const void*, const void*);
  const char* (*name)(const CustomOp*);
  const char* (*provider)(const CustomOp*);
  int (*input_type)(const CustomOp*, size_t);
  size_t (*input_count)(const CustomOp*);
  int (*output_type)(const CustomOp*, size_t);
  size_t (*output_count)(const CustomOp*);
  void (*compute)(void*, void*);
  void (*destroy)(void*);
  int (*input_characteristic)(const CustomOp*, size_t);
  int (*output_characteristic)(const CustomOp*, size_t);
  int (*input_memory)(const CustomOp*, size_t);
  int (*variadic_input_least)(const CustomOp*);
  int (*variadic_input_same)(const CustomOp*);
  int (*variadic_output_least)(const CustomOp*);
  int (*variadic_output_same)(const CustomOp*);
  Status* (*create_v2)(const CustomOp*, const void*, const void*, void**);
  Status* (*compute_v2)(void*, void*);
  Status* (*infer)(const CustomOp*, void*);
  int (*start_version)(const CustomOp*);
  int (*end_version)(const CustomOp*);
  void* later[4];
};

}  // namespace
