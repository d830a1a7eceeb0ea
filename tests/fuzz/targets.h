// Everything of bitplan that reads a file which others may have written, one function for each. A function gets the
// bytes of a file and ends: in success, or in an Error. Whatever else it throws is a bug of the parser, and so are a
// crash, a hang and memory out of proportion to the file. libFuzzer calls the functions (libfuzzer.cpp) and so does an
// ordinary test (fuzz_test.cpp).
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace bitplan::fuzz {

void FuzzRecipe(std::string_view bytes);
void FuzzPlan(std::string_view bytes);
void FuzzLatency(std::string_view bytes);
void FuzzWidthsCsv(std::string_view bytes);
void FuzzWidthsYaml(std::string_view bytes);
void FuzzSensitivity(std::string_view bytes);
void FuzzDraws(std::string_view bytes);
void FuzzNpy(std::string_view bytes);
void FuzzCsv(std::string_view bytes);
void FuzzIdx(std::string_view bytes);
void FuzzCifar10(std::string_view bytes);
void FuzzPickledTensor(std::string_view bytes);
void FuzzPicture(std::string_view bytes);
void FuzzSafetensors(std::string_view bytes);
void FuzzPacked(std::string_view bytes);
// The bytes are what a packed file says of itself behind its checksum, which is made right here.
void FuzzPackedIndex(std::string_view bytes);
void FuzzBayesPacked(std::string_view bytes);
void FuzzOnnxFile(std::string_view bytes);
void FuzzOnnxModel(std::string_view bytes);
void FuzzTorchScript(std::string_view bytes);
// The bytes are the pickle in an archive of PyTorch; every storage has 64 bytes.
void FuzzStateDict(std::string_view bytes);

struct FuzzTarget {
  const char* name;  // of its folder of seeds too
  void (*parse)(std::string_view bytes);
  int flips;  // damaged bits of a seed that the ordinary test tries
};

[[nodiscard]] const std::vector<FuzzTarget>& FuzzTargets();

// Calls `parse` and takes every Error that a user may meet. Throws std::logic_error for one of several lines or without
// text, and for one of the kind kInternal.
void ParseOne(const std::function<void()>& parse);

// Writes the bytes to a file of that name in a folder of this process's own, in memory where the machine has such.
// The next call with the same name overwrites it.
[[nodiscard]] std::filesystem::path FileOf(const std::string& name, std::string_view bytes);
[[nodiscard]] std::filesystem::path ScratchFolder();

}  // namespace bitplan::fuzz
