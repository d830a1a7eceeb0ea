// NPY, the format of numpy.save (NumPy Enhancement Proposal 1): the magic bytes 93 'NUMPY', version major and minor,
// the header length (2 bytes little endian in version 1, 4 in version 2), a Python dictionary with the keys descr,
// fortran_order and shape, then the elements.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string_view>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr std::int64_t kReadBytes = std::int64_t{1} << 24;
constexpr std::int64_t kMostHeader = 1 << 20;
constexpr std::int64_t kMostClasses = 1 << 20;
constexpr std::size_t kMostDimensions = 32;  // of NumPy

struct Header {
  std::string type;  // "<f4"
  bool fortran = false;
  std::vector<std::int64_t> shape;
};

// The text after `key` and its colon.
std::string_view ValueOf(std::string_view header, const std::string& key, const std::filesystem::path& file) {
  for (const char quote : {'\'', '"'}) {
    const std::size_t at = header.find(quote + key + quote);
    if (at == std::string_view::npos) continue;
    const std::size_t colon = header.find(':', at + key.size() + 2);
    const std::size_t value = colon == std::string_view::npos ? colon : header.find_first_not_of(" \t\n", colon + 1);
    if (value != std::string_view::npos) return header.substr(value);
  }
  ThrowBadFile(file, "no '" + key + "' in its npy header; write it with numpy.save");
}

Header ParseHeader(std::string_view text, const std::filesystem::path& file) {
  Header header;
  const std::string_view type = ValueOf(text, "descr", file);
  if (type.front() != '\'' && type.front() != '"')
    ThrowBadFile(file, "record arrays are not supported; save a plain one");
  header.type = type.substr(1, type.find(type.front(), 1) - 1);
  header.fortran = ValueOf(text, "fortran_order", file).starts_with("True");
  const std::string_view shape = ValueOf(text, "shape", file);
  const std::size_t close = shape.find(')');
  if (shape.front() != '(' || close == std::string_view::npos)
    ThrowBadFile(file, "the shape in its npy header is no tuple");
  for (const char *at = shape.data() + 1, *const end = shape.data() + close; at < end;) {
    std::int64_t size = 0;
    const auto [next, failure] = std::from_chars(at, end, size);
    if (failure == std::errc{}) {
      if (size < 0) ThrowBadFile(file, "a dimension in its npy header is negative");
      if (header.shape.size() == kMostDimensions) {
        ThrowBadFile(file, fmt::format("its npy header has more than {} dimensions", kMostDimensions));
      }
      header.shape.push_back(size);
      at = next;
    } else if (*at == ' ' || *at == ',') {
      ++at;
    } else {
      ThrowBadFile(file, "the shape in its npy header holds something else than integers");
    }
  }
  return header;
}

std::string ShapeText(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

struct ElementType {
  std::string_view name;  // without its byte order
  torch::ScalarType read_as;
};

// LibTorch has no wide unsigned integers: those are read as signed ones of their size and corrected.
constexpr ElementType kTypes[] = {{"b1", torch::kBool},  {"u1", torch::kUInt8}, {"i1", torch::kInt8},
                                  {"i2", torch::kInt16}, {"u2", torch::kInt16}, {"i4", torch::kInt32},
                                  {"u4", torch::kInt32}, {"i8", torch::kInt64}, {"u8", torch::kInt64},
                                  {"f2", torch::kHalf},  {"f4", torch::kFloat}, {"f8", torch::kDouble}};

struct Array {
  torch::Tensor data;  // C order, byte order of this machine
  std::string type;    // "u2"
};

void ReverseBytes(torch::Tensor& data) {
  const auto size = static_cast<std::int64_t>(data.element_size());
  auto* const bytes = static_cast<char*>(data.data_ptr());
  for (std::int64_t i = 0; i < data.numel(); ++i) std::reverse(bytes + i * size, bytes + (i + 1) * size);
}

// The header of an opened file, which stands behind it afterwards.
Header ReadHeader(std::ifstream& in, const std::filesystem::path& file) {
  if (!in) throw Error(ErrorKind::kNotFound, file.string() + ": cannot be opened; check its permissions");
  std::string start(8, '\0');
  in.read(start.data(), 8);
  if (in.gcount() < 8 || !start.starts_with("\x93NUMPY")) ThrowBadFile(file, "not an npy file (wrong magic)");
  const int version = static_cast<unsigned char>(start[6]);
  if (version != 1 && version != 2) ThrowBadFile(file, fmt::format("npy version {}; expected 1 or 2", version));
  std::int64_t length = 0;
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) length |= std::int64_t{in.get() & 255} << 8 * i;
  if (!in || length > kMostHeader) ThrowBadFile(file, "its npy header is damaged or cut off");
  std::string text(static_cast<std::size_t>(length), '\0');
  if (!in.read(text.data(), length)) ThrowBadFile(file, "its npy header is damaged or cut off");
  return ParseHeader(text, file);
}

