// The driver's functions are looked for when somebody asks, so that nothing here needs it to be built or loaded. What
// is declared of it is stable: it is what every program compiled for CUDA 11.8 or later calls.
#include "driver.h"

#include <dlfcn.h>

#include <cstdio>
#include <type_traits>

namespace fastvoc::cuda {
namespace {

using Result = int;  // 0 is success

struct LaunchAttribute {
  int id, padding;
  union {
    char all[64];
    int allowed;
    unsigned size[3];
  } value;
};

struct LaunchConfiguration {
  unsigned grid[3], block[3], shared;
  void* stream;
  LaunchAttribute* attributes;
  unsigned count;
};

constexpr int kMostDynamicShared = 8, kSharedCarveout = 9;  // of a function
constexpr int kMostSharedIfAsked = 97;                      // of a device
constexpr int kClusterDimension = 4, kProgrammaticSerialization = 6;  // of a launch
constexpr int kCapturesProgrammatic = 12030;                // version of the first driver that records such launches

struct Driver {
  Result (*init)(unsigned flags);
  Result (*error_string)(Result, const char**);
  Result (*context_device)(int* device);
  Result (*device_attribute)(int* value, int attribute, int device);
  Result (*driver_version)(int* version);
  Result (*stream_is_capturing)(void* stream, int* status);
  Result (*module_load)(void** module, const void* image);
  Result (*module_function)(void** function, void* module, const char* name);
  Result (*function_attribute)(void* function, int attribute, int value);
  Result (*launch_kernel)(const LaunchConfiguration*, void* function, void** parameters, void** extra);
  int version;
  char missing[200];
};

thread_local char message[200];

Driver open_driver() {
  Driver driver = {};
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    std::snprintf(driver.missing, sizeof driver.missing, "the NVIDIA driver's library is not there (%s)", dlerror());
    return driver;
  }
  const auto find = [&](auto& function, const char* name) {
    void* const symbol = dlsym(library, name);
    if (!symbol && !*driver.missing)
      std::snprintf(driver.missing, sizeof driver.missing, "the NVIDIA driver has no %s; CUDA 11.8 brought it", name);
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
  };
  find(driver.init, "cuInit");
  find(driver.error_string, "cuGetErrorString");
  find(driver.context_device, "cuCtxGetDevice");
  find(driver.device_attribute, "cuDeviceGetAttribute");
  find(driver.driver_version, "cuDriverGetVersion");
  find(driver.stream_is_capturing, "cuStreamIsCapturing");
  find(driver.module_load, "cuModuleLoadData");
  find(driver.module_function, "cuModuleGetFunction");
  find(driver.function_attribute, "cuFuncSetAttribute");
  find(driver.launch_kernel, "cuLaunchKernelEx");
  if (*driver.missing) return driver;
  if (const Result result = driver.init(0)) {
    const char* why = nullptr;
    driver.error_string(result, &why);
    std::snprintf(driver.missing, sizeof driver.missing, "the NVIDIA driver does not start (%s)",
                  why ? why : "unknown error");
  }
  driver.driver_version(&driver.version);
  return driver;
}

const Driver& driver() {
  static const Driver opened = open_driver();
  return opened;
}

bool succeeds(const char* what, Result result) {
  if (result == 0) return true;
  const char* why = nullptr;
  driver().error_string(result, &why);
  std::snprintf(message, sizeof message, "%s: %s (%d)", what, why ? why : "unknown error", result);
  return false;
}

// Whether a launch that may begin early can be recorded, if it is being recorded.
bool takes_early(void* stream) {
  int capturing = 0;
  return driver().version >= kCapturesProgrammatic ||
         (driver().stream_is_capturing(stream, &capturing) == 0 && !capturing);
}

}  // namespace

const char* missing_driver() { return *driver().missing ? driver().missing : nullptr; }

const char* driver_message() { return message; }

bool load_module(const void* image, void** module) {
  return succeeds("cuModuleLoadData", driver().module_load(module, image));
}

bool find_function(void* module, const char* name, unsigned most_shared, void** function) {
  if (!succeeds(name, driver().module_function(function, module, name))) return false;
  int device = 0, most = 0;
  if (!succeeds("cuCtxGetDevice", driver().context_device(&device)) ||
      !succeeds("cuDeviceGetAttribute", driver().device_attribute(&most, kMostSharedIfAsked, device)))
    return false;
  if (most_shared < unsigned(most)) most = int(most_shared);
  constexpr int kWithoutAsking = 48 << 10, kAll = 100;
  // The first level cache would take what several blocks could use.
  return most <= kWithoutAsking || (succeeds(name, driver().function_attribute(*function, kMostDynamicShared, most)) &&
                                    succeeds(name, driver().function_attribute(*function, kSharedCarveout, kAll)));
}

bool launch(void* function, const Shape& shape, const void* parameter, size_t, bool early, void* stream) {
  LaunchAttribute attributes[2] = {};
  LaunchConfiguration configuration = {};
  if (shape.cluster > 1) {
    LaunchAttribute& attribute = attributes[configuration.count++];
    attribute.id = kClusterDimension;
    attribute.value.size[0] = shape.cluster;
    attribute.value.size[1] = attribute.value.size[2] = 1;
  }
  if (early && takes_early(stream)) {
    LaunchAttribute& attribute = attributes[configuration.count++];
    attribute.id = kProgrammaticSerialization;
    attribute.value.allowed = 1;
  }
  for (int i = 0; i < 3; ++i) configuration.grid[i] = shape.grid[i];
  configuration.block[0] = shape.threads;
  configuration.block[1] = configuration.block[2] = 1;
  configuration.shared = shape.shared;
  configuration.stream = stream;
  configuration.attributes = attributes;
  void* parameters[] = {const_cast<void*>(parameter)};
  return succeeds("cuLaunchKernelEx", driver().launch_kernel(&configuration, function, parameters, nullptr));
}

}  // namespace fastvoc::cuda
