// A plan read from YAML; src/io/plan_text.cpp writes it.
#include "bitplan/io/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "bitplan/io/files.h"
#include "io/plan_keys.h"
#include "io/recipe_options.h"
#include "io/yaml_source.h"
#include "io/yaml_text.h"

namespace bitplan {
namespace {

constexpr Range kAny{};
constexpr Range kAtLeastOne{.low = 1};
constexpr std::int64_t kMostCounted = std::int64_t{1} << 50;  // weights or multiply-accumulates of all layers together
constexpr std::size_t kMostSizes = 16;                        // of a shape

// A map whose keys are those of PlanKeys: required ones are there, optional ones may be missing.
class Fields {
 public:
  Fields(const YamlSource& source, const YAML::Node& map, std::string path) : source_(source), path_(std::move(path)) {
    const auto required = PlanKeysIn(path_, /*required=*/true), optional = PlanKeysIn(path_, /*required=*/false);
    std::vector<std::string> known = required;
    known.insert(known.end(), optional.begin(), optional.end());
    source.ForEachKey(map, path_, known,
                      [this](const std::string& key, const YAML::Node& value) { values_.emplace_back(key, value); });
    for (const std::string& key : required) {
      if (!Has(key)) source.Fail(map, "missing key '" + key + "'" + (path_.empty() ? "" : " in " + path_));
    }
  }

  [[nodiscard]] bool Has(const std::string& key) const { return Find(key) != values_.end(); }
  [[nodiscard]] const YAML::Node& At(const std::string& key) const { return Find(key)->second; }
  [[nodiscard]] std::vector<std::string> Keys() const {
    std::vector<std::string> keys;
    for (const auto& value : values_) keys.push_back(value.first);
    return keys;
  }
  [[nodiscard]] std::string Path(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }

  [[nodiscard]] std::string Text(const std::string& key) const { return source_.Text(At(key), Path(key)); }
  [[nodiscard]] double Number(const std::string& key, const Range& range) const {
    return source_.Number(At(key), Path(key), range);
  }
  [[nodiscard]] std::int64_t Integer(const std::string& key, const Range& range) const {
    return source_.Integer(At(key), Path(key), range);
  }
  [[nodiscard]] std::vector<YAML::Node> List(const std::string& key) const { return source_.List(At(key), Path(key)); }

 private:
  using Values = std::vector<std::pair<std::string, YAML::Node>>;
  [[nodiscard]] Values::const_iterator Find(const std::string& key) const {
    return std::find_if(values_.begin(), values_.end(), [&](const auto& value) { return value.first == key; });
  }

  const YamlSource& source_;
  std::string path_;
  Values values_;
};

PlanModel ReadModel(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "model");
  return {fields.Text("name"), fields.Text("sha256"), fields.Integer("weights", kAtLeastOne),
          fields.Has("note") ? fields.Text("note") : ""};
}

void ReadAllocator(const YamlSource& source, const YAML::Node& node, Plan& plan) {
  const Fields fields(source, node, "allocator");
  plan.allocator = fields.Text("name");
  plan.seed = source.Seed(fields.At("seed"), "allocator.seed");
  if (!fields.Has("options")) return;
  const YAML::Node& options = fields.At("options");
  if (!options.IsMap()) source.Fail(options, "allocator.options must be a map of keys, such as '{quantile: 0.9}'");
  for (const auto& option : options) {
    const std::string key = source.Text(option.first, "a key in allocator.options");
    plan.allocator_options.emplace_back(key, source.Text(option.second, "allocator.options." + key));
  }
}

QuantizerOptions ReadQuantizer(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "quantizer");
  const auto choice = [&](const std::string& key) {
    return source.Choice(fields.At(key), fields.Path(key), FindRecipeOption(fields.Path(key))->choices);
  };
  QuantizerOptions quantizer;
  quantizer.scheme = choice("scheme");
  quantizer.granularity = choice("granularity");
  quantizer.range = choice("range");
  quantizer.rounding = fields.Has("rounding") ? choice("rounding") : "nearest";
  if (fields.Has("centring")) quantizer.centring = choice("centring");
  quantizer.batch_norm = choice("batch_norm");
  quantizer.output_correction = fields.Has("output_correction") ? choice("output_correction") : "off";
  quantizer.activation_range = fields.Has("activation_range") ? choice("activation_range") : "mse";
  if (fields.Has("range_sweeps")) {
    quantizer.range_sweeps = static_cast<int>(fields.Integer("range_sweeps", kAtLeastOne));
  }
  if (fields.Has("activation_sums")) quantizer.activation_sums = choice("activation_sums");
  if (fields.Has("learned_steps"))
    quantizer.learned_steps = static_cast<int>(fields.Integer("learned_steps", kAtLeastOne));
  if (fields.Has("learned_samples")) {
    quantizer.learned_samples = static_cast<int>(fields.Integer("learned_samples", kAtLeastOne));
  }
  if (fields.Has("learned_rate"))
    quantizer.learned_rate = fields.Number("learned_rate", {.low = 0, .low_is_open = true});
  return quantizer;
}

