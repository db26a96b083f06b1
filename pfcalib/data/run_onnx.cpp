// Runs an ONNX model with one float input and one float output through the C library of ONNX
// Runtime, one row a call and on one thread, as an event of an experiment does.
//
//   run_onnx LIBRARY MODEL DIM... < rows > answers
//
// LIBRARY is libonnxruntime.so, DIM the shape of a row; rows and answers are raw float32.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {
struct ApiBase {
  const void* const* (*get_api)(std::uint32_t version);
  const char* (*version)();
};
// Places of functions in the table of version 1 of the C interface, which only grows at its end.
enum Place {
  kGetErrorMessage = 2, kCreateEnv = 3, kCreateSession = 7, kRun = 9, kCreateSessionOptions = 10,
  kSetIntraOpNumThreads = 24, kSetInterOpNumThreads = 25, kSessionGetInputName = 36,
  kSessionGetOutputName = 37, kCreateTensorWithData = 49, kGetTensorMutableData = 51,
  kGetTensorShapeElementCount = 64, kGetTensorTypeAndShape = 65, kCreateCpuMemoryInfo = 69,
  kGetAllocator = 78, kReleaseValue = 96, kReleaseTensorTypeAndShapeInfo = 99
};
constexpr int kWarning = 2, kFloat = 1, kArena = 1, kDefault = 0;
const void* const* api;

template <typename... Types>
void call(Place place, Types... arguments) {
  auto* status = reinterpret_cast<void* (*)(Types...)>(const_cast<void*>(api[place]))(arguments...);
  if (status != nullptr) {
    auto* message = reinterpret_cast<const char* (*)(const void*)>(const_cast<void*>(api[kGetErrorMessage]));
    std::fprintf(stderr, "%s\n", message(status));
    std::exit(1);
  }
}

void release(Place place, void* object) {
  reinterpret_cast<void (*)(void*)>(const_cast<void*>(api[place]))(object);
}
}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: run_onnx LIBRARY MODEL DIM... < rows > answers\n");
    return 2;
  }
  void* library = dlopen(argv[1], RTLD_NOW);
  void* symbol = library != nullptr ? dlsym(library, "OrtGetApiBase") : nullptr;
  if (symbol == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  api = reinterpret_cast<const ApiBase* (*)()>(symbol)()->get_api(1);
  std::vector<std::int64_t> shape{1};
  std::size_t size = 1;
  for (int i = 3; i < argc; ++i) {
    shape.push_back(std::atoll(argv[i]));
    size *= static_cast<std::size_t>(shape.back());
  }
  void *env, *options, *session, *memory, *allocator;
  char *input, *output;
  call(kCreateEnv, kWarning, "run_onnx", &env);
  call(kCreateSessionOptions, &options);
  call(kSetIntraOpNumThreads, options, 1);
  call(kSetInterOpNumThreads, options, 1);
  call(kCreateSession, static_cast<const void*>(env), static_cast<const char*>(argv[2]),
       static_cast<const void*>(options), &session);
  call(kCreateCpuMemoryInfo, kArena, kDefault, &memory);
  call(kGetAllocator, &allocator);
  call(kSessionGetInputName, static_cast<const void*>(session), std::size_t{0}, allocator, &input);
  call(kSessionGetOutputName, static_cast<const void*>(session), std::size_t{0}, allocator, &output);
  std::vector<float> row(size);
  while (std::fread(row.data(), sizeof(float), size, stdin) == size) {
    void *value, *answer = nullptr, *info;
    float* numbers;
    std::size_t count;
    call(kCreateTensorWithData, static_cast<const void*>(memory), static_cast<void*>(row.data()),
         size * sizeof(float), static_cast<const std::int64_t*>(shape.data()), shape.size(), kFloat,
         &value);
    const char *inputs[] = {input}, *outputs[] = {output};
    const void* values[] = {value};
    call(kRun, session, static_cast<const void*>(nullptr), static_cast<const char* const*>(inputs),
         static_cast<const void* const*>(values), std::size_t{1},
         static_cast<const char* const*>(outputs), std::size_t{1}, &answer);
    call(kGetTensorTypeAndShape, static_cast<const void*>(answer), &info);
    call(kGetTensorShapeElementCount, static_cast<const void*>(info), &count);
    call(kGetTensorMutableData, answer, reinterpret_cast<void**>(&numbers));
    std::fwrite(numbers, sizeof(float), count, stdout);
    release(kReleaseTensorTypeAndShapeInfo, info);
    release(kReleaseValue, answer);
    release(kReleaseValue, value);
  }
  return 0;
}
