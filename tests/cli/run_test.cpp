// What `bitplan run` promises: the same plan whatever happens on the way, and no work twice.
#include <signal.h>

#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

std::string PlanOf(const Workplace& place, const std::string& folder) {
  return ReadText(place / (folder + "/plan.yaml"));
}

// {"model": true, ...}: was the stage reused?
std::map<std::string, bool> Reused(const Outcome& outcome) {
  std::map<std::string, bool> reused;
  const auto report = nlohmann::json::parse(outcome.out);
  for (const auto& stage : report.at("stages")) reused[stage.at("name")] = stage.at("reused");
  return reused;
}

void ChangeLastByte(const std::filesystem::path& file) {
  auto bytes = ReadText(file);
  bytes.back() = static_cast<char>(bytes.back() + 1);
  WriteText(file, bytes);
}

}  // namespace

TEST_CASE("a run ends with a verified plan, a quantized model and a table") {
  const Workplace place;
  const auto outcome = place.Bitplan({"run", place.recipe(), "--out", "out"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  for (const char* file :
       {"model.pt", "posterior.pt", "sensitivity.json", "quantized.pt", "plan.yaml", "manifest.json", "report.html"}) {
    CHECK(std::filesystem::file_size(place / (std::string("out/") + file)) > 0);
  }
  for (const char* word : {"average bits", "planned layers", "whole network", "left in float", "float accuracy",
                           "quantized accuracy", "95 % interval", "McNemar", "out/plan.yaml"}) {
    CHECK_THAT(outcome.out, ContainsSubstring(word));
  }
  CHECK_THAT(PlanOf(place, "out"), ContainsSubstring("verified:"));
}

TEST_CASE("the program runs a plan's quantized model as it was verified") {
  const Workplace place;
  const auto outcome = place.Bitplan({"run", place.recipe(), "--out", "out", "--json", "--quiet"});
  REQUIRE(outcome.code == 0);
  CHECK(outcome.err.empty());
  const auto module = torch::jit::load((place / "out/quantized.pt").string());
  const auto float_module = torch::jit::load((place / "out/model.pt").string());
  std::int64_t changed = 0;
  for (const auto& [name, value] : float_module.named_parameters()) {
    for (const auto& [other, quantized] : module.named_parameters()) {
      if (name == other && !torch::equal(value, quantized)) ++changed;
    }
  }
  const auto report = nlohmann::json::parse(outcome.out);
  // The three weights; the three biases stay as they were unless the outputs were fitted.
  CHECK(changed == (report.at("output_correction") == "fit" ? 6 : 3));
  CHECK(report.at("achieved").at("average_bits").get<double>() <= 3.0);
  CHECK(report.at("verified").at("samples") == 100);
}

TEST_CASE("two fresh folders hold the same plan, byte for byte") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "one"}).code == 0);
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "two"}).code == 0);
  CHECK(PlanOf(place, "one") == PlanOf(place, "two"));
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "three", "--seed", "2"}).code == 0);
  CHECK(PlanOf(place, "one") != PlanOf(place, "three"));
}

TEST_CASE("nothing runs again when nothing has changed") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto plan = PlanOf(place, "out");
  const auto again = place.Bitplan({"run", place.recipe(), "--out", "out", "--json"});
  REQUIRE(again.code == 0);
  const auto stages = Reused(again);
  CHECK(stages.size() == 7);
  for (const auto& [stage, reused] : stages) CHECK((stage + (reused ? " reused" : " ran")) == stage + " reused");
  CHECK(PlanOf(place, "out") == plan);
}

TEST_CASE("another budget trains nothing and estimates no posterior") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto second =
      place.Bitplan({"run", place.recipe(), "--out", "out", "--json", "--set", "allocate.budget.average_bits=1.5"});
  REQUIRE(second.code == 0);
  const auto reused = Reused(second);
  for (const char* stage : {"model", "posterior", "sensitivity"}) CHECK(reused.at(stage));
  for (const char* stage : {"allocate", "apply", "verify"}) CHECK_FALSE(reused.at(stage));
  CHECK(nlohmann::json::parse(second.out).at("achieved").at("average_bits").get<double>() <= 1.5);
}

