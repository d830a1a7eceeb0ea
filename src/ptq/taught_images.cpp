#include "ptq/taught_images.h"

#include <fmt/format.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "models/torch_reason.h"

namespace bitplan {
namespace {

constexpr std::int64_t kHeldOut = 8;     // one image of so many
constexpr std::int64_t kKept = 1 << 26;  // numbers of the float network's answers that are kept, not made again

}  // namespace

TaughtImages::TaughtImages(const Network& network, const AppliedPlan& applied, const Dataset& images,
                           const Normalizer& normalizer, int batch, std::string what, std::string advice,
                           std::uint64_t seed)
    : network_(network),
      applied_(applied),
      images_(images),
      normalizer_(normalizer),
      batch_(std::max<std::int64_t>(1, std::min<std::int64_t>(batch, images.size()))),
      held_out_(images.size() / kHeldOut),
      at_(images.size()),
      what_(std::move(what)),
      advice_(std::move(advice)),
      stream_(seed, "ptq/learned-rounding") {}

torch::Tensor TaughtImages::Inputs(const torch::Tensor& rows) const {
  return normalizer_.Apply(images_.images.index_select(0, rows));
}

void TaughtImages::KeepAnswers(ProgressSink& progress) {
  progress.Begin("float answers", images_.size(), "images");
  std::vector<torch::Tensor> answers;
  for (std::int64_t begin = 0; begin < images_.size(); begin += batch_) {
    ThrowIfInterrupted();
    const std::int64_t end = std::min(begin + batch_, images_.size());
    answers.push_back(RunForward(network_.module, Inputs(torch::arange(begin, end))).to(torch::kFloat32));
    if (answers.front().numel() / batch_ * images_.size() > kKept) {
      answers.clear();
      break;
    }
    progress.Advance(end - begin);
  }
  progress.End("");
  if (!answers.empty()) answers_ = torch::cat(answers);
}

torch::Tensor TaughtImages::Answers(const torch::Tensor& rows, const torch::Tensor& inputs) const {
  if (answers_.defined()) return answers_.index_select(0, rows);
  const torch::NoGradGuard no_grad;
  return RunForward(network_.module, inputs).to(torch::kFloat32);
}

// Of every image at `rows`.
torch::Tensor TaughtImages::Divergences(const torch::Tensor& rows) const {
  const torch::Tensor inputs = Inputs(rows), wanted = Answers(rows, inputs);
  const torch::Tensor given = RunForward(applied_.module, inputs).to(torch::kFloat32);
  return images_.Task().Divergences(wanted, given, images_.labels.index_select(0, rows));
}

double TaughtImages::Mean(std::int64_t first, std::int64_t last) const {
  double sum = 0.0;
  for (std::int64_t begin = first; begin < last; begin += batch_) {
    ThrowIfInterrupted();
    const std::int64_t end = std::min(begin + batch_, last);
    sum += Divergences(torch::arange(begin, end)).sum(torch::kFloat64).item<double>();
  }
  const double mean = sum / static_cast<double>(last - first);
  if (!std::isfinite(mean)) Refuse("the divergence from the float network is not finite");
  return mean;
}

torch::Tensor TaughtImages::NextRows() {
  const std::int64_t taught = images_.size() - held_out_;
  if (at_ + batch_ > taught) {
    order_ = torch::tensor(stream_.Permutation(taught));
    at_ = 0;
  }
  const torch::Tensor rows = order_.slice(0, at_, std::min(at_ + batch_, taught));
  at_ += batch_;
  return rows;
}

void TaughtImages::Backward() {
  const torch::AutoGradMode with_gradients(true);
  const torch::Tensor loss = Divergences(NextRows()).mean();
  if (!std::isfinite(loss.item<double>())) Refuse("the divergence from the float network is not finite");
  try {
    loss.backward();
  } catch (const std::exception& error) {
    Refuse("no gradient goes through the model: " + TorchReason(error));
  }
}

void TaughtImages::Refuse(const std::string& why) const {
  throw Error(ErrorKind::kData, fmt::format("{}: {}; {}", what_, why, advice_));
}

}  // namespace bitplan