Array ReadArray(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  const Header header = ReadHeader(in, file);
  const bool has_order = header.type.find_first_of("<>|=") == 0;
  const std::string name = header.type.substr(has_order ? 1 : 0);
  const auto type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.name == name; });
  if (type == std::end(kTypes)) {
    ThrowBadFile(
        file, fmt::format("unsupported type '{}'; save integers or floats, as array.astype('float32')", header.type));
  }

  const std::int64_t available = static_cast<std::int64_t>(std::filesystem::file_size(file)) - in.tellg();
  std::int64_t bytes = static_cast<std::int64_t>(c10::elementSize(type->read_as));
  for (const std::int64_t dimension : header.shape) {
    if (dimension == 0) ThrowBadFile(file, fmt::format("is empty: its shape is {}", ShapeText(header.shape)));
    bytes = bytes > available / dimension ? available + 1 : bytes * dimension;
  }
  if (bytes != available) {
    ThrowBadFile(file, fmt::format("{} of elements do not fit its shape {} of '{}'", Counted(available, "byte"),
                                   ShapeText(header.shape), header.type));
  }
  std::vector<std::int64_t> stored = header.shape;
  if (header.fortran) std::reverse(stored.begin(), stored.end());
  torch::Tensor data = torch::empty(stored, type->read_as);
  for (std::int64_t done = 0; done < bytes; done += kReadBytes) {
    ThrowIfInterrupted();
    if (!in.read(static_cast<char*>(data.data_ptr()) + done, std::min(kReadBytes, bytes - done))) {
      ThrowBadFile(file, "cannot be read to its end");
    }
  }
  if (header.type.front() == '>') ReverseBytes(data);
  if (header.fortran && data.dim() > 1) {
    std::vector<std::int64_t> back(header.shape.size());
    for (std::size_t d = 0; d < back.size(); ++d) back[d] = static_cast<std::int64_t>(back.size() - 1 - d);
    data = data.permute(back).contiguous();
  }
  return {data, name};
}

// Integers as int64, wide unsigned ones without a sign.
torch::Tensor Integers(const Array& array) {
  torch::Tensor values = array.data.to(torch::kInt64);
  if (array.type == "u2") values.bitwise_and_(std::int64_t{0xffff});
  if (array.type == "u4") values.bitwise_and_(std::int64_t{0xffffffff});
  return values;
}

torch::Tensor ReadImages(const std::filesystem::path& file, const std::string& layout) {
  const Array array = ReadArray(file);
  torch::Tensor images = array.data;
  if (images.dim() < 2) {
    ThrowBadFile(file, fmt::format("shape {}; give an array [N, ...] with one row for every image",
                                   ShapeText(images.sizes().vec())));
  }
  if (images.dim() == 3 && layout == "images") images = images.unsqueeze(1);
  if (array.type == "u1") return images;
  if (!images.is_floating_point() && images.element_size() >= 4) return Integers({images, array.type});
  if (array.type == "u2") images = Integers({images, array.type});
  images = images.to(torch::kFloat32);
  const torch::Tensor finite = images.isfinite().flatten(1).all(1);
  if (!finite.all().item<bool>()) {
    ThrowBadFile(file, fmt::format("image {} holds NaN or infinite values",
                                   finite.logical_not().nonzero()[0].item<std::int64_t>()));
  }
  return images;
}

torch::Tensor ReadLabels(const std::filesystem::path& file) {
  Array array = ReadArray(file);
  if (array.data.is_floating_point()) {
    ThrowBadFile(file, fmt::format("type '{}'; labels are integers, array.astype('int64')", array.type));
  }
  if (array.data.dim() == 2 && array.data.size(1) == 1) array.data = array.data.squeeze(1);
  if (array.data.dim() != 1) {
    ThrowBadFile(file, fmt::format("shape {}; labels are [N] class numbers", ShapeText(array.data.sizes().vec())));
  }
  const torch::Tensor labels = Integers(array);
  for (const bool low : {true, false}) {
    const torch::Tensor at = low ? labels.argmin() : labels.argmax();
    const auto label = labels[at.item<std::int64_t>()].item<std::int64_t>();
    if (label < 0 || label >= kMostClasses) {
      ThrowBadFile(file,
                   fmt::format("label {} at position {}; labels are class numbers from 0 up to less than {}: count "
                               "the classes from 0, or leave such images out",
                               label, at.item<std::int64_t>(), kMostClasses));
    }
  }
  return labels;
}

std::filesystem::path RequireNamed(const char* key, const std::string& name, const Folders& folders) {
  if (name.empty())
    throw Error(ErrorKind::kUsage, fmt::format("data.{}: not given; npy needs images of both splits", key));
  return RequireOwnFile(key, name, folders);
}

// Labels of another task than classification, in the type that it takes.
torch::Tensor ReadLabelsOf(const Likelihood& likelihood, const std::filesystem::path& file) {
  const Array array = ReadArray(file);
  torch::Tensor labels = array.data.is_floating_point() ? array.data.to(torch::kFloat32) : Integers(array);
  if (!labels.isfinite().all().item<bool>()) ThrowBadFile(file, "holds NaN or infinite values");
  if (const std::string wrong = likelihood.AdoptLabels(labels); !wrong.empty()) {
    ThrowBadFile(file, fmt::format("type '{}', shape {}; {}", array.type, ShapeText(array.data.sizes().vec()), wrong));
  }
  return labels;
}

