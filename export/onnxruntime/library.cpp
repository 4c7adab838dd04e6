// Custom operators for ONNX Runtime's CUDA provider: launches kernels that were compiled ahead of time and lie in this library.
//
// The kernels and the table that says what each operator launches are put into it by the assembler (.incbin); `library.py` writes both. Every operator has fixed numbers and types of inputs and outputs and fixed kernels, so nothing is decided here but
// sizes: shapes, grid and integers are arithmetic on the dimensions of the inputs, in postfix notation.

#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "abi.hpp"
#include "driver.hpp"

#ifndef FLASHRIB_PROVIDER  // the tests name another one
#define FLASHRIB_PROVIDER "CUDAExecutionProvider"
#endif

asm(R"(
.section .rodata
.balign 64
flashrib_table_start: .incbin "table.txt"
flashrib_table_end:
.balign 64
flashrib_images: .incbin "images.bin"
.balign 64
.section .note.GNU-stack,"",@progbits
.text
)");
extern "C" const char flashrib_table_start[] __attribute__((visibility("hidden")));
extern "C" const char flashrib_table_end[] __attribute__((visibility("hidden")));
extern "C" const char flashrib_images[] __attribute__((visibility("hidden")));

namespace {

using Formula = std::vector<std::string>;  // postfix: integers, I.J (dimension J of input I), + - * / (down), ^ (divided and rounded up)
using Shape = std::vector<int64_t>;

struct Image {  // a kernel, compiled for one compute capability
  int capability;
  bool exact;  // machine code: runs on this major version, from this minor version on; otherwise PTX, on everything later
  size_t offset;
  std::string entry;
  unsigned threads, shared;
  Formula grid[3];
  std::vector<std::string> parameters;  // of the kernel: iN, oN, or nN, an integer
  std::vector<Formula> integers;

  bool runs_on(int device) const {
    return capability <= device && (!exact || capability / 10 == device / 10);
  }
};

struct Launch {
  std::vector<Image> images;

