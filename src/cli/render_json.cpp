#include <algorithm>

#include "cli/render.h"

namespace bitplan::cli {
namespace {

using nlohmann::ordered_json;

ordered_json StagesJson(const std::vector<pipeline::StageStatus>& stages) {
  ordered_json list = ordered_json::array();
  for (const auto& stage : stages) {
    list.push_back({{"name", stage.name}, {"reused", stage.reused}, {"seconds", stage.seconds}});
  }
  return list;
}

ordered_json MetricsJson(const Metrics& metrics) {
  if (!metrics.figures.empty()) {
    ordered_json json;
    for (const auto& [name, value] : metrics.figures) json[name] = value;
    return json;
  }
  return {{"accuracy", metrics.accuracy}, {"nll", metrics.nll}, {"brier", metrics.brier}, {"ece", metrics.ece}};
}

ordered_json DropJson(const PairedComparison& drop) {
  return {{"value", drop.drop}, {"ci95", {drop.ci_low, drop.ci_high}}, {"mcnemar_p", drop.mcnemar_p}};
}

// Of another task than classification.
ordered_json ScoreDropJson(const Verification& verified, const PairedComparison& drop) {
  return {{"figure", verified.score()}, {"value", drop.drop}, {"ci95", {drop.ci_low, drop.ci_high}}};
}

ordered_json VerifiedJson(const Verification& verified) {
  const auto& corrected = verified.float_corrected;
  if (!verified.task.empty()) {
    return {{"task", verified.task},
            {"data", verified.data},
            {"samples", verified.samples},
            {"float", MetricsJson(verified.float_model)},
            {"float_corrected", corrected ? MetricsJson(corrected->metrics) : ordered_json()},
            {"quantized", MetricsJson(verified.quantized)},
            {"drop", ScoreDropJson(verified, verified.accuracy_drop)},
            {"drop_corrected", corrected ? ScoreDropJson(verified, corrected->accuracy_drop) : ordered_json()}};
  }
  return {{"data", verified.data},
          {"samples", verified.samples},
          {"float", MetricsJson(verified.float_model)},
          {"float_corrected", corrected ? MetricsJson(corrected->metrics) : ordered_json()},
          {"quantized", MetricsJson(verified.quantized)},
          {"accuracy_drop", DropJson(verified.accuracy_drop)},
          {"accuracy_drop_corrected", corrected ? DropJson(corrected->accuracy_drop) : ordered_json()}};
}

ordered_json BudgetJson(const Budget& budget) {
  ordered_json json;
  for (const Limit& limit : budget.limits) json[LimitName(limit)] = limit.value;
  return json;
}

// A number for one limit, {resource: number} for several; null: none.
ordered_json ShadowPriceJson(const Budget& budget, const std::vector<double>& prices) {
  ordered_json json;
  for (std::size_t r = 0; r < std::min(prices.size(), budget.limits.size()); ++r) {
    if (prices[r] <= 0.0) continue;
    if (budget.limits.size() == 1) return prices[r];
    json[LimitName(budget.limits[r])] = prices[r];
  }
  return json;
}

ordered_json AchievedJson(const PlanAchieved& achieved) {
  ordered_json json = {{"average_bits", achieved.average_bits},
                       {"average_bits_with_overhead", achieved.average_bits_with_overhead},
                       {"stored_bytes", achieved.stored_bytes},
                       {"compression", achieved.compression},
                       {"predicted_loss_rise", achieved.predicted_loss_rise}};
  if (achieved.network_bytes > 0) {
    json["network_bytes"] = achieved.network_bytes;
    json["network_compression"] = achieved.network_compression;
  }
  if (achieved.optimality_gap >= 0.0) json["optimality_gap"] = achieved.optimality_gap;
  return json;
}

ordered_json AchievedJson(const Plan& plan) {
  ordered_json json = AchievedJson(plan.achieved);
  for (const Limit& spent : SpentOnOthers(plan)) json[LimitName(spent)] = spent.value;
  return json;
}

ordered_json LeftInFloatJson(const LeftInFloat& left) {
  ordered_json tensors = ordered_json::array();
  for (const auto& tensor : left.tensors) {
    tensors.push_back({{"name", tensor.name}, {"shape", tensor.shape}, {"reason", tensor.reason}});
  }
  return {{"weights", left.weights}, {"share", left.share}, {"tensors", tensors}};
}

// null for a plan that keeps to no format.
ordered_json ExportableJson(const Plan& plan) {
  if (!plan.exportable) return nullptr;
  const PlanExportable& exportable = *plan.exportable;
  const auto number = [](const std::optional<double>& value) { return value ? ordered_json(*value) : ordered_json(); };
  return {{"format", plan.quantizer.exportable},
          {"bits", exportable.bits},
          {"left_out", exportable.left_out},
          {"holds", exportable.holds},
          {"predicted_loss_rise", number(exportable.predicted_loss_rise)},
          {"unrestricted_loss_rise", number(exportable.unrestricted_loss_rise)}};
}

ordered_json PinsJson(const std::vector<PinCost>& pins) {
  ordered_json json = ordered_json::array();
  for (const auto& [pin, rise] : pins) {
    json.push_back(
        {{"layers", pin.pattern}, {"bits", pin.bits}, {"loss_rise", rise ? ordered_json(*rise) : ordered_json()}});
  }
  return json;
}

ordered_json CorrectionsJson(const std::vector<CorrectionCandidate>& corrections) {
  ordered_json json = ordered_json::array();
  for (const auto& [method, nll] : corrections) {
    json.push_back({{"batch_norm", method.batch_norm}, {"outputs", method.outputs}, {"calibration_nll", nll}});
  }
  return json;
}

}  // namespace

ordered_json Json(const pipeline::RunReport& report) {
  const auto& plan = report.plan;
  ordered_json layers = ordered_json::array();
  for (const auto& layer : plan.layers) {
    layers.push_back({{"name", layer.name},
                      {"kind", layer.kind},
                      {"shape", layer.shape},
                      {"weights", layer.weights()},
                      {"macs", layer.macs},
                      {"bits", layer.bits},
                      {"grid", layer.grid},
                      {"range", layer.range}});
    if (layer.bits > 8) layers.back()["float"] = true;
    if (layer.activation_bits <= 16) layers.back()["activation_bits"] = layer.activation_bits;
    if (layer.confidence >= 0.0) layers.back()["confidence"] = layer.confidence;
  }
  ordered_json json = {
      {"folder", report.folder.string()},
      {"plan_file", report.plan_file.string()},
      {"quantized_file", report.quantized_file.string()},
      {"page_file", report.page_file.string()},
      {"packed_bytes", report.packed_bytes > 0 ? ordered_json(report.packed_bytes) : ordered_json()},
      {"model", {{"name", plan.model.name}, {"sha256", plan.model.sha256}, {"weights", plan.model.weights}}},
      {"allocator", plan.allocator},
      {"budget", BudgetJson(plan.budget)},
      {"achieved", AchievedJson(plan)},
      {"batch_norm", plan.quantizer.batch_norm},
      {"output_correction", plan.quantizer.output_correction},
      {"corrections", CorrectionsJson(report.corrections)},
      {"layers", layers},
      {"exportable", ExportableJson(plan)},
      {"left_in_float", plan.left_in_float ? LeftInFloatJson(*plan.left_in_float) : ordered_json()},
      {"verified", plan.verified ? VerifiedJson(*plan.verified) : ordered_json()},
      {"allocate_ms", report.allocate_ms},
      {"shadow_price", ShadowPriceJson(plan.budget, report.shadow_prices)},
      {"note", report.allocator_note},
      {"notes", report.notes},
      {"pins", PinsJson(report.pins)},
      {"width_probabilities", report.width_probabilities},
      {"stages", StagesJson(report.stages)}};
  if (!plan.model.note.empty()) json["model"]["note"] = plan.model.note;
  if (!report.weights_file.empty()) json["model"]["weights_file"] = report.weights_file;
  if (!report.classes.empty()) json["classes"] = report.classes;
  if (plan.transferred) {
    json["transferred"] = {{"model", plan.transferred->model}, {"sha256", plan.transferred->sha256}};
  }
  if (plan.calibration) {
    json["calibration"] = {{"images", plan.calibration->images}, {"source", plan.calibration->source}};
    if (report.calibration_asked > 0) json["calibration"]["asked"] = report.calibration_asked;
  }
  if (plan.learned) {
    json["learned_rounding"] = {{"images", plan.learned->images},
                                {"divergence_before", plan.learned->before},
                                {"divergence_after", plan.learned->after},
                                {"codes_moved", plan.learned->moved},
                                {"kept", plan.learned->kept}};
  }
  if (plan.guard) {
    json["guard"] = {{"data", plan.guard->data},
                     {"plan_nll", plan.guard->plan_nll},
                     {"uniform_nll", plan.guard->uniform_nll},
                     {"replaced", plan.guard->replaced}};
  }
  if (plan.drop) {
    json["drop"] = {{"at_most", plan.drop->at_most}, {"smallest", plan.drop->smallest}, {"data", plan.drop->data},
                    {"images", plan.drop->images},   {"value", plan.drop->value},       {"upper95", plan.drop->upper95},
                    {"plans", plan.drop->plans}};
  }
  if (report.against) {
    const auto& drop = report.against->accuracy_drop;
    json["against"] = {
        {"plan_file", report.against_file.string()},
        {"metrics", MetricsJson(report.against->float_model)},
        {"gain", {{"value", -drop.drop}, {"ci95", {-drop.ci_high, -drop.ci_low}}, {"mcnemar_p", drop.mcnemar_p}}}};
    if (!report.against->task.empty()) json["against"]["gain"].erase("mcnemar_p");
  }
  return json;
}

ordered_json Json(const pipeline::ModelReport& report) {
  return {{"folder", report.folder.string()}, {"model_file", report.model_file.string()},
          {"model", report.model_name},       {"sha256", report.model_sha256},
          {"epoch_loss", report.epoch_loss},  {"stages", StagesJson(report.stages)}};
}

ordered_json Json(const pipeline::PosteriorReport& report) {
  ordered_json layers = ordered_json::array();
  for (const auto& layer : report.layers) {
    layers.push_back({{"name", layer.name},
                      {"weights", layer.weights},
                      {"prior_sigma", layer.prior_sigma},
                      {"median_sigma", layer.median_sigma}});
  }
  return {{"folder", report.folder.string()},
          {"posterior_file", report.posterior_file.string()},
          {"estimator", report.estimator},
          {"data_size", report.data_size},
          {"layers", layers},
          {"stages", StagesJson(report.stages)}};
}

ordered_json Json(const pipeline::InspectReport& report) {
  ordered_json layers = ordered_json::array(), floats = ordered_json::array();
  for (const auto& layer : report.layers) {
    layers.push_back({{"name", layer.name},
                      {"kind", layer.kind},
                      {"shape", layer.shape},
                      {"weights", layer.weights},
                      {"macs", layer.macs},
                      {"uses", layer.uses}});
  }
  for (const auto& item : report.left_in_float) {
    floats.push_back({{"parameter", item.parameter},
                      {"shape", item.shape},
                      {"reason", item.reason},
                      {"bytes", item.bytes},
                      {"weight", item.weight}});
  }
  return {{"name", report.name},
          {"sha256", report.sha256},
          {"input_shape", report.input_shape},
          {"weights", report.weights},
          {"macs", report.macs},
          {"batch_norms", report.batch_norms},
          {"layers", layers},
          {"left_in_float", floats},
          {"float_weights", report.float_weights},
          {"bytes", report.bytes},
          {"activation_bytes", report.activation_bytes},
          {"note", report.note}};
}

ordered_json Json(const pipeline::ExportReport& report) {
  ordered_json json = {
      {"format", report.format}, {"plan_file", report.plan_file.string()}, {"file", report.file.string()}};
  if (!report.second_file.empty()) json["second_file"] = report.second_file.string();
  json["bytes"] = report.bytes;
  json["stored_bytes"] = report.stored_bytes;
  json["float_bytes"] = report.float_bytes;
  return json;
}

ordered_json Json(const pipeline::RankReport& report) {
  if (!report.near.empty()) {
    ordered_json budgets = ordered_json::array();
    for (const auto& near : report.near) {
      ordered_json rows = ordered_json::array();
      for (const auto& row : near.rows) {
        rows.push_back({{"metric", row.metric},
                        {"spearman_loss", row.spearman_loss},
                        {"seconds", row.seconds},
                        {"predicted", row.predicted}});
      }
      budgets.push_back({{"average_bits", near.budget},
                         {"bits", near.bits},
                         {"loss_rise", near.loss_rise},
                         {"accuracy", near.accuracy},
                         {"metrics", rows}});
    }
    return {{"model", report.model}, {"near", budgets}, {"notes", report.notes}};
  }
  ordered_json rows = ordered_json::array();
  for (const auto& row : report.rows) {
    rows.push_back({{"metric", row.metric},
                    {"spearman_divergence", row.spearman_divergence},
                    {"spearman_loss", row.spearman_loss},
                    {"seconds", row.seconds},
                    {"predicted", row.predicted}});
  }
  ordered_json json = {{"model", report.model}, {"drawn", report.drawn}, {"bits", report.bits}};
  if (!report.activation_bits.empty()) json["activation_bits"] = report.activation_bits;
  json["divergence"] = report.divergence;
  json["loss_rise"] = report.loss_rise;
  json["metrics"] = rows;
  json["notes"] = report.notes;
  return json;
}

ordered_json Json(const pipeline::ListReport& report) {
  ordered_json plans = ordered_json::array();
  for (const auto& [plan, plan_file, quantized_file, newest] : report.plans) {
    plans.push_back({{"plan_file", plan_file.string()},
                     {"quantized_file", quantized_file.string()},
                     {"newest", newest},
                     {"model", {{"name", plan.model.name}, {"sha256", plan.model.sha256}}},
                     {"allocator", plan.allocator},
                     {"budget", BudgetJson(plan.budget)},
                     {"achieved", AchievedJson(plan)},
                     {"verified", plan.verified ? VerifiedJson(*plan.verified) : ordered_json()}});
  }
  return {
      {"folder", report.folder.string()}, {"plans", plans}, {"unreadable", report.unreadable}, {"notes", report.notes}};
}

ordered_json Json(const pipeline::CompareReport& report) {
  auto json = ordered_json::parse(ComparisonJson(report.comparison));
  json["measured"] = report.measured;
  json["learned"] = report.learned;
  json["files"] = {
      {"csv", report.files.csv.string()}, {"json", report.files.json.string()}, {"html", report.files.html.string()}};
  json["stages"] = StagesJson(report.stages);
  return json;
}

ordered_json Json(const pipeline::CurveReport& report) {
  ordered_json points = ordered_json::array();
  for (const auto& point : report.points) {
    ordered_json json = {{"budget", point.budget}};
    json.update(AchievedJson(point.achieved));
    json["shadow_price"] = point.shadow_price > 0.0 ? ordered_json(point.shadow_price) : ordered_json();
    json["bits"] = point.bits;
    points.push_back(std::move(json));
  }
  return {{"folder", report.folder.string()},
          {"model", report.model},
          {"allocator", report.allocator},
          {"layers", report.layers},
          {"points", points},
          {"milliseconds", report.milliseconds},
          {"notes", report.notes},
          {"stages", StagesJson(report.stages)}};
}

ordered_json Json(const pipeline::MeasuredCurveReport& report) {
  auto json = ordered_json::parse(CurveJson(report.curve));
  json["measured"] = report.measured;
  json["files"] = {
      {"csv", report.files.csv.string()}, {"json", report.files.json.string()}, {"html", report.files.html.string()}};
  json["stages"] = StagesJson(report.stages);
  return json;
}

ordered_json Json(const pipeline::BayesReport& report) {
  auto json = ordered_json::parse(BayesJson(report.comparison));
  json["notes"] = report.notes;
  json["folder"] = report.folder.string();
  json["stages"] = StagesJson(report.stages);
  return json;
}

ordered_json Json(const pipeline::MakeDataReport& report) {
  const auto half = [](const pipeline::MadeHalf& made) {
    return ordered_json{{"images", made.images},
                        {"candidates", made.drawn},
                        {"kept", made.kept},
                        {"entropy", made.entropy},
                        {"mutual_information", made.information},
                        {"label_agreement", made.agreement},
                        {"entropy_histogram", made.entropy_counts}};
  };
  return {{"name", report.name},
          {"made", report.made},
          {"samples_file", report.samples_file.string()},
          {"labels_file", report.labels_file.string()},
          {"seed", report.seed},
          {"labels", report.labels},
          {"bitplan", report.version},
          {"train", half(report.train)},
          {"test", half(report.test)},
          {"seconds", report.seconds}};
}

}  // namespace bitplan::cli