Budget ReadBudget(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "budget");
  Budget budget;
  budget.limits.clear();
  std::vector<std::string> names;
  for (const Resource& resource : Resources()) {
    names.emplace_back(resource.name);
    if (fields.Has(resource.name)) budget.Set(resource, fields.Number(resource.name, kNotNegative));
  }
  if (budget.limits.empty()) {
    source.Fail(node, fmt::format("budget must have one of the keys {}", fmt::join(names, ", ")));
  }
  return budget;
}

PlanAchieved ReadAchieved(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "achieved");
  PlanAchieved achieved;
  achieved.average_bits = fields.Number("average_bits", kNotNegative);
  achieved.average_bits_with_overhead = fields.Number("average_bits_with_overhead", kNotNegative);
  achieved.stored_bytes = fields.Integer("stored_bytes", kNotNegative);
  achieved.compression = fields.Number("compression", kNotNegative);
  achieved.predicted_loss_rise = fields.Number("predicted_loss_rise", kNotNegative);
  if (fields.Has("network_bytes") != fields.Has("network_compression")) {
    source.Fail(node, "achieved must have both of the keys network_bytes and network_compression, or neither");
  }
  if (fields.Has("network_bytes")) {
    achieved.network_bytes = fields.Integer("network_bytes", kAtLeastOne);
    achieved.network_compression = fields.Number("network_compression", kNotNegative);
  }
  if (fields.Has("activation_bytes")) achieved.activation_bytes = fields.Integer("activation_bytes", kNotNegative);
  if (fields.Has("latency")) achieved.latency = fields.Number("latency", kNotNegative);
  for (const Resource& resource : Resources()) {  // those beside the above follow from the layers
    if (resource.kind == ResourceKind::kCounted && fields.Has(resource.name)) {
      (void)fields.Number(resource.name, kNotNegative);
    }
  }
  if (fields.Has("optimality_gap")) achieved.optimality_gap = fields.Number("optimality_gap", kNotNegative);
  return achieved;
}

std::vector<std::int64_t> ReadShape(const YamlSource& source, const Fields& fields) {
  const auto sizes = fields.List("shape");
  if (sizes.size() > kMostSizes) {
    source.Fail(fields.At("shape"),
                fmt::format("{} has {} sizes; at most {} are taken", fields.Path("shape"), sizes.size(), kMostSizes));
  }
  std::vector<std::int64_t> shape;
  std::int64_t count = 1;
  for (const YAML::Node& size : sizes) {
    shape.push_back(source.Integer(size, fields.Path("shape"), kAtLeastOne));
    if (__builtin_mul_overflow(count, shape.back(), &count) || count > kMostCounted) {
      source.Fail(size, fmt::format("{} makes more than {} weights", fields.Path("shape"), kMostCounted));
    }
  }
  return shape;
}

PlanLayer ReadLayer(const YamlSource& source, const YAML::Node& node, const std::string& path,
                    const QuantizerOptions& quantizer) {
  const Fields fields(source, node, path);
  PlanLayer layer;
  layer.name = fields.Text("name");
  layer.kind = fields.Text("kind");
  layer.shape = ReadShape(source, fields);
  if (layer.shape.size() < 2) source.Fail(fields.At("shape"), fields.Path("shape") + " needs at least two sizes");
  layer.macs = fields.Integer("macs", {.low = 0, .high = static_cast<double>(kMostCounted)});
  layer.bits = static_cast<int>(fields.Integer("bits", {.low = 0, .high = 32}));
  if (layer.bits > 8 && layer.bits != 16 && layer.bits != 32) {
    source.Fail(fields.At("bits"), fmt::format("{} is {}; it must be in 0..8, or 16 or 32 for a layer left alone",
                                               fields.Path("bits"), layer.bits));
  }
  if (fields.Has("activation_bits")) {
    layer.activation_bits = static_cast<int>(fields.Integer("activation_bits", {.low = 2, .high = 32}));
    if (layer.activation_bits > 8 && layer.activation_bits != 16 && layer.activation_bits != 32) {
      source.Fail(fields.At("activation_bits"), fmt::format("{} is {}; it must be in 2..8, or 16, or 32 for float",
                                                            fields.Path("activation_bits"), layer.activation_bits));
    }
  }
  if (fields.Has("grid")) layer.grid = source.Choice(fields.At("grid"), fields.Path("grid"), {"zero", "half"});
  layer.range = fields.Has("range")
                    ? source.Choice(fields.At("range"), fields.Path("range"), {"max", "mse", "posterior", "output"})
                    : RangeUnlessStated(quantizer);
  if (fields.Has("confidence")) layer.confidence = fields.Number("confidence", kShare);
  return layer;
}

