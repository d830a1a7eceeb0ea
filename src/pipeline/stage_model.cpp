// The first stage of the chain: a model that is trained here, or one from a file.
#include <fmt/format.h>
#include <torch/serialize.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/models/architectures.h"
#include "bitplan/models/at_once.h"
#include "bitplan/models/equalize.h"
#include "bitplan/training/train.h"
#include "bitplan/verify/evaluate.h"
#include "io/json_text.h"
#include "pipeline/checks.h"
#include "pipeline/model_checks.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"
#include "pipeline/trained_model.h"

namespace bitplan::pipeline {

void StageChain::UseInputsOf(const bitplan::Network& network) {
  if (network.input_type == torch::kInt64) normalizer_.KeepIntegers();
}

namespace {

// How many classes the training images have; 0 where they have no labels, or none that are classes.
std::int64_t ClassesPresent(const DataSplits& data) {
  if (data.train.likelihood || data.train.unlabelled || data.train.size() == 0) return 0;
  return data.train.labels.bincount().gt(0).sum().item<std::int64_t>();
}

}  // namespace

ModelFit StageChain::CheckModelSuitsData(const bitplan::Network& network) {
  UseInputsOf(network);
  const auto& data = Data();
  return CheckModelFits(network, data.train, {&data.calibration, &data.test}, normalizer_,
                        recipe_.model.answers_may_vary);
}

bitplan::Network StageChain::Described(const torch::jit::Module& module, const std::string& name,
                                       const std::vector<std::int64_t>& shape, const torch::Tensor& images) const {
  try {
    return DescribeNetwork(module, name, shape, images);
  } catch (const Error& error) {
    const bool put_in =
        recipe_.data.name == "npy" && recipe_.data.layout == "images" && shape.size() == 3 && shape[0] == 1;
    if (error.kind() != ErrorKind::kData || !put_in) throw;
    // Not for every reason that a model is refused for: only where the other shape would do.
    try {
      (void)DescribeNetwork(module, name, {shape[1], shape[2]});
    } catch (const Error&) {
      throw error;
    }
    throw Error(ErrorKind::kData, std::string(error.what()) + "; it takes [" + std::to_string(shape[1]) + ", " +
                                      std::to_string(shape[2]) + "]: if the arrays are [N, " +
                                      std::to_string(shape[1]) + ", " + std::to_string(shape[2]) +
                                      "], set data.layout: as-is");
  }
}

std::string StageChain::TrainingInput() {
  Recipe recipe = recipe_;
  recipe.model.equalize = 0.0;
  // Evening out follows the training, and networks that were trained before there was the key need not be trained anew.
  std::string model = DumpRecipeSection(recipe, "model");
  const std::string line = "  equalize: 0.0\n";
  if (const auto at = model.find(line); at != std::string::npos) model.erase(at, line.size());
  return Sha256OfParts({"model/2", model, Section("train"), DataHash(false), Seed()});
}

StageRecord StageChain::TrainModel(const std::string& input) {
  const auto& data = Data();
  RequireLabels(data.train, "training");
  const auto& name = recipe_.model.architecture;
  auto module = BuildArchitecture(name, recipe_.seed);
  SetDropout(module, recipe_.train.dropout);
  (void)CheckModelSuitsData(DescribeNetwork(module, name, data.train.images.sizes().slice(1).vec()));
  const auto report = bitplan::Train(module, data.train, normalizer_, recipe_.train, recipe_.seed,
                                     folder_.File("model.checkpoint"), input, progress_);
  module.eval();
  folder_.Write("model.pt", [&](const std::filesystem::path& file) { SaveModule(module, file); });
  const nlohmann::json facts = {{"input_shape", data.train.images.sizes().slice(1).vec()},
                                {"classes", data.train.classes},
                                {"present", ClassesPresent(data)},
                                {"calibration", data.calibration.size()},
                                {"epoch_loss", report.epoch_loss}};
  return {.input = {}, .content = ModelHash(module), .facts = JsonText(facts)};
}

const StageRecord& StageChain::ModelRecord() {
  if (model_record_) return *model_record_;
  FindModel();
  if (recipe_.model.equalize > 0.0) EqualizeModel();
  LabelByModel();
  return *model_record_;
}

void StageChain::EqualizeModel() {
  const auto input = Sha256OfParts(
      {"equalize/1", model_record_->content, DataHash(false), fmt::format("{}", recipe_.model.equalize), Seed()});
  const auto record = Ensure("equalize", input, {"equalized.pt"}, [&]() -> StageRecord {
    constexpr std::int64_t kImages = 1024;
    const auto& train = Data().train;
    const auto order = RandomStream(recipe_.seed, "pipeline/equalize").Permutation(train.size());
    const auto count = static_cast<std::ptrdiff_t>(std::min(kImages, train.size()));
    const auto some = torch::tensor(std::vector<std::int64_t>(order.begin(), order.begin() + count));
    auto network = Model();
    const auto changed = EqualizeRanges(network, normalizer_.Apply(train.images.index_select(0, some)),
                                        recipe_.model.equalize, progress_);
    auto facts = nlohmann::json::array();
    for (const auto& tensor : changed) {
      facts.push_back({{"made_by", tensor.made_by},
                       {"read_by", tensor.read_by},
                       {"spread_before", Rounded(tensor.before, 3)},
                       {"spread_after", Rounded(tensor.after, 3)}});
    }
    if (changed.empty()) {
      progress_.Warn(
          "model.equalize: no tensor between two layers was evened out: each is read by something else, passes an "
          "operation that does not keep factors of channels, or would have changed an answer");
    } else {
      progress_.Info(fmt::format("ranges of channels evened out in {}", Counted(std::ssize(changed), "tensor")));
    }
    folder_.Write("equalized.pt", [&](const std::filesystem::path& file) { SaveModule(network.module, file); });
    return {.input = {}, .content = ModelHash(network.module), .facts = JsonText(facts)};
  });
  (void)Model();
  network_->module = LoadModule(folder_.File("equalized.pt"));
  model_record_->content = record.content;
}

void StageChain::FindModel() {
  if (!recipe_.model.is_trained()) {
    const auto input = TrainingInput();
    model_record_ = Ensure("model", input, {"model.pt"}, [&] { return TrainModel(input); });
    return;
  }
  const auto [module, name, _] = LoadTrainedModel(recipe_.model, data_folders_, recipe_.seed);
  const auto content = ModelHash(module);
  const auto input = Sha256OfParts({"model/3", content, DataHash(false), recipe_.model.answers_may_vary ? "vary" : ""});
  const auto some_images = [&] { return DescribingImages(Data().train, normalizer_); };
  model_record_ = Ensure("model", input, {}, [&]() -> StageRecord {
    const auto shape = Data().train.images.sizes().slice(1).vec();
    network_ = Described(module, name, shape, some_images());
    const auto fit = CheckModelSuitsData(*network_);
    // Which layers there are must not depend on whether this stage is done.
    const nlohmann::json facts = {{"input_shape", shape},
                                  {"by_images", network_->has_rare_layers},
                                  {"note", fit.note},
                                  {"classes", Data().train.classes},
                                  {"present", ClassesPresent(Data())},
                                  {"outputs", fit.outputs},
                                  {"calibration", Data().calibration.size()},
                                  {"noise", NoiseOf(*network_)}};
    return {.input = {}, .content = content, .facts = JsonText(facts)};
  });
  const auto facts = nlohmann::json::parse(model_record_->facts);
  if (!network_) {
    network_ = Described(module, name, facts.at("input_shape").get<std::vector<std::int64_t>>(),
                         facts.at("by_images").get<bool>() ? some_images() : torch::Tensor());
  }
  UseInputsOf(*network_);
  if (!recipe_.data.task.empty()) SetNoise(facts.value("noise", 0.0));  // which loads the data
  model_note_ = facts.at("note").get<std::string>();
  if (!model_note_.empty()) progress_.Warn(model_note_);
}

void StageChain::LabelByModel() {
  if (!data_ || !network_ || !model_record_) return;
  std::vector<Dataset*> lacking;
  for (Dataset* split : {&data_->train, &data_->calibration, &data_->test}) {
    if (split->unlabelled && split->size() > 0) lacking.push_back(split);
  }
  if (lacking.empty()) return;
  std::vector<torch::Tensor> answers;  // of each of these
  const auto file = CalibrationFile("labels.pt");
  const auto input = Sha256OfParts({"labels/1", model_record_->content, DataHash(true), CalibrationSeed()});
  const auto record = Ensure("labels", input, {file}, [&]() -> StageRecord {
    const auto batch = static_cast<int>(std::min<std::int64_t>(recipe_.verify.batch, ImagesAtOnce(*network_)));
    std::int64_t outputs = 0;
    for (const Dataset* split : lacking) {
      const auto logits = PredictLogits(network_->module, *split, normalizer_, batch, split->name, progress_);
      answers.push_back(logits.argmax(1));
      outputs = logits.size(1);
    }
    folder_.Write(file, [&](const std::filesystem::path& to) { torch::save(answers, to.string()); });
    return {.input = {}, .content = {}, .facts = JsonText(nlohmann::json{{"outputs", outputs}})};
  });
  if (answers.empty()) torch::load(answers, folder_.File(file).string());
  const auto outputs = nlohmann::json::parse(record.facts).at("outputs").get<int>();
  for (std::size_t i = 0; i < lacking.size(); ++i) {
    lacking[i]->labels = answers.at(i);
    lacking[i]->classes = outputs;
  }
}

// The images are few where outputs are many; a variance needs no more.
double StageChain::NoiseOf(const bitplan::Network& network) {
  constexpr std::int64_t kImages = 2048, kBatch = 64;
  const auto& train = Data().train;
  if (!train.Task().has_noise()) return 0.0;
  const torch::NoGradGuard no_grad;
  double sum = 0.0;
  const auto count = std::min(kImages, train.size());
  for (std::int64_t begin = 0; begin < count; begin += kBatch) {
    const auto some = torch::arange(begin, std::min(begin + kBatch, count));
    const auto outputs = RunForward(network.module, normalizer_.Apply(train.images.index_select(0, some)));
    const auto targets = train.labels.index_select(0, some);
    sum += (outputs.reshape({some.size(0), -1}) - targets.reshape({some.size(0), -1}))
               .square()
               .mean(1, false, torch::kFloat64)
               .sum()
               .item<double>();
  }
  return sum / static_cast<double>(count);
}

void StageChain::SetNoise(double variance) {
  const auto& likelihood = Data().train.likelihood;  // shared by all splits
  if (likelihood && likelihood->has_noise()) likelihood->SetNoise(variance);
}

std::string StageChain::ModelInput() {
  std::string input = ModelRecord().content;
  if (!recipe_.model.is_trained()) return input;
  for (const Layer& layer : Model().layers) {
    const bool usual = (layer.kind == "conv2d" || layer.kind == "linear") && layer.meets_whole_input;
    if (!usual) input += " " + layer.kind + " " + layer.name;
  }
  return input;
}

const bitplan::Network& StageChain::Model() {
  const auto& record = ModelRecord();
  if (!network_) {
    const auto shape = nlohmann::json::parse(record.facts).at("input_shape").get<std::vector<std::int64_t>>();
    network_ = DescribeNetwork(LoadModule(folder_.File("model.pt")), recipe_.model.architecture, shape);
    LabelByModel();
  }
  GroupFused(*network_);
  return *network_;
}

std::string StageChain::ModelNote() {
  (void)ModelRecord();
  return model_note_;
}

bitplan::Network StageChain::Outline() {
  if (recipe_.model.is_trained() || folder_.Find("model", TrainingInput())) return Model();
  const auto& name = recipe_.model.architecture;
  return DescribeNetwork(BuildArchitecture(name, recipe_.seed), name, Data().train.images.sizes().slice(1).vec());
}

}  // namespace bitplan::pipeline
