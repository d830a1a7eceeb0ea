#include "bitplan/core/options.h"

namespace bitplan {

Centring CentringOf(const QuantizerOptions& options) {
  const std::string& word = options.centring;
  if (word == "auto") return {options.batch_norm != "off", options.output_correction != "off"};
  return {word == "batch-norm" || word == "both", word == "outputs" || word == "both"};
}

const char* CentringName(const Centring& centring) {
  if (centring.batch_norm) return centring.outputs ? "both" : "batch-norm";
  return centring.outputs ? "outputs" : "off";
}

}  // namespace bitplan
