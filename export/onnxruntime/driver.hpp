// The CUDA driver, found when the library is registered: nothing of the CUDA toolkit is needed, neither here nor where a model runs.

#pragma once

#include <dlfcn.h>

#include <stdexcept>
#include <string>
#include <type_traits>

namespace {

struct Driver {
  int (*init)(unsigned);
  int (*count)(int*);
  int (*device)(int*, int);
  int (*attribute)(int*, int, int);
  int (*name)(char*, int, int);
  int (*current)(int*);
  int (*context)(void**);
  int (*load)(void**, const void*);
  int (*function)(void**, void*, const char*);
  int (*set)(void*, int, int);
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
  int (*error)(int, const char**);

  static Driver& get() {
    static Driver driver;
    return driver;
  }

  void check(int code, const std::string& what) const {
    if (code == 0) return;
    const char* text = nullptr;
    if (error(code, &text) != 0 || text == nullptr) text = "unknown error";
    throw std::runtime_error(what + ": " + text + " (CUDA " + std::to_string(code) + ")");
  }

  int capability(int index) const {
    int major = 0, minor = 0;
    check(attribute(&major, 75, index), "asking the GPU for its compute capability");
    check(attribute(&minor, 76, index), "asking the GPU for its compute capability");
    return 10 * major + minor;
  }

 private:
  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      throw std::runtime_error(
          "there is no NVIDIA driver on this machine (libcuda.so.1): register this library where there is a GPU; elsewhere the model"
          " runs without it");
    const auto find = [library](auto& pointer, const char* symbol) {
      void* found = dlsym(library, symbol);
      if (found == nullptr) throw std::runtime_error(std::string("the NVIDIA driver has no ") + symbol + ": install a newer one");
      pointer = reinterpret_cast<std::decay_t<decltype(pointer)>>(found);
    };
    find(init, "cuInit");
    find(count, "cuDeviceGetCount");
    find(device, "cuDeviceGet");
    find(attribute, "cuDeviceGetAttribute");
    find(name, "cuDeviceGetName");
    find(current, "cuCtxGetDevice");
    find(context, "cuCtxGetCurrent");
    find(load, "cuModuleLoadData");
    find(function, "cuModuleGetFunction");
    find(set, "cuFuncSetAttribute");
    find(launch, "cuLaunchKernel");
    find(error, "cuGetErrorString");
    check(init(0), "starting the NVIDIA driver");
  }
};

}  // namespace
