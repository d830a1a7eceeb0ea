#include "bitplan/datagen/ambiguous_digits.h"

#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "bitplan/bayes/uncertainty.h"
#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/models/architectures.h"
#include "bitplan/models/network.h"
#include "bitplan/training/train.h"
#include "datagen/digit_autoencoder.h"

namespace bitplan {
namespace {

constexpr std::int64_t kRound = 4096;        // candidates drawn and judged together, about
constexpr std::int64_t kImagesAtOnce = 256;  // images that a network sees at once

void Require(bool holds, const char* field, double value, const char* bound) {
  if (!holds) throw Error(ErrorKind::kUsage, fmt::format("ambiguous digits: {} is {:g}; {}", field, value, bound));
}

// Mean and standard deviation of all elements.
struct Moments {
  double mean = 0.0, deviation = 0.0;
};

Moments MomentsOf(const torch::Tensor& values) {
  const double mean = values.mean(torch::kFloat64).item<double>();
  double squares = 0.0;
  for (const torch::Tensor& part : values.split(kRound)) {
    squares += (part.to(torch::kFloat64) - mean).square().sum().item<double>();
  }
  return {mean, std::sqrt(squares / static_cast<double>(values.numel()))};
}

void CheckData(const Dataset& data, int parents) {
  if (data.size() == 0 || data.images.scalar_type() != torch::kUInt8 || data.images.dim() != 4 ||
      data.images.size(1) != 1) {
    throw Error(ErrorKind::kData, data.name + ": ambiguous digits are made from grey images of bytes");
  }
  const auto classes = (data.labels.bincount() > 0).sum().item<std::int64_t>();
  if (classes < parents) {
    throw Error(ErrorKind::kData, fmt::format("{}: images of {}; mixtures need {}", data.name,
                                              Counted(classes, "class", "classes"), parents));
  }
}

// Networks that differ by their seeds.
class Ensemble {
 public:
  Ensemble(const Dataset& train, Moments pixels, const AmbiguousDigitsOptions& options, std::uint64_t seed,
           ProgressSink& progress)
      : normalizer_(Standardizing(pixels)) {
    for (int n = 1; n <= options.networks; ++n) {
      progress.Info(fmt::format("network {} of {}", n, options.networks));
      const auto own_seed = StreamSeed(seed, fmt::format("ambiguous-digits/network/{}", n));
      networks_.push_back(BuildArchitecture(options.architecture, own_seed));
      const TrainReport report =
          Train(networks_.back(), train, normalizer_, options.training, own_seed, {}, "", progress);
      loss_.push_back(report.epoch_loss.empty() ? 0.0 : report.epoch_loss.back());
    }
  }

  [[nodiscard]] const std::vector<double>& loss() const { return loss_; }

  // images: uint8 [n, 1, H, W].
  [[nodiscard]] Uncertainty Judge(const torch::Tensor& images) {
    const torch::NoGradGuard no_grad;
    const torch::jit::GraphOptimizerEnabledGuard plain_graphs(false);
    const auto blocks = normalizer_.Apply(images).split(kImagesAtOnce);
    UncertaintySum sum;
    for (torch::jit::Module& network : networks_) {
      std::vector<torch::Tensor> logits;
      for (const torch::Tensor& block : blocks) {
        ThrowIfInterrupted();
        logits.push_back(RunForward(network, block));
      }
      sum.Add(torch::cat(logits));
    }
    return sum.Take();
  }

 private:
  static DataOptions Standardizing(Moments pixels) {
    DataOptions options;
    options.normalize_mean = {pixels.mean / 255};
    options.normalize_std = {pixels.deviation / 255};
    return options;
  }

  Normalizer normalizer_;
  std::vector<torch::jit::Module> networks_;
  std::vector<double> loss_;
};

// Decodes mixtures and gives them the brightness of the training images.
class Painter {
 public:
  Painter(const DigitAutoencoder& autoencoder, const torch::Tensor& codes, Moments pixels, at::IntArrayRef shape,
          const AmbiguousDigitsOptions& options)
      : autoencoder_(autoencoder), shape_({-1, 1, shape[2], shape[3]}) {
    const Moments decoded = MomentsOf(autoencoder.Decode(codes));
    if (!(decoded.deviation > 0.0)) throw Error(ErrorKind::kData, "ambiguous digits: all decoded images are alike");
    const double scale = pixels.deviation / decoded.deviation / 255;
    scale_ = options.contrast * scale;
    offset_ = options.contrast * (pixels.mean / 255 - scale * decoded.mean) + options.brightness;
  }

