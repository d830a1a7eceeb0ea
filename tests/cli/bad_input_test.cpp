// Bad input: one clear line on stderr, the right exit code, nothing half-written.
#include <zlib.h>

#include "bitplan/models/architectures.h"
#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

// Runs, and checks everything that every refusal has in common.
std::string Refused(const Workplace& place, const std::vector<std::string>& arguments, int code,
                    std::int64_t file_limit = 0) {
  const auto outcome = place.Bitplan(arguments, file_limit);
  INFO("stderr: " << outcome.err);
  INFO("stdout: " << outcome.out);
  CHECK(outcome.code == code);
  CHECK(outcome.out.empty());
  CHECK_FALSE(ErrorLine(outcome).empty());
  CHECK(NothingHalfWritten(place / "out"));
  return ErrorLine(outcome);
}

std::string RefusedRun(const Workplace& place, int code, const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments = {"run", place.recipe(), "--out", "out"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Refused(place, arguments, code);
}

std::string BigEndian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

std::string IdxImages(std::uint32_t count, std::uint32_t magic = 0x803) {
  return BigEndian(magic) + BigEndian(count) + BigEndian(28) + BigEndian(28) + std::string(count * 784, '\x10');
}

std::string IdxLabels(std::uint32_t count) { return BigEndian(0x801) + BigEndian(count) + std::string(count, '\x01'); }

void WriteGzip(const std::filesystem::path& file, const std::string& bytes) {
  std::filesystem::create_directories(file.parent_path());
  const gzFile stream = gzopen(file.c_str(), "wb");
  gzwrite(stream, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(stream);
}

void WriteMnist(const Workplace& place) {
  for (const std::string split : {"train", "t10k"}) {
    WriteGzip(place / ("mnist/" + split + "-images-idx3-ubyte.gz"), IdxImages(100));
    WriteGzip(place / ("mnist/" + split + "-labels-idx1-ubyte.gz"), IdxLabels(100));
  }
}

const std::vector<std::string> kMnist = {"--set", "data={name: mnist, calibration: 10}"};

void UseModelFile(const Workplace& place) { place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}"); }

torch::jit::Module TinyModel() { return bitplan::BuildArchitecture("lenet-300-100", 1); }

void SaveModel(const Workplace& place, const torch::jit::Module& module) {
  module.save((place / "model.pt").string());
  UseModelFile(place);
}

// A model with one weight [4, 784] that answers `expression`.
void SaveLinear(const Workplace& place, const std::string& expression) {
  torch::manual_seed(1);
  torch::jit::Module module("linear");
  module.register_parameter("weight", torch::randn({4, 784}) * 0.05, false);
  module.define("def forward(self, x):\n  return " + expression + "\n");
  SaveModel(place, module);
}

}  // namespace

TEST_CASE("no or unknown sub-command names the nearest one") {
  const Workplace place;
  CHECK_THAT(Refused(place, {"inspekt", "lenet5-caffe"}, 64),
             ContainsSubstring("inspekt") && ContainsSubstring("inspect"));
  Refused(place, {}, 64);
  Refused(place, {"run"}, 64);
  CHECK_THAT(Refused(place, {"run", place.recipe(), "--speed"}, 64), ContainsSubstring("--speed"));
  CHECK_THAT(Refused(place, {"run", place.recipe(), "--device", "cuda"}, 64), ContainsSubstring("cuda"));
  CHECK_THAT(Refused(place, {"help", "recipes"}, 64), ContainsSubstring("recipe"));
}

TEST_CASE("a misspelt recipe key names file, line and the nearest key") {
  const Workplace place;
  place.EditRecipe("epochs: 2", "epoch: 2");
  CHECK_THAT(RefusedRun(place, 64),
             ContainsSubstring("tiny.yaml:11") && ContainsSubstring("'epoch'") && ContainsSubstring("epochs"));
  CHECK_FALSE(std::filesystem::exists(place / "out"));
}

TEST_CASE("a misspelt key in --set is refused") {
  const Workplace place;
  CHECK_THAT(RefusedRun(place, 64, {"--set", "allocate.alocator=exact"}), ContainsSubstring("allocator"));
}

TEST_CASE("unknown names list the known ones and the nearest") {
  const Workplace place;
  CHECK_THAT(RefusedRun(place, 64, {"--set", "allocate.allocator=quantil-inform"}),
             ContainsSubstring("quantil-inform") && ContainsSubstring("exact") &&
                 ContainsSubstring("nearest: quantile-inform"));
  CHECK_THAT(RefusedRun(place, 64, {"--set", "model.architecture=lenet5-cafe"}),
             ContainsSubstring("nearest: lenet5-caffe"));
  CHECK_THAT(RefusedRun(place, 64, {"--set", "data.name=mnits"}), ContainsSubstring("nearest: mnist"));
  CHECK_THAT(RefusedRun(place, 64, {"--set", "posterior.estimator=laplac"}), ContainsSubstring("laplace"));
  CHECK_THAT(RefusedRun(place, 64, {"--set", "sensitivity.metric=posteriour"}), ContainsSubstring("posterior"));
  CHECK_THAT(Refused(place, {"inspect", "resnet21"}, 64), ContainsSubstring("resnet20"));
  CHECK_FALSE(std::filesystem::exists(place / "out"));
}

TEST_CASE("a value out of range names the key and the bound") {
  const Workplace place;
  CHECK_THAT(RefusedRun(place, 64, {"--set", "train.epochs=-1"}), ContainsSubstring("epochs"));
  CHECK_THAT(RefusedRun(place, 64, {"--set", "allocate.quantile=1.5"}), ContainsSubstring("quantile"));
  CHECK_THAT(RefusedRun(place, 64, {"--set", "allocate.bits=[1, 9]"}), ContainsSubstring("bits"));
  CHECK_THAT(RefusedRun(place, 64, {"--seed", "many"}), ContainsSubstring("seed"));
}

TEST_CASE("missing files are not found") {
  const Workplace place;
  CHECK_THAT(Refused(place, {"run", "nowhere.yaml", "--out", "out"}, 66), ContainsSubstring("nowhere.yaml"));
  CHECK_THAT(Refused(place, {"inspect", "nowhere.pt"}, 66), ContainsSubstring("nowhere.pt"));
  CHECK_THAT(Refused(place, {"verify", place.recipe(), "--out", "out"}, 66), ContainsSubstring("plan.yaml"));
  CHECK_THAT(RefusedRun(place, 66, kMnist), ContainsSubstring("mnist") && ContainsSubstring("fetch-data"));
  std::filesystem::remove(place / "train-labels.npy");
  CHECK_THAT(RefusedRun(place, 66), ContainsSubstring("train-labels.npy"));
  UseModelFile(place);
  CHECK_THAT(RefusedRun(place, 66), ContainsSubstring("model.pt"));
}

TEST_CASE("a truncated gzip file is refused") {
  const Workplace place;
  WriteMnist(place);
  const auto file = place / "mnist/train-images-idx3-ubyte.gz";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
  CHECK_THAT(RefusedRun(place, 65, kMnist), ContainsSubstring("train-images-idx3-ubyte.gz"));
}

TEST_CASE("an idx file with the wrong magic is refused") {
  const Workplace place;
  WriteMnist(place);
  WriteGzip(place / "mnist/train-images-idx3-ubyte.gz", IdxImages(100, 0x805));
  CHECK_THAT(RefusedRun(place, 65, kMnist),
             ContainsSubstring("train-images-idx3-ubyte.gz") && ContainsSubstring("magic"));
}

TEST_CASE("image and label counts that differ are refused") {
  const Workplace place;
  WriteMnist(place);
  WriteGzip(place / "mnist/train-labels-idx1-ubyte.gz", IdxLabels(99));
  CHECK_THAT(RefusedRun(place, 65, kMnist), ContainsSubstring("100") && ContainsSubstring("99"));
}

TEST_CASE("a CIFAR record with label 17 is refused") {
  const Workplace place;
  std::string record(3073, '\x20');
  record[0] = 3;
  std::string records;
  for (int i = 0; i < 20; ++i) records += record;
  for (const char* name :
       {"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"}) {
    WriteText(place / (std::string("cifar-10-batches-bin/") + name + ".bin"), records);
  }
  records[3073 * 7] = 17;
  WriteText(place / "cifar-10-batches-bin/data_batch_2.bin", records);
  CHECK_THAT(RefusedRun(place, 65, {"--set", "data={name: cifar10, calibration: 10}"}),
             ContainsSubstring("data_batch_2.bin") && ContainsSubstring("17"));
}

TEST_CASE("a corrupt or empty model file is refused") {
  const Workplace place;
  UseModelFile(place);
  WriteText(place / "model.pt", "");
  CHECK_THAT(RefusedRun(place, 65), ContainsSubstring("model.pt"));
  WriteText(place / "model.pt", std::string(5000, 'x'));
  CHECK_THAT(RefusedRun(place, 65), ContainsSubstring("model.pt"));
  TinyModel().save((place / "whole.pt").string());
  const auto bytes = ReadText(place / "whole.pt");
  WriteText(place / "model.pt", bytes.substr(0, bytes.size() / 2));
  CHECK_THAT(RefusedRun(place, 65), ContainsSubstring("model.pt"));
  CHECK_THAT(Refused(place, {"inspect", "model.pt"}, 65), ContainsSubstring("model.pt"));
}

TEST_CASE("a model without a quantizable layer is refused") {
  const Workplace place;
  torch::jit::Module module("empty");
  module.define("def forward(self, x):\n  return x.flatten(1)[:, :10]\n");
  SaveModel(place, module);
  CHECK_THAT(RefusedRun(place, 65), ContainsSubstring("layer"));
}

TEST_CASE("NaN and infinite weights are refused by name") {
  for (const double value : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    const Workplace place;
    const auto module = TinyModel();
    const torch::NoGradGuard no_grad;
    const auto parameter = *module.named_parameters().begin();
    parameter.value.view({-1})[3] = value;
    SaveModel(place, module);
    CHECK_THAT(RefusedRun(place, 65), ContainsSubstring(parameter.name));
  }
}

TEST_CASE("images that the model does not take are refused before anything is trained") {
  const Workplace place;
  CHECK_THAT(RefusedRun(place, 65, {"--set", "model.architecture=resnet20"}), ContainsSubstring("28"));
  CHECK_FALSE(std::filesystem::exists(place / "out/model.pt"));
}

TEST_CASE("labels that the model cannot answer are refused before anything is trained") {
  const Workplace place;
  std::string labels;
  for (std::int64_t i = 0; i < 300; ++i) labels.append(reinterpret_cast<const char*>(&i), sizeof i);
  WriteNpy(place / "train-labels.npy", "<i8", {300}, labels);
  CHECK_THAT(RefusedRun(place, 65),
             ContainsSubstring("of npy/train has the label ") && ContainsSubstring("has 10 outputs"));
  CHECK_FALSE(std::filesystem::exists(place / "out/model.pt"));
}

TEST_CASE("a label of the test split that the network has no output for is refused by position, before training") {
  const Workplace place;
  std::string labels;
  for (std::int64_t i = 0; i < 100; ++i) {
    const std::int64_t label = i == 5 ? 17 : 0;
    labels.append(reinterpret_cast<const char*>(&label), sizeof label);
  }
  WriteNpy(place / "test-labels.npy", "<i8", {100}, labels);
  CHECK_THAT(RefusedRun(place, 65),
             ContainsSubstring("image 5 of npy/test has the label 17") && ContainsSubstring("has 10 outputs"));
}

TEST_CASE("a model that answers probabilities is refused") {
  const Workplace place;
  SaveLinear(place, "torch.softmax(torch.linear(x.flatten(1), self.weight), 1)");
  CHECK_THAT(RefusedRun(place, 65), ContainsSubstring("softmax"));
}

TEST_CASE("a model without gradients: refused where the plan needs them, a warning where only its confidence does") {
  const Workplace place;
  SaveLinear(place, "torch.linear(x.flatten(1), self.weight).detach()");
  CHECK_THAT(RefusedRun(place, 65), ContainsSubstring("no gradient") && ContainsSubstring("layer"));
  const auto run = [&](const std::string& allocator, const std::string& metric) {
    return place.Bitplan({"run", place.recipe(), "--out", "out", "--set", "allocate.allocator=" + allocator, "--set",
                          "sensitivity.metric=" + metric, "--set", "quantizer.range=mse"});
  };
  CHECK(run("hawq", "measured").code == 65);
  const auto exact = run("exact", "measured");
  INFO(exact.err);
  CHECK(exact.code == 0);
  CHECK_THAT(exact.err, ContainsSubstring("confidence without networks from the posterior: no gradient"));
  CHECK_THAT(ReadText(place / "out/plan.yaml"), ContainsSubstring("confidence: "));  // other images alone
}

TEST_CASE("a budget that cannot be met names the nearest feasible one and the blocking layers") {
  const Workplace place;
  const auto line =
      RefusedRun(place, 75, {"--set", "allocate.budget.average_bits=1.5", "--set", "allocate.bits=[4, 8]"});
  CHECK_THAT(line, ContainsSubstring("4"));
  CHECK_THAT(line, ContainsSubstring("fc"));
  CHECK_FALSE(std::filesystem::exists(place / "out/model.pt"));  // said before anything is trained
}

TEST_CASE("a pin that is given twice is refused") {
  const Workplace place;
  CHECK_THAT(RefusedRun(place, 64, {"--set", "allocate.pins={fc1: 8, fc1: 2}"}),
             ContainsSubstring("'fc1' is given twice"));
}

TEST_CASE("a pin that blocks a budget is named before the layers that are free") {
  const Workplace place;
  const auto line =
      RefusedRun(place, 75, {"--set", "allocate.budget.average_bits=1", "--set", "allocate.pins={\"fc*\": 8}"});
  const auto pinned = line.find("pinned at 8 bits"), free = line.find("at least");
  REQUIRE(pinned != std::string::npos);
  CHECK(pinned < free);
}

TEST_CASE("a plan for another model is refused") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "other", "--seed", "2"}).code == 0);
  const std::vector<std::string> verify = {"verify", place.recipe(),    "--out",      "out",
                                           "--plan", "other/plan.yaml", "--out-plan", "out/plan.yaml"};
  CHECK_THAT(Refused(place, verify, 65), ContainsSubstring("weights"));
  auto smaller = verify;
  smaller.insert(smaller.end(), {"--set", "model.architecture=lenet5-caffe"});
  CHECK_THAT(Refused(place, smaller, 65), ContainsSubstring("conv1"));
}

