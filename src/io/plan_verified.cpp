// What a plan file says was measured.
#include "io/plan_verified.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "io/plan_fields.h"

namespace bitplan {
namespace {

// Error as for a key that is always required.
void Require(const YamlSource& source, const YAML::Node& node, const PlanFields& fields, const std::string& path,
             std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (!fields.Has(key)) source.Fail(node, fmt::format("missing key '{}' in {}", key, path));
  }
}

Metrics ReadMetrics(const YamlSource& source, const YAML::Node& node, const std::string& path) {
  const PlanFields fields(source, node, path);
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
  const PlanFields fields(source, node, path);
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
  const PlanFields fields(source, node, path);
  const auto interval = fields.List("ci95");
  if (interval.size() != 2) source.Fail(fields.At("ci95"), fields.Path("ci95") + " must have two ends");
  return {.drop = fields.Number("value", kAny),
          .ci_low = source.Number(interval[0], fields.Path("ci95"), kAny),
          .ci_high = source.Number(interval[1], fields.Path("ci95"), kAny),
          .mcnemar_p = fields.Number("mcnemar_p", kShare)};
}

PairedComparison ReadDrop(const YamlSource& source, const YAML::Node& node, const std::string& path,
                          const std::string& score) {
  const PlanFields fields(source, node, path);
  const auto interval = fields.List("ci95");
  if (interval.size() != 2) source.Fail(fields.At("ci95"), fields.Path("ci95") + " must have two ends");
  if (fields.Text("figure") != score) source.Fail(fields.At("figure"), fields.Path("figure") + " must be " + score);
  return {.drop = fields.Number("value", kAny),
          .ci_low = source.Number(interval[0], fields.Path("ci95"), kAny),
          .ci_high = source.Number(interval[1], fields.Path("ci95"), kAny)};
}

void ReadTask(const YamlSource& source, const YAML::Node& node, const PlanFields& fields, Verification& verified) {
  verified.task = fields.Text("task");
  for (const char* key : {"accuracy_drop", "accuracy_drop_corrected"}) {
    if (fields.Has(key)) source.Fail(fields.At(key), fmt::format("verified.{} is for classification", key));
  }
  Require(source, node, fields, "verified", {"drop"});
  const std::string score = source.Choice(PlanFields(source, fields.At("drop"), "verified.drop").At("figure"),
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

}  // namespace

Verification ReadVerification(const YamlSource& source, const YAML::Node& node) {
  const PlanFields fields(source, node, "verified");
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

}  // namespace bitplan