  // float32 [n, code] -> uint8 [n, 1, H, W].
  [[nodiscard]] torch::Tensor Paint(const torch::Tensor& codes) const {
    const torch::Tensor pixels = autoencoder_.Decode(codes).mul_(scale_).add_(offset_).clamp_(0, 1);
    return pixels.mul_(255).round_().to(torch::kUInt8).view(shape_);
  }

 private:
  const DigitAutoencoder& autoencoder_;
  std::vector<std::int64_t> shape_;
  double scale_ = 1.0, offset_ = 0.0;
};

// Candidates of one half and the choice among them.
class HalfMaker {
 public:
  HalfMaker(const std::string& name, const Dataset& data, const torch::Tensor& codes, const Painter& painter,
            Ensemble& ensemble, const AmbiguousDigitsOptions& options, std::uint64_t seed)
      : name_(name),
        codes_(codes),
        labels_(data.labels.contiguous()),
        painter_(painter),
        ensemble_(ensemble),
        options_(options),
        mixtures_(seed, "ambiguous-digits/" + name + "/mixtures"),
        choice_(seed, "ambiguous-digits/" + name + "/choice"),
        label_draws_(seed, "ambiguous-digits/" + name + "/labels") {}

  AmbiguousHalf Make(std::int64_t wanted, ProgressSink& progress) {
    FillPool(wanted, progress);
    const torch::Tensor index = Choose(wanted);
    AmbiguousHalf half;
    half.images = pool_.images.index_select(0, index);
    half.predictive = pool_.predictive.index_select(0, index);
    half.entropy = pool_.entropy.index_select(0, index);
    half.information = pool_.information.index_select(0, index);
    half.labels = DrawLabels(half.predictive);
    half.drawn = pool_.drawn;
    half.kept = pool_.kept;
    return half;
  }

 private:
  void FillPool(std::int64_t wanted, ProgressSink& progress) {
    const auto target = static_cast<std::int64_t>(std::ceil(options_.pool * static_cast<double>(wanted)));
    const std::int64_t groups = std::max<std::int64_t>(1, kRound / options_.group);
    progress.Begin("ambiguous digits, " + name_, target, "candidates kept");
    std::vector<AmbiguousHalf> rounds;
    while (pool_.kept < target && pool_.drawn < options_.most_candidates) {
      ThrowIfInterrupted();
      std::vector<torch::Tensor> mixed;
      for (std::int64_t g = 0; g < groups; ++g) mixed.push_back(MixGroup());
      rounds.push_back(Keep(painter_.Paint(torch::cat(mixed))));
      pool_.drawn += groups * options_.group;
      const std::int64_t kept = rounds.back().images.size(0);
      progress.Advance(std::min(kept, target - pool_.kept));
      pool_.kept += kept;
    }
    progress.End(fmt::format("{} of {} kept", pool_.kept, pool_.drawn));
    if (pool_.kept < wanted) {
      throw Error(ErrorKind::kData, fmt::format("only {} of {} mixtures of {} images are ambiguous in the sense asked "
                                                "for; {} wanted",
                                                pool_.kept, pool_.drawn, name_,
                                                Counted(wanted, "image") + (wanted == 1 ? " is" : " are")));
    }
    const auto join = [&](torch::Tensor AmbiguousHalf::*field) {
      std::vector<torch::Tensor> parts;
      for (const AmbiguousHalf& round : rounds) parts.push_back(round.*field);
      pool_.*field = torch::cat(parts);
    };
    for (const auto field :
         {&AmbiguousHalf::images, &AmbiguousHalf::predictive, &AmbiguousHalf::entropy, &AmbiguousHalf::information}) {
      join(field);
    }
  }

