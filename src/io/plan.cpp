// A plan read from YAML; src/io/plan_text.cpp writes it.
#include "bitplan/io/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "bitplan/io/files.h"
#include "io/plan_fields.h"
#include "io/plan_verified.h"
#include "io/recipe_options.h"
#include "io/yaml_source.h"
#include "io/yaml_text.h"

namespace bitplan {
namespace {

constexpr std::int64_t kMostCounted = std::int64_t{1} << 50;  // weights or multiply-accumulates of all layers together
constexpr std::size_t kMostSizes = 16;                        // of a shape

PlanModel ReadModel(const YamlSource& source, const YAML::Node& node) {
  const PlanFields fields(source, node, "model");
  return {fields.Text("name"), fields.Text("sha256"), fields.Integer("weights", kAtLeastOne),
          fields.Has("note") ? fields.Text("note") : ""};
}

void ReadAllocator(const YamlSource& source, const YAML::Node& node, Plan& plan) {
  const PlanFields fields(source, node, "allocator");
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
  const PlanFields fields(source, node, "quantizer");
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
  const PlanFields fields(source, node, "budget");
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
  const PlanFields fields(source, node, "achieved");
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

std::vector<std::int64_t> ReadShape(const YamlSource& source, const PlanFields& fields) {
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
  const PlanFields fields(source, node, path);
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
  const PlanFields fields(source, node, "left_in_float");
  LeftInFloat left{fields.Integer("weights", kNotNegative), fields.Number("share", kShare), {}};
  for (const YAML::Node& item : fields.List("tensors")) {
    const PlanFields tensor(source, item, fmt::format("left_in_float.tensors[{}]", left.tensors.size()));
    left.tensors.push_back({tensor.Text("name"), ReadShape(source, tensor), tensor.Text("reason")});
  }
  return left;
}

PlanCalibration ReadCalibration(const YamlSource& source, const YAML::Node& node) {
  const PlanFields fields(source, node, "calibration");
  PlanCalibration calibration = {
      fields.Integer("images", kNotNegative),
      source.Choice(fields.At("source"), fields.Path("source"), {"split-off", "training", "file", "test"})};
  if (fields.Has("seed")) calibration.seed = source.Seed(fields.At("seed"), fields.Path("seed"));
  return calibration;
}

PlanLearned ReadLearned(const YamlSource& source, const YAML::Node& node) {
  const PlanFields fields(source, node, "learned_rounding");
  return {.images = fields.Integer("images", kAtLeastOne),
          .before = fields.Number("divergence_before", kNotNegative),
          .after = fields.Number("divergence_after", kNotNegative),
          .moved = fields.Number("codes_moved", {.low = 0, .high = 1}),
          .kept = source.Flag(fields.At("kept"), fields.Path("kept"))};
}

PlanGuard ReadGuard(const YamlSource& source, const YAML::Node& node) {
  const PlanFields fields(source, node, "guard");
  return {fields.Text("data"), fields.Number("plan_nll", kNotNegative), fields.Number("uniform_nll", kNotNegative),
          fields.Has("replaced") ? fields.Text("replaced") : ""};
}

PlanDrop ReadDropBound(const YamlSource& source, const YAML::Node& node) {
  const PlanFields fields(source, node, "drop");
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
  const PlanFields fields(source, node, "exportable");
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
  const PlanFields fields(source, node, "provenance");
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
  const PlanFields fields(source, root, "");
  Plan plan;
  plan.model = ReadModel(source, fields.At("model"));
  ReadAllocator(source, fields.At("allocator"), plan);
  if (fields.Has("posterior")) {
    const PlanFields posterior(source, fields.At("posterior"), "posterior");
    plan.posterior_estimator = posterior.Text("estimator");
    plan.posterior_sha256 = posterior.Text("sha256");
  }
  plan.quantizer = ReadQuantizer(source, fields.At("quantizer"));
  plan.budget = ReadBudget(source, fields.At("budget"));
  plan.achieved = ReadAchieved(source, fields.At("achieved"));
  plan.layers = ReadLayers(source, fields.At("layers"), plan.quantizer);
  if (fields.Has("left_in_float")) plan.left_in_float = ReadLeftInFloat(source, fields.At("left_in_float"));
  if (fields.Has("transferred")) {
    const PlanFields source_fields(source, fields.At("transferred"), "transferred");
    plan.transferred = PlanSource{source_fields.Text("model"), source_fields.Text("sha256")};
  }
  if (fields.Has("exportable")) {
    plan.quantizer.exportable = PlanFields(source, fields.At("exportable"), "exportable").Text("format");
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
