// The few functions of the CUDA driver that are in use, found at run time; or, for tests, the kernels run by the CPU.
#pragma once

#include <cstddef>

namespace fastvoc::cuda {

struct Shape {
  unsigned grid[3], threads, shared;  // bytes of dynamic shared memory
  unsigned cluster = 1;               // neighbouring blocks that run together and reach each other's shared memory
};

// Why there is no driver, as half a sentence, or null.
const char* missing_driver();

// What the driver said of the last call of this thread that failed.
const char* driver_message();

// These return whether they succeeded.
bool load_module(const void* image, void** module);
bool find_function(void* module, const char* name, unsigned most_shared, void** function);

// Enqueue a kernel whose only parameter is a structure. If `early`, it may begin before the one in front of it on the
// stream has ended, and waits for it by itself (architectures from 90 on).
bool launch(void* function, const Shape& shape, const void* parameter, size_t size, bool early, void* stream);

}  // namespace fastvoc::cuda
