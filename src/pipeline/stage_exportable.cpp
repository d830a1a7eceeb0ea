// quantizer.exportable: what a format of export holds of the network at hand, before anything is chosen, and what
// keeping to it costs.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/constraints.h"
#include "bitplan/core/consumer_limits.h"
#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

struct Restriction {
  ConsumerLimits limits;                          // what the format holds of every layer that is planned
  std::map<std::string, std::string> not_held{};  // layers that it has no place for, and why
};

// `planned`: of every layer whether it may be planned at all.
Restriction RestrictionOf(const Exporter& exporter, const bitplan::Network& network, const std::vector<bool>& planned) {
  Restriction found;
  bool any = false;
  std::string reasons;
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const Layer& layer = network.layers[l];
    const HeldLayer held = HeldBy(exporter, layer);
    if (!held.reason.empty()) {
      found.not_held[layer.name] = held.reason;
      if (reasons.find(held.reason) == std::string::npos) reasons += (reasons.empty() ? "" : "; ") + held.reason;
    } else if (planned[l]) {
      found.limits = any ? BothHold(found.limits, held.limits) : held.limits;
      any = true;
    }
  }
  if (!any && !reasons.empty()) {
    throw Error(ErrorKind::kUsage, fmt::format("quantizer.exportable {} holds no layer of this network: {}; name "
                                               "another format, or none",
                                               exporter.name, reasons));
  }
  return found;
}

std::vector<bool> NotExcluded(const bitplan::Network& network, const AllocateOptions& options) {
  std::vector<bool> planned;
  for (const Layer& layer : network.layers) {
    planned.push_back(std::none_of(options.exclude.begin(), options.exclude.end(),
                                   [&](const std::string& pattern) { return MatchesPattern(layer.name, pattern); }));
  }
  return planned;
}

bool IsIn(const std::vector<int>& widths, int bits) {
  return std::find(widths.begin(), widths.end(), bits) != widths.end();
}

// One line where the recipe asks for what the format does not hold.
void RequireHeld(const Recipe& recipe, const ConsumerLimits& limits, const std::vector<int>& held) {
  const std::string& format = recipe.quantizer.exportable;
  const auto& granularities = limits.granularities;
  if (std::find(granularities.begin(), granularities.end(), recipe.quantizer.granularity) == granularities.end()) {
    throw Error(ErrorKind::kUsage, fmt::format("quantizer.granularity is {}, which {} does not hold; it holds {}",
                                               recipe.quantizer.granularity, format, fmt::join(granularities, ", ")));
  }
  if (held.empty()) {
    throw Error(ErrorKind::kUsage, fmt::format("quantizer.exportable {} holds no width of quantizer.grid {} for all "
                                               "layers of this network; it holds {}",
                                               format, recipe.quantizer.grid, HeldInWords(limits)));
  }
  if (!limits.activations && !recipe.allocate.activation_bits.empty()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("allocate.activation_bits: {} has no place for scales of activations; leave the key out, "
                            "or set quantizer.exportable to onnx or qonnx",
                            format));
  }
  const auto refuse = [&](const std::string& key, int bits) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{} holds {}, which {} does not store in {} bits; of this network's layers it holds {} "
                            "bits ({}); name some of these, or leave the key out",
                            key, bits, format, bits, fmt::join(held, ", "), HeldInWords(limits)));
  };
  for (const int bits : recipe.allocate.bits) {
    if (recipe.allocate.bits_are_asked && !IsIn(held, bits)) refuse("allocate.bits", bits);
  }
  for (const Pin& pin : recipe.allocate.pins) {
    if (!IsIn(held, pin.bits)) refuse("allocate.pins." + pin.pattern, pin.bits);
  }
}

