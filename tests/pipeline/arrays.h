// Data of a test as a user has them: npy files in a folder.
#pragma once

#include <torch/types.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace bitplan::testing {

struct Folder {
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "bitplan-tasks-XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::filesystem::path path;
};

// npy version 1.0.
inline void WriteArray(const std::filesystem::path& file, const torch::Tensor& values) {
  const torch::Tensor data = values.contiguous();
  const std::string type = data.is_floating_point() ? "<f4" : "<i8";
  std::string shape;
  for (const std::int64_t size : data.sizes()) shape += std::to_string(size) + ",";
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.append(63 - (header.size() + 10) % 64, ' ');
  header += '\n';
  std::ofstream out(file, std::ios::binary);
  out << std::string("\x93NUMPY\x01\x00", 8) << static_cast<char>(header.size() & 255)
      << static_cast<char>(header.size() >> 8) << header;
  out.write(static_cast<const char*>(data.data_ptr()), static_cast<std::streamsize>(data.nbytes()));
}

}  // namespace bitplan::testing
