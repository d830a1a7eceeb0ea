// What a folder keeps: files that are not bitplan's, plans and networks of other budgets, work that was done.
#include <signal.h>

#include <nlohmann/json.hpp>
#include <set>

#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

// The stages that a run with --json did, not those that it reused.
std::set<std::string> StagesRun(const Outcome& outcome) {
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  std::set<std::string> run;
  const auto report = nlohmann::json::parse(outcome.out);
  for (const auto& stage : report.at("stages")) {
    if (!stage.at("reused").get<bool>()) run.insert(stage.at("name").get<std::string>());
  }
  return run;
}

Outcome RunAt(const Workplace& place, const std::string& budget, const std::string& command = "run") {
  return place.Bitplan(
      {command, place.recipe(), "--out", "out", "--json", "--set", "allocate.budget.average_bits=" + budget});
}

std::size_t FilesUnder(const std::filesystem::path& folder) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) count += entry.is_regular_file();
  return count;
}

}  // namespace

TEST_CASE("nothing in an output folder that bitplan did not write is removed or overwritten") {
  const Workplace place;
  const std::vector<std::string> names = {
      "mine.tmp",     "plan.yaml.77-0.tmp", "quantized.pt",     "model.pt",           "model.checkpoint",
      "posterior.pt", "draws.json",         "sensitivity.json", "plots/accuracy.svg", "plots/mine.dat",
      "report.html",  "compare.csv",        "plan.yaml",        "notes.txt"};
  for (const auto& name : names) WriteText(place / ("out/" + name), "mine: " + name);
  const auto run = place.Bitplan({"run", place.recipe(), "--out", "out"});
  INFO(run.err);
  REQUIRE(run.code == 0);
  CHECK_THAT(run.err, ContainsSubstring("quantized.kept.pt") && ContainsSubstring("plan.edited.yaml"));
  const auto compare = place.Bitplan({"compare", place.recipe(), "--out", "out", "--set",
                                      "compare={budgets: [2], calibration_seeds: 1, allocators: [exact]}"});
  INFO(compare.err);
  REQUIRE(compare.code == 0);
  std::set<std::string> texts;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(place / "out")) {
    if (entry.is_regular_file()) texts.insert(ReadText(entry.path()));
  }
  for (const auto& name : names) {
    INFO(name);
    CHECK(texts.count("mine: " + name) == 1);
  }
  // A second time there is nothing foreign left, so nothing moves. The page of a run lies beside that of a comparison.
  REQUIRE(place.Bitplan({"run", place.recipe(), "--out", "out"}).code == 0);
  CHECK(std::filesystem::exists(place / "out/run/report.html"));
  const auto files = FilesUnder(place / "out");
  CHECK(StagesRun(place.Bitplan({"run", place.recipe(), "--out", "out", "--json"})).empty());
  REQUIRE(place
              .Bitplan({"compare", place.recipe(), "--out", "out", "--set",
                        "compare={budgets: [2], calibration_seeds: 1, allocators: [exact]}"})
              .code == 0);
  CHECK(FilesUnder(place / "out") == files);
}

