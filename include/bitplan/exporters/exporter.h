// Forms in which a quantized network leaves: one exporter each, in one list. A new one is a file in src/exporters and a
// line in its list.cpp.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/consumer_limits.h"
#include "bitplan/core/plan.h"
#include "bitplan/exporters/quantized_network.h"

namespace bitplan {

// What an exporter sees. All of it is of the same network: weights, TorchScript file and plan have been compared.
struct ExportInputs {
  const QuantizedNetwork& network;
  const Plan& plan;
  const std::filesystem::path& torchscript;  // quantized.pt: the graph, with rounded weights in float
  NetworkInput input = {};                   // what that graph takes, where it is known
};

// Where an exporter writes. Both are temporary names: the caller renames them when both files are whole.
struct ExportFiles {
  std::filesystem::path first;
  std::filesystem::path second = {};  // of an exporter with a second file
  std::string name = {};              // what the first will be called, for text that says so: "quantized.c"
};

// What a format holds of one layer.
struct HeldLayer {
  ConsumerLimits limits{};
  std::string reason{};  // why it has no place for the layer, which then stays in float; empty: it has one
};

struct Exporter {
  const char* name;         // packed, torchscript, ...
  const char* description;  // one line
  const char* file;         // its name in the output folder, where the user gives none
  // Writes all of it. Error(kData) for a network that the form cannot hold: one line, which layer and what to set.
  void (*write)(const ExportInputs& inputs, const ExportFiles& files);
  const char* second = nullptr;  // ending of a second file beside the first, ".h"
  // What a plan keeps to with quantizer.exportable, of a layer of the network; null: the format holds every plan.
  HeldLayer (*holds)(const Layer& layer) = nullptr;
};

// The name of the second file: the first with the other ending. Empty where there is only one.
[[nodiscard]] std::filesystem::path SecondFile(const Exporter& exporter, const std::filesystem::path& first);

[[nodiscard]] const std::vector<Exporter>& Exporters();

// By exporter.holds.
[[nodiscard]] HeldLayer HeldBy(const Exporter& exporter, const Layer& layer);

// Error(kUsage) with the known names and the nearest one.
[[nodiscard]] const Exporter& FindExporter(const std::string& name);

// For `bitplan help export`.
[[nodiscard]] std::string ExportersHelp();

}  // namespace bitplan
