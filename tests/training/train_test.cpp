#include "bitplan/training/train.h"

#include <fstream>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/models/architectures.h"
#include "bitplan/training/schedule.h"
#include "models/support.h"

namespace bitplan {
namespace {

// Bars at a place that the label decides, on noise: learnable by any network.
Dataset Bars(std::int64_t count, const std::vector<std::int64_t>& shape) {
  torch::manual_seed(5);
  Dataset data{.name = "bars", .images = {}, .labels = torch::arange(count).remainder(10), .classes = 10};
  data.images = torch::randint(0, 120, {count, shape[0], shape[1], shape[2]}, torch::kByte);
  for (std::int64_t i = 0; i < count; ++i) data.images[i].slice(1, 2 * (i % 10) + 4, 2 * (i % 10) + 6).fill_(255);
  return data;
}

torch::jit::Module Perceptron() { return BuildArchitecture("lenet-300-100", 1); }

// conv - batch norm - relu - linear.
torch::jit::Module ConvNet() {
  torch::manual_seed(3);
  torch::jit::Module module = testing::MakeModule({{"conv", torch::randn({4, 1, 3, 3}) * 0.5},
                                                   {"scale", torch::ones({4})},
                                                   {"shift", torch::zeros({4})},
                                                   {"fc", torch::randn({10, 676}) * 0.05}},
                                                  R"(
def forward(self, x):
    x = torch.conv2d(x, self.conv, None, [2, 2])
    x = torch.batch_norm(x, self.scale, self.shift, self.mean, self.variance, self.training, 0.1, 1e-05, False)
    return torch.linear(torch.flatten(torch.relu(x), 1), self.fc)
)",
                                                  {{"mean", torch::zeros({4})}, {"variance", torch::ones({4})}});
  return module;
}

struct Setup {
  torch::jit::Module (*build)() = &Perceptron;
  Dataset data = Bars(160, {1, 28, 28});
  Normalizer normalizer{DataOptions{}};
  TrainOptions options{.epochs = 3, .batch = 32, .augment = {"shift"}};
};

TrainReport TrainOn(const Setup& setup, torch::jit::Module& module, const std::filesystem::path& checkpoint = {},
                    ProgressSink& progress = SilentSink(), const std::string& hash = "run") {
  return Train(module, setup.data, setup.normalizer, setup.options, 1, checkpoint, hash, progress);
}

struct Sink final : ProgressSink {
  void Begin(const std::string& stage, std::int64_t total, const std::string&) override {
    stages.push_back(stage);
    remaining = total;
  }
  void Advance(std::int64_t steps) override { remaining -= steps; }
  void End(const std::string&) override {
    CHECK(remaining == 0);
    if (static_cast<int>(stages.size()) == stop_after) RequestInterrupt();
  }
  void Info(const std::string& line) override { lines.push_back(line); }
  void Warn(const std::string& line) override { lines.push_back(line); }

