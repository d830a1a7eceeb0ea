#include "io/plan_keys.h"

#include <fmt/format.h>

#include <algorithm>

#include "bitplan/core/figures.h"
#include "bitplan/core/resource.h"
#include "bitplan/io/plan.h"

namespace bitplan {
namespace {

constexpr bool kRequired = true, kOptional = false;

// "layers[]" of "layers[3]".
std::string MapOf(const std::string& path) {
  const auto open = path.find('[');
  return open == std::string::npos ? path : path.substr(0, open) + "[]";
}

// What a network is measured by, below each of the networks.
void AddFigures(std::vector<PlanKey>& keys) {
  for (const char* network : {"float", "float_corrected", "quantized"}) {
    const auto is_network = [&](const PlanKey& key) {
      return key.map == std::string("verified") && network == std::string(key.key);
    };
    auto place = std::find_if(keys.begin(), keys.end(), is_network) + 1;
    const char* const map = network == std::string("float")       ? "verified.float"
                            : network == std::string("quantized") ? "verified.quantized"
                                                                  : "verified.float_corrected";
    const auto add = [&](const char* key, const char* help) {
      place = keys.insert(place, {map, key, kOptional, network == std::string("float") ? help : "as above"}) + 1;
    };
    add("accuracy", "share of the samples, or of all positions or labels");
    add("nll", "negative log-likelihood, nats per sample");
    add("brier", "classification: Brier score");
    add("ece", "classification: expected calibration error, 15 bins");
    for (const FigureKind& kind : FigureKinds()) {
      if (kind.name != std::string("accuracy") && kind.name != std::string("nll")) add(kind.name, kind.help);
    }
  }
}

std::vector<PlanKey> MakeKeys() {
  std::vector<PlanKey> keys = {
      {"", "bitplan", kRequired, "version of the format: 1"},
      {"", "model", kRequired, "the network that the plan is for"},
      {"model", "name", kRequired, "its name, for people"},
      {"model", "sha256", kRequired, "its hash; a plan for another network is refused"},
      {"model", "weights", kRequired, "weights of all layers below"},
      {"model", "note", kOptional, "what its answers depend on besides the image; none: nothing else"},
      {"", "allocator", kRequired, "who made the plan"},
      {"allocator", "name", kRequired, "see 'bitplan help allocators'; of a plan by hand any word"},
      {"allocator", "options", kOptional, "the options that it used"},
      {"allocator", "seed", kRequired, "root of its random streams"},
      {"", "posterior", kOptional, "the posterior that the plan was made from; none: the allocator used none"},
      {"posterior", "estimator", kRequired, "how it was estimated"},
      {"posterior", "sha256", kRequired, "hash of what the posterior was estimated from"},
      {"", "quantizer", kRequired, "how weights are rounded; values as in 'bitplan help recipe'"},
      {"quantizer", "scheme", kRequired, "kind of levels"},
      {"quantizer", "granularity", kRequired, "what shares a scale"},
      {"quantizer", "range", kRequired, "what scales are fitted to, where a layer says nothing else"},
      {"quantizer", "rounding", kOptional, "nearest (the default) or compensated"},
      {"quantizer", "centring", kOptional, "the corrections that ranges and rounding counted on (default auto)"},
      {"quantizer", "batch_norm", kRequired, "the correction of batch norms; auto: chosen on calibration images"},
      {"quantizer", "output_correction", kOptional, "the correction of outputs (default off); auto: likewise"},
      {"quantizer", "activation_range", kOptional, "ends of the levels of activations (default mse)"},
      {"quantizer", "range_sweeps", kOptional, "sweeps that refined them (default 0: none)"},
      {"quantizer", "activation_sums", kOptional, "float (the default), or rounded: terms of sums in 8 bits"},
      {"quantizer", "learned_steps", kOptional, "minibatches of learned rounding (default 0: none)"},
      {"quantizer", "learned_samples", kOptional, "images that they were drawn from"},
      {"quantizer", "learned_rate", kOptional, "its largest step, in levels"},
      {"", "budget", kRequired, "what the plan was allowed to spend: one or more of, all of which hold"},
      {"", "achieved", kRequired, "what the plan takes; written anew when a plan is verified"},
      {"achieved", "average_bits", kRequired, "bits per weight, without scales"},
      {"achieved", "average_bits_with_overhead", kRequired, "the same with scales, and a byte a layer for its width"},
      {"achieved", "stored_bytes", kRequired, "bytes of codes, scales and widths in the packed file"},
      {"achieved", "compression", kRequired, "bytes in float32 / stored_bytes"},
      {"achieved", "predicted_loss_rise", kRequired, "nats per sample, by the sensitivity table"},
      {"achieved", "network_bytes", kOptional, "bytes of the whole network: stored_bytes and what stays in float"},
      {"achieved", "network_compression", kOptional, "bytes of the whole float network / network_bytes"},
      {"achieved", "optimality_gap", kOptional, "share of it that a better plan could save at most"},
      {"", "layers", kRequired, "a list, in the order of execution; these keys are what to edit by hand: bits, grid"},
      {"layers[]", "name", kRequired, "attribute path of the layer in the network"},
      {"layers[]", "kind", kRequired, "conv2d, linear, ..."},
      {"layers[]", "shape", kRequired, "of its weight: [out, in / groups, kh, kw] or [out, in]"},
      {"layers[]", "macs", kRequired, "multiply-accumulates of one input"},
      {"layers[]", "bits", kRequired, "0 (removed), 1 (sign times a scale), 2..8, or 16 or 32: left in float"},
      {"layers[]", "activation_bits", kOptional, "of its input: 2..8 or 16; none: float"},
      {"layers[]", "grid", kOptional, "zero (the default: a level at zero) or half (levels at odd halves of a step)"},
      {"layers[]", "range", kOptional, "what its scales are fitted to: max, mse, posterior, output"},
      {"layers[]", "confidence", kOptional, "how sure the width is, 0..1"},
      {"", "left_in_float", kOptional, "weights that no layer of the plan rounds"},
      {"left_in_float", "weights", kRequired, "how many"},
      {"left_in_float", "share", kRequired, "of all weights of the network"},
      {"left_in_float", "tensors", kRequired, "a list of them"},
      {"left_in_float.tensors[]", "name", kRequired, "attribute path, or its number among the constants of the graph"},
      {"left_in_float.tensors[]", "shape", kRequired, "its sizes"},
      {"left_in_float.tensors[]", "reason", kRequired, "why it stays in float"},
      {"", "transferred", kOptional, "verify --transfer: the model that the widths were allocated for"},
      {"transferred", "model", kRequired, "its name"},
      {"transferred", "sha256", kRequired, "its hash"},
      {"", "exportable", kOptional, "quantizer.exportable: the format of export that the plan keeps to; none: no such"},
      {"exportable", "format", kRequired,
       "its name, see 'bitplan help formats'; widths that it does not hold are refused"},
      {"exportable", "bits", kRequired, "widths that it holds, among which the plan chose"},
      {"exportable", "left_out", kOptional, "widths of the default allocate.bits that it would store in a wider type"},
      {"exportable", "holds", kRequired, "its grids and scales, in words"},
      {"exportable", "predicted_loss_rise", kOptional, "of the plan, nats per sample; goes where widths were edited"},
      {"exportable", "unrestricted_loss_rise", kOptional, "of one at the same budget that keeps to no format"},
      {"", "calibration", kOptional, "the images that corrections and the guard choose on"},
      {"calibration", "images", kRequired, "how many"},
      {"calibration", "source", kRequired, "split-off, training, file or test"},
      {"calibration", "seed", kOptional, "calibration_seed of the recipe that made the plan; none: its seed"},
      {"", "guard", kOptional, "verify --guard: the plan against one width for all layers on calibration images"},
      {"guard", "data", kRequired, "data set and split"},
      {"guard", "plan_nll", kRequired, "NLL of the plan, nats per sample"},
      {"guard", "uniform_nll", kRequired, "NLL with one width for all layers"},
      {"guard", "replaced", kOptional, "the allocator whose plan was worse and made place for uniform"},
      {"", "drop", kOptional, "allocate.budget.drop: the bound that the plan surely keeps, and what shows it"},
      {"drop", "at_most", kRequired, "the drop of accuracy that was asked for, a share"},
      {"drop", "smallest", kRequired, "the resource of which the plan takes little"},
      {"drop", "data", kRequired, "data set and split"},
      {"drop", "images", kRequired, "how many of them had no part in any choice"},
      {"drop", "value", kRequired, "drop of accuracy on these, a share"},
      {"drop", "upper95", kRequired, "its one-sided 95 % upper bound"},
      {"drop", "plans", kRequired, "how many plans were measured"},
      {"drop", "sha256", kRequired, "of widths, quantizer and corrections that were confirmed; edited, the drop goes"},
      {"", "learned_rounding", kOptional, "what quantizer.learned_steps did, on training images that did not teach"},
      {"learned_rounding", "images", kRequired, "how many"},
      {"learned_rounding", "divergence_before", kRequired, "from the float network, nats per sample"},
      {"learned_rounding", "divergence_after", kRequired, "the same afterwards"},
      {"learned_rounding", "codes_moved", kRequired, "share of the codes that changed"},
      {"learned_rounding", "kept", kRequired, "false: it was no better, and the network was left as it was"},
      {"", "verified", kOptional, "what was measured; none: not yet"},
      {"verified", "task", kOptional,
       "the recipe's data.task; none: classification, with all of accuracy to ece below"},
      {"verified", "data", kRequired, "data set and split"},
      {"verified", "samples", kRequired, "images that both networks were measured on"},
      {"verified", "float", kRequired, "the float network"},
      {"verified", "float_corrected", kOptional, "the float network with the correction of the plan; none: 'float'"},
      {"verified", "quantized", kRequired, "the quantized network"},
      {"verified", "drop", kOptional, "of another task: float less quantized score, on the same samples"},
      {"verified.drop", "figure", kRequired, "the score, the first figure of both networks"},
      {"verified.drop", "value", kRequired, "positive: the plan is worse"},
      {"verified.drop", "ci95", kRequired, "both ends of its paired 95 % interval (bootstrap over images)"},
      {"verified", "drop_corrected", kOptional, "float_corrected less quantized score"},
      {"verified.drop_corrected", "figure", kRequired, "as above"},
      {"verified.drop_corrected", "value", kRequired, "as above"},
      {"verified.drop_corrected", "ci95", kRequired, "as above"},
      {"verified", "accuracy_drop", kOptional, "classification: float less quantized accuracy, on the same samples"},
      {"verified.accuracy_drop", "value", kRequired, "a share; positive: the plan is worse"},
      {"verified.accuracy_drop", "ci95", kRequired, "both ends of its paired 95 % interval (bootstrap)"},
      {"verified.accuracy_drop", "mcnemar_p", kRequired, "McNemar's exact test, two-sided"},
      {"verified", "accuracy_drop_corrected", kOptional, "float_corrected less quantized accuracy"},
      {"verified.accuracy_drop_corrected", "value", kRequired, "as above"},
      {"verified.accuracy_drop_corrected", "ci95", kRequired, "as above"},
      {"verified.accuracy_drop_corrected", "mcnemar_p", kRequired, "as above"},
      {"", "provenance", kRequired, "what wrote the plan"},
      {"provenance", "bitplan", kRequired, "version of the program"},
      {"provenance", "libtorch", kRequired, "version of LibTorch"},
      {"provenance", "recipe_sha256", kRequired, "hash of the complete recipe"},
  };
  AddFigures(keys);
  auto place =
      std::find_if(keys.begin(), keys.end(), [](const PlanKey& key) { return key.key == std::string("budget"); });
  for (const Resource& resource : Resources()) {
    place = keys.insert(place + 1, {"budget", resource.name, kOptional, resource.unit});
  }
  place = std::find_if(keys.begin(), keys.end(),
                       [](const PlanKey& key) { return key.key == std::string("optimality_gap"); });
  for (const Resource& resource : Resources()) {
    if (&resource == &AverageBits() || &resource == &StoredBytes()) continue;  // stated above
    place = keys.insert(place + 1, {"achieved", resource.name, kOptional, resource.unit});
  }
  return keys;
}

}  // namespace

const std::vector<PlanKey>& PlanKeys() {
  static const std::vector<PlanKey> keys = MakeKeys();
  return keys;
}

std::vector<std::string> PlanKeysIn(const std::string& path, bool required) {
  const std::string map = MapOf(path);
  std::vector<std::string> names;
  for (const PlanKey& key : PlanKeys()) {
    if (map == key.map && required == key.required) names.emplace_back(key.key);
  }
  return names;
}

std::string PlanHelp() {
  std::string text =
      "A plan says how many bits every layer of one network gets, what it was made from and what was measured for it.\n"
      "'bitplan verify RECIPE --plan FILE' measures one, also one edited by hand. Keys in [brackets] may be missing;\n"
      "keys that are not listed here are errors.\n\n";
  for (const PlanKey& key : PlanKeys()) {
    const std::string map = key.map;
    std::size_t depth = map.empty() ? 0 : 1;
    for (const char c : map) depth += c == '.' ? 1 : 0;
    const std::string name = key.required ? key.key : fmt::format("[{}]", key.key);
    text += fmt::format("{:<30}  {}\n", std::string(2 * depth, ' ') + name, key.help);
  }
  return text;
}

std::string RangeUnlessStated(const QuantizerOptions& quantizer) {
  return quantizer.range == "auto" || quantizer.range == "output" ? "mse" : quantizer.range;
}

}  // namespace bitplan
