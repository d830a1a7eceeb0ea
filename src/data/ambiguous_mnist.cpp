// Ambiguous-MNIST and Dirty-MNIST (J. Mukhoti, A. Kirsch, J. van Amersfoort, P. Torr, Y. Gal, "Deep deterministic
// uncertainty: a new simple baseline", 2023). Two tensors written by torch.save: images float [N, 1, 28, 28] in 0..1
// and labels integer [N, L], L plausible labels for every image. As published, every image stands L times in a row,
// once with each of its labels, and the first half of the images is the training split. Pixels are kept as bytes,
// round(255 u), like all other images here.
#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>
#include <torch/csrc/jit/serialization/import_read.h>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "data/archive.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr int kDigitSide = 28, kDigits = 10;
constexpr double kPixelSlack = 1e-3;  // how far single precision may have carried a pixel beyond 0..1

std::string ShapeText(const torch::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")); }

// The one tensor of a file of torch.save or torch::pickle_save. LibTorch believes the shape that the file states: that
// the elements are there is checked here.
torch::Tensor ReadTensor(const std::filesystem::path& file) {
  if (const auto fault = ArchiveFault(file)) {
    ThrowBadFile(file, fmt::format("damaged, or not written by torch.save of PyTorch 1.6 or newer: {}", *fault));
  }
  torch::Tensor tensor;
  try {
    caffe2::serialize::PyTorchStreamReader reader(file.string());
    const auto value = torch::jit::readArchiveAndTensors("data", "", "", {}, {}, torch::Device(torch::kCPU), reader);
    if (value.isTensor()) tensor = value.toTensor();
  } catch (const std::exception&) {
    ThrowBadFile(file, "damaged, or no plain tensor written by torch.save of PyTorch 1.6 or newer");
  }
  if (!tensor.defined() || tensor.layout() != torch::kStrided) ThrowBadFile(file, "holds no plain tensor");
  if (tensor.numel() == 0) ThrowBadFile(file, fmt::format("is empty: its shape is {}", ShapeText(tensor)));
  const auto held = static_cast<std::int64_t>(tensor.storage().nbytes() / tensor.element_size());
  if (!tensor.is_non_overlapping_and_dense() || tensor.numel() > held - tensor.storage_offset()) {
    ThrowBadFile(file, fmt::format("its shape {} does not fit the elements it holds; save tensor.contiguous()",
                                   ShapeText(tensor)));
  }
  return tensor.detach().contiguous();
}

// uint8 [N, 1, 28, 28].
torch::Tensor ReadSamples(const std::filesystem::path& file) {
  torch::Tensor samples = ReadTensor(file);
  if (!samples.is_floating_point() || samples.dim() != 4 || samples.size(1) != 1 || samples.size(2) != kDigitSide ||
      samples.size(3) != kDigitSide) {
    ThrowBadFile(file, fmt::format("shape {} of {}; expected [N, 1, {}, {}] of floats", ShapeText(samples),
                                   c10::toString(samples.scalar_type()), kDigitSide, kDigitSide));
  }
  samples = samples.to(torch::kFloat32);
  // NaN compares as false.
  const torch::Tensor sound = samples.ge(-kPixelSlack).logical_and_(samples.le(1 + kPixelSlack)).flatten(1).all(1);
  if (!sound.all().item<bool>()) {
    ThrowBadFile(file, fmt::format("image {} holds NaN or pixels outside 0..1",
                                   sound.logical_not().nonzero()[0].item<std::int64_t>()));
  }
  return samples.mul(255).round_().clamp_(0, 255).to(torch::kUInt8);
}

// int64 [N, L].
torch::Tensor ReadManyLabels(const std::filesystem::path& file) {
  const torch::Tensor stored = ReadTensor(file);
  if (!torch::isIntegralType(stored.scalar_type(), /*includeBool=*/false) || stored.dim() != 2) {
    ThrowBadFile(file, fmt::format("shape {} of {}; expected [N, L] of integers", ShapeText(stored),
                                   c10::toString(stored.scalar_type())));
  }
  const torch::Tensor labels = stored.to(torch::kInt64);
  const torch::Tensor wrong = labels.lt(0).logical_or_(labels.ge(kDigits)).nonzero();
  if (wrong.size(0) > 0) {
    const auto image = wrong[0][0].item<std::int64_t>(), place = wrong[0][1].item<std::int64_t>();
    ThrowBadFile(file, fmt::format("label {} of image {} at position {}; expected 0..{}",
                                   labels[image][place].item<std::int64_t>(), image, place, kDigits - 1));
  }
  return labels;
}

// Images [n, 1, 28, 28] and labels [n, L], each image once for each of its labels.
Dataset Repeated(const std::string& name, const torch::Tensor& images, const torch::Tensor& labels) {
  return {name, images.repeat_interleave(labels.size(1), 0), labels.flatten().clone(), kDigits};
}

Dataset Joined(const std::string& name, const Dataset& first, const Dataset& second) {
  return {name, torch::cat({first.images, second.images}), torch::cat({first.labels, second.labels}), kDigits};
}

}  // namespace

