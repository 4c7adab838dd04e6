// A stand-in for the CUDA driver, built as libcuda.so.1: one GPU of compute capability FAKE_CAPABILITY, memory that is the CPU's.
//
// Launching a kernel writes what it was given: source + 1000 * first integer + second integer + grid.x, and counts launches.

#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" {
static int capability() { return std::atoi(std::getenv("FAKE_CAPABILITY")); }
int cuInit(unsigned) { return 0; }
int cuDeviceGetCount(int* count) { return *count = capability() != 0, 0; }
int cuDeviceGet(int* device, int) { return *device = 0, 0; }
int cuDeviceGetAttribute(int* value, int which, int) { return *value = which == 75 ? capability() / 10 : capability() % 10, 0; }
int cuDeviceGetName(char* name, int size, int) { return std::strncpy(name, "Fake GPU", size), 0; }
int cuCtxGetDevice(int* device) { return *device = 0, 0; }
int cuCtxGetCurrent(void** context) { return *context = reinterpret_cast<void*>(1), 0; }
int cuModuleLoadData(void** module, const void* image) { return *module = const_cast<void*>(image), 0; }
int cuModuleGetFunction(void** function, void* module, const char*) { return *function = module, 0; }
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuGetErrorString(int, const char** text) { return *text = "launch failed", 0; }
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned shared, void*,
                   void** arguments, void**) {
  if (std::memcmp(function, "image90", 7) != 0 && std::memcmp(function, "image80", 7) != 0) return 719;
  if (threads != 128 || shared != 65536 || y != 3 || z != 1) return 719;
  const float* source = *static_cast<float**>(arguments[0]);
  float* target = *static_cast<float**>(arguments[1]);
  const int32_t first = *static_cast<int32_t*>(arguments[2]), second = *static_cast<int32_t*>(arguments[3]);
  if (*static_cast<uint64_t*>(arguments[4]) != 0 || *static_cast<uint64_t*>(arguments[5]) != 0) return 719;
  for (int i = 0; i < first * second; ++i) target[i] = source[i] + 1000.0f * first + second + x;
  return 0;
}
}