std::vector<PlanLayer> ReadLayers(const YamlSource& source, const YAML::Node& node, const QuantizerOptions& quantizer) {
  std::vector<PlanLayer> layers;
  std::set<std::string> names;
  std::int64_t weights = 0, macs = 0;
  for (const YAML::Node& item : source.List(node, "layers")) {
    layers.push_back(ReadLayer(source, item, fmt::format("layers[{}]", layers.size()), quantizer));
    weights += layers.back().weights();
    macs += layers.back().macs;
    if (std::max(weights, macs) > kMostCounted) {
      source.Fail(item, fmt::format("the layers up to this one have more than {} weights or macs", kMostCounted));
    }
    const std::string& name = layers.back().name;
    if (!names.insert(name).second) source.Fail(item, "layer '" + name + "' is given twice");
  }
  return layers;
}

LeftInFloat ReadLeftInFloat(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "left_in_float");
  LeftInFloat left{fields.Integer("weights", kNotNegative), fields.Number("share", kShare), {}};
  for (const YAML::Node& item : fields.List("tensors")) {
    const Fields tensor(source, item, fmt::format("left_in_float.tensors[{}]", left.tensors.size()));
    left.tensors.push_back({tensor.Text("name"), ReadShape(source, tensor), tensor.Text("reason")});
  }
  return left;
}

// Error as for a key that is always required.
void Require(const YamlSource& source, const YAML::Node& node, const Fields& fields, const std::string& path,
             std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (!fields.Has(key)) source.Fail(node, fmt::format("missing key '{}' in {}", key, path));
  }
}

Metrics ReadMetrics(const YamlSource& source, const YAML::Node& node, const std::string& path) {
  const Fields fields(source, node, path);
  const auto figures = {"accuracy", "nll", "brier", "ece"};
  Require(source, node, fields, path, figures);
  for (const std::string& key : fields.Keys()) {
    if (std::find(figures.begin(), figures.end(), key) != figures.end()) continue;
    source.Fail(fields.At(key),
                fmt::format("unknown key '{}' in {}: it is a figure of another verified.task", key, path));
  }
  return {fields.Number("accuracy", kShare), fields.Number("nll", kNotNegative), fields.Number("brier", kNotNegative),
          fields.Number("ece", kShare)};
}

// Of another task than classification; `score`: the figure that comes first.
Metrics ReadFigures(const YamlSource& source, const YAML::Node& node, const std::string& path,
                    const std::string& score) {
  const Fields fields(source, node, path);
  Require(source, node, fields, path, {score.c_str(), "nll"});
  Metrics metrics;
  for (const std::string& key : fields.Keys()) {
    if (key == "brier" || key == "ece") source.Fail(node, path + "." + key + " is a figure of classification");
    metrics.figures.push_back({key, fields.Number(key, FindFigureKind(key).share ? kShare : kAny)});
  }
  const auto first = std::find_if(metrics.figures.begin(), metrics.figures.end(),
                                  [&](const Figure& figure) { return figure.name == score; });
  std::rotate(metrics.figures.begin(), first, first + 1);
  metrics.accuracy = metrics.figures.front().value;
  metrics.nll = fields.Number("nll", kAny);
  return metrics;
}

PairedComparison ReadPaired(const YamlSource& source, const YAML::Node& node, const std::string& path) {
  const Fields fields(source, node, path);
  const auto interval = fields.List("ci95");
  if (interval.size() != 2) source.Fail(fields.At("ci95"), fields.Path("ci95") + " must have two ends");
  return {.drop = fields.Number("value", kAny),
          .ci_low = source.Number(interval[0], fields.Path("ci95"), kAny),
          .ci_high = source.Number(interval[1], fields.Path("ci95"), kAny),
          .mcnemar_p = fields.Number("mcnemar_p", kShare)};
}