  int stop_after = -1;
  std::int64_t remaining = 0;
  std::vector<std::string> stages, lines;
};

// Trains until `epochs` epochs are done and the user presses Ctrl-C.
void TrainAndInterrupt(const Setup& setup, const std::filesystem::path& checkpoint, int epochs,
                       const std::string& hash = "run") {
  torch::jit::Module module = setup.build();
  Sink sink;
  sink.stop_after = epochs;
  const auto caught = testing::CatchError([&] { (void)TrainOn(setup, module, checkpoint, sink, hash); });
  ClearInterrupt();
  REQUIRE(caught.kind == ErrorKind::kInterrupted);
}

TEST_CASE("training lowers the loss and leaves evaluation mode without gradients") {
  Setup setup;
  setup.options.epochs = 6;
  setup.options.augment = {};  // shifted bars would take other labels' places
  for (const std::string optimizer : {"adam", "sgd"}) {
    INFO(optimizer);
    setup.options.optimizer = optimizer;
    setup.options.learning_rate = optimizer == "adam" ? 0.002 : 0.02;
    torch::jit::Module module = setup.build();
    const TrainReport report = TrainOn(setup, module);
    REQUIRE(report.epoch_loss.size() == 6);
    CHECK(report.epoch_loss.back() < 0.3 * report.epoch_loss.front());
    CHECK_FALSE(module.attr("training").toBool());
    for (const torch::Tensor& parameter : module.parameters()) CHECK_FALSE(parameter.requires_grad());
  }
}

TEST_CASE("an interrupted training continues and ends with the same weights, bit for bit") {
  Setup with_batch_norm;
  with_batch_norm.build = &ConvNet;
  Setup sgd;
  sgd.options.optimizer = "sgd";
  for (const Setup& setup : {Setup{}, sgd, with_batch_norm}) {
    const testing::TemporaryFolder folder;
    torch::jit::Module straight = setup.build();
    const TrainReport whole = TrainOn(setup, straight);

    TrainAndInterrupt(setup, folder / "state", 1);
    REQUIRE(std::filesystem::exists(folder / "state"));
    torch::jit::Module continued = setup.build();
    Sink sink;
    const TrainReport rest = TrainOn(setup, continued, folder / "state", sink);
    CHECK(sink.stages == std::vector<std::string>{"train epoch 2/3", "train epoch 3/3"});
    CHECK(ModelHash(continued) == ModelHash(straight));
    CHECK(rest.epoch_loss == whole.epoch_loss);
    CHECK_FALSE(std::filesystem::exists(folder / "state"));
  }
}

TEST_CASE("a checkpoint of another run, or a damaged one, is not used") {
  const Setup setup;
  const testing::TemporaryFolder folder;
  torch::jit::Module straight = setup.build();
  (void)TrainOn(setup, straight);
  TrainAndInterrupt(setup, folder / "state", 1, "other run");
  SECTION("of another run") {}
  SECTION("damaged") { std::ofstream(folder / "state") << "cut off"; }
  torch::jit::Module module = setup.build();
  Sink sink;
  (void)TrainOn(setup, module, folder / "state", sink);
  CHECK(sink.stages.size() == 3);
  CHECK(sink.lines.size() == 1);
  CHECK(ModelHash(module) == ModelHash(straight));
}

TEST_CASE("another seed trains another network") {
  const Setup setup;
  torch::jit::Module first = setup.build(), second = CloneModule(first);
  (void)TrainOn(setup, first);
  (void)Train(second, setup.data, setup.normalizer, setup.options, 2, {}, "run", SilentSink());
  CHECK(ModelHash(first) != ModelHash(second));
}

TEST_CASE("weight decay shrinks the weights") {
  Setup setup;
  torch::jit::Module plain = setup.build(), decayed = CloneModule(plain);
  (void)TrainOn(setup, plain);
  setup.options.weight_decay = 10.0;
  (void)TrainOn(setup, decayed);
  CHECK(GetTensor(decayed, "fc1.weight").norm().item<double>() <
        0.95 * GetTensor(plain, "fc1.weight").norm().item<double>());
}

TEST_CASE("a learning rate that is too high is told so") {
  Setup setup;
  setup.options.optimizer = "sgd";
  setup.options.learning_rate = 1e6;
  torch::jit::Module module = setup.build();
  const auto caught = testing::CatchError([&] { (void)TrainOn(setup, module); });
  CHECK(caught.kind == ErrorKind::kData);
  CHECK(caught.message.find("lower train.learning_rate") != std::string::npos);
  CHECK_FALSE(module.attr("training").toBool());
}

TEST_CASE("a model with fewer outputs than the data has classes is refused") {
  Setup setup;
  setup.data.classes = 11;
  torch::jit::Module module = setup.build();
  CHECK(testing::CatchError([&] { (void)TrainOn(setup, module); }).kind == ErrorKind::kData);
}

TEST_CASE("an unknown optimizer is refused with the known ones") {
  Setup setup;
  setup.options.optimizer = "adan";
  torch::jit::Module module = setup.build();
  const auto caught = testing::CatchError([&] { (void)TrainOn(setup, module); });
  CHECK(caught.kind == ErrorKind::kUsage);
  CHECK(caught.message.find("sgd") != std::string::npos);
}

TEST_CASE("the learning rate rises for a quarter of the steps to its peak and falls towards zero") {
  CHECK(OneCycleRate(0, 100, 1.0) == Approx(0.04));
  CHECK(OneCycleRate(24, 100, 1.0) == Approx(1.0));
  for (int step = 25; step < 100; ++step) CHECK(OneCycleRate(step, 100, 1.0) < OneCycleRate(step - 1, 100, 1.0));
  CHECK(OneCycleRate(99, 100, 1.0) > 0.0);
  CHECK(OneCycleRate(99, 100, 1.0) < 0.01);
  CHECK(OneCycleRate(0, 1, 2.0) == Approx(2.0));
}

}  // namespace
}  // namespace bitplan
