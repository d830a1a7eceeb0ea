// What the readers of published files share. Each Load... fills `train` and `test`; LoadData cuts the calibration
// split.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/data/dataset.h"

namespace bitplan {

using Folders = std::vector<std::filesystem::path>;

[[nodiscard]] DataSplits LoadMnist(const DataOptions& options, const Folders& folders, std::uint64_t seed);
[[nodiscard]] DataSplits LoadFashionMnist(const DataOptions& options, const Folders& folders, std::uint64_t seed);
[[nodiscard]] DataSplits LoadAmbiguousMnist(const DataOptions& options, const Folders& folders, std::uint64_t seed);
[[nodiscard]] DataSplits LoadDirtyMnist(const DataOptions& options, const Folders& folders, std::uint64_t seed);
[[nodiscard]] DataSplits LoadCifar10(const DataOptions& options, const Folders& folders, std::uint64_t seed);
[[nodiscard]] DataSplits LoadNpy(const DataOptions& options, const Folders& folders, std::uint64_t seed);
[[nodiscard]] DataSplits LoadFolder(const DataOptions& options, const Folders& folders, std::uint64_t seed);
[[nodiscard]] DataSplits LoadCsv(const DataOptions& options, const Folders& folders, std::uint64_t seed);
[[nodiscard]] DataSplits LoadSyntheticDigits(const DataOptions& options, const Folders& folders, std::uint64_t seed);
[[nodiscard]] DataSplits LoadSyntheticLetters(const DataOptions& options, const Folders& folders, std::uint64_t seed);

[[nodiscard]] DataFiles MnistFiles(const DataOptions& options, const Folders& folders);
[[nodiscard]] DataFiles FashionMnistFiles(const DataOptions& options, const Folders& folders);
[[nodiscard]] DataFiles AmbiguousMnistFiles(const DataOptions& options, const Folders& folders);
[[nodiscard]] DataFiles DirtyMnistFiles(const DataOptions& options, const Folders& folders);
[[nodiscard]] DataFiles Cifar10Files(const DataOptions& options, const Folders& folders);
[[nodiscard]] DataFiles NpyFiles(const DataOptions& options, const Folders& folders);
[[nodiscard]] DataFiles FolderFiles(const DataOptions& options, const Folders& folders);
[[nodiscard]] DataFiles CsvFiles(const DataOptions& options, const Folders& folders);
[[nodiscard]] DataFiles SyntheticFiles(const DataOptions& options, const Folders& folders);  // none

[[nodiscard]] std::vector<std::string> FolderClassNames(const DataOptions& options, const Folders& folders);
[[nodiscard]] std::vector<std::string> CsvClassNames(const DataOptions& options, const Folders& folders);

// The first existing file folder/name, folders in order and, within one, names in order.
[[nodiscard]] std::optional<std::filesystem::path> FindFile(const std::vector<std::string>& names,
                                                            const Folders& folders);
// "a, b": the folders as a message shows them.
[[nodiscard]] std::string JoinedFolders(const Folders& folders);
// FindFile or Error(kNotFound): the file, the folders, and the command that fetches `dataset`.
[[nodiscard]] std::filesystem::path RequireFile(const std::vector<std::string>& names, const Folders& folders,
                                                const std::string& dataset);

// The file of the user's own that data.KEY names. Error(kNotFound), or Error(kData) where something else than a file
// lies there.
[[nodiscard]] std::filesystem::path RequireOwnFile(const char* key, const std::string& name, const Folders& folders);
// What lies there, links followed. Error(kData) for a link that leads nowhere or back to itself, and for what cannot be
// looked at.
[[nodiscard]] std::filesystem::file_type TypeOfOwn(const std::filesystem::path& path);
// Error(kData) for a folder, a pipe, a socket or a device: reading one may wait for ever.
void RequireRegular(const std::filesystem::path& path, std::filesystem::file_type type);

// Error(kData): "FILE: WHAT".
[[noreturn]] void ThrowBadFile(const std::filesystem::path& file, const std::string& what);

// What the name of a split without labels ends with.
inline constexpr const char* kOwnLabels = " labelled by the float network";

// Labels of a split whose images are there but no labels: zeros, until the network's own answers stand in.
void SetUnlabelled(Dataset& data);

// As many images as labels, at least one, and every label in 0..classes-1; Error(kData) names the file otherwise.
void CheckPair(const Dataset& data, const std::filesystem::path& image_file, const std::filesystem::path& label_file);

}  // namespace bitplan
