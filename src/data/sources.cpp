#include "data/sources.h"

#include <fmt/format.h>

#include <set>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/one_line.h"

namespace bitplan {

std::optional<std::filesystem::path> FindFile(const std::vector<std::string>& names, const Folders& folders) {
  for (const auto& folder : folders) {
    for (const auto& name : names) {
      std::error_code ignored;
      if (std::filesystem::is_regular_file(folder / name, ignored)) return folder / name;
    }
  }
  return std::nullopt;
}

std::string JoinedFolders(const Folders& folders) {
  std::string joined;
  std::set<std::string> named;  // the data folder may be that of the recipe
  for (const auto& folder : folders) {
    const std::string name = folder.empty() ? "." : folder.string();
    if (named.insert(name).second) joined += (joined.empty() ? "" : ", ") + name;
  }
  return joined;
}

std::filesystem::path RequireFile(const std::vector<std::string>& names, const Folders& folders,
                                  const std::string& dataset) {
  if (auto found = FindFile(names, folders)) return *found;
  throw Error(ErrorKind::kNotFound,
              fmt::format("{}: no file {} in {}; run scripts/fetch-data {} {}", dataset, names.front(),
                          JoinedFolders(folders), folders.empty() ? "data" : folders.front().string(), dataset));
}

std::filesystem::path RequireOwnFile(const char* key, const std::string& name, const Folders& folders) {
  if (auto found = FindFile({name}, folders)) return *found;
  for (const auto& folder : folders) {
    std::error_code ignored;
    const auto path = folder / name;
    if (!std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) continue;
    RequireRegular(path, TypeOfOwn(path));
  }
  throw Error(ErrorKind::kNotFound, fmt::format("data.{}: no file {} in {}", key, name, JoinedFolders(folders)));
}

std::filesystem::file_type TypeOfOwn(const std::filesystem::path& path) {
  std::error_code failure, ignored;
  const auto type = std::filesystem::status(path, failure).type();
  if (type != std::filesystem::file_type::none && type != std::filesystem::file_type::not_found) return type;
  if (failure == std::errc::too_many_symbolic_link_levels) {
    ThrowBadFile(path, "is a link that leads back to itself; remove it");
  }
  if (std::filesystem::is_symlink(std::filesystem::symlink_status(path, ignored))) {
    ThrowBadFile(path, fmt::format("is a link to nowhere, {}; remove it, or bring back what it leads to",
                                   std::filesystem::read_symlink(path, ignored).string()));
  }
  ThrowBadFile(path, "cannot be looked at: " + failure.message());
}

void RequireRegular(const std::filesystem::path& path, std::filesystem::file_type type) {
  using Type = std::filesystem::file_type;
  if (type == Type::regular) return;
  ThrowBadFile(path, fmt::format("is a {}, not a file", type == Type::directory ? "folder"
                                                        : type == Type::fifo    ? "named pipe"
                                                        : type == Type::socket  ? "socket"
                                                                                : "device"));
}

void ThrowBadFile(const std::filesystem::path& file, const std::string& what) {
  throw Error(ErrorKind::kData, file.string() + ": " + OneLine(what));
}

void SetUnlabelled(Dataset& data) {
  data.unlabelled = true;
  data.name += kOwnLabels;
  data.labels = torch::zeros({data.images.size(0)}, torch::kInt64);
}

void CheckPair(const Dataset& data, const std::filesystem::path& image_file, const std::filesystem::path& label_file) {
  const std::int64_t images = data.images.size(0), labels = data.labels.size(0);
  if (images != labels) {
    ThrowBadFile(image_file, fmt::format("{}, but {} has {}", Counted(images, "image"), label_file.string(),
                                         Counted(labels, "label")));
  }
  if (images == 0 || data.images.numel() == 0) ThrowBadFile(image_file, "holds no images");
  if (data.likelihood) return;  // classes are the network's affair
  const std::int64_t* label = data.labels.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < labels; ++i) {
    if (label[i] < 0 || label[i] >= data.classes) {
      ThrowBadFile(label_file, fmt::format("label {} at position {}; class numbers 0..{} are expected", label[i], i,
                                           data.classes - 1));
    }
  }
}

}  // namespace bitplan
