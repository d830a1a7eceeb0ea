#include "bitplan/training/train.h"

#include <fmt/format.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/nn/functional/loss.h>

#include <chrono>
#include <cmath>
#include <memory>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/data/augment.h"
#include "bitplan/models/network.h"
#include "bitplan/training/schedule.h"
#include "posterior/finite.h"
#include "training/checkpoint.h"
#include "training/optimizer.h"

namespace bitplan {
namespace {

constexpr std::int64_t kStepsBetweenChecks = 50;  // reading the loss makes the step wait for it

// Training mode with gradients while it lives; evaluation mode without gradients afterwards, whatever happened.
class TrainingMode {
 public:
  explicit TrainingMode(torch::jit::Module& module) : module_(module) { Set(true); }
  ~TrainingMode() { Set(false); }
  TrainingMode(const TrainingMode&) = delete;
  TrainingMode& operator=(const TrainingMode&) = delete;

 private:
  void Set(bool training) {
    SetTraining(module_, training);
    for (torch::Tensor parameter : module_.parameters()) {
      parameter.mutable_grad().reset();
      parameter.set_requires_grad(training);
    }
  }

  torch::jit::Module& module_;
};

class Trainer {
 public:
  Trainer(torch::jit::Module& module, const Dataset& train, const Normalizer& normalizer, const TrainOptions& options,
          std::uint64_t seed, ProgressSink& progress)
      : module_(module),
        train_(train),
        normalizer_(normalizer),
        options_(options),
        seed_(seed),
        progress_(progress),
        first_(CloneModule(module)),
        steps_per_epoch_((train.size() + options.batch - 1) / options.batch) {
    if (train.size() == 0) throw Error(ErrorKind::kData, "the training split is empty");
    for (const std::string& name : options.augment) augmentations_.push_back(&FindAugmentation(name));
    SetTraining(first_, false);
    if (!augmentations_.empty() && train.images.dim() != 4) {
      throw Error(ErrorKind::kUsage, fmt::format("train.augment changes images [N, C, H, W], but {} holds arrays of {} "
                                                 "dimensions; leave it out",
                                                 train.name, train.images.dim()));
    }
    std::vector<torch::Tensor> parameters;
    for (const torch::Tensor& parameter : module.parameters()) parameters.push_back(parameter);
    optimizer_ = MakeOptimizer(options, std::move(parameters));
  }

  [[nodiscard]] torch::optim::Optimizer& optimizer() { return *optimizer_; }

  // Epoch 1 .. options.epochs; its mean loss.
  double Epoch(int epoch) {
    const std::string stream_name = "training/epoch/" + std::to_string(epoch);
    RandomStream order_stream(seed_, stream_name), augment_stream(seed_, stream_name + "/augment");
    torch::manual_seed(StreamSeed(seed_, stream_name + "/dropout"));
    const torch::Tensor order = torch::tensor(order_stream.Permutation(train_.size()));
    torch::Tensor loss_sum = torch::zeros({}, torch::kDouble);
    for (std::int64_t step = 0; step < steps_per_epoch_; ++step) {
      ThrowIfInterrupted();
      const std::int64_t begin = step * options_.batch;
      const std::int64_t end = std::min<std::int64_t>(begin + options_.batch, train_.size());
      SetLearningRate(*optimizer_, OneCycleRate((epoch - 1) * steps_per_epoch_ + step,
                                                options_.epochs * steps_per_epoch_, options_.learning_rate));
      loss_sum += Step(order.slice(0, begin, end), augment_stream) * (end - begin);
      if ((step + 1) % kStepsBetweenChecks == 0 || end == train_.size()) CheckFinite(loss_sum, epoch, step);
      progress_.Advance(end - begin);
    }
    return loss_sum.item<double>() / static_cast<double>(train_.size());
  }

 private:
  // One update; the mean loss of the batch.
  torch::Tensor Step(const torch::Tensor& index, RandomStream& augment_stream) {
    torch::Tensor images = train_.images.index_select(0, index);
    for (const Augmentation* augmentation : augmentations_) images = augmentation->apply(images, augment_stream);
    optimizer_->zero_grad();
    const torch::Tensor logits = RunForward(module_, normalizer_.Apply(images));
    if (logits.dim() != 2 || logits.size(1) < train_.classes) {
      throw Error(ErrorKind::kData,
                  fmt::format("the model has {}, but data set {} has {}", Counted(logits.size(-1), "output"),
                              train_.name, Counted(train_.classes, "class", "classes")));
    }
    const torch::Tensor loss = torch::nn::functional::cross_entropy(logits, train_.labels.index_select(0, index));
    if (sound_ && loss.is_cpu() && !std::isfinite(loss.item<double>())) {
      sound_ = false;
      RefuseLoss(first_, train_, index, normalizer_);  // unless it is the network: training diverged
    }
    loss.backward();
    optimizer_->step();
    return loss.detach();
  }

  void CheckFinite(const torch::Tensor& loss_sum, int epoch, std::int64_t step) const {
    if (std::isfinite(loss_sum.item<double>())) return;
    throw Error(ErrorKind::kData, fmt::format("training diverged: the loss is not finite by step {} of epoch {}; lower "
                                              "train.learning_rate (now {})",
                                              step + 1, epoch, options_.learning_rate));
  }

  torch::jit::Module& module_;
  const Dataset& train_;
  const Normalizer& normalizer_;
  const TrainOptions& options_;
  std::uint64_t seed_;
  ProgressSink& progress_;
  torch::jit::Module first_;  // the network before training, in evaluation mode: an image that it cannot take is bad
  bool sound_ = true;         // every loss so far was finite
  std::int64_t steps_per_epoch_;
  std::vector<const Augmentation*> augmentations_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
};

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TrainReport Train(torch::jit::Module& module, const Dataset& train, const Normalizer& normalizer,
                  const TrainOptions& options, std::uint64_t seed, const std::filesystem::path& checkpoint,
                  const std::string& input_hash, ProgressSink& progress) {
  const auto start = std::chrono::steady_clock::now();
  // TorchScript's optimizer would change the arithmetic after a few steps, and a continued run would differ.
  const torch::jit::GraphOptimizerEnabledGuard plain_graphs(false);
  const Checkpoint file(checkpoint, input_hash);
  Trainer trainer(module, train, normalizer, options, seed, progress);
  TrainReport report;
  report.epoch_loss = file.Load(module, trainer.optimizer(), progress);
  if (!report.epoch_loss.empty()) {
    progress.Info(fmt::format("training continues after epoch {}/{}", report.epoch_loss.size(), options.epochs));
  }
  const TrainingMode mode(module);
  for (int epoch = static_cast<int>(report.epoch_loss.size()) + 1; epoch <= options.epochs; ++epoch) {
    const auto epoch_start = std::chrono::steady_clock::now();
    progress.Begin(fmt::format("train epoch {}/{}", epoch, options.epochs), train.size(), "images");
    report.epoch_loss.push_back(trainer.Epoch(epoch));
    file.Save(module, trainer.optimizer(), report.epoch_loss);
    progress.End(fmt::format("loss {:.4f}, {:.1f} s", report.epoch_loss.back(), SecondsSince(epoch_start)));
  }
  file.Remove();
  report.seconds = SecondsSince(start);
  return report;
}

}  // namespace bitplan