  const Image* image_for(int device) const {  // the nearest below; machine code before PTX
    const Image* best = nullptr;
    for (const Image& image : images)
      if (image.runs_on(device) && (!best || image.exact > best->exact || (image.exact == best->exact && image.capability > best->capability)))
        best = &image;
    return best;
  }
};

struct Operator : CustomOp {
  std::string op;
  std::vector<int> inputs, outputs;          // element types, by ONNX's numbers
  std::vector<std::vector<Formula>> shapes;  // of the outputs
  std::vector<Launch> launches;              // one after the other
};

constexpr int64_t kUnknown = INT64_MIN;

int64_t evaluate(const Formula& formula, const std::vector<Shape>& shapes) {
  std::vector<int64_t> stack;
  for (const std::string& token : formula) {
    const size_t point = token.find('.');
    if (point != std::string::npos) {
      const Shape& shape = shapes.at(std::stoul(token));
      const int64_t side = shape.at(std::stoul(token.substr(point + 1)));
      if (side < 0) return kUnknown;
      stack.push_back(side);
    } else if (token.find_first_of("0123456789") != std::string::npos) {
      stack.push_back(std::stoll(token));
    } else {
      const int64_t b = stack.back();
      stack.pop_back();
      int64_t& a = stack.back();
      switch (token[0]) {
        case '+': a += b; break;
        case '-': a -= b; break;
        case '*': a *= b; break;
        case '/': a /= b; break;
        default: a = (a + b - 1) / b;
      }
    }
  }
  return stack.at(0);
}

Formula formula(const std::string& text) {
  Formula tokens;
  std::string token;
  std::istringstream stream(text);
  while (std::getline(stream, token, ',')) tokens.push_back(token);
  return tokens;
}

// Lines: a keyword and its words.
std::vector<std::unique_ptr<Operator>> read_table() {
  std::vector<std::unique_ptr<Operator>> table;
  std::istringstream stream(std::string(flashrib_table_start, flashrib_table_end));
  std::string line, word;
  Image image;
  while (std::getline(stream, line)) {
    std::istringstream words(line);
    words >> word;
    if (word == "op") {
      table.push_back(std::make_unique<Operator>());
      words >> table.back()->op;
      continue;
    }
    Operator& op = *table.at(table.size() - 1);
    if (word == "inputs") {
      for (int type; words >> type;) op.inputs.push_back(type);
    } else if (word == "output") {
      int type;
      words >> type;
      op.outputs.push_back(type);
      op.shapes.emplace_back();
      while (words >> word) op.shapes.back().push_back(formula(word));
    } else if (word == "launch") {
      op.launches.emplace_back();
    } else if (word == "parameters") {  // of the images that follow
      image.parameters.clear();
      while (words >> word) image.parameters.push_back(word);
    } else if (word == "integers") {  // likewise
      image.integers.clear();
      while (words >> word) image.integers.push_back(formula(word));
    } else if (word == "image") {
      words >> image.capability >> image.exact >> image.offset >> image.threads >> image.shared >> image.entry;
      for (Formula& side : image.grid) {
        words >> word;
        side = formula(word);
      }
      op.launches.at(op.launches.size() - 1).images.push_back(image);
    } else {
      throw std::runtime_error("the table of kernels is damaged: build this library anew");
    }
  }
  return table;
}

std::string targets_of(const Operator& op) {
  std::string text;
  for (const Image& image : op.launches.at(0).images)
    if (image.exact) text += (text.empty() ? "sm" : ", sm") + std::to_string(image.capability);
  return text;
}

std::string other_gpu(const Operator& op, int index, int capability) {
  char name[128] = "";
  Driver::get().name(name, sizeof name, index);
  return "this library is for GPUs of " + targets_of(op) + ", but GPU " + std::to_string(index) + ", " + name + ", is sm" +
         std::to_string(capability) + ": build it with --target sm" + std::to_string(capability);
}

Shape shape_of(const void* info) {
  size_t rank = 0;
  must(kGetDimensionsCount, info, &rank);
  Shape shape(rank);
  must(kGetDimensions, info, shape.data(), rank);
  return shape;
}

struct Info {  // released at the end of a scope
  void* info = nullptr;
  ~Info() {
    if (info) reinterpret_cast<void (*)(void*)>(api[kReleaseTypeAndShape])(info);
  }
};

struct Loaded {
  void* function;
  const Image* image;
};

// The kernel of a launch on the current GPU, loaded on first use. Contexts of a process live until it ends, and so do kernels.
Loaded loaded(const Operator& op, const Launch& launch) {
  static std::mutex mutex;
  static std::map<std::pair<const Launch*, void*>, Loaded> known;
  const Driver& driver = Driver::get();
  void* context = nullptr;
  driver.check(driver.context(&context), "asking for the CUDA context");
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = known.find({&launch, context});
  if (found != known.end()) return found->second;
  int index = 0;
  driver.check(driver.current(&index), "asking for the current GPU");
  const int capability = driver.capability(index);
  const Image* image = launch.image_for(capability);
  if (image == nullptr) throw std::runtime_error(other_gpu(op, index, capability));
  void* module = nullptr;
  Loaded kernel{nullptr, image};
  driver.check(driver.load(&module, flashrib_images + image->offset), "loading the kernel of " + op.op);
  driver.check(driver.function(&kernel.function, module, image->entry.c_str()), "loading the kernel of " + op.op);
  if (image->shared > 48 << 10)  // more than a kernel has without asking
    driver.check(driver.set(kernel.function, 8, static_cast<int>(image->shared)), "shared memory of " + op.op);
  known.emplace(std::make_pair(&launch, context), kernel);
  return kernel;
}

void start(const Operator& op, const Launch& launch, const std::vector<Shape>& shapes, std::vector<void*>& pointers, void* stream) {
  const Loaded kernel = loaded(op, launch);
  const Image& image = *kernel.image;
  std::vector<int32_t> integers;
  for (const Formula& value : image.integers) {
    const int64_t number = evaluate(value, shapes);
    if (number > INT32_MAX) throw std::runtime_error(op.op + ": the map is too large for one launch: use smaller tiles");
    integers.push_back(static_cast<int32_t>(number));
  }
  unsigned grid[3];
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t side = evaluate(image.grid[axis], shapes);
    if (side == 0) return;  // an empty batch
    if (side > (axis == 0 ? INT32_MAX : 65535)) throw std::runtime_error(op.op + ": the map is too large for one launch: use smaller tiles");
    grid[axis] = static_cast<unsigned>(side);
  }
  std::vector<void*> arguments;
  for (const std::string& parameter : image.parameters) {
    const size_t number = std::stoul(parameter.substr(1));
    if (parameter[0] == 'n') arguments.push_back(&integers.at(number));
    else arguments.push_back(&pointers.at(number + (parameter[0] == 'o' ? op.inputs.size() : 0)));
  }
  uint64_t none = 0;  // Triton's own two parameters: memory that these kernels do not use
  arguments.push_back(&none);
  arguments.push_back(&none);
  const Driver& driver = Driver::get();
  driver.check(driver.launch(kernel.function, grid[0], grid[1], grid[2], image.threads, 1, 1, image.shared, stream, arguments.data(),
                             nullptr),
               "launching " + op.op);
}

