#include "bitplan/core/suggest.h"

#include "support/catch.h"

using bitplan::NearestName;
using bitplan::UnknownNameMessage;

TEST_CASE("a misspelt name finds its nearest known name") {
  const std::vector<std::string> names = {"exact", "quantile-inform", "uniform"};
  CHECK(NearestName("quantil-inform", names) == "quantile-inform");
  CHECK(NearestName("unifrom", names) == "uniform");
  CHECK(NearestName("exact", names) == "exact");
}

TEST_CASE("swapping two neighbouring letters is one slip, not two") {
  CHECK(NearestName("ab", {"ba"}) == "ba");
  CHECK(NearestName("ab", {"cd"}).empty());
}

TEST_CASE("capitals and underscores do not hide a name") {
  CHECK(NearestName("MNIST", {"cifar10", "mnist"}) == "mnist");
  CHECK(NearestName("Quantile_Inform", {"quantile-inform"}) == "quantile-inform");
}

TEST_CASE("a name more than half wrong suggests nothing") {
  CHECK(NearestName("annealing", {"exact", "uniform"}).empty());
  CHECK(NearestName("", {"a"}).empty());
  CHECK(NearestName("abcd", {"abxy"}) == "abxy");
  CHECK(NearestName("abcd", {"axyz"}).empty());
}

TEST_CASE("of two names equally near the first listed is suggested") {
  CHECK(NearestName("sax", {"sad", "sag"}) == "sad");
  CHECK(NearestName("sax", {"sag", "sad"}) == "sag");
}

TEST_CASE("the message for an unknown name lists what is known and the nearest") {
  CHECK(UnknownNameMessage("allocator", "quantil-inform", {"exact", "quantile-inform", "uniform"}) ==
        "unknown allocator 'quantil-inform'; known: exact, quantile-inform, uniform; nearest: quantile-inform");
  CHECK(UnknownNameMessage("data set", "imagenet", {"mnist", "npy"}) ==
        "unknown data set 'imagenet'; known: mnist, npy");
}