  // `group` convex mixtures of the codes of the same images, all of different classes: float32 [group, code].
  torch::Tensor MixGroup() {
    const auto span = static_cast<std::uint64_t>(options_.most_parents - options_.fewest_parents + 1);
    const auto count = static_cast<std::size_t>(options_.fewest_parents) + mixtures_.Index(span);
    const std::int64_t* label = labels_.data_ptr<std::int64_t>();
    std::vector<std::int64_t> parents;
    while (parents.size() < count) {
      const auto candidate = static_cast<std::int64_t>(mixtures_.Index(static_cast<std::uint64_t>(labels_.size(0))));
      const bool new_class = std::none_of(parents.begin(), parents.end(),
                                          [&](std::int64_t parent) { return label[parent] == label[candidate]; });
      if (new_class) parents.push_back(candidate);
    }
    // Normalized exponential variables are Dirichlet(1).
    torch::Tensor weights = torch::empty({options_.group, static_cast<std::int64_t>(count)});
    auto* weight = weights.data_ptr<float>();
    for (std::int64_t i = 0; i < weights.numel(); ++i) {
      weight[i] = static_cast<float>(-std::log1p(-mixtures_.Uniform()));
    }
    weights /= weights.sum(1, /*keepdim=*/true).clamp_min(1e-30);
    return weights.mm(codes_.index_select(0, torch::tensor(parents)));
  }

  [[nodiscard]] AmbiguousHalf Keep(const torch::Tensor& images) {
    const Uncertainty judged = ensemble_.Judge(images);
    const torch::Tensor keep = judged.epistemic.le(options_.most_information)
                                   .logical_and_(judged.total.ge(options_.lowest_entropy))
                                   .logical_and_(judged.total.lt(options_.entropy_bound));
    const torch::Tensor index = keep.nonzero().flatten();
    AmbiguousHalf kept;
    kept.images = images.index_select(0, index);
    kept.predictive = judged.predictive.index_select(0, index);
    kept.entropy = judged.total.index_select(0, index);
    kept.information = judged.epistemic.index_select(0, index);
    return kept;
  }