TEST_CASE("a plan with an unknown layer or key is refused") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "made"}).code == 0);
  const auto plan = ReadText(place / "made/plan.yaml");
  const std::vector<std::string> verify = {"verify", place.recipe(), "--out", "made", "--plan", "bad.yaml"};
  WriteText(place / "bad.yaml", Replaced(plan, "name: fc1", "name: fc7"));
  CHECK_THAT(Refused(place, verify, 65), ContainsSubstring("fc7"));
  WriteText(place / "bad.yaml", Replaced(plan, "budget:", "budgets:"));
  CHECK_THAT(Refused(place, verify, 65), ContainsSubstring("budgets") && ContainsSubstring("bad.yaml"));
  WriteText(place / "bad.yaml", Replaced(plan, "kind: linear", "kind: conv2d"));
  Refused(place, verify, 65);
  WriteText(place / "bad.yaml", "");
  Refused(place, verify, 65);
}

TEST_CASE("an output folder that cannot be written is refused") {
  const Workplace place;
  WriteText(place / "file", "not a folder");
  CHECK_THAT(Refused(place, {"run", place.recipe(), "--out", "file/below"}, 74), ContainsSubstring("file/below"));
  CHECK_THAT(Refused(place, {"run", place.recipe(), "--out", "/proc/bitplan"}, 74), ContainsSubstring("/proc/bitplan"));
}