TEST_CASE("an input that lies in the output folder under a name that bitplan writes is refused, and stays") {
  const Workplace place;
  REQUIRE(place.Bitplan({"train", place.recipe(), "--out", "trained"}).code == 0);
  const auto model = ReadText(place / "trained/model.pt");
  for (const char* name : {"quantized.pt", "posterior.pt", "sensitivity-measured.pt"}) {
    INFO(name);
    WriteText(place / name, model);
    for (const char* command : {"run", "posterior", "allocate", "compare", "verify"}) {
      const auto outcome =
          place.Bitplan({command, place.recipe(), "--out", ".", "--set", std::string("model={file: ") + name + "}"});
      CHECK(outcome.code == 64);
      CHECK_THAT(ErrorLine(outcome), ContainsSubstring(name) && ContainsSubstring("--out"));
    }
    CHECK(ReadText(place / name) == model);
    std::filesystem::remove(place / name);
  }
  CHECK_FALSE(std::filesystem::exists(place / "manifest.json"));
  // A link to it is the same file.
  WriteText(place / "o/quantized.pt", model);
  std::filesystem::create_symlink(place / "o/quantized.pt", place / "net.pt");
  CHECK(place.Bitplan({"run", place.recipe(), "--out", "o", "--set", "model={file: net.pt}"}).code == 64);
  WriteText(place / "r/plan.yaml", ReadText(place.recipe()));
  const auto recipe = ReadText(place / "r/plan.yaml");
  CHECK(place.Bitplan({"run", "r/plan.yaml", "--out", "r"}).code == 64);
  CHECK(place.Bitplan({"bayes", "r/plan.yaml", "--out", "r"}).code == 64);
  CHECK(ReadText(place / "r/plan.yaml") == recipe);
  WriteText(place / "d/compare.csv", ReadText(place / "train-images.npy"));
  CHECK(place.Bitplan({"run", place.recipe(), "--out", "d", "--set", "data.train_images=d/compare.csv"}).code == 64);
  // No name that this command writes: a model beside its outputs.
  WriteText(place / "m/model.pt", model);
  const auto beside = place.Bitplan({"posterior", place.recipe(), "--out", "m", "--set", "model={file: m/model.pt}"});
  INFO(beside.err);
  CHECK(beside.code == 0);
  CHECK(ReadText(place / "m/model.pt") == model);
}

TEST_CASE("plans and networks of every budget stay, the newest under the known names, and going back runs nothing") {
  const Workplace place;
  REQUIRE(RunAt(place, "3.0").code == 0);
  const auto plan = ReadText(place / "out/plan.yaml"), network = ReadText(place / "out/quantized.pt");
  CHECK(StagesRun(RunAt(place, "1.5")) == std::set<std::string>{"allocate", "apply", "verify"});
  CHECK(ReadText(place / "out/plan.yaml") != plan);
  CHECK(ReadText(place / "out/quantized.pt") != network);
  const auto back = RunAt(place, "3.0");
  CHECK(StagesRun(back).empty());
  CHECK(ReadText(place / "out/plan.yaml") == plan);
  CHECK(ReadText(place / "out/quantized.pt") == network);
  // `allocate` puts a plan that was measured back, with its network.
  const auto allocated = RunAt(place, "1.5", "allocate");
  CHECK(StagesRun(allocated).empty());
  CHECK(allocated.err.find("quantized.pt is the network") == std::string::npos);
  CHECK_THAT(ReadText(place / "out/plan.yaml"), ContainsSubstring("verified:"));
  CHECK(ReadText(place / "out/quantized.pt") != network);
  CHECK_FALSE(std::filesystem::exists(place / "out/plan.edited.yaml"));
  // Removing a plan's folder is all that it takes to delete it.
  std::size_t kept = 0;
  for (const auto& entry : std::filesystem::directory_iterator(place / "out/plans")) {
    CHECK_THAT(entry.path().filename().string(),
               ContainsSubstring("average_bits-") && ContainsSubstring("quantile-inform"));
    ++kept;
  }
  CHECK(kept == 2);
  std::filesystem::remove_all(place / "out/plans");
  CHECK(StagesRun(RunAt(place, "3.0")) == std::set<std::string>{"apply"});
  CHECK(ReadText(place / "out/plan.yaml") == plan);
  CHECK(ReadText(place / "out/quantized.pt") == network);
}

