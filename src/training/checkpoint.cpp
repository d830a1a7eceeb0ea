#include "training/checkpoint.h"

#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <sstream>
#include <utility>

#include "bitplan/io/files.h"

namespace bitplan {
namespace {

c10::List<at::Tensor> State(const torch::jit::Module& module) {
  c10::List<at::Tensor> tensors;
  for (const torch::Tensor& parameter : module.parameters()) tensors.push_back(parameter.detach());
  for (const torch::Tensor& buffer : module.buffers()) tensors.push_back(buffer.detach());
  return tensors;
}

}  // namespace

Checkpoint::Checkpoint(std::filesystem::path file, std::string input_hash)
    : file_(std::move(file)), input_hash_(std::move(input_hash)) {}

void Checkpoint::Save(const torch::jit::Module& module, const torch::optim::Optimizer& optimizer,
                      const std::vector<double>& epoch_loss) const {
  if (file_.empty()) return;
  torch::serialize::OutputArchive archive, optimizer_archive;
  optimizer.save(optimizer_archive);
  archive.write("input_hash", c10::IValue(input_hash_));
  archive.write("epoch_loss", c10::IValue(epoch_loss));
  archive.write("tensors", c10::IValue(State(module)));
  archive.write("optimizer", optimizer_archive);
  std::ostringstream bytes;
  archive.save_to(bytes);
  WriteFileAtomically(file_, std::move(bytes).str());
}

std::vector<double> Checkpoint::Load(torch::jit::Module& module, torch::optim::Optimizer& optimizer,
                                     ProgressSink& progress) const {
  std::error_code status;
  if (file_.empty() || !std::filesystem::exists(file_, status)) return {};
  try {
    torch::serialize::InputArchive archive, optimizer_archive;
    archive.load_from(file_.string(), torch::kCPU);
    c10::IValue hash, losses, stored;
    archive.read("input_hash", hash);
    if (hash.toStringRef() != input_hash_) {
      progress.Info("training starts anew: the checkpoint belongs to other options or data");
      return {};
    }
    archive.read("epoch_loss", losses);
    archive.read("tensors", stored);
    archive.read("optimizer", optimizer_archive);
    const c10::List<at::Tensor> saved = stored.toTensorList(), tensors = State(module);
    TORCH_CHECK(saved.size() == tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) TORCH_CHECK(saved.get(i).sizes() == tensors.get(i).sizes());
    optimizer.load(optimizer_archive);
    torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < tensors.size(); ++i) tensors.get(i).copy_(saved.get(i));
    return losses.toDoubleVector();
  } catch (const std::exception&) {
    const auto kept = MoveAside(file_, "kept");
    progress.Warn("training starts anew: " + file_.string() + " cannot be read as a checkpoint; it is now " +
                  kept.string());
    return {};
  }
}

void Checkpoint::Remove() const {
  std::error_code ignored;
  if (!file_.empty()) std::filesystem::remove(file_, ignored);
}

}  // namespace bitplan