PairedComparison ReadDrop(const YamlSource& source, const YAML::Node& node, const std::string& path,
                          const std::string& score) {
  const Fields fields(source, node, path);
  const auto interval = fields.List("ci95");
  if (interval.size() != 2) source.Fail(fields.At("ci95"), fields.Path("ci95") + " must have two ends");
  if (fields.Text("figure") != score) source.Fail(fields.At("figure"), fields.Path("figure") + " must be " + score);
  return {.drop = fields.Number("value", kAny),
          .ci_low = source.Number(interval[0], fields.Path("ci95"), kAny),
          .ci_high = source.Number(interval[1], fields.Path("ci95"), kAny)};
}

void ReadTask(const YamlSource& source, const YAML::Node& node, const Fields& fields, Verification& verified) {
  verified.task = fields.Text("task");
  for (const char* key : {"accuracy_drop", "accuracy_drop_corrected"}) {
    if (fields.Has(key)) source.Fail(fields.At(key), fmt::format("verified.{} is for classification", key));
  }
  Require(source, node, fields, "verified", {"drop"});
  const std::string score = source.Choice(Fields(source, fields.At("drop"), "verified.drop").At("figure"),
                                          "verified.drop.figure", {"accuracy", "r2"});
  verified.float_model = ReadFigures(source, fields.At("float"), "verified.float", score);
  verified.quantized = ReadFigures(source, fields.At("quantized"), "verified.quantized", score);
  verified.accuracy_drop = ReadDrop(source, fields.At("drop"), "verified.drop", score);
  if (fields.Has("float_corrected") != fields.Has("drop_corrected")) {
    source.Fail(node, "verified must have both of the keys float_corrected and drop_corrected, or neither");
  }
  if (!fields.Has("float_corrected")) return;
  verified.float_corrected =
      FloatCorrected{ReadFigures(source, fields.At("float_corrected"), "verified.float_corrected", score),
                     ReadDrop(source, fields.At("drop_corrected"), "verified.drop_corrected", score)};
}

Verification ReadVerification(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "verified");
  Verification verified;
  verified.data = fields.Text("data");
  verified.samples = fields.Integer("samples", kAtLeastOne);
  if (fields.Has("task")) {
    ReadTask(source, node, fields, verified);
    return verified;
  }
  Require(source, node, fields, "verified", {"accuracy_drop"});
  for (const char* key : {"drop", "drop_corrected"}) {
    if (fields.Has(key)) source.Fail(fields.At(key), fmt::format("verified.{} is for another verified.task", key));
  }
  verified.float_model = ReadMetrics(source, fields.At("float"), "verified.float");
  verified.quantized = ReadMetrics(source, fields.At("quantized"), "verified.quantized");
  verified.accuracy_drop = ReadPaired(source, fields.At("accuracy_drop"), "verified.accuracy_drop");
  if (fields.Has("float_corrected") != fields.Has("accuracy_drop_corrected")) {
    source.Fail(node, "verified must have both of the keys float_corrected and accuracy_drop_corrected, or neither");
  }
  if (fields.Has("float_corrected")) {
    verified.float_corrected =
        FloatCorrected{ReadMetrics(source, fields.At("float_corrected"), "verified.float_corrected"),
                       ReadPaired(source, fields.At("accuracy_drop_corrected"), "verified.accuracy_drop_corrected")};
  }
  return verified;
}

PlanCalibration ReadCalibration(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "calibration");
  PlanCalibration calibration = {
      fields.Integer("images", kNotNegative),
      source.Choice(fields.At("source"), fields.Path("source"), {"split-off", "training", "file", "test"})};
  if (fields.Has("seed")) calibration.seed = source.Seed(fields.At("seed"), fields.Path("seed"));
  return calibration;
}

PlanLearned ReadLearned(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "learned_rounding");
  return {.images = fields.Integer("images", kAtLeastOne),
          .before = fields.Number("divergence_before", kNotNegative),
          .after = fields.Number("divergence_after", kNotNegative),
          .moved = fields.Number("codes_moved", {.low = 0, .high = 1}),
          .kept = source.Flag(fields.At("kept"), fields.Path("kept"))};
}

PlanGuard ReadGuard(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "guard");
  return {fields.Text("data"), fields.Number("plan_nll", kNotNegative), fields.Number("uniform_nll", kNotNegative),
          fields.Has("replaced") ? fields.Text("replaced") : ""};
}

PlanDrop ReadDropBound(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "drop");
  return {.at_most = fields.Number("at_most", kShare),
          .smallest = fields.Text("smallest"),
          .data = fields.Text("data"),
          .images = fields.Integer("images", kAtLeastOne),
          .value = fields.Number("value", kAny),
          .upper95 = fields.Number("upper95", kAny),
          .plans = fields.Integer("plans", kAtLeastOne),
          .sha256 = fields.Text("sha256")};
}