DataFiles AmbiguousMnistFiles(const DataOptions&, const Folders& folders) {
  const auto require = [&](const std::string& file) {
    const std::string name = "ambiguous-mnist/" + file;
    if (auto found = FindFile({name}, folders)) return *found;
    throw Error(ErrorKind::kNotFound,
                fmt::format("ambiguous-mnist: no file {} in {}; run bitplan make-data ambiguous-mnist --data {}", name,
                            JoinedFolders(folders), folders.empty() ? "data" : folders.front().string()));
  };
  const std::vector<std::filesystem::path> both = {require("amnist_samples.pt"), require("amnist_labels.pt")};
  return {both, both};
}

DataSplits LoadAmbiguousMnist(const DataOptions& options, const Folders& folders, std::uint64_t) {
  const auto files = AmbiguousMnistFiles(options, folders).train;
  const torch::Tensor images = ReadSamples(files[0]), labels = ReadManyLabels(files[1]);
  const std::int64_t count = images.size(0), half = count / 2;
  if (labels.size(0) != count) {
    ThrowBadFile(files[0], fmt::format("{}, but {} has labels for {}", Counted(count, "image"), files[1].string(),
                                       labels.size(0)));
  }
  if (half == 0) ThrowBadFile(files[0], "holds one image; a training and a test split need two");
  DataSplits splits;
  splits.train = Repeated("ambiguous-mnist/train", images.slice(0, 0, half), labels.slice(0, 0, half));
  splits.test = Repeated("ambiguous-mnist/test", images.slice(0, half), labels.slice(0, half));
  return splits;
}

DataFiles DirtyMnistFiles(const DataOptions& options, const Folders& folders) {
  DataFiles files = MnistFiles(options, folders);
  const DataFiles ambiguous = AmbiguousMnistFiles(options, folders);
  files.train.insert(files.train.end(), ambiguous.train.begin(), ambiguous.train.end());
  files.test.insert(files.test.end(), ambiguous.test.begin(), ambiguous.test.end());
  return files;
}

DataSplits LoadDirtyMnist(const DataOptions& options, const Folders& folders, std::uint64_t seed) {
  const DataFiles files = DirtyMnistFiles(options, folders);  // what is missing is said before anything is read
  const DataSplits clean = LoadMnist(options, folders, seed), ambiguous = LoadAmbiguousMnist(options, folders, seed);
  for (const bool train : {true, false}) {
    const Dataset& data = train ? clean.train : clean.test;
    if (data.images.size(2) == kDigitSide && data.images.size(3) == kDigitSide) continue;
    ThrowBadFile(train ? files.train[0] : files.test[0],
                 fmt::format("images of {}x{} pixels; those of ambiguous-mnist have {}x{}", data.images.size(2),
                             data.images.size(3), kDigitSide, kDigitSide));
  }
  DataSplits splits;
  splits.train = Joined("dirty-mnist/train", clean.train, ambiguous.train);
  splits.test = Joined("dirty-mnist/test", clean.test, ambiguous.test);
  return splits;
}

}  // namespace bitplan
