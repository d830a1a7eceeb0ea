#include "bitplan/pipeline/make_data.h"

#include <fmt/format.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/types.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "bitplan/data/dataset.h"
#include "bitplan/io/files.h"
#include "bitplan/pipeline/run_folder.h"
#include "io/json_text.h"
#include "pipeline/clock.h"

namespace bitplan::pipeline {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr int kMadeVersion = 1;  // of made.json and of the procedure behind it

struct Files {
  explicit Files(const fs::path& folder)
      : samples(folder / "amnist_samples.pt"), labels(folder / "amnist_labels.pt"), made(folder / "made.json") {}
  fs::path samples, labels, made;
};

MadeHalf Summary(const AmbiguousHalf& half, const AmbiguousDigitsOptions& options) {
  MadeHalf summary{.images = half.images.size(0), .drawn = half.drawn, .kept = half.kept, .entropy_counts = {}};
  summary.entropy = half.entropy.mean().item<double>();
  summary.information = half.information.mean().item<double>();
  const torch::Tensor likeliest = half.predictive.argmax(1, /*keepdim=*/true);
  summary.agreement = half.labels.eq(likeliest).to(torch::kFloat64).mean().item<double>();
  const torch::Tensor counts = torch::histc(half.entropy.clamp(options.bins_low, options.bins_high), options.bins,
                                            options.bins_low, options.bins_high)
                                   .to(torch::kInt64);
  summary.entropy_counts.assign(counts.data_ptr<std::int64_t>(), counts.data_ptr<std::int64_t>() + counts.numel());
  return summary;
}

ordered_json ToJson(const MadeHalf& half) {
  return {{"images", half.images},
          {"drawn", half.drawn},
          {"kept", half.kept},
          {"entropy", half.entropy},
          {"information", half.information},
          {"agreement", half.agreement},
          {"entropy_counts", half.entropy_counts}};
}

MadeHalf HalfFrom(const ordered_json& json) {
  return {json.at("images"),      json.at("drawn"),     json.at("kept"),          json.at("entropy"),
          json.at("information"), json.at("agreement"), json.at("entropy_counts")};
}

// What made.json says, and the sums that vouch for the files.
struct Made {
  MakeDataReport report;
  std::string samples_sha256, labels_sha256;
};

std::optional<Made> ReadMade(const Files& files) {
  std::error_code ignored;
  if (!fs::is_regular_file(files.made, ignored)) return std::nullopt;
  try {
    const auto json = ordered_json::parse(ReadFile(files.made, "made.json"));
    if (json.at("made") != kMadeVersion) return std::nullopt;
    Made made;
    made.report.seed = json.at("seed");
    made.report.labels = json.at("labels");
    made.report.version = json.at("bitplan");
    made.report.train = HalfFrom(json.at("train"));
    made.report.test = HalfFrom(json.at("test"));
    made.samples_sha256 = json.at("sha256").at("samples");
    made.labels_sha256 = json.at("sha256").at("labels");
    return made;
  } catch (const ordered_json::exception&) {
    return std::nullopt;
  }
}

std::string MadeText(const Made& made) {
  const auto& report = made.report;
  const ordered_json json = {
      {"made", kMadeVersion},          {"name", report.name},
      {"bitplan", report.version},     {"seed", report.seed},
      {"labels", report.labels},       {"sha256", {{"samples", made.samples_sha256}, {"labels", made.labels_sha256}}},
      {"train", ToJson(report.train)}, {"test", ToJson(report.test)}};
  return JsonText(json, 2) + "\n";
}

[[noreturn]] void ThrowForeign(const fs::path& file) {
  throw Error(ErrorKind::kUsage, fmt::format("{} was not made by this program, or was changed since; move it away or "
                                             "name another folder with --data",
                                             file.string()));
}

// Whether both files are there as this program left them. Error(kUsage) for one that it did not make.
bool AllThere(const Files& files, const std::optional<Made>& made) {
  bool all = true;
  for (const bool samples : {true, false}) {
    const fs::path& file = samples ? files.samples : files.labels;
    std::error_code ignored;
    if (!fs::exists(fs::symlink_status(file, ignored))) {
      all = false;
      continue;
    }
    if (made && fs::is_regular_file(file, ignored) &&
        FileSha256(file) == (samples ? made->samples_sha256 : made->labels_sha256)) {
      continue;
    }
    ThrowForeign(file);
  }
  std::error_code ignored;
  if (!made && fs::exists(fs::symlink_status(files.made, ignored))) ThrowForeign(files.made);
  return all;
}

std::string Pickled(const torch::Tensor& tensor) {
  const std::vector<char> bytes = torch::jit::pickle_save(tensor);
  return {bytes.data(), bytes.size()};
}

// made.json first and the labels last: a folder that a stopped run leaves behind lacks a file, and those it has are
// vouched for.
void Write(const Files& files, const AmbiguousDigits& digits, Made& made) {
  const torch::Tensor images = torch::cat({digits.train.images, digits.test.images});
  const std::string samples = Pickled(images.to(torch::kFloat32).div_(255));
  const std::string labels = Pickled(torch::cat({digits.train.labels, digits.test.labels}));
  made.samples_sha256 = Sha256Hex(samples);
  made.labels_sha256 = Sha256Hex(labels);
  for (const fs::path& file : {files.labels, files.samples}) {
    std::error_code error;
    fs::remove(file, error);
    if (error) throw Error(ErrorKind::kIo, "cannot replace " + file.string() + ": " + error.message());
  }
  WriteFileAtomically(files.made, MadeText(made));
  WriteFileAtomically(files.samples, samples);
  WriteFileAtomically(files.labels, labels);
}

MakeDataReport MakeAmbiguousMnist(const MakeDataOptions& options, ProgressSink& progress) {
  const auto start = Clock::now();
  options.digits.Validate();
  if (options.digits.train_images != options.digits.test_images) {
    throw Error(ErrorKind::kUsage, "ambiguous-mnist: its files are cut in the middle: both halves need the same size");
  }
  const fs::path folder = options.data / "ambiguous-mnist";
  const Files files(folder);
  auto made = ReadMade(files);
  const bool all_there = AllThere(files, made);
  const bool same = made && made->report.seed == options.seed && made->report.labels == options.digits.labels &&
                    made->report.train.images == options.digits.train_images &&
                    made->report.test.images == options.digits.test_images;
  if (!all_there || !same) {
    DataOptions mnist_options;
    mnist_options.name = "mnist";
    const DataSplits mnist = FindDatasetSource("mnist").load(mnist_options, {options.data}, options.seed);
    EnsureWritableFolder(folder);
    RemoveLeftovers(folder);
    const AmbiguousDigits digits = MakeAmbiguousDigits(mnist.train, mnist.test, options.digits, options.seed, progress);
    made.emplace();
    made->report.made = true;
    made->report.seed = options.seed;
    made->report.labels = options.digits.labels;
    made->report.version = BITPLAN_VERSION;
    made->report.train = Summary(digits.train, options.digits);
    made->report.test = Summary(digits.test, options.digits);
    made->report.name = options.name;
    Write(files, digits, *made);
  }
  MakeDataReport report = made->report;
  report.name = options.name;
  report.samples_file = files.samples;
  report.labels_file = files.labels;
  report.seconds = SecondsSince(start);
  return report;
}

struct Maker {
  const char* name;
  MakeDataReport (*make)(const MakeDataOptions& options, ProgressSink& progress);
};

constexpr Maker kMakers[] = {{"ambiguous-mnist", MakeAmbiguousMnist}};

}  // namespace

std::vector<std::string> MakeDataNames() {
  std::vector<std::string> names;
  for (const Maker& maker : kMakers) names.emplace_back(maker.name);
  return names;
}

MakeDataReport MakeData(const MakeDataOptions& options, ProgressSink& progress) {
  return FindByName(kMakers, "data set to make", options.name).make(options, progress);
}

}  // namespace bitplan::pipeline
