// Variational networks: rounding, storing, drawing, predicting and learning.
#include <torch/types.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "bitplan/bayes/calibrate.h"
#include "bitplan/bayes/learn.h"
#include "bitplan/bayes/predict.h"
#include "bitplan/bayes/stored_network.h"
#include "bitplan/bayes/unit_sensitivity.h"
#include "bitplan/bayes/variational_network.h"
#include "bitplan/core/error.h"
#include "bitplan/models/architectures.h"
#include "support/catch_torch.h"
#include "support/networks.h"

namespace bitplan {
namespace {

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "bitplan-bayes-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// A network whose standard deviations spread over two powers of ten.
StoredNetwork Float(const Network& network, std::uint64_t seed = 5) {
  torch::manual_seed(seed);
  StoredNetwork stored = VariationalNetwork(network, 0.1).Store();
  for (StoredLayer& layer : stored.layers) layer.sigma = layer.sigma * (torch::randn_like(layer.sigma) * 0.8).exp();
  return stored;
}

StoredNetwork Rounded(const StoredNetwork& reference, const BayesWidths& widths, const std::string& scale = "log") {
  VariationalNetwork network(reference);
  network.Quantize(std::vector<BayesWidths>(reference.layers.size(), widths), scale, {}, 1);
  return network.Store();
}

double LogError(const torch::Tensor& a, const torch::Tensor& b) {
  return (a.log() - b.log()).square().mean().item<double>();
}

TEST_CASE("schemes round what they say") {
  CHECK((FindBayesScheme("vpq").parameters && !FindBayesScheme("vpq").samples));
  CHECK((!FindBayesScheme("spq").parameters && FindBayesScheme("spq").samples));
  CHECK((FindBayesScheme("jq").parameters && FindBayesScheme("jq").samples));
  CHECK_THROWS_WITH(FindBayesScheme("vqp"), ContainsSubstring("vpq"));
}

TEST_CASE("rounded parameters have few values, and more bits are nearer") {
  const StoredNetwork reference = Float(testing::ConvBatchNorm());
  double mean_error = 1e9, sigma_error = 1e9;
  for (const int bits : {1, 2, 4, 8}) {
    const StoredNetwork rounded = Rounded(reference, {bits, bits, kFloatBits});
    const torch::Tensor mean = rounded.layers[1].Mean(0), sigma = rounded.layers[1].Sigma();
    for (std::int64_t channel = 0; channel < mean.size(0); ++channel) {
      CHECK(std::get<0>(torch::_unique2(mean[channel])).numel() <= (1 << bits));
    }
    CHECK(std::get<0>(torch::_unique2(sigma)).numel() <= (1 << bits));
    CHECK(sigma.min().item<float>() > 0.0F);
    const double m = (mean - reference.layers[1].Mean(0)).square().mean().item<double>();
    const double s = LogError(sigma, reference.layers[1].Sigma());
    CHECK(m < mean_error);
    CHECK(s < sigma_error);
    mean_error = m;
    sigma_error = s;
  }
}

TEST_CASE("a logarithmic grid keeps ratios of standard deviations that a linear one loses") {
  const StoredNetwork reference = Float(testing::ConvBatchNorm());
  for (const int bits : {2, 3, 4}) {
    const auto error = [&](const char* scale) {
      return LogError(Rounded(reference, {kFloatBits, bits, kFloatBits}, scale).layers[1].Sigma(),
                      reference.layers[1].Sigma());
    };
    CHECK(error("log") < 0.6 * error("linear"));
  }
}

TEST_CASE("no bits for sigma are one standard deviation for the layer, the geometric mean") {
  const StoredNetwork reference = Float(testing::ConvBatchNorm());
  const StoredNetwork rounded = Rounded(reference, {kFloatBits, 0, kFloatBits});
  const torch::Tensor sigma = rounded.layers[1].Sigma();
  CHECK(sigma.max().item<float>() == sigma.min().item<float>());
  CHECK(std::log(sigma.max().item<double>()) ==
        Approx(reference.layers[1].Sigma().log().mean().item<double>()).epsilon(1e-4));
}

TEST_CASE("draws have the stored mean and deviation, and rounded samples lie on their grid") {
  const Network network = testing::SoftmaxRegression(6, 5, 1.0);
  const StoredNetwork reference = Float(network);
  torch::Tensor sum = torch::zeros({5, 6}), squares = torch::zeros({5, 6});
  constexpr int kDraws = 4000;
  for (int t = 0; t < kDraws; ++t) {
    const torch::Tensor weight = reference.Draw(3, t)[0];
    sum += weight;
    squares += weight.square();
  }
  const torch::Tensor mean = sum / kDraws, deviation = (squares / kDraws - mean.square()).sqrt();
  CHECK(torch::allclose(mean, reference.layers[0].Mean(0), 0.0, 0.02));
  CHECK((deviation / reference.layers[0].Sigma() - 1.0).abs().max().item<float>() < 0.08F);
  CHECK(torch::equal(reference.Draw(3, 7)[0], reference.Draw(3, 7)[0]));
  CHECK_FALSE(torch::equal(reference.Draw(3, 7)[0], reference.Draw(3, 8)[0]));

  const StoredNetwork rounded = Rounded(reference, {kFloatBits, kFloatBits, 3});
  const UniformGrid& grid = rounded.layers[0].sample_grid;
  const torch::Tensor codes = rounded.Draw(3, 1)[0] / grid.steps.view({-1, 1}) - grid.offset;
  CHECK((codes - codes.round()).abs().max().item<float>() < 1e-3F);
  CHECK((codes.round().min().item<float>() >= -4.0F && codes.round().max().item<float>() <= 3.0F));
}

TEST_CASE("what is packed is what is read, bit for bit, and its size is that of its codes") {
  const Folder folder;
  const Network network = DescribeNetwork(BuildArchitecture("lenet5", 2), "lenet5", {1, 28, 28});
  const StoredNetwork reference = Float(network);
  const torch::Tensor images = torch::randn({32, 1, 28, 28});
  for (const int bits : {1, 2, 3, 4, 5, 8}) {
    VariationalNetwork learner(reference);
    learner.Quantize(std::vector<BayesWidths>(5, {bits, bits, bits}), "log", {}, 1);
    learner.QuantizeActivations(bits, images, 1);
    const StoredNetwork stored = learner.Store();
    const PackedSize size = SavePacked(stored, folder / "n.packed");
    CHECK(size.file == static_cast<std::int64_t>(std::filesystem::file_size(folder / "n.packed")));
    // Two float32 a weight and the biases, and little more.
    const std::int64_t plain = 8 * network.quantizable_weights() + 4 * 236;
    CHECK((size.float_file >= plain && size.float_file < plain + 4000));
    CHECK(size.file < plain * bits / 32 + 12000);
    const StoredNetwork loaded = LoadPacked(folder / "n.packed", network);
    CHECK(loaded.activation_bits == bits);
    const auto before = stored.Draw(4, 2), after = loaded.Draw(4, 2);
    for (std::size_t l = 0; l < before.size(); ++l) CHECK(torch::equal(before[l], after[l]));
    const Normalizer plain_pixels{DataOptions{}};
    const auto p = Predict(stored, images, plain_pixels, 2, 1, SilentSink(), ""),
               q = Predict(loaded, images, plain_pixels, 2, 1, SilentSink(), "");
    CHECK(torch::equal(p.predictive, q.predictive));
    CHECK(torch::equal(p.epistemic, q.epistemic));
  }
}

TEST_CASE("a damaged or foreign packed file is refused") {
  const Folder folder;
  const Network network = testing::SoftmaxRegression(6, 5, 1.0);
  (void)SavePacked(Rounded(Float(network), {4, 4, 4}), folder / "n.packed");
  CHECK_THROWS_WITH(LoadPacked(folder / "n.packed", testing::SoftmaxRegression(7, 5, 1.0)),
                    ContainsSubstring("layer fc"));
  std::ifstream in(folder / "n.packed", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const auto refused = [&](const std::string& text) {
    std::ofstream(folder / "bad.packed", std::ios::binary) << text;
    try {
      (void)LoadPacked(folder / "bad.packed", network);
      return false;
    } catch (const Error& error) {
      return error.kind() == ErrorKind::kData && std::string(error.what()).find("bad.packed") != std::string::npos;
    }
  };
  CHECK(refused(""));
  CHECK(refused("BPVN"));
  CHECK(refused(bytes.substr(0, bytes.size() - 1)));
  CHECK(refused(bytes + "x"));
  CHECK(refused("x" + bytes));
  CHECK_THROWS_AS(LoadPacked(folder / "none.packed", network), Error);

  StoredNetwork negative = Float(network);
  (void)SavePacked(negative, folder / "float.packed");
  CHECK_NOTHROW(LoadPacked(folder / "float.packed", network));
  negative.layers[0].sigma = negative.layers[0].sigma.clone();
  negative.layers[0].sigma.view(-1)[2] = -0.1F;
  (void)SavePacked(negative, folder / "negative.packed");
  CHECK_THROWS_WITH(LoadPacked(folder / "negative.packed", network), ContainsSubstring("standard deviation of fc"));
}

TEST_CASE("the divergence is that of Gaussians, and its fitted prior is the best one") {
  const Network network = testing::SoftmaxRegression(6, 5, 1.0);
  VariationalNetwork variational(network, 0.2);
  const StoredNetwork stored = variational.Store();
  const torch::Tensor mu = stored.layers[0].Mean(0), sigma = stored.layers[0].Sigma();
  const auto divergence = [&](double s) {
    return ((sigma.square() + mu.square()) / (2 * s * s) - (sigma / s).log() - 0.5).sum().item<double>();
  };
  CHECK(variational.Divergence(0.7).item<double>() == Approx(divergence(0.7)).epsilon(1e-4));
  const double best = std::sqrt((sigma.square() + mu.square()).mean().item<double>());
  CHECK(variational.Divergence(0.0).item<double>() == Approx(divergence(best)).epsilon(1e-4));
  CHECK(divergence(best) < divergence(1.1 * best));
  CHECK(divergence(best) < divergence(0.9 * best));
}

TEST_CASE("rounding is invisible to the gradients of what is not clipped") {
  const Network network = testing::SoftmaxRegression(6, 5, 1.0);
  VariationalNetwork rounded(Float(network)), plain(Float(network));
  rounded.Quantize({{8, 8, kFloatBits}}, "log", {}, 1);
  const std::vector<torch::Tensor> noise = {DrawNoise(network.layers[0], 0, 1, 0)};
  torch::manual_seed(8);
  const torch::Tensor images = torch::randn({20, 1, 1, 6});
  std::vector<torch::Tensor> gradients;
  for (VariationalNetwork* variational : {&plain, &rounded}) {
    variational->SetLearning(true);
    variational->SetWeights(variational->Round(), noise);
    variational->Forward(images).square().mean().backward();
    gradients.push_back(variational->Parameters()[0].grad().clone());  // of the means
    variational->SetLearning(false);
  }
  CHECK(gradients[0].abs().max().item<float>() > 0.0F);
  // All but the few means beyond the outermost level of their channel, whose gradient is zero.
  const torch::Tensor near = torch::isclose(gradients[0], gradients[1], 0.1, 0.01);
  CHECK(near.logical_or(gradients[1] == 0.0).all().item<bool>());
  CHECK(near.to(torch::kFloat32).mean().item<float>() > 0.8F);
}

Dataset Blobs(std::int64_t count) {  // three classes around three corners, some of them between
  torch::manual_seed(9);
  Dataset data{"blobs", {}, torch::randint(0, 3, {count}), 3};
  const torch::Tensor centres = torch::tensor({{2.0F, 0.0F, 0.0F}, {0.0F, 2.0F, 0.0F}, {0.0F, 0.0F, 2.0F}});
  data.images = (centres.index_select(0, data.labels) + torch::randn({count, 3})).view({count, 1, 1, 3});
  return data;
}

TEST_CASE("learning raises the bound and shrinks what the data know") {
  const Dataset data = Blobs(2000);
  VariationalNetwork network(testing::SoftmaxRegression(3, 3, 0.1), 1.0);
  const Normalizer plain{DataOptions{}};
  BayesOptions options;
  const auto few = LearnBound(network, data, plain, options, {8, 0.05, true, true}, 1, SilentSink());
  CHECK(few.back() < few.front());
  const StoredNetwork stored = network.Store();
  const auto images = Distinct(data);
  CHECK(Judge(Predict(stored, images.images, plain, 16, 1, SilentSink(), ""), images).metrics.accuracy > 0.8);
  VariationalNetwork scarce(testing::SoftmaxRegression(3, 3, 0.1), 1.0);
  (void)LearnBound(scarce, data.Head(60), plain, options, {200, 0.05, true, true}, 1, SilentSink());
  CHECK(stored.layers[0].Sigma().mean().item<double>() < scarce.Store().layers[0].Sigma().mean().item<double>());
}

StoredNetwork Learned(const Dataset& data, const BayesOptions& options, int epochs) {
  VariationalNetwork network(testing::SoftmaxRegression(3, 3, 0.1), 1.0);
  (void)LearnBound(network, data, Normalizer{DataOptions{}}, options, {epochs, 0.05, true, true}, 1, SilentSink());
  return network.Store();
}

TEST_CASE("a network that follows its reference comes back to its answers and its uncertainty") {
  Dataset data = Blobs(1500);
  const Normalizer plain{DataOptions{}};
  BayesOptions options;
  options.batch = 32;
  const StoredNetwork reference = Learned(data.Head(120), options, 60);
  VariationalNetwork rounded(reference);
  rounded.Quantize({{2, 2, 3}}, "log", {}, 1);
  // Labels as the reference expects them, so that they do not teach it anything new.
  torch::manual_seed(10);
  data.labels = Predict(reference, data.images, plain, 64, 5, SilentSink(), "").predictive.multinomial(1).squeeze(1);
  const auto images = Distinct(data);
  const auto judged = [&](const StoredNetwork& stored) {
    return Judge(Predict(stored, images.images, plain, 1000, 1, SilentSink(), ""), images);
  };
  const auto before = judged(reference), trained = judged(rounded.Store());
  const auto groups = GroupByUncertainty(reference, data, plain, 8, 2, SilentSink());
  (void)LearnReference(rounded, reference, &groups, data, plain, options, {40, 0.001}, 3, SilentSink());
  StoredNetwork followed = rounded.Store();
  (void)CalibrateUncertainty(followed, UncertaintyTarget(reference, data, plain, 4, SilentSink()), SilentSink());
  const auto tuned = judged(followed);
  const auto off = [&](const BayesEvaluation& e) {
    return std::abs(std::log(e.aleatoric / before.aleatoric)) + std::abs(std::log(e.epistemic / before.epistemic));
  };
  CHECK(off(tuned) < 0.5 * off(trained));
  CHECK(std::abs(tuned.metrics.accuracy - before.metrics.accuracy) < 0.02);
}

TEST_CASE("labels teach a network nothing that answers as its reference does") {
  Dataset data = Blobs(200);
  const Normalizer plain{DataOptions{}};
  BayesOptions options;
  options.batch = 32;
  const StoredNetwork reference = Learned(data, options, 20);
  const auto groups = GroupByUncertainty(reference, data, plain, 8, 2, SilentSink());
  data.labels = (data.labels + 1) % 3;
  VariationalNetwork same(reference);
  (void)LearnReference(same, reference, &groups, data, plain, options, {40, 0.005}, 3, SilentSink());
  const StoredNetwork after = same.Store();
  CHECK((after.layers[0].Mean(0) - reference.layers[0].Mean(0)).abs().max().item<double>() < 0.01);
  CHECK((after.layers[0].Sigma() / reference.layers[0].Sigma() - 1.0).abs().max().item<double>() < 0.01);
}

TEST_CASE("pictures that occur once or several times are followed, down to a minibatch of one") {
  torch::manual_seed(11);
  Dataset data{"pictures", {}, {}, 3};
  data.images = torch::cat({torch::rand({25, 1, 10, 12}), torch::rand({10, 1, 10, 12}).repeat_interleave(4, 0)});
  const Normalizer plain{DataOptions{}};
  BayesOptions options;
  options.batch = 32;  // 32, 32 and 1 image
  const StoredNetwork reference = VariationalNetwork(testing::SoftmaxRegression(120, 3, 0.3), 0.2).Store();
  const auto answers = [&](const StoredNetwork& network) {
    return Predict(network, data.images, plain, 64, 5, SilentSink(), "").predictive;
  };
  const torch::Tensor wanted = answers(reference);
  data.labels = wanted.multinomial(1).squeeze(1);
  const auto groups = GroupByUncertainty(reference, data, plain, 8, 2, SilentSink());
  VariationalNetwork rounded(reference);
  rounded.Quantize({{2, 2, 2}}, "log", {}, 1);
  const double before = (answers(rounded.Store()) - wanted).abs().mean().item<double>();
  const auto losses = LearnReference(rounded, reference, &groups, data, plain, options, {60, 0.005}, 3, SilentSink());
  CHECK(losses.back() < losses.front());
  CHECK((answers(rounded.Store()) - wanted).abs().mean().item<double>() < 0.7 * before);
}

TEST_CASE("repeated images are predicted once and judged with every label") {
  Dataset data;
  data.name = "repeated";
  data.classes = 3;
  data.images = torch::tensor({1.0F, 1.0F, 2.0F, 1.0F}).view({4, 1, 1, 1}).expand({4, 1, 1, 3}).clone();
  data.labels = torch::tensor({0, 1, 2, 1}, torch::kInt64);
  const DistinctImages images = Distinct(data);
  REQUIRE(images.size() == 3);
  CHECK(torch::equal(images.of_row, torch::tensor({0, 0, 1, 2}, torch::kInt64)));
  Uncertainty uncertainty;
  uncertainty.predictive = torch::tensor({{0.1F, 0.8F, 0.1F}, {0.1F, 0.2F, 0.7F}, {0.6F, 0.3F, 0.1F}});
  uncertainty.total = uncertainty.aleatoric = uncertainty.epistemic = torch::tensor({1.0, 2.0, 6.0}, torch::kFloat64);
  const BayesEvaluation judged = Judge(uncertainty, images);
  CHECK(judged.metrics.accuracy == Approx(0.5));  // rows 1 and 2 of 4
  CHECK(torch::allclose(judged.correct, torch::tensor({0.5F, 1.0F, 0.0F})));
  CHECK(torch::equal(judged.labels, torch::tensor({2.0F, 1.0F, 1.0F})));
  CHECK(judged.aleatoric == Approx(3.0));
}

TEST_CASE("inputs of a layer that no image reaches cannot be rounded, and those that some reach can") {
  const Network network = testing::RareBranch(1.0);
  const StoredNetwork reference = Float(network);
  const Dataset data = testing::RandomImages(network, 400);
  const torch::Tensor dark = data.images.flatten(1).mean(1).le(1.0).nonzero().squeeze(1);
  VariationalNetwork learner(reference);
  CHECK_THROWS_WITH(
      learner.QuantizeActivations(4, data.images.index_select(0, dark), 1),
      ContainsSubstring("layer rare of rare-branch runs for none") && ContainsSubstring("bayes.activation_bits 32"));
  VariationalNetwork other(reference);
  other.QuantizeActivations(4, data.images, 1);
  CHECK(other.Store().activation_signed.size() == 3);
}

TEST_CASE("an image for which a Bayesian network gives no numbers is named as its file counts") {
  const Network network = testing::SoftmaxRegression(6, 5, 1.0);
  const Normalizer plain{DataOptions{}};
  Dataset published = testing::RandomImages(network, 100);
  published.images[40].fill_(std::numeric_limits<float>::quiet_NaN());
  const Dataset train = published.Select(torch::arange(99, 9, -1));  // row 59 is image 40
  const auto named = ContainsSubstring("image 40 of random/train is not finite");
  const StoredNetwork reference = Float(network);
  BayesOptions options;
  options.batch = 32;
  VariationalNetwork learner(network, 0.1);
  CHECK_THROWS_WITH(LearnBound(learner, train, plain, options, {.epochs = 1}, 1, SilentSink()), named);
  CHECK_THROWS_WITH(Predict(reference, Distinct(train), plain, 2, 1, SilentSink(), ""), named);
  CHECK_THROWS_WITH(GroupByUncertainty(reference, train, plain, 2, 1, SilentSink()), named);
  CHECK_THROWS_WITH(UncertaintyTarget(reference, train, plain, 1, SilentSink()), named);
  CHECK_THROWS_WITH(MeasureUnits(reference, train.images, plain, {4}, "log", {}, 2, 1, SilentSink(),
                                 [&](std::int64_t image) { return train.ImageName(image); }),
                    named);
  VariationalNetwork follower(reference);
  CHECK_THROWS_WITH(LearnReference(follower, reference, nullptr, train, plain, options, {.epochs = 1}, 1, SilentSink()),
                    named);
  // Where every image is bad the first is named, not the learning rate.
  const Dataset bad = published.Select(torch::full({40}, 40, torch::kInt64));
  VariationalNetwork second(network, 0.1);
  CHECK_THROWS_WITH(LearnBound(second, bad, plain, options, {.epochs = 1}, 1, SilentSink()), named);
}

TEST_CASE("the interval of a drop resamples images, not labels") {
  torch::manual_seed(3);
  const torch::Tensor before = torch::rand({300}), after = (before - 0.1 + 0.3 * torch::randn({300}));
  const auto d = CompareClustered(before, after, torch::full({300}, 10.0F), DrawBlocks(300), 1000, 1);
  CHECK(d.drop == Approx((before - after).mean().item<double>()).epsilon(1e-4));
  const double error = (before - after).std().item<double>() / std::sqrt(300.0);
  CHECK(d.ci_high - d.ci_low == Approx(2 * 1.96 * error).epsilon(0.15));
  const auto none = CompareClustered(before, before, torch::ones({300}), DrawBlocks(300), 200, 1);
  CHECK((none.drop == 0.0 && none.ci_low == 0.0 && none.ci_high == 0.0));
}

TEST_CASE("the interval of a drop and its bound hold draws that images share") {
  // Every block of images has an error of its own, as draws give; its images differ too. The drop is 0.01.
  constexpr std::int64_t kBlocks = 40, kImages = kBlocks * kInputsPerDraw;
  constexpr double kTrue = 0.01;
  const torch::Tensor labels = torch::ones({kImages}), all = torch::ones({kImages}, torch::kBool);
  int within = 0, below = 0, by_images = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    torch::manual_seed(seed);
    const torch::Tensor of_block = (torch::randn({kBlocks}) * 0.02).repeat_interleave(kInputsPerDraw);
    const torch::Tensor lost = kTrue + of_block + 0.1 * torch::randn({kImages});
    const auto drop = CompareClustered(lost, torch::zeros_like(lost), labels, DrawBlocks(kImages), 300, seed);
    within += drop.ci_low <= kTrue && kTrue <= drop.ci_high ? 1 : 0;
    below += DropOf(lost, torch::zeros_like(lost), labels, all).at_most >= kTrue ? 1 : 0;
    const auto images = CompareClustered(lost, torch::zeros_like(lost), labels, torch::zeros({kImages}, torch::kInt64),
                                         300, seed);  // as if the draws were given
    by_images += images.ci_low <= kTrue && kTrue <= images.ci_high ? 1 : 0;
  }
  CHECK(within >= 180);     // 95 % of 200 is 190, three standard errors 9
  CHECK(below >= 188);      // 97.5 %
  CHECK(by_images <= 160);  // what the interval would say without the draws
}

TEST_CASE("no image on which two networks differ leaves a drop of more than nothing possible") {
  const torch::Tensor right = torch::ones({500}), all = torch::ones({500}, torch::kBool);
  const auto drop = DropOf(right, right, right, all);
  CHECK(drop.value == 0.0);
  CHECK(drop.at_most == Approx(1.0 - std::pow(0.025, 1.0 / 500.0)).epsilon(0.01));  // Clopper and Pearson
  CHECK(std::isinf(DropOf(right, right, right, torch::arange(500).lt(100)).at_most));
}

TEST_CASE("the table of means and sigmas falls with the bits and gives plans their widths") {
  const Network network = testing::SoftmaxRegression(6, 5, 1.0);
  const StoredNetwork reference = Float(network);
  const torch::Tensor images = torch::randn({200, 1, 1, 6});
  const auto problem =
      MeasureUnits(reference, images, Normalizer{DataOptions{}}, {1, 2, 4, 8}, "log", {}, 4, 1, SilentSink());
  REQUIRE(problem.units.size() == 2);
  CHECK((problem.units[0].name == "fc.mean" && problem.units[1].name == "fc.sigma"));
  for (const auto& row : problem.loss_rise) {
    CHECK(row[0] > row[2]);
    CHECK(row[2] > row[3]);
  }
  // Rounding the means moves every draw; rounding the small deviations moves it less.
  CHECK(problem.loss_rise[0][1] > problem.loss_rise[1][1]);
  const auto widths = WidthsOf({4, 2, 3, 1});
  CHECK((widths.size() == 2 && widths[0].mean == 4 && widths[0].sigma == 2 && widths[1].sigma == 1));
}

}  // namespace
}  // namespace bitplan
