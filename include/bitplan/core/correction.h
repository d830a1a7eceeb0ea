// How a quantized network was corrected, and what else was tried.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace bitplan {

struct CorrectionMethod {
  std::string batch_norm = "off";  // off, re-estimate, transfer
  std::string outputs = "off";     // off, fit
};

struct CorrectionCandidate {
  CorrectionMethod method;
  double nll = 0.0;  // mean on the calibration split, nats per sample
};

// What learned rounding did after the correction, judged on training images that did not teach (ptq/learn_rounding.h).
struct LearnedRounding {
  std::int64_t held_out = 0;          // these images
  double before = 0.0, after = 0.0;   // mean divergence from the float network there, nats
  std::int64_t moved = 0, codes = 0;  // codes that changed, of all
  bool kept = false;                  // false: it was no better there, and the network is as it was before
};

struct Correction {
  CorrectionMethod chosen;
  std::vector<CorrectionCandidate> candidates;  // empty unless an "auto" chose
  std::optional<LearnedRounding> learned;       // empty without learned rounding, or where there was nothing to learn
};

}  // namespace bitplan