TEST_CASE("several limits hold in a plan and on its curve, and the output states all of them") {
  const Workplace place;
  const std::string limits = "allocate={allocator: exact, budget: {average_bits: 6, bytes: 1000000, bops: 1e12}}";
  const auto run = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"allocate", place.recipe(), "--out", "out", "--json", "--set", limits};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto outcome = place.Bitplan(arguments);
    REQUIRE(outcome.code == 0);
    return nlohmann::json::parse(outcome.out);
  };
  const auto loose = run({});
  const auto bytes = loose.at("achieved").at("stored_bytes").get<std::int64_t>() * 2 / 3;
  const auto bops = loose.at("achieved").at("bops").get<double>() / 2.0;
  const std::vector<std::string> tight = {"--set", "allocate.budget.bytes=" + std::to_string(bytes), "--set",
                                          "allocate.budget.bops=" + std::to_string(std::llround(bops))};
  const auto plan = run(tight);
  CHECK(plan.at("budget").size() == 3);
  CHECK(plan.at("budget").at("average_bits") == 6.0);
  CHECK(plan.at("achieved").at("stored_bytes").get<std::int64_t>() <= bytes);
  CHECK(plan.at("achieved").at("bops").get<double>() <= bops);
  CHECK_THAT(PlanOf(place, "out"), ContainsSubstring("budget: {average_bits: 6.0, bytes: " + std::to_string(bytes)));
  auto curve = tight;
  curve.insert(curve.end(), {"--curve", "3"});
  for (const auto& point : run(curve).at("points")) CHECK(point.at("stored_bytes").get<std::int64_t>() <= bytes);
}

TEST_CASE("a table that was measured for one allocator serves another that needs less") {
  const Workplace place;
  const auto allocate = [&](const std::string& allocator, const std::string& folder) {
    return place.Bitplan({"allocate", place.recipe(), "--out", folder, "--json", "--set",
                          "sensitivity.metric=predictive", "--set", "allocate.allocator=" + allocator});
  };
  REQUIRE(allocate("quantile-inform", "out").code == 0);
  for (const char* allocator : {"mct", "uniform", "exact"}) {
    const auto outcome = allocate(allocator, "out");
    REQUIRE(outcome.code == 0);
    CHECK(Reused(outcome).at("sensitivity"));
  }
  REQUIRE(allocate("exact", "fresh").code == 0);
  CHECK(PlanOf(place, "out") == PlanOf(place, "fresh"));
}

TEST_CASE("changed training data train again") {
  const Workplace place;
  REQUIRE(place.Bitplan({"train", place.recipe(), "--out", "out"}).code == 0);
  ChangeLastByte(place / "train-images.npy");
  const auto again = place.Bitplan({"train", place.recipe(), "--out", "out", "--json"});
  REQUIRE(again.code == 0);
  CHECK_FALSE(Reused(again).at("model"));
}

TEST_CASE("changed test data are measured again and change nothing else") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  ChangeLastByte(place / "test-images.npy");
  const auto again = place.Bitplan({"run", place.recipe(), "--out", "out", "--json"});
  REQUIRE(again.code == 0);
  const auto reused = Reused(again);
  for (const char* stage : {"model", "posterior", "sensitivity", "allocate", "apply"}) CHECK(reused.at(stage));
  CHECK_FALSE(reused.at("verify"));
}

TEST_CASE("a plan.yaml edited by hand is moved aside, not overwritten") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto plan = PlanOf(place, "out");
  WriteText(place / "out/plan.yaml", plan + "# mine\n");
  const auto again = place.Bitplan({"run", place.recipe(), "--out", "out"});
  REQUIRE(again.code == 0);
  CHECK_THAT(again.err, ContainsSubstring("plan.edited.yaml"));
  CHECK(PlanOf(place, "out") == plan);
  CHECK(ReadText(place / "out/plan.edited.yaml") == plan + "# mine\n");
}

TEST_CASE("an edited plan.yaml that was verified in place is still its owner's, and so is the next one") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out", "--set", "allocate.allocator=uniform"}).code == 0);
  const auto plan = PlanOf(place, "out");
  const auto edit = [&](const char* width) {
    WriteText(place / "out/plan.yaml", Replaced(plan, "bits: 3, grid", std::string("bits: ") + width + ", grid"));
    REQUIRE(place.Bitplan({"verify", place.recipe(), "--out", "out"}).code == 0);
    return PlanOf(place, "out");
  };
  const auto first = edit("8");
  const auto run = [&] {
    return place.Bitplan({"run", place.recipe(), "--out", "out", "--set", "allocate.allocator=uniform"});
  };
  CHECK_THAT(run().err, ContainsSubstring("plan.edited.yaml"));
  CHECK(PlanOf(place, "out") == plan);
  const auto second = edit("7");
  CHECK_THAT(run().err, ContainsSubstring("plan.edited-2.yaml"));
  CHECK(ReadText(place / "out/plan.edited.yaml") == first);
  CHECK(ReadText(place / "out/plan.edited-2.yaml") == second);
  // What an allocator left is nobody's: another budget takes its place.
  REQUIRE(place.Bitplan({"allocate", place.recipe(), "--out", "out"}).code == 0);
  REQUIRE(run().code == 0);
  CHECK_FALSE(std::filesystem::exists(place / "out/plan.edited-3.yaml"));
}