TEST_CASE("list shows every plan of a folder with its figures") {
  const Workplace place;
  REQUIRE(RunAt(place, "3.0").code == 0);
  REQUIRE(RunAt(place, "1.5").code == 0);
  REQUIRE(RunAt(place, "4.0", "allocate").code == 0);
  const auto table = place.Bitplan({"list", "--out", "out"});
  INFO(table.err);
  REQUIRE(table.code == 0);
  CHECK_THAT(table.out, ContainsSubstring("average_bits 1.5") && ContainsSubstring("average_bits 3") &&
                            ContainsSubstring("not measured") && ContainsSubstring("newest") &&
                            ContainsSubstring("quantile-inform"));
  const auto list = nlohmann::json::parse(place.Bitplan({"list", "--out", "out", "--json"}).out).at("plans");
  REQUIRE(list.size() == 3);
  const double budgets[] = {1.5, 3.0, 4.0};
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(list[i].at("budget").at("average_bits") == budgets[i]);
    CHECK(list[i].at("achieved").at("average_bits").get<double>() <= budgets[i]);
    CHECK(list[i].at("newest") == (i == 2));
    CHECK(list[i].at("verified").is_null() == (i == 2));
    CHECK(std::filesystem::exists(place / list[i].at("plan_file").get<std::string>()));
    CHECK(list[i].at("quantized_file").get<std::string>().empty() == (i == 2));
  }
  // Every file of the list can be measured again and stays what it is.
  const auto file = list[0].at("plan_file").get<std::string>();
  const auto text = ReadText(place / file);
  REQUIRE(place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", file, "--out-plan", "again.yaml"}).code ==
          0);
  CHECK(ReadText(place / "again.yaml") == text);
  CHECK(place.Bitplan({"list", place.recipe()}).code == 66);
  CHECK(place.Bitplan({"list"}).code == 64);
  WriteText(place / "out/plans/mine/plan.yaml", "no plan");
  CHECK_THAT(place.Bitplan({"list", "--out", "out"}).out, ContainsSubstring("plans/mine/plan.yaml"));
}

