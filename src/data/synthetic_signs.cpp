// Data sets that need no download. Their seeds belong to them, not to the run: everybody gets the same images.
#include "data/pen.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr std::uint64_t kDigitsSeed = 1797, kLettersSeed = 1821;

}  // namespace

DataFiles SyntheticFiles(const DataOptions&, const Folders&) { return {}; }

DataSplits LoadSyntheticDigits(const DataOptions&, const Folders&, std::uint64_t) {
  DataSplits splits;
  splits.train = DrawSigns("synthetic-digits", "train", 20000, 10, DigitStyles, kDigitsSeed);
  splits.test = DrawSigns("synthetic-digits", "test", 4000, 10, DigitStyles, kDigitsSeed);
  return splits;
}

DataSplits LoadSyntheticLetters(const DataOptions&, const Folders&, std::uint64_t) {
  DataSplits splits;
  splits.train = DrawSigns("synthetic-letters", "train", 19200, kLetters, LetterStyles, kLettersSeed);
  splits.test = DrawSigns("synthetic-letters", "test", 9600, kLetters, LetterStyles, kLettersSeed);
  return splits;
}

}  // namespace bitplan
