// Enlarges a picture with a model of flashrib in ONNX Runtime, from C++, without its headers: `upscale MODEL.onnx IN.ppm OUT.ppm [LIBRARY.so]`.
//
// With the library that `flashrib build --flavour onnxruntime` wrote beside the model it runs on an NVIDIA GPU, otherwise on the CPU.
// ONNX Runtime is found as libonnxruntime.so (LD_LIBRARY_PATH). With its headers at hand, the numbers below are members of OrtApi.

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

void* const* api;

enum Entry {
  kErrorMessage = 2, kCreateEnv = 3, kCreateSession = 7, kRun = 9, kCreateSessionOptions = 10, kCreateTensor = 49, kTensorData = 51,
  kDimensions = 62, kTensorInfo = 65, kCpuMemoryInfo = 69, kAppendCuda = 204, kCreateCudaOptions = 205, kRegisterLibrary = 228,
};

void fail(const std::string& text) {
  std::fprintf(stderr, "upscale: %s\n", text.c_str());
  std::exit(1);
}

template <typename... Args>
void call(Entry entry, Args... args) {  // every function returns a status: null where all is well
  if (void* status = reinterpret_cast<void* (*)(Args...)>(api[entry])(args...))
    fail(reinterpret_cast<const char* (*)(void*)>(api[kErrorMessage])(status));
}

std::vector<float> read_ppm(const char* path, int64_t& width, int64_t& height) {  // planes of red, green and blue, 0..1
  std::FILE* file = std::fopen(path, "rb");
  if (!file || std::fscanf(file, "P6 %ld %ld 255", &width, &height) != 2 || std::fgetc(file) == EOF) fail(std::string(path) + ": not a PPM file");
  std::vector<uint8_t> bytes(3 * width * height);
  if (std::fread(bytes.data(), 1, bytes.size(), file) != bytes.size()) fail(std::string(path) + ": is truncated");
  std::fclose(file);
  std::vector<float> planes(bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) planes[i % 3 * width * height + i / 3] = bytes[i] / 255.0f;
  return planes;
}

void write_ppm(const char* path, const float* planes, int64_t width, int64_t height) {
  std::FILE* file = std::fopen(path, "wb");
  if (!file) fail(std::string(path) + ": cannot be written");
  std::fprintf(file, "P6\n%ld %ld\n255\n", width, height);
  for (int64_t i = 0; i < 3 * width * height; ++i)
    std::fputc(static_cast<int>(std::lrint(std::clamp(planes[i % 3 * width * height + i / 3], 0.0f, 1.0f) * 255)), file);
  std::fclose(file);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) fail("usage: upscale MODEL.onnx IN.ppm OUT.ppm [LIBRARY.so]");
  void* runtime = dlopen("libonnxruntime.so", RTLD_NOW);
  if (!runtime) fail(dlerror());
  struct Base { const void* (*get_api)(uint32_t); const char* (*version)(); };
  const auto* base = reinterpret_cast<const Base* (*)()>(dlsym(runtime, "OrtGetApiBase"))();
  api = static_cast<void* const*>(base->get_api(17));
  if (!api) fail(std::string("needs ONNX Runtime 1.17 or later, this is ") + base->version());

  void *env, *options, *session, *memory, *input, *output = nullptr, *info;
  call(kCreateEnv, 3, "flashrib", &env);
  call(kCreateSessionOptions, &options);
  if (count > 4) {
    void* cuda;
    call(kCreateCudaOptions, &cuda);
    call(kAppendCuda, options, cuda);
    call(kRegisterLibrary, options, static_cast<const char*>(arguments[4]));
  }
  call(kCreateSession, env, static_cast<const char*>(arguments[1]), options, &session);
  call(kCpuMemoryInfo, 1, 0, &memory);

  int64_t shape[4] = {1, 3, 0, 0};
  std::vector<float> picture = read_ppm(arguments[2], shape[3], shape[2]);
  call(kCreateTensor, memory, static_cast<void*>(picture.data()), 4 * picture.size(), static_cast<const int64_t*>(shape), size_t{4}, 1, &input);
  const char *from = "input", *to = "output";
  call(kRun, session, static_cast<void*>(nullptr), &from, static_cast<void* const*>(&input), size_t{1}, &to, size_t{1}, &output);
  float* planes;
  call(kTensorData, output, &planes);
  call(kTensorInfo, output, &info);
  call(kDimensions, info, shape, size_t{4});
  write_ppm(arguments[3], planes, shape[3], shape[2]);
}
