// IDX, the format of MNIST (Y. LeCun, C. Cortes, C. Burges, "The MNIST database"): bytes 0, 0, type (8: uint8), number
// of dimensions; each dimension as a big-endian 32-bit integer; the elements, last dimension fastest. zlib reads a
// plain file as it is and a gzip file decompressed, so the pixels go straight into the tensor in one pass.
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <memory>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr unsigned kInflateBytes = 1U << 22;
constexpr std::int64_t kMostDeflateExpansion = 1040;  // deflate cannot expand further, so a header promising more lies

class IdxFile {
 public:
  explicit IdxFile(std::filesystem::path path)
      : path_(std::move(path)), file_(gzopen(path_.c_str(), "rb"), &gzclose_r) {
    if (!file_) throw Error(ErrorKind::kNotFound, path_.string() + ": cannot be opened; check its permissions");
    gzbuffer(file_.get(), kInflateBytes / 8);
  }

  // The whole file as a uint8 tensor of exactly `dimensions` dimensions.
  torch::Tensor Read(int dimensions) {
    std::array<unsigned char, 4> magic{};
    if (Fill(magic.data(), 4) < 4) ThrowShort("the idx header", 4, 0);
    if (magic[0] != 0 || magic[1] != 0 || magic[2] != 8 || magic[3] != dimensions) {
      ThrowBadFile(path_,
                   fmt::format("wrong idx magic {:02x}{:02x}{:02x}{:02x}; expected 000008{:02x} (uint8, {})", magic[0],
                               magic[1], magic[2], magic[3], dimensions, Counted(dimensions, "dimension")));
    }
    const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path_));
    const std::int64_t limit = size * kMostDeflateExpansion, header = 4 + 4 * dimensions;
    std::vector<std::int64_t> shape;
    std::int64_t bytes = 1;
    for (int d = 0; d < dimensions; ++d) {
      std::array<unsigned char, 4> b{};
      if (Fill(b.data(), 4) < 4) ThrowShort("the idx header", 4 + 4 * dimensions, 4 + 4 * d);
      shape.push_back(std::int64_t{b[0]} << 24 | b[1] << 16 | b[2] << 8 | b[3]);
      if (shape.back() == 0) ThrowBadFile(path_, "is empty: a dimension of its idx header is 0");
      if (bytes > limit / shape.back()) ThrowBadFile(path_, "too short for the size its idx header promises");
      bytes *= shape.back();
    }
    if (gzdirect(file_.get()) != 0 && bytes > size - header) {  // said before memory is taken
      ThrowShort("the elements its idx header promises", bytes, size - header);
    }
    torch::Tensor data = torch::empty(shape, torch::kUInt8);
    const std::int64_t got = Fill(data.data_ptr<std::uint8_t>(), bytes);
    if (got < bytes) ThrowShort("the elements its idx header promises", bytes, got);
    unsigned char extra = 0;
    if (Fill(&extra, 1) != 0)
      ThrowBadFile(path_, fmt::format("trailing bytes after the {} its idx header promises", bytes));
    return data;
  }

 private:
  // Reads up to `size` bytes; fewer at the end of the file. Error(kData) for a damaged gzip stream.
  std::int64_t Fill(unsigned char* out, std::int64_t size) {
    std::int64_t done = 0;
    while (done < size) {
      ThrowIfInterrupted();
      const int got =
          gzread(file_.get(), out + done, static_cast<unsigned>(std::min<std::int64_t>(size - done, kInflateBytes)));
      int code = Z_OK;
      const char* text = gzerror(file_.get(), &code);
      if (code == Z_BUF_ERROR) ThrowBadFile(path_, "truncated gzip file; delete it and fetch it again");
      if (got < 0 || code != Z_OK) {
        ThrowBadFile(path_, fmt::format("damaged gzip file ({}); delete it and fetch it again", text));
      }
      if (got == 0) break;
      done += got;
    }
    return done;
  }

  [[noreturn]] void ThrowShort(const char* part, std::int64_t expected, std::int64_t got) const {
    ThrowBadFile(path_, fmt::format("too short: {} of {} bytes of {}", got, expected, part));
  }

  std::filesystem::path path_;
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file_;
};

std::vector<std::string> Names(const std::string& folder, const std::string& file) {
  return {folder + "/" + file + ".gz", folder + "/" + file};
}

Dataset ReadPair(const std::string& name, const std::filesystem::path& image_file,
                 const std::filesystem::path& label_file) {
  Dataset data;
  data.name = name;
  data.classes = 10;
  data.images = IdxFile(image_file).Read(3).unsqueeze(1);
  data.labels = IdxFile(label_file).Read(1).to(torch::kInt64);
  CheckPair(data, image_file, label_file);
  return data;
}

// Images, labels.
std::vector<std::filesystem::path> SplitFiles(const std::string& dataset, const std::string& prefix,
                                              const Folders& folders) {
  return {RequireFile(Names(dataset, prefix + "-images-idx3-ubyte"), folders, dataset),
          RequireFile(Names(dataset, prefix + "-labels-idx1-ubyte"), folders, dataset)};
}

DataSplits Read(const std::string& dataset, const DataFiles& files) {
  DataSplits splits;
  if (!files.train.empty()) splits.train = ReadPair(dataset + "/train", files.train[0], files.train[1]);
  splits.test = ReadPair(dataset + "/test", files.test[0], files.test[1]);
  return splits;
}

}  // namespace

DataFiles MnistFiles(const DataOptions&, const Folders& folders) {
  return {SplitFiles("mnist", "train", folders), SplitFiles("mnist", "t10k", folders)};
}

DataFiles FashionMnistFiles(const DataOptions&, const Folders& folders) {
  DataFiles files;
  const bool has_train = FindFile(Names("fashion-mnist", "train-images-idx3-ubyte"), folders) ||
                         FindFile(Names("fashion-mnist", "train-labels-idx1-ubyte"), folders);
  if (has_train) files.train = SplitFiles("fashion-mnist", "train", folders);
  files.test = SplitFiles("fashion-mnist", "t10k", folders);
  return files;
}

DataSplits LoadMnist(const DataOptions& options, const Folders& folders, std::uint64_t) {
  return Read("mnist", MnistFiles(options, folders));
}

DataSplits LoadFashionMnist(const DataOptions& options, const Folders& folders, std::uint64_t) {
  return Read("fashion-mnist", FashionMnistFiles(options, folders));
}

}  // namespace bitplan
