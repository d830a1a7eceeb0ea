#include "data/sources.h"

#include <fmt/format.h>

#include <set>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"

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

void ThrowBadFile(const std::filesystem::path& file, const std::string& what) {
  throw Error(ErrorKind::kData, file.string() + ": " + what);
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
      ThrowBadFile(label_file, fmt::format("label {} at position {}; expected 0..{}", label[i], i, data.classes - 1));
    }
  }
}

}  // namespace bitplan