// Where a split lies; without labels where none are given.
struct NpySplit {
  std::filesystem::path images;
  std::optional<std::filesystem::path> labels;

  void AddTo(std::vector<std::filesystem::path>& files) const {
    files.push_back(images);
    if (labels) files.push_back(*labels);
  }
};

NpySplit FindSplit(const std::string& split, const std::string& images, const std::string& labels,
                   const Folders& folders) {
  NpySplit found{RequireNamed((split + "_images").c_str(), images, folders), std::nullopt};
  if (!labels.empty()) found.labels = RequireNamed((split + "_labels").c_str(), labels, folders);
  return found;
}

// Images of a split, by the header of its file.
std::int64_t CountIn(const NpySplit& split) {
  std::ifstream in(split.images, std::ios::binary);
  const Header header = ReadHeader(in, split.images);
  return header.shape.empty() ? 0 : header.shape.front();
}

struct NpySplits {
  NpySplit train, test;
  std::optional<NpySplit> calibration;
};

NpySplits FindSplits(const DataOptions& options, const Folders& folders) {
  NpySplits splits{FindSplit("train", options.train_images, options.train_labels, folders),
                   FindSplit("test", options.test_images, options.test_labels, folders), std::nullopt};
  if (!options.calibration_images.empty()) {
    splits.calibration = FindSplit("calibration", options.calibration_images, options.calibration_labels, folders);
  }
  return splits;
}

Dataset ReadNpySplit(const char* split, const NpySplit& files, const std::string& layout,
                     const std::shared_ptr<Likelihood>& likelihood) {
  Dataset data{fmt::format("npy/{}", split), ReadImages(files.images, layout), {}, 0};
  if (files.labels) data.names = std::make_shared<const RowNames>(RowNames{.label_file = *files.labels});
  if (!files.labels) {
    if (likelihood) {
      throw Error(ErrorKind::kUsage,
                  fmt::format("data.{}_labels: not given; only classes may be missing, and data.task "
                              "is {}",
                              split, likelihood->name()));
    }
    SetUnlabelled(data);
    return data;
  }
  if (likelihood) {
    data.labels = ReadLabelsOf(*likelihood, *files.labels);
    data.likelihood = likelihood;
  } else {
    data.labels = ReadLabels(*files.labels);
    data.classes = static_cast<int>(data.labels.max().item<std::int64_t>()) + 1;
  }
  CheckPair(data, files.images, *files.labels);
  return data;
}

}  // namespace

DataFiles NpyFiles(const DataOptions& options, const Folders& folders) {
  const NpySplits splits = FindSplits(options, folders);
  DataFiles files;
  splits.train.AddTo(files.train);
  splits.test.AddTo(files.test);
  if (splits.calibration) splits.calibration->AddTo(files.train);
  files.train_rows = CountIn(splits.train);
  files.test_rows = CountIn(splits.test);
  return files;
}

DataSplits LoadNpy(const DataOptions& options, const Folders& folders, std::uint64_t) {
  const NpySplits files = FindSplits(options, folders);
  DataSplits splits;
  std::shared_ptr<Likelihood> likelihood;
  if (!options.task.empty()) likelihood = FindLikelihood(options.task).make();
  splits.train = ReadNpySplit("train", files.train, options.layout, likelihood);
  splits.test = ReadNpySplit("test", files.test, options.layout, likelihood);
  if (files.calibration) {
    splits.calibration = ReadNpySplit("calibration", *files.calibration, options.layout, likelihood);
  }
  const auto agree = [&](const Dataset& data, const std::filesystem::path& file) {
    if (data.size() == 0) return;
    const auto shape = data.images.sizes().slice(1), expected = splits.train.images.sizes().slice(1);
    if (shape != expected) {
      ThrowBadFile(file, fmt::format("images of shape {}, but those of {} have {}", ShapeText(shape.vec()),
                                     options.train_images, ShapeText(expected.vec())));
    }
  };
  const auto labels_agree = [&](const Dataset& data, const std::filesystem::path& file) {
    if (data.size() == 0 || data.labels.sizes().slice(1) == splits.train.labels.sizes().slice(1)) return;
    ThrowBadFile(
        file, fmt::format("labels of shape {}, but those of {} have {}", ShapeText(data.labels.sizes().slice(1).vec()),
                          options.train_labels, ShapeText(splits.train.labels.sizes().slice(1).vec())));
  };
  agree(splits.test, files.test.images);
  if (files.test.labels) labels_agree(splits.test, *files.test.labels);
  if (files.calibration) {
    agree(splits.calibration, files.calibration->images);
    if (files.calibration->labels) labels_agree(splits.calibration, *files.calibration->labels);
  }
  // A class that the few images of one split happen to lack is one all the same.
  const int classes = std::max({splits.train.classes, splits.test.classes, splits.calibration.classes});
  for (Dataset* data : {&splits.train, &splits.test, &splits.calibration}) data->classes = classes;
  return splits;
}

}  // namespace bitplan
