// How a quantized network was corrected, and what else was tried.
#pragma once

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

struct Correction {
  CorrectionMethod chosen;
  std::vector<CorrectionCandidate> candidates;  // empty unless an "auto" chose
};

}  // namespace bitplan
