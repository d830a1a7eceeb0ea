#include "bitplan/bayes/widths.h"

#include "bitplan/core/suggest.h"

namespace bitplan {

const std::vector<BayesScheme>& BayesSchemes() {
  static const std::vector<BayesScheme> list = {
      {"vpq", "means and standard deviations rounded, weights drawn in float from them", true, false},
      {"spq", "means and standard deviations in float, every drawn weight rounded", false, true},
      {"jq", "means, standard deviations and drawn weights rounded", true, true},
  };
  return list;
}

const BayesScheme& FindBayesScheme(const std::string& name) { return FindByName(BayesSchemes(), "scheme", name); }

}  // namespace bitplan