TEST_CASE("compensated rounding is recorded in the plan, and the plan can be verified again") {
  const Workplace place;
  const auto run = [&](const char* folder) {
    return place.Bitplan({"run", place.recipe(), "--out", folder, "--set", "quantizer.rounding=compensated", "--set",
                          "allocate.budget.average_bits=2"});
  };
  REQUIRE(run("out").code == 0);
  REQUIRE(run("again").code == 0);
  CHECK_THAT(PlanOf(place, "out"), ContainsSubstring("rounding: compensated"));
  CHECK(PlanOf(place, "out") == PlanOf(place, "again"));
  WriteText(place / "copy.yaml", PlanOf(place, "out"));
  REQUIRE(place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", "copy.yaml"}).code == 0);
  CHECK(ReadText(place / "copy.yaml") == PlanOf(place, "out"));
}

TEST_CASE("a file that was tampered with is made again") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  const auto plan = PlanOf(place, "out");
  WriteText(place / "out/sensitivity.json", "{}");
  std::filesystem::resize_file(place / "out/posterior.pt", 100);
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  CHECK(PlanOf(place, "out") == plan);
}

TEST_CASE("killed in the middle of any stage, the same command ends with the same plan") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "whole"}).code == 0);
  const auto plan = PlanOf(place, "whole");
  for (const std::string stage : {"", "model", "posterior", "sensitivity", "allocate", "apply"}) {
    const auto folder = "killed-after-" + stage;
    const auto reached = [&] {
      const auto file = place / (folder + (stage.empty() ? "/model.checkpoint" : "/manifest.json"));
      return std::filesystem::exists(file) && ReadText(file).find('"' + stage + '"') != std::string::npos;
    };
    const auto begun = [&] { return std::filesystem::exists(place / (folder + "/model.checkpoint")); };
    const auto killed = place.BitplanStopped({"run", place.recipe(), "--out", folder}, SIGKILL,
                                             stage.empty() ? std::function<bool()>(begun) : reached);
    INFO("killed after '" << stage << "': " << killed.err);
    CHECK(killed.code == 128 + SIGKILL);
    const auto continued = place.Bitplan({"run", place.recipe(), "--out", folder, "--json"});
    REQUIRE(continued.code == 0);
    if (!stage.empty()) CHECK(Reused(continued).at(stage));
    CHECK(PlanOf(place, folder) == plan);
  }
}

TEST_CASE("Ctrl-C ends with 130 and one line, and the run can be continued") {
  const Workplace place;
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "whole", "--set", "train.epochs=4"}).code == 0);
  const auto begun = [&] { return std::filesystem::exists(place / "out/model.checkpoint"); };
  const std::vector<std::string> command = {"run", place.recipe(), "--out", "out", "--set", "train.epochs=4"};
  const auto stopped = place.BitplanStopped(command, SIGINT, begun);
  CHECK(stopped.code == 130);
  CHECK_THAT(ErrorLine(stopped), ContainsSubstring("interrupted"));
  CHECK(stopped.out.empty());
  CHECK(NothingHalfWritten(place / "out"));
  REQUIRE(place.Bitplan(command).code == 0);
  CHECK(PlanOf(place, "out") == PlanOf(place, "whole"));
}

TEST_CASE("a second run on the same folder is refused while the first one works") {
  const Workplace place;
  Outcome second;
  const auto locked = [&] { return std::filesystem::exists(place / "out/model.checkpoint"); };
  const auto first =
      place.BitplanStopped({"run", place.recipe(), "--out", "out", "--set", "train.epochs=50"}, SIGKILL, [&] {
        if (!locked()) return false;
        second = place.Bitplan({"run", place.recipe(), "--out", "out"});
        return true;
      });
  CHECK(first.code == 128 + SIGKILL);
  CHECK(second.code == 74);
  CHECK_THAT(ErrorLine(second), ContainsSubstring("in use by another run"));
}