TEST_CASE("a full disk is reported, and the run continues once there is room") {
  const Workplace place;
  for (const std::int64_t limit : {4096, 400000}) {
    const auto line = Refused(place, {"run", place.recipe(), "--out", "out"}, 74, limit);
    CHECK_THAT(line, ContainsSubstring("out"));
  }
  CHECK(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
}

TEST_CASE("a disk that fills up while the posterior is written is reported too") {
  const Workplace place;
  REQUIRE(place.Bitplan({"train", place.recipe(), "--out", "out"}).code == 0);
  const auto outcome = place.Bitplan({"posterior", place.recipe(), "--out", "out"}, 1'500'000);
  INFO(outcome.err);
  CHECK(outcome.code == 74);
  CHECK_THAT(ErrorLine(outcome), ContainsSubstring("posterior.pt"));
  CHECK_FALSE(std::filesystem::exists(place / "out/posterior.pt"));
  CHECK(place.Bitplan({"posterior", place.recipe(), "--out", "out"}).code == 0);
}

TEST_CASE("an image with a number that the model's table does not hold is named") {
  const Workplace place;
  torch::jit::Module module("embedding");
  module.register_parameter("table", torch::randn({256, 4}) * 0.3, false);
  module.register_parameter("weight", torch::randn({4, 4}), false);
  module.define(
      "def forward(self, x):\n"
      "  return torch.linear(torch.embedding(self.table, x.flatten(1)).mean([1]), self.weight)\n");
  SaveModel(place, module);
  std::string images;
  for (std::int64_t i = 0; i < 300 * 784; ++i) {
    const std::int64_t value = i == 41 * 784 + 5 ? 256 : i % 256;
    images.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  WriteNpy(place / "train-images.npy", "<i8", {300, 28, 28}, images);
  CHECK_THAT(RefusedRun(place, 65),
             ContainsSubstring("image 41 of npy/train") && ContainsSubstring("index out of range"));
}

TEST_CASE("a model with one output is told to have two") {
  const Workplace place;
  SaveLinear(place, "torch.linear(x.flatten(1), self.weight)[:, :1]");
  CHECK_THAT(RefusedRun(place, 65), ContainsSubstring("one output") && ContainsSubstring("torch.cat"));
}

TEST_CASE("a result that cannot be written to stdout is a failure") {
  const Workplace place;
  CHECK(place.Bitplan({"help", "recipe"}, 16).code == 74);
}

TEST_CASE("a training image for which the model gives no numbers is named, and no posterior of it is kept") {
  const Workplace place;
  SaveLinear(place, "torch.linear((x / x.sum([1, 2, 3], True)).flatten(1), self.weight)");
  std::string images = ReadText(place / "train-images.npy");
  constexpr std::size_t kImage = 784;
  const std::size_t first = images.size() - 300 * kImage;
  images.replace(first + 40 * kImage, 10 * kImage, std::string(10 * kImage, '\0'));  // images 40..49 are blank
  WriteText(place / "train-images.npy", images);
  CHECK_THAT(RefusedRun(place, 65, {"--set", "posterior.samples=300"}),
             ContainsSubstring("the gradient of image 4") && ContainsSubstring("of npy/train is not finite"));
  CHECK_FALSE(std::filesystem::exists(place / "out/posterior.pt"));
}

TEST_CASE("a label beyond the model's outputs is named with its position and the number of outputs") {
  const Workplace place;
  SaveLinear(place, "torch.linear(x.flatten(1), self.weight)[:, :3]");
  CHECK_THAT(RefusedRun(place, 65),
             ContainsSubstring("has the label 3, but model model has 3 outputs: labels are class numbers 0..2"));
}
