// NPY, the format of numpy.save (NumPy Enhancement Proposal 1): the magic bytes 93 'NUMPY', version major and minor,
// the header length (2 bytes little endian in version 1, 4 in version 2), a Python dictionary with the keys descr,
// fortran_order and shape, then the elements.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr std::int64_t kReadBytes = std::int64_t{1} << 24;
constexpr std::int64_t kMostHeader = 1 << 20;
constexpr std::int64_t kMostClasses = 1 << 20;
constexpr float kLargestPixel = 50.0F;  // float images, also standardized ones, stay far below; bytes do not

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
  std::string_view name;
  torch::ScalarType read_as;
};

constexpr ElementType kImageTypes[] = {{"|u1", torch::kUInt8}, {"<f4", torch::kFloat32}, {"<f8", torch::kFloat64}};
// LibTorch has no wide unsigned integers: those are read as signed ones of their size and corrected.
constexpr ElementType kLabelTypes[] = {{"|u1", torch::kUInt8}, {"|i1", torch::kInt8},  {"<i2", torch::kInt16},
                                       {"<u2", torch::kInt16}, {"<i4", torch::kInt32}, {"<u4", torch::kInt32},
                                       {"<i8", torch::kInt64}, {"<u8", torch::kInt64}};

struct Array {
  torch::Tensor data;
  std::string type;
};

template <std::size_t size>
Array ReadArray(const std::filesystem::path& file, const ElementType (&types)[size], const char* hint) {
  std::ifstream in(file, std::ios::binary);
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

  const Header header = ParseHeader(text, file);
  if (header.fortran) ThrowBadFile(file, "Fortran order; save numpy.ascontiguousarray(array)");
  const auto type =
      std::find_if(std::begin(types), std::end(types), [&](const auto& t) { return t.name == header.type; });
  if (type == std::end(types)) ThrowBadFile(file, fmt::format("unsupported type '{}'; {}", header.type, hint));

  const std::int64_t available = static_cast<std::int64_t>(std::filesystem::file_size(file)) - in.tellg();
  std::int64_t bytes = static_cast<std::int64_t>(c10::elementSize(type->read_as));
  for (const std::int64_t dimension : header.shape) {
    if (dimension == 0) ThrowBadFile(file, fmt::format("is empty: its shape is {}", ShapeText(header.shape)));
    bytes = bytes > available / dimension ? available + 1 : bytes * dimension;
  }
  if (bytes != available) {
    ThrowBadFile(file, fmt::format("{} bytes of elements do not fit its shape {} of '{}'", available,
                                   ShapeText(header.shape), header.type));
  }
  torch::Tensor data = torch::empty(header.shape, type->read_as);
  for (std::int64_t done = 0; done < bytes; done += kReadBytes) {
    ThrowIfInterrupted();
    if (!in.read(static_cast<char*>(data.data_ptr()) + done, std::min(kReadBytes, bytes - done))) {
      ThrowBadFile(file, "cannot be read to its end");
    }
  }
  return {data, header.type};
}

torch::Tensor ReadImages(const std::filesystem::path& file) {
  torch::Tensor images =
      ReadArray(file, kImageTypes, "save images as uint8, or as little-endian float32 or float64").data;
  if (images.dim() == 3) images = images.unsqueeze(1);
  if (images.dim() != 4) {
    ThrowBadFile(file, fmt::format("shape {}; images are [N, H, W] or [N, C, H, W]", ShapeText(images.sizes().vec())));
  }
  if (images.scalar_type() == torch::kUInt8) return images;
  images = images.to(torch::kFloat32);
  const torch::Tensor finite = images.isfinite().flatten(1).all(1);
  if (!finite.all().item<bool>()) {
    ThrowBadFile(file, fmt::format("image {} holds NaN or infinite values",
                                   finite.logical_not().nonzero()[0].item<std::int64_t>()));
  }
  const auto largest = images.abs().max().item<float>();
  if (largest > kLargestPixel) {
    ThrowBadFile(
        file,
        fmt::format("float pixels as large as {:g}; save uint8 pixels of 0..255, or floats of about 0..1", largest));
  }
  return images;
}

torch::Tensor ReadLabels(const std::filesystem::path& file) {
  const auto [data, type] = ReadArray(file, kLabelTypes, "save labels as little-endian integers, array.astype('<i8')");
  if (data.dim() != 1) {
    ThrowBadFile(file, fmt::format("shape {}; labels are [N] class numbers", ShapeText(data.sizes().vec())));
  }
  torch::Tensor labels = data.to(torch::kInt64);
  if (type == "<u2") labels.bitwise_and_(std::int64_t{0xffff});
  if (type == "<u4") labels.bitwise_and_(std::int64_t{0xffffffff});
  for (const bool low : {true, false}) {
    const torch::Tensor at = low ? labels.argmin() : labels.argmax();
    const auto label = labels[at.item<std::int64_t>()].item<std::int64_t>();
    if (label < 0 || label >= kMostClasses) {
      ThrowBadFile(file, fmt::format("label {} at position {}; expected class numbers from 0 up to less than {}", label,
                                     at.item<std::int64_t>(), kMostClasses));
    }
  }
  return labels;
}

std::filesystem::path RequireNamed(const char* key, const std::string& name, const Folders& folders) {
  if (name.empty())
    throw Error(ErrorKind::kUsage, fmt::format("data.{}: not given; npy needs images and labels of both splits", key));
  if (auto found = FindFile({name}, folders)) return *found;
  throw Error(ErrorKind::kNotFound, fmt::format("data.{}: no file {} in {}", key, name, JoinedFolders(folders)));
}

Dataset ReadNpySplit(const char* split, const std::vector<std::filesystem::path>& files) {
  Dataset data{fmt::format("npy/{}", split), ReadImages(files[0]), ReadLabels(files[1]), 0};
  data.classes = static_cast<int>(data.labels.max().item<std::int64_t>()) + 1;
  CheckPair(data, files[0], files[1]);
  return data;
}

}  // namespace

DataFiles NpyFiles(const DataOptions& options, const Folders& folders) {
  return {{RequireNamed("train_images", options.train_images, folders),
           RequireNamed("train_labels", options.train_labels, folders)},
          {RequireNamed("test_images", options.test_images, folders),
           RequireNamed("test_labels", options.test_labels, folders)}};
}

DataSplits LoadNpy(const DataOptions& options, const Folders& folders, std::uint64_t) {
  const DataFiles files = NpyFiles(options, folders);
  DataSplits splits;
  splits.train = ReadNpySplit("train", files.train);
  splits.test = ReadNpySplit("test", files.test);
  if (splits.train.images.sizes().slice(1) != splits.test.images.sizes().slice(1)) {
    ThrowBadFile(files.test[0], fmt::format("images of shape {}, but those of {} have {}",
                                            ShapeText(splits.test.images.sizes().slice(1).vec()), options.train_images,
                                            ShapeText(splits.train.images.sizes().slice(1).vec())));
  }
  if (splits.test.classes > splits.train.classes) {
    ThrowBadFile(files.test[1],
                 fmt::format("label {} at position {}, but the training labels end at {}", splits.test.classes - 1,
                             splits.test.labels.argmax().item<std::int64_t>(), splits.train.classes - 1));
  }
  splits.test.classes = splits.train.classes;
  return splits;
}

}  // namespace bitplan