  // `wanted` rows of the pool by quotas over bins of the entropy, in random order.
  torch::Tensor Choose(std::int64_t wanted) {
    std::vector<std::vector<std::int64_t>> bins(static_cast<std::size_t>(options_.bins));
    const double width = (options_.bins_high - options_.bins_low) / options_.bins;
    const auto* entropy = pool_.entropy.data_ptr<double>();
    for (std::int64_t i = 0; i < pool_.kept; ++i) {
      const double bin = std::clamp(std::floor((entropy[i] - options_.bins_low) / width), 0.0, options_.bins - 1.0);
      bins[static_cast<std::size_t>(bin)].push_back(i);
    }
    std::vector<std::int64_t> counts, chosen;
    for (const auto& bin : bins) counts.push_back(static_cast<std::int64_t>(bin.size()));
    const auto quotas = BinQuotas(counts, wanted, options_.exponent);
    for (std::size_t b = 0; b < bins.size(); ++b) {
      const auto order = choice_.Permutation(counts[b]);
      for (std::int64_t i = 0; i < quotas[b]; ++i) {
        chosen.push_back(bins[b][static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
      }
    }
    return torch::tensor(chosen).index_select(0, torch::tensor(choice_.Permutation(wanted)));
  }

  torch::Tensor DrawLabels(const torch::Tensor& predictive) {
    const std::int64_t count = predictive.size(0), classes = predictive.size(1);
    const torch::Tensor bounds = predictive.to(torch::kFloat64).cumsum(1);
    torch::Tensor labels = torch::empty({count, options_.labels}, torch::kInt64);
    auto* label = labels.data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < count; ++i) {
      const double* bound = bounds.data_ptr<double>() + i * classes;
      for (int draw = 0; draw < options_.labels; ++draw) {
        const double u = label_draws_.Uniform() * bound[classes - 1];
        *label++ = std::upper_bound(bound, bound + classes - 1, u) - bound;
      }
    }
    return labels;
  }

  std::string name_;
  torch::Tensor codes_, labels_;
  const Painter& painter_;
  Ensemble& ensemble_;
  const AmbiguousDigitsOptions& options_;
  RandomStream mixtures_, choice_, label_draws_;
  AmbiguousHalf pool_;
};

}  // namespace

void AmbiguousDigitsOptions::Validate() const {
  const auto positive = [](const char* field, double value) { Require(value > 0, field, value, "it must be above 0"); };
  positive("train_images", static_cast<double>(train_images));
  positive("test_images", static_cast<double>(test_images));
  positive("labels", labels);
  positive("code", static_cast<double>(code));
  positive("autoencoder_batch", autoencoder_batch);
  positive("autoencoder_learning_rate", autoencoder_learning_rate);
  positive("group", group);
  positive("bins", bins);
  for (const std::int64_t width : hidden) positive("hidden", static_cast<double>(width));
  Require(autoencoder_epochs >= 0, "autoencoder_epochs", autoencoder_epochs, "it must not be negative");
  Require(training.epochs >= 0, "training.epochs", training.epochs, "it must not be negative");
  Require(networks >= 2, "networks", networks, "disagreement needs 2");
  Require(fewest_parents >= 2, "fewest_parents", fewest_parents, "a mixture needs 2");
  Require(most_parents >= fewest_parents, "most_parents", most_parents, "it must not be less than fewest_parents");
  Require(pool >= 1, "pool", pool, "it must be at least 1");
  Require(entropy_bound > lowest_entropy, "entropy_bound", entropy_bound, "it must be above lowest_entropy");
  Require(bins_high > bins_low, "bins_high", bins_high, "it must be above bins_low");
  Require(exponent >= 0, "exponent", exponent, "it must not be negative");
}

std::vector<std::int64_t> BinQuotas(const std::vector<std::int64_t>& counts, std::int64_t total, double exponent) {
  if (total < 0 || std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) < total) {
    throw Error(ErrorKind::kUsage, fmt::format("quotas of {} cannot be met: the bins hold fewer", total));
  }
  // Shares rate * count^exponent; a bin that this would overfill is full, and what it leaves raises the rate of the
  // others. The bins that fill at the lowest rate come first.
  std::vector<std::size_t> order;
  std::vector<double> weight(counts.size(), 0.0), share(counts.size(), 0.0), rest(counts.size() + 1, 0.0);
  for (std::size_t b = 0; b < counts.size(); ++b) {
    if (counts[b] <= 0) continue;
    weight[b] = std::pow(static_cast<double>(counts[b]), exponent);
    order.push_back(b);
  }
  const auto fills_at = [&](std::size_t b) { return static_cast<double>(counts[b]) / weight[b]; };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return fills_at(a) < fills_at(b); });
  for (std::size_t i = order.size(); i-- > 0;) rest[i] = rest[i + 1] + weight[order[i]];
  double left = static_cast<double>(total);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::size_t b = order[i];
    share[b] = std::min(static_cast<double>(counts[b]), left * weight[b] / rest[i]);
    left -= share[b];
  }
  // Whole numbers, the largest remainders rounded up.
  std::vector<std::int64_t> quotas(counts.size(), 0);
  for (std::size_t b = 0; b < counts.size(); ++b) {
    quotas[b] = std::min(counts[b], static_cast<std::int64_t>(std::floor(share[b] + 1e-9)));
    share[b] -= static_cast<double>(quotas[b]);
  }
  order.resize(counts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return share[a] > share[b]; });
  std::int64_t missing = total - std::accumulate(quotas.begin(), quotas.end(), std::int64_t{0});
  while (missing > 0) {
    for (const std::size_t b : order) {
      if (missing == 0) break;
      if (quotas[b] >= counts[b]) continue;
      ++quotas[b];
      --missing;
    }
  }
  return quotas;
}

AmbiguousDigits MakeAmbiguousDigits(const Dataset& train, const Dataset& test, const AmbiguousDigitsOptions& options,
                                    std::uint64_t seed, ProgressSink& progress) {
  options.Validate();
  for (const Dataset* data : {&train, &test}) CheckData(*data, options.most_parents);
  if (train.images.sizes().slice(1) != test.images.sizes().slice(1)) {
    throw Error(ErrorKind::kData, test.name + ": images of another size than those of " + train.name);
  }
  (void)FindArchitecture(options.architecture);
  const Moments pixels = MomentsOf(train.images.to(torch::kFloat32));
  AmbiguousDigits made;
  DigitAutoencoder autoencoder(train.images[0].numel(), options, seed);
  made.autoencoder_loss = autoencoder.Train(train.images, progress);
  Ensemble ensemble(train, pixels, options, seed, progress);
  made.network_loss = ensemble.loss();
  const torch::Tensor codes = autoencoder.Encode(train.images);
  const Painter painter(autoencoder, codes, pixels, train.images.sizes(), options);
  made.train = HalfMaker("train", train, codes, painter, ensemble, options, seed).Make(options.train_images, progress);
  made.test = HalfMaker("test", test, autoencoder.Encode(test.images), painter, ensemble, options, seed)
                  .Make(options.test_images, progress);
  return made;
}

}  // namespace bitplan
