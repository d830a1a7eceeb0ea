// Data sets, each by its public loader.
#include <algorithm>

#include "bitplan/data/dataset.h"
#include "data/picture.h"
#include "data/sources.h"
#include "fuzz/targets.h"

namespace bitplan::fuzz {
namespace {

// Images and labels lie in one input behind each other; its first two bytes, low one first, say where the labels begin.
void WriteBoth(std::string_view bytes, const char* image_file, const char* label_file) {
  const auto at = [&](std::size_t i) { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0U; };
  const std::string_view rest = bytes.substr(std::min<std::size_t>(2, bytes.size()));
  const std::size_t images = std::min<std::size_t>(rest.size(), at(0) + 256U * at(1));
  (void)FileOf(image_file, rest.substr(0, images));
  (void)FileOf(label_file, rest.substr(images));
}

}  // namespace

// As images, as class numbers and as the numbers of another task.
void FuzzNpy(std::string_view bytes) {
  const std::string name = FileOf("array.npy", bytes).filename().string();
  static const std::string two_images = [] {
    std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1), }";
    header.append(118 - header.size(), ' ');
    return FileOf("images.npy", "\x93NUMPY\x01" + std::string(1, '\0') + "v" + std::string(1, '\0') + header + "ab")
        .filename()
        .string();
  }();
  DataOptions options;
  options.name = "npy";
  options.train_images = options.test_images = name;
  ParseOne([&] { (void)LoadNpy(options, {ScratchFolder()}, 1); });
  options.train_images = options.test_images = two_images;
  options.train_labels = options.test_labels = name;
  ParseOne([&] { (void)LoadNpy(options, {ScratchFolder()}, 1); });
  options.task = "regression";
  (void)LoadNpy(options, {ScratchFolder()}, 1);
}

void FuzzCsv(std::string_view bytes) {
  DataOptions options;
  options.name = "csv";
  options.train = options.test = FileOf("rows.csv", bytes).filename().string();
  ParseOne([&] { (void)CsvClassNames(options, {ScratchFolder()}); });
  options.task = "regression";
  ParseOne([&] { (void)LoadCsv(options, {ScratchFolder()}, 1); });
  options.task = "";
  (void)LoadCsv(options, {ScratchFolder()}, 1);
}

void FuzzIdx(std::string_view bytes) {
  std::filesystem::create_directory(ScratchFolder() / "fashion-mnist");
  WriteBoth(bytes, "fashion-mnist/t10k-images-idx3-ubyte", "fashion-mnist/t10k-labels-idx1-ubyte");
  (void)LoadFashionMnist({}, {ScratchFolder()}, 1);
}

void FuzzCifar10(std::string_view bytes) {
  std::filesystem::create_directory(ScratchFolder() / "cifar-10-batches-bin");
  (void)FileOf("cifar-10-batches-bin/test_batch.bin", bytes);
  for (int batch = 1; batch <= 5; ++batch) {
    (void)FileOf("cifar-10-batches-bin/data_batch_" + std::to_string(batch) + ".bin", bytes);
  }
  (void)LoadCifar10({}, {ScratchFolder()}, 1);
}

void FuzzPickledTensor(std::string_view bytes) {
  std::filesystem::create_directory(ScratchFolder() / "ambiguous-mnist");
  WriteBoth(bytes, "ambiguous-mnist/amnist_samples.pt", "ambiguous-mnist/amnist_labels.pt");
  (void)LoadAmbiguousMnist({}, {ScratchFolder()}, 1);
}

void FuzzPicture(std::string_view bytes) {
  const QuietDecoders quiet;
  const auto file = FileOf("picture", bytes);
  for (const char* channels : {"rgb", "gray"}) (void)DecodePicture(file, channels);
}

}  // namespace bitplan::fuzz
