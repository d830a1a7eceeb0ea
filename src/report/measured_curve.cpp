#include "bitplan/report/measured_curve.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "bitplan/core/random.h"
#include "bitplan/core/statistics.h"
#include "bitplan/io/files.h"
#include "io/json_text.h"

namespace bitplan {
namespace {

nlohmann::ordered_json SpentJson(const MeasuredCurve& curve, const std::vector<double>& spent) {
  nlohmann::ordered_json json;
  for (std::size_t r = 0; r < spent.size(); ++r) {
    const Resource& resource = *curve.resources[r];
    if (resource.per_weight) {
      json[resource.name] = spent[r];
    } else {
      json[resource.name] = static_cast<std::int64_t>(spent[r]);
    }
  }
  return json;
}

}  // namespace

std::string MakerOf(const MeasuredCurve& curve, const CurvePlan& plan) {
  return plan.uniform ? "uniform" : curve.allocator;
}

void Rank(MeasuredCurve& curve, const std::vector<Outcomes>& outcomes, int resamples, std::uint64_t seed) {
  std::vector<std::size_t> order(curve.plans.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return curve.plans[a].spent.front() < curve.plans[b].spent.front();
  });
  std::vector<CurvePlan> sorted;
  for (const std::size_t index : order) sorted.push_back(std::move(curve.plans[index]));
  curve.plans = std::move(sorted);
  const auto score = [&](std::size_t i) { return curve.plans[i].plan.verified->quantized.accuracy; };
  for (std::size_t i = 0; i < curve.plans.size(); ++i) {
    CurvePlan& plan = curve.plans[i];
    for (std::size_t j = 0; j < curve.plans.size(); ++j) {
      const CurvePlan& other = curve.plans[j];
      if (j == i || other.spent.front() > plan.spent.front() || score(j) < score(i)) continue;
      const bool equal = other.spent.front() == plan.spent.front() && score(j) == score(i);
      if (equal && j > i) continue;
      if (!plan.dominated_by || score(j) > score(*plan.dominated_by)) plan.dominated_by = j;
    }
    if (!plan.dominated_by) continue;
    const auto gain = ComparePaired(outcomes[order[*plan.dominated_by]], outcomes[order[i]], resamples,
                                    RandomStream(seed, "curve/dominated"));
    plan.surely = gain.ci_low > 0.0;
  }
}

std::string CurveCsv(const MeasuredCurve& curve) {
  std::string text = "allocator";
  for (const Resource* resource : curve.resources) text += fmt::format(",{}", resource->name);
  text += fmt::format(",predicted_rise,float_{0},{0},nll,drop,drop_low,drop_high,dominated_by,surely,plan,bits\n",
                      curve.score);
  for (const CurvePlan& plan : curve.plans) {
    text += MakerOf(curve, plan);
    for (std::size_t r = 0; r < plan.spent.size(); ++r) {
      text += curve.resources[r]->per_weight ? fmt::format(",{}", plan.spent[r])
                                             : fmt::format(",{}", static_cast<std::int64_t>(plan.spent[r]));
    }
    const Verification& verified = *plan.plan.verified;
    const PairedComparison& drop = verified.accuracy_drop;
    std::string bits;  // with the width of activations behind a stroke
    for (const PlanLayer& layer : plan.plan.layers) {
      bits += fmt::format("{}{}", bits.empty() ? "" : " ", layer.bits);
      if (layer.activation_bits <= 16) bits += fmt::format("/{}", layer.activation_bits);
    }
    text += fmt::format(",{},{},{},{},{},{},{},{},{},{},{}\n", plan.plan.achieved.predicted_loss_rise,
                        verified.float_model.accuracy, verified.quantized.accuracy, verified.quantized.nll, drop.drop,
                        drop.ci_low, drop.ci_high, plan.dominated_by ? curve.plans[*plan.dominated_by].file : "",
                        plan.dominated_by ? (plan.surely ? "yes" : "no") : "", plan.file, bits);
  }
  return text;
}

std::string CurveJson(const MeasuredCurve& curve) {
  auto plans = nlohmann::ordered_json::array(), front = nlohmann::ordered_json::array();
  for (const CurvePlan& plan : curve.plans) {
    const Verification& verified = *plan.plan.verified;
    const PairedComparison& drop = verified.accuracy_drop;
    std::vector<int> bits, activation_bits;
    for (const PlanLayer& layer : plan.plan.layers) {
      bits.push_back(layer.bits);
      activation_bits.push_back(layer.activation_bits);
    }
    nlohmann::ordered_json lost = {{"value", drop.drop}, {"ci95", {drop.ci_low, drop.ci_high}}};
    if (verified.task.empty()) lost["mcnemar_p"] = drop.mcnemar_p;
    plans.push_back(
        {{"allocator", MakerOf(curve, plan)},
         {"spent", SpentJson(curve, plan.spent)},
         {"bits", bits},
         {"activation_bits", activation_bits},
         {"predicted_loss_rise", plan.plan.achieved.predicted_loss_rise},
         {curve.score, verified.quantized.accuracy},
         {"nll", verified.quantized.nll},
         {"drop", lost},
         {"dominated_by", plan.dominated_by ? nlohmann::ordered_json(*plan.dominated_by) : nlohmann::ordered_json()},
         {"surely", plan.surely},
         {"plan", plan.file}});
  }
  for (const FrontPlan& plan : curve.front) {
    front.push_back({{"spent", SpentJson(curve, plan.spent)},
                     {"bits", plan.bits},
                     {"activation_bits", plan.activation_bits},
                     {"predicted_loss_rise", plan.predicted_rise}});
  }
  std::vector<std::string> layers;
  if (!curve.plans.empty()) {
    for (const PlanLayer& layer : curve.plans.front().plan.layers) layers.push_back(layer.name);
  }
  const nlohmann::ordered_json json = {
      {"name", curve.name},
      {"model", curve.model},
      {"allocator", curve.allocator},
      {"resource", curve.resources.front()->name},
      {"data", curve.data},
      {"samples", curve.samples},
      {"score", curve.score},
      {"float", {{curve.score, curve.float_model.accuracy}, {"nll", curve.float_model.nll}}},
      {"layers", layers},
      {"plans", plans},
      {"front", front},
      {"notes", curve.notes}};
  return JsonText(json, 1) + "\n";
}

CurveFiles WriteCurve(const MeasuredCurve& curve, const std::filesystem::path& folder) {
  CurveFiles files{folder / "curve.csv", folder / "curve.json", folder / "curve.html"};
  WriteFileAtomically(files.csv, CurveCsv(curve));
  WriteFileAtomically(files.json, CurveJson(curve));
  WriteFileAtomically(files.html, CurveHtml(curve));
  return files;
}

}  // namespace bitplan
