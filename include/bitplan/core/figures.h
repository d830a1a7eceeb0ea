// What networks of other tasks than classification are measured by, and how it is printed.
#pragma once

#include <string>
#include <vector>

namespace bitplan {

struct Figure {
  std::string name;  // of FigureKinds
  double value = 0.0;

  bool operator==(const Figure& other) const = default;
};

struct FigureKind {
  const char* name;   // the key in plans and reports
  const char* title;  // for people
  bool share;         // 0..1, printed in per cent
  const char* help;   // one phrase
};

// accuracy, miou, perplexity, r2, rmse, f1, nll.
[[nodiscard]] const std::vector<FigureKind>& FigureKinds();
[[nodiscard]] const FigureKind& FindFigureKind(const std::string& name);  // Error(kUsage)

// A score that is stated in hundredths: "accuracy" of per cent, "100 R2".
[[nodiscard]] std::string FigureTitle(const std::string& name);

// "91.20 %" of a share, "0.0312" of another figure.
[[nodiscard]] std::string FigureText(const Figure& figure);

}  // namespace bitplan