// Gone with its files at the end.
class ScratchFolder {
 public:
  explicit ScratchFolder(std::filesystem::path path) : path_(std::move(path)) {
    std::filesystem::create_directories(path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace

void StageChain::Restrict() {
  const Exporter& exporter = FindExporter(recipe_.quantizer.exportable);
  const bitplan::Network outline = Outline();
  const Restriction found = RestrictionOf(exporter, outline, NotExcluded(outline, recipe_.allocate));
  const auto held = HeldWidths(found.limits, recipe_.quantizer.grid);
  RequireHeld(recipe_, found.limits, held);
  unrestricted_bits_ = recipe_.allocate.bits;
  auto& bits = recipe_.allocate.bits;
  restriction_ = PlanExportable{.bits = {}, .left_out = {}, .holds = HeldInWords(found.limits)};
  for (const int width : bits) (IsIn(held, width) ? restriction_.bits : restriction_.left_out).push_back(width);
  if (restriction_.bits.empty()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("quantizer.exportable {} holds none of the widths {} with quantizer.grid {}; it holds {}",
                            exporter.name, fmt::join(bits, ", "), recipe_.quantizer.grid, fmt::join(held, ", ")));
  }
  bits = restriction_.bits;
  recipe_.quantizer.limits = found.limits;
  not_held_ = found.not_held;
  const auto planned = NotExcluded(outline, recipe_.allocate);
  for (std::size_t l = 0; l < outline.layers.size(); ++l) {
    const std::string& name = outline.layers[l].name;
    if (planned[l] && not_held_.contains(name)) recipe_.allocate.exclude.push_back(name);
  }
  asked_.allocate = recipe_.allocate;
  asked_.quantizer.limits = found.limits;
  TryExport(outline);
}

// With the layers at one width: what the export refuses then - an operator, a type, a name - it refuses of every plan.
void StageChain::TryExport(const bitplan::Network& network) {
  const Exporter& exporter = FindExporter(recipe_.quantizer.exportable);
  const std::string model = recipe_.model.is_trained() ? ModelInput() : Section("model");
  const auto input =
      Sha256OfParts({"exportable/1", exporter.name, BITPLAN_VERSION, model, Section("quantizer"),
                     BitsText(recipe_.allocate.bits), fmt::format("{}", fmt::join(recipe_.allocate.exclude, " "))});
  (void)Ensure("exportable", input, {}, [&]() -> StageRecord {
    const auto planned = NotExcluded(network, recipe_.allocate);
    const auto narrowest =
        std::find_if(restriction_.bits.begin(), restriction_.bits.end(), [](int b) { return b > 0; });
    std::vector<int> bits;
    for (const bool one : planned) {
      bits.push_back(!one ? kFloatBits : narrowest == restriction_.bits.end() ? 0 : *narrowest);
    }
    auto options = recipe_.quantizer;
    options.range = "mse";
    const AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
    Plan plan;
    plan.model.name = network.name;
    plan.quantizer = options;
    for (std::size_t l = 0; l < bits.size(); ++l) {
      const Layer& layer = network.layers[l];
      plan.layers.push_back({.name = layer.name,
                             .kind = layer.kind,
                             .shape = layer.shape,
                             .macs = layer.macs,
                             .bits = bits[l],
                             .grid = applied.choices[l].grid});
    }
    const ScratchFolder scratch(folder_.File(".exportable"));
    const auto torchscript = scratch.path() / kNetworkFile;
    SaveModule(applied.module, torchscript);
    const QuantizedNetwork quantized = DescribeQuantized(network, applied.module, applied.weights);
    const NetworkInput takes{.shape = network.input_shape, .type = network.input_type};
    try {
      exporter.write({quantized, plan, torchscript, takes},
                     {.first = scratch.path() / "first", .second = scratch.path() / "second", .name = exporter.file});
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInterrupted) throw;
      throw Error(error.kind(), fmt::format("quantizer.exportable {}: no plan of this network could be exported: {}",
                                            exporter.name, error.what()));
    }
    return {.input = {}, .content = {}, .facts = "{}"};
  });
}

void StageChain::FollowExportable(const Plan& plan) {
  const std::string& format = recipe_.quantizer.exportable;
  const ConsumerLimits before = recipe_.quantizer.limits;
  recipe_.quantizer.limits = {};
  not_held_.clear();
  if (!format.empty()) {
    const Exporter& exporter = FindExporter(format);
    const auto& network = Model();
    std::vector<bool> planned;
    for (const PlanLayer& layer : plan.layers) planned.push_back(layer.bits <= 8);
    planned.resize(network.layers.size());
    const Restriction found = RestrictionOf(exporter, network, planned);
    for (std::size_t l = 0; l < planned.size(); ++l) {
      if (!planned[l]) continue;
      const PlanLayer& layer = plan.layers[l];
      const std::string& name = network.layers[l].name;
      const HeldLayer held = HeldBy(exporter, network.layers[l]);
      if (!held.limits.activations && layer.activation_bits <= 16) {
        throw Error(ErrorKind::kData,
                    fmt::format("the plan is to be exportable to {}, and rounds what layer {} reads: {} has no place "
                                "for that; leave activation_bits out of the plan, or 'exportable'",
                                format, name, format));
      }
      const auto widths = HeldWidths(held.limits, "auto");
      const bool has_place = held.reason.empty() && IsIn(widths, layer.bits);
      const bool on_grid = layer.name.empty() || layer.bits == 0 || Holds(held.limits, layer.bits, layer.grid);
      if (has_place && on_grid) continue;
      const std::string what = !held.reason.empty() ? held.reason
                               : !has_place ? fmt::format("{} stores {} bits of it", format, fmt::join(widths, ", "))
                                            : fmt::format("{} does not hold the grid {} there", format, layer.grid);
      throw Error(ErrorKind::kData, fmt::format("the plan is to be exportable to {}, and layer {} has {} bits: {}; "
                                                "change the layer, or take 'exportable' out of the plan or the recipe",
                                                format, name, layer.bits, what));
    }
    recipe_.quantizer.limits = found.limits;
    not_held_ = found.not_held;
  }
  if (!(before == recipe_.quantizer.limits)) quantized_.reset();
}

AllocationProblem StageChain::UnrestrictedTable(const std::string& metric) {
  const Recipe kept = recipe_;
  const AllocateOptions asked = asked_.allocate;
  const auto put_back = [&] {
    recipe_ = kept;
    asked_.allocate = asked;
    unrestricted_ = false;
  };
  recipe_.quantizer.exportable.clear();
  recipe_.quantizer.limits = {};
  recipe_.allocate.bits = asked_.allocate.bits = unrestricted_bits_;
  unrestricted_ = true;
  try {
    AllocationProblem table = MeasuredTable(metric, recipe_.posterior.estimator).problem;
    put_back();
    return table;
  } catch (...) {
    put_back();
    throw;
  }
}

void StageChain::StateExportable(Plan& plan) {
  if (recipe_.quantizer.exportable.empty()) return;
  plan.exportable = restriction_;
  const auto& allocator = FindAllocator(recipe_.allocate.allocator);
  if (allocator.needs_oracle || recipe_.allocate.activation_bits.size() > 1) return;
  plan.exportable->predicted_loss_rise = plan.achieved.predicted_loss_rise;
  plan.exportable->unrestricted_loss_rise = plan.achieved.predicted_loss_rise;
  if (LimitsText(recipe_.quantizer.limits).empty() && restriction_.left_out.empty()) return;
  const std::string metric = MetricOf(allocator);
  const AllocationProblem own = Table(metric);
  AllocationProblem free = UnrestrictedTable(metric);
  // Who is not restricted may choose the grids and scales of the restricted quantizer too.
  for (std::size_t k = 0; k < own.widths.size(); ++k) {
    const auto column = std::find(free.widths.begin(), free.widths.end(), own.widths[k]);
    if (column == free.widths.end()) continue;
    const auto there = static_cast<std::size_t>(column - free.widths.begin());
    for (std::size_t l = 0; l < own.units.size(); ++l) {
      free.loss_rise[l][there] = std::min(free.loss_rise[l][there], own.loss_rise[l][k]);
    }
  }
  free.replicates.clear();
  auto options = recipe_.allocate;
  options.bits = unrestricted_bits_;
  options.draws = 0;
  const auto answer = bitplan::Allocate(free, options, recipe_.CalibrationSeed(), nullptr, progress_);
  plan.exportable->unrestricted_loss_rise = RoundedToDigits(answer.predicted_loss_rise, 6);
}

}  // namespace bitplan::pipeline