TEST_CASE("allocate and run after verify find that nothing has changed") {
  const Workplace place;
  const std::vector<std::string> more =
      GENERATE(std::vector<std::string>{}, std::vector<std::string>{"quantizer.rounding=nearest"},
               std::vector<std::string>{"quantizer.range=auto"});
  const auto bitplan = [&](const std::string& command) {
    std::vector<std::string> words = {command, place.recipe(), "--out", "out", "--json"};
    for (const auto& word : more) words.insert(words.end(), {"--set", word});
    return place.Bitplan(words);
  };
  REQUIRE(bitplan("run").code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  CHECK(StagesRun(bitplan("verify")).empty());
  const auto allocate = bitplan("allocate");
  CHECK(StagesRun(allocate).empty());
  CHECK(allocate.err.find("warning") == std::string::npos);
  CHECK(StagesRun(bitplan("run")).empty());
  CHECK(ReadText(place / "out/plan.yaml") == plan);
}

TEST_CASE("a verified plan with a width that the table lacks leaves the recipe's table alone") {
  const Workplace place;
  REQUIRE(RunAt(place, "3.0").code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  auto pruned = plan;
  for (const char* width : {"1", "2", "3", "4", "5", "6", "7", "8"}) {
    const auto from = std::string("bits: ") + width + ", grid";
    if (pruned == plan && pruned.find(from) != std::string::npos) pruned = Replaced(pruned, from, "bits: 0, grid");
  }
  REQUIRE(pruned != plan);
  WriteText(place / "pruned.yaml", pruned);
  REQUIRE(place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", "pruned.yaml"}).code == 0);
  CHECK(StagesRun(RunAt(place, "3.0")).empty());
}

TEST_CASE("data that were moved, and options that nothing reads, run nothing again") {
  const Workplace place;
  REQUIRE(RunAt(place, "3.0").code == 0);
  std::filesystem::create_directory(place / "moved");
  std::filesystem::rename(place / "train-images.npy", place / "moved/images.npy");
  CHECK(StagesRun(place.Bitplan({"run", place.recipe(), "--out", "out", "--json", "--set",
                                 "data.train_images=moved/images.npy", "compare.budgets=[2]"}))
            .empty());
}

TEST_CASE("overrides: --set takes several overrides, before or after the recipe") {
  const Workplace place;
  const auto bits = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "allocate");
    words.insert(words.end(), {"--out", "out", "--json", "--quiet"});
    const auto outcome = place.Bitplan(words);
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const auto report = nlohmann::json::parse(outcome.out);
    return std::pair(report.at("allocator").get<std::string>(), report.at("budget").at("average_bits").get<double>());
  };
  const std::string one = "allocate.allocator=exact", two = "allocate.budget.average_bits=4";
  const auto wanted = std::pair(std::string("exact"), 4.0);
  CHECK(bits({place.recipe(), "--set", one, two}) == wanted);
  CHECK(bits({"--set", one, two, place.recipe()}) == wanted);
  CHECK(bits({"--set=" + one, two, place.recipe()}) == wanted);
  CHECK(bits({"--set", one, place.recipe(), "--set", two}) == wanted);
  CHECK(place.Bitplan({"allocate", place.recipe(), "--set"}).code == 64);
  CHECK(place.Bitplan({"allocate", place.recipe(), two}).code == 64);
}

TEST_CASE("paths whose bytes are no UTF-8 are no obstacle, with --json as without") {
  const Workplace place;
  const std::string folder = "o\xff\xc3", file = "net\xe9.pt";
  REQUIRE(place.Bitplan({"train", place.recipe(), "--out", "trained"}).code == 0);
  std::filesystem::copy(place / "trained/model.pt", place / file);
  std::filesystem::copy(place.recipe(), place / "re\xe9.yaml");
  for (const char* command : {"run", "allocate", "verify", "posterior", "list", "run"}) {
    INFO(command);
    const auto outcome = place.Bitplan({command, "re\xe9.yaml", "--out", folder, "--json"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    CHECK_FALSE(nlohmann::json::parse(outcome.out, nullptr, false).is_discarded());
  }
  CHECK(StagesRun(place.Bitplan({"run", "re\xe9.yaml", "--out", folder, "--json"})).empty());
  const auto compare = place.Bitplan({"compare", "re\xe9.yaml", "--out", folder, "--json", "--set",
                                      "compare={budgets: [2], calibration_seeds: 1, allocators: [exact]}"});
  INFO(compare.err);
  CHECK(compare.code == 0);
  const auto inspect = place.Bitplan({"inspect", file, "--json"});
  INFO(inspect.err);
  CHECK(inspect.code == 0);
  const auto model =
      place.Bitplan({"run", place.recipe(), "--out", "file", "--json", "--set", "model={file: " + file + "}"});
  INFO(model.err);
  CHECK(model.code == 0);
}

TEST_CASE("a compare that is stopped learns no plan again that it had learned") {
  const Workplace place;
  const std::vector<std::string> words = {
      "compare",
      place.recipe(),
      "--out",
      "out",
      "--json",
      "--set",
      "compare={budgets: [2, 3], seeds: 2, calibration_seeds: 1, allocators: [random-bits]}",
      "allocate.random_bits.steps=150"};
  const auto learned = [&] {
    const auto file = place / "out/manifest.json";
    return std::filesystem::exists(file) && ReadText(file).find("\"solve\"") != std::string::npos;
  };
  const auto stopped = place.BitplanStopped(words, SIGTERM, learned);
  CHECK(stopped.code == 130);
  const auto records = nlohmann::json::parse(ReadText(place / "out/manifest.json")).at("stages").at("solve").size();
  REQUIRE(records >= 1);
  REQUIRE(records < 4);
  const auto continued = place.Bitplan(words);
  INFO(continued.err);
  REQUIRE(continued.code == 0);
  const auto report = nlohmann::json::parse(continued.out);
  CHECK(report.at("learned").get<std::size_t>() == 4 - records);
  auto fresh_words = words;
  fresh_words[3] = "fresh";
  const auto fresh = nlohmann::json::parse(place.Bitplan(fresh_words).out);
  CHECK(fresh.at("learned") == 4);
  REQUIRE(fresh.at("plans").size() == report.at("plans").size());
  for (std::size_t i = 0; i < fresh.at("plans").size(); ++i) {
    CHECK(fresh.at("plans")[i].at("bits") == report.at("plans")[i].at("bits"));
    CHECK(fresh.at("plans")[i].at("note") == report.at("plans")[i].at("note"));
  }
}

TEST_CASE("verify --transfer takes the widths of a plan for the same layers trained again") {
  const Workplace place;
  REQUIRE(RunAt(place, "3.0").code == 0);
  const auto plan = ReadText(place / "out/plan.yaml");
  const auto old_hash = nlohmann::json::parse(RunAt(place, "3.0").out).at("model").at("sha256").get<std::string>();
  const auto verify = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"verify", place.recipe(), "--out", "again", "--seed", "2", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return place.Bitplan(words);
  };
  const auto refused = verify({"--plan", "out/plan.yaml"});
  CHECK(refused.code == 65);
  CHECK_THAT(ErrorLine(refused), ContainsSubstring("--transfer"));
  const auto outcome = verify({"--plan", "out/plan.yaml", "--transfer"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  const auto report = nlohmann::json::parse(outcome.out), before = nlohmann::json::parse(RunAt(place, "3.0").out);
  CHECK(report.at("transferred").at("sha256") == old_hash);
  CHECK(report.at("model").at("sha256") != old_hash);
  CHECK(report.at("verified").at("samples") == 100);
  for (std::size_t l = 0; l < before.at("layers").size(); ++l) {
    for (const char* key : {"name", "bits", "grid"}) {
      CHECK(report.at("layers")[l].at(key) == before.at("layers")[l].at(key));
    }
  }
  CHECK(ReadText(place / "out/plan.yaml") == plan);
  CHECK_THAT(ReadText(place / "again/plan.yaml"),
             ContainsSubstring("transferred: {model: ") && ContainsSubstring(old_hash));
  CHECK(std::filesystem::exists(place / "again/quantized.pt"));
  // It is a plan for the new model: verified without the option, and the same again.
  const auto transferred = ReadText(place / "again/plan.yaml");
  REQUIRE(verify({}).code == 0);
  CHECK(ReadText(place / "again/plan.yaml") == transferred);
  WriteText(place / "wrong.yaml", Replaced(plan, "shape: [300, 784]", "shape: [784, 300]"));
  const auto wrong = verify({"--plan", "wrong.yaml", "--transfer"});
  CHECK(wrong.code == 65);
  CHECK_THAT(ErrorLine(wrong), ContainsSubstring("[784, 300]"));
}

TEST_CASE("verify --out-plan overwrites no file that is not a plan, and moves an edited plan aside") {
  const Workplace place;
  REQUIRE(RunAt(place, "3.0").code == 0);
  const auto verify = [&](const std::string& target) {
    return place.Bitplan({"verify", place.recipe(), "--out", "out", "--plan", "out/plan.yaml", "--out-plan", target});
  };
  const auto recipe = ReadText(place.recipe());
  for (const std::string& target : {place.recipe(), (place / "train-images.npy").string()}) {
    const auto before = ReadText(target);
    const auto outcome = verify(target);
    CHECK(outcome.code == 64);
    CHECK_THAT(ErrorLine(outcome), ContainsSubstring("is no plan"));
    CHECK(ReadText(target) == before);
  }
  WriteText(place / "mine.yaml", ReadText(place / "out/plan.yaml") + "# mine\n");
  REQUIRE(verify("mine.yaml").code == 0);
  CHECK_THAT(ReadText(place / "mine.edited.yaml"), ContainsSubstring("# mine"));
  REQUIRE(verify("mine.yaml").code == 0);
  CHECK_FALSE(std::filesystem::exists(place / "mine.edited-2.yaml"));
}

TEST_CASE("the number of threads does not change a plan whose bits, network and figures it does not change") {
  const Workplace place;
  REQUIRE(place.Bitplan({"train", place.recipe(), "--out", "trained"}).code == 0);
  const auto run = [&](const std::string& threads) {
    // Every weight to its nearest level of the largest weight: sums over images, whose last digits depend on threads
    // and processor, decide no rounding.
    const auto outcome =
        place.Bitplan({"run", place.recipe(), "--out", "t" + threads, "--threads", threads, "--json", "--set",
                       "model={file: trained/model.pt}", "--set",
                       "quantizer={range: max, rounding: nearest, output_correction: \"off\", batch_norm: \"off\"}"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    return nlohmann::json::parse(outcome.out);
  };
  const auto one = run("1"), two = run("2");
  for (const char* key : {"layers", "verified", "achieved"}) {
    INFO(key);
    REQUIRE(one.at(key) == two.at(key));
  }
  CHECK(ReadText(place / "t1/plan.yaml") == ReadText(place / "t2/plan.yaml"));
  CHECK(ReadText(place / "t1/plan.yaml").find("posterior: {") != std::string::npos);
}