PlanExportable ReadExportable(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "exportable");
  PlanExportable exportable;
  const auto widths = [&](const std::string& key) {
    std::vector<int> bits;
    for (const YAML::Node& width : fields.List(key)) {
      bits.push_back(static_cast<int>(source.Integer(width, fields.Path(key), {.low = 0, .high = 8})));
    }
    return bits;
  };
  exportable.bits = widths("bits");
  if (fields.Has("left_out")) exportable.left_out = widths("left_out");
  exportable.holds = fields.Text("holds");
  if (fields.Has("predicted_loss_rise") != fields.Has("unrestricted_loss_rise")) {
    source.Fail(node,
                "exportable must have both of the keys predicted_loss_rise and unrestricted_loss_rise, or neither");
  }
  if (fields.Has("predicted_loss_rise")) {
    exportable.predicted_loss_rise = fields.Number("predicted_loss_rise", kNotNegative);
    exportable.unrestricted_loss_rise = fields.Number("unrestricted_loss_rise", kNotNegative);
  }
  return exportable;
}

PlanProvenance ReadProvenance(const YamlSource& source, const YAML::Node& node) {
  const Fields fields(source, node, "provenance");
  return {fields.Text("bitplan"), fields.Text("libtorch"), fields.Text("recipe_sha256")};
}

// The version decides how everything else is read, so it is looked at before any other key.
void CheckVersion(const YamlSource& source, const YAML::Node& root) {
  if (!root.IsMap()) source.Fail(root, "is no plan; a plan begins with 'bitplan: 1'");
  for (const auto& entry : root) {
    if (!entry.first.IsScalar() || entry.first.Scalar() != "bitplan") continue;
    if (source.Integer(entry.second, "bitplan", kAny) == kPlanVersion) return;
    source.Fail(entry.second, "plan format " + entry.second.Scalar() + " is unknown; this program reads 'bitplan: 1'");
  }
  source.Fail("missing key 'bitplan'; a plan begins with 'bitplan: 1'");
}

}  // namespace

Plan ParsePlan(const std::string& text, const std::string& file_name) {
  const YamlSource source(file_name, ErrorKind::kData, true);
  const YAML::Node root = source.Parse(text);
  CheckVersion(source, root);
  const Fields fields(source, root, "");
  Plan plan;
  plan.model = ReadModel(source, fields.At("model"));
  ReadAllocator(source, fields.At("allocator"), plan);
  if (fields.Has("posterior")) {
    const Fields posterior(source, fields.At("posterior"), "posterior");
    plan.posterior_estimator = posterior.Text("estimator");
    plan.posterior_sha256 = posterior.Text("sha256");
  }
  plan.quantizer = ReadQuantizer(source, fields.At("quantizer"));
  plan.budget = ReadBudget(source, fields.At("budget"));
  plan.achieved = ReadAchieved(source, fields.At("achieved"));
  plan.layers = ReadLayers(source, fields.At("layers"), plan.quantizer);
  if (fields.Has("left_in_float")) plan.left_in_float = ReadLeftInFloat(source, fields.At("left_in_float"));
  if (fields.Has("transferred")) {
    const Fields source_fields(source, fields.At("transferred"), "transferred");
    plan.transferred = PlanSource{source_fields.Text("model"), source_fields.Text("sha256")};
  }
  if (fields.Has("exportable")) {
    plan.quantizer.exportable = Fields(source, fields.At("exportable"), "exportable").Text("format");
    plan.exportable = ReadExportable(source, fields.At("exportable"));
  }
  if (fields.Has("calibration")) plan.calibration = ReadCalibration(source, fields.At("calibration"));
  if (fields.Has("guard")) plan.guard = ReadGuard(source, fields.At("guard"));
  if (fields.Has("drop")) plan.drop = ReadDropBound(source, fields.At("drop"));
  if (fields.Has("learned_rounding")) plan.learned = ReadLearned(source, fields.At("learned_rounding"));
  if (fields.Has("verified")) plan.verified = ReadVerification(source, fields.At("verified"));
  plan.provenance = ReadProvenance(source, fields.At("provenance"));

  std::int64_t weights = 0;
  for (const PlanLayer& layer : plan.layers) weights += layer.weights();
  if (weights != plan.model.weights) {
    source.Fail(fields.At("layers"),
                fmt::format("model.weights is {}, but the shapes of the layers make {}", plan.model.weights, weights));
  }
  return plan;
}

Plan LoadPlan(const std::filesystem::path& file) { return ParsePlan(ReadFile(file, "plan"), file.string()); }

}  // namespace bitplan