void run(const Operator& op, void* context) {
  std::vector<Shape> shapes(op.inputs.size());
  std::vector<void*> pointers;
  pointers.reserve(op.inputs.size() + op.outputs.size());
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    void *value = nullptr, *data = nullptr;
    must(kContextGetInput, context, i, &value);
    Info info;
    must(kGetTensorTypeAndShape, value, &info.info);
    shapes[i] = shape_of(info.info);
    must(kGetTensorMutableData, value, &data);
    pointers.push_back(data);
  }
  for (size_t i = 0; i < op.outputs.size(); ++i) {
    Shape shape;
    for (const Formula& side : op.shapes[i]) shape.push_back(evaluate(side, shapes));
    void *value = nullptr, *data = nullptr;
    must(kContextGetOutput, context, i, static_cast<const int64_t*>(shape.data()), shape.size(), &value);
    must(kGetTensorMutableData, value, &data);
    pointers.push_back(data);
  }
  void* stream = nullptr;
  must(kContextGetStream, static_cast<const void*>(context), &stream);
  for (const Launch& launch : op.launches) start(op, launch, shapes, pointers, stream);
}


void infer(const Operator& op, void* context) {  // shapes of the outputs, where all sides that they need are known
  std::vector<Shape> shapes(op.inputs.size());
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    void* info = nullptr;  // belongs to the context
    must(kInferGetInput, context, i, &info);
    shapes[i] = shape_of(info);
  }
  for (size_t i = 0; i < op.outputs.size(); ++i) {
    Shape shape;
    for (const Formula& side : op.shapes[i]) {
      const int64_t length = side.empty() ? kUnknown : evaluate(side, shapes);
      if (length == kUnknown) return;
      shape.push_back(length);
    }
    Info info;
    must(kCreateTypeAndShape, &info.info);
    must(kSetElementType, info.info, op.outputs[i]);
    must(kSetDimensions, info.info, static_cast<const int64_t*>(shape.data()), shape.size());
    must(kInferSetOutput, context, i, static_cast<const void*>(info.info));
  }
}

template <typename Work>
Status* guarded(const Work& work) {
  try {
    work();
    return nullptr;
  } catch (const Failed& failed) {
    return failed.status;
  } catch (const std::exception& error) {
    return failure(std::string("flashrib: ") + error.what());
  }
}

const Operator& row(const CustomOp* op) { return *static_cast<const Operator*>(op); }

void describe(Operator& op) {
  CustomOp& c = op;
  c.version = kApi;
  c.name = [](const CustomOp* o) { return row(o).op.c_str(); };
  c.provider = [](const CustomOp*) { return FLASHRIB_PROVIDER; };
  c.input_type = [](const CustomOp* o, size_t i) { return row(o).inputs[i]; };
  c.input_count = [](const CustomOp* o) { return row(o).inputs.size(); };
  c.output_type = [](const CustomOp* o, size_t i) { return row(o).outputs[i]; };
  c.output_count = [](const CustomOp* o) { return row(o).outputs.size(); };
  c.destroy = [](void*) {};
  c.input_characteristic = c.output_characteristic = c.input_memory = [](const CustomOp*, size_t) { return 0; };
  c.create_v2 = [](const CustomOp* o, const void*, const void*, void** kernel) -> Status* {
    *kernel = const_cast<CustomOp*>(o);  // the operator itself: a node has no state
    return nullptr;
  };
  c.compute_v2 = [](void* kernel, void* context) { return guarded([&] { run(row(static_cast<CustomOp*>(kernel)), context); }); };
  c.infer = [](const CustomOp* o, void* context) { return guarded([&] { infer(row(o), context); }); };
  c.start_version = [](const CustomOp*) { return 1; };
  c.end_version = [](const CustomOp*) { return INT32_MAX; };
}

// Refuses a machine none of whose GPUs has kernels here.
void check_gpus(const Operator& op) {
  const Driver& driver = Driver::get();
  int count = 0;
  driver.check(driver.count(&count), "counting GPUs");
  if (count == 0) throw std::runtime_error("the NVIDIA driver finds no GPU on this machine");
  for (int index = 0; index < count; ++index)
    if (op.launches.at(0).image_for(driver.capability(index))) return;
  throw std::runtime_error(other_gpu(op, 0, driver.capability(0)));
}

}  // namespace

// What ONNX Runtime calls: SessionOptions.register_custom_ops_library, SessionOptions::RegisterCustomOpsLibrary.
extern "C" __attribute__((visibility("default"))) Status* RegisterCustomOps(void* options, const ApiBase* base) {
  api = static_cast<void* const*>(base->get_api(kApi));
  if (api == nullptr) {
    api = static_cast<void* const*>(base->get_api(1));  // enough to say so
    return failure(std::string("flashrib: this library needs ONNX Runtime 1.17 or later, this is ") + base->version());
  }
  return guarded([&] {
    static const std::vector<std::unique_ptr<Operator>> table = read_table();
    check_gpus(*table.at(0));
    static void* domain = nullptr;
    if (domain == nullptr) {
      void* made = nullptr;
      must(kCreateCustomOpDomain, "flashrib", &made);
      for (const auto& op : table) {
        describe(*op);
        must(kCustomOpDomainAdd, made, static_cast<const CustomOp*>(op.get()));
      }
      domain = made;
    }
    must(kAddCustomOpDomain, options, domain);
  });
}
