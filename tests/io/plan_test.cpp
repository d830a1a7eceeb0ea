#include "bitplan/io/plan.h"

#include <limits>

#include "bitplan/io/files.h"
#include "io/plan_keys.h"
#include "io/scratch.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

std::string Golden() {
  return ReadFile(std::filesystem::path(BITPLAN_SOURCE_DIR) / "tests" / "io" / "golden" / "plan-v1.yaml", "plan");
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  if (at == std::string::npos) throw std::logic_error("nothing to replace: " + from);
  return text.replace(at, from.size(), to);
}

// The golden plan with one change, and what is said about it.
std::string PlanComplaint(const std::string& from, const std::string& to) {
  const std::string text = Replaced(Golden(), from, to);
  const Error error = ErrorOf([&] { (void)ParsePlan(text, "plan.yaml"); });
  CHECK(error.kind() == ErrorKind::kData);
  return error.what();
}

}  // namespace

TEST_CASE("a plan that says nothing of an output correction has none") {
  const Plan plan = ParsePlan(Replaced(Golden(), ", output_correction: fit", ""), "plan-v1.yaml");
  CHECK(plan.quantizer.output_correction == "off");
}

TEST_CASE("range and confidence of a layer, and what guard and drop search found, survive the round trip") {
  Plan plan = ParsePlan(Golden(), "plan-v1.yaml");
  CHECK(plan.layers[0].range == plan.quantizer.range);
  CHECK(plan.layers[0].confidence < 0.0);
  plan.quantizer.range = "auto";
  plan.layers[0].range = "output";
  plan.layers[1].range = "mse";
  plan.layers[0].confidence = 0.9375;
  plan.guard = PlanGuard{"mnist/calibration", 0.25, 0.125, "random-bits"};
  plan.learned = PlanLearned{.images = 2048, .before = 0.0021, .after = 0.0019, .moved = 0.0002, .kept = true};
  CHECK_FALSE(plan.drop);
  plan.drop = PlanDrop{0.005, "bytes", "mnist/calibration", 2500, 0.001, 0.004, 3, "ab12"};
  CHECK_FALSE(plan.calibration);
  plan.calibration = PlanCalibration{500, "training"};
  const std::string text = DumpPlan(plan);
  const Plan read = ParsePlan(text, "plan.yaml");
  REQUIRE(read.calibration);
  CHECK(read.calibration->images == 500);
  CHECK(read.calibration->source == "training");
  CHECK_FALSE(read.calibration->seed);
  CHECK(DumpPlan(read) == text);
  plan.calibration->seed = 7;
  CHECK(ParsePlan(DumpPlan(plan), "plan.yaml").calibration->seed == 7U);
  CHECK(read.layers[0].range == "output");
  CHECK(read.layers[1].range == "mse");
  CHECK(read.layers[0].confidence == 0.9375);
  CHECK(read.layers[1].confidence < 0.0);
  REQUIRE(read.guard);
  CHECK(read.guard->replaced == "random-bits");
  CHECK(read.guard->uniform_nll == 0.125);
  REQUIRE(read.learned);
  CHECK(read.learned->images == 2048);
  CHECK((read.learned->before == 0.0021 && read.learned->after == 0.0019 && read.learned->moved == 0.0002));
  CHECK(read.learned->kept);
  REQUIRE(read.drop);
  CHECK(read.drop->at_most == 0.005);
  CHECK(read.drop->smallest == "bytes");
  CHECK(read.drop->upper95 == 0.004);
  CHECK(read.drop->plans == 3);
  CHECK(read.drop->sha256 == "ab12");
  CHECK_THROWS_WITH(ParsePlan(Replaced(text, "range: output", "range: auto"), "plan.yaml"),
                    ContainsSubstring("layers[0].range"));
}

TEST_CASE("the float network with the plan's correction survives the round trip, both of its keys or neither") {
  Plan plan = ParsePlan(Golden(), "plan-v1.yaml");
  CHECK_FALSE(plan.verified->float_corrected);
  CHECK_THAT(DumpPlan(plan), !ContainsSubstring("corrected"));
  plan.verified->float_corrected = FloatCorrected{{0.9951, 0.0141, 0.0077, 0.0019}, {0.0005, -0.0001, 0.0011, 0.25}};
  const std::string text = DumpPlan(plan);
  const std::string drop = "  accuracy_drop_corrected: {value: 0.0005, ci95: [-0.0001, 0.0011], mcnemar_p: 0.25}\n";
  CHECK_THAT(text,
             ContainsSubstring("  float_corrected: {accuracy: 0.9951, nll: 0.0141, brier: 0.0077, ece: 0.0019}\n"));
  CHECK_THAT(text, ContainsSubstring(drop));
  const Plan read = ParsePlan(text, "plan.yaml");
  REQUIRE(read.verified->float_corrected);
  CHECK(read.verified->float_corrected->metrics.accuracy == 0.9951);
  CHECK(read.verified->float_corrected->accuracy_drop.ci_high == 0.0011);
  CHECK(read.verified->accuracy_drop.drop == 0.0003);
  CHECK(DumpPlan(read) == text);
  CHECK_THROWS_WITH(ParsePlan(Replaced(text, drop, ""), "plan.yaml"), ContainsSubstring("accuracy_drop_corrected"));
  CHECK_THROWS_WITH(ParsePlan(Replaced(text, "float_corrected: {accuracy", "float_corrected: {acc"), "plan.yaml"),
                    ContainsSubstring("verified.float_corrected"));
}

TEST_CASE("figures of another task survive the round trip, and those that are none of it are refused") {
  Plan plan = ParsePlan(Golden(), "plan-v1.yaml");
  Verification& verified = *plan.verified;
  verified.task = "segmentation";
  const auto figures = [](double accuracy, double overlap) {
    Metrics metrics;
    metrics.accuracy = accuracy;
    metrics.nll = 0.25;
    metrics.figures = {{"accuracy", accuracy}, {"miou", overlap}, {"nll", 0.25}};
    return metrics;
  };
  verified.float_model = figures(0.93, 0.71);
  verified.quantized = figures(0.92, 0.7);
  verified.accuracy_drop = {0.01, -0.002, 0.02};
  verified.float_corrected = FloatCorrected{figures(0.935, 0.72), {0.015, 0.001, 0.03}};
  const std::string text = DumpPlan(plan);
  CHECK_THAT(text, ContainsSubstring("  float:     {accuracy: 0.93, miou: 0.71, nll: 0.25}\n") &&
                       ContainsSubstring("  drop: {figure: accuracy, value: 0.01, ci95: [-0.002, 0.02]}\n"));
  CHECK_THAT(text, !ContainsSubstring("accuracy_drop") && !ContainsSubstring("brier") && !ContainsSubstring("mcnemar"));
  const Plan read = ParsePlan(text, "plan.yaml");
  CHECK(read.verified->task == "segmentation");
  CHECK(read.verified->score() == "accuracy");
  CHECK(read.verified->quantized.figures == verified.quantized.figures);
  CHECK(read.verified->float_corrected->accuracy_drop.ci_high == 0.03);
  CHECK(DumpPlan(read) == text);
  const auto complaint = [&](const std::string& from, const std::string& to) {
    return std::string(ErrorOf([&] { (void)ParsePlan(Replaced(text, from, to), "plan.yaml"); }).what());
  };
  CHECK_THAT(complaint("miou: 0.71", "brier: 0.71"), ContainsSubstring("brier is a figure of classification"));
  CHECK_THAT(complaint("miou: 0.71", "miuo: 0.71"), ContainsSubstring("miou"));
  CHECK_THAT(complaint(", nll: 0.25", ""), ContainsSubstring("missing key 'nll' in verified.float"));
  CHECK_THAT(complaint("  drop: {figure: accuracy, value: 0.01, ci95: [-0.002, 0.02]}\n", ""),
             ContainsSubstring("missing key 'drop' in verified"));
  CHECK_THAT(complaint("drop: {figure: accuracy", "drop: {figure: r2"), ContainsSubstring("missing key 'r2'"));
  CHECK_THAT(complaint("  drop_corrected", "  accuracy_drop_corrected"),
             ContainsSubstring("accuracy_drop_corrected is for classification"));
}

TEST_CASE("where transferred widths came from survives the round trip, and may be left out") {
  Plan plan = ParsePlan(Golden(), "plan-v1.yaml");
  CHECK_FALSE(plan.transferred);
  plan.transferred = PlanSource{"lenet of May", "abc123"};
  const Plan read = ParsePlan(DumpPlan(plan), "plan.yaml");
  REQUIRE(read.transferred);
  CHECK(read.transferred->model == "lenet of May");
  CHECK(read.transferred->sha256 == "abc123");
  CHECK(DumpPlan(read) == DumpPlan(plan));
}

TEST_CASE("a plan says what its model's answers depend on besides the image, and nothing where that is nothing") {
  Plan plan = ParsePlan(Golden(), "plan-v1.yaml");
  CHECK(plan.model.note.empty());
  CHECK_THAT(DumpPlan(plan), !ContainsSubstring("note:"));
  plan.model.note = "answers of model 'a' depend on the batch, by up to 0.1: call .eval(), \"then\" trace {it}";
  const Plan read = ParsePlan(DumpPlan(plan), "plan.yaml");
  CHECK(read.model.note == plan.model.note);
  CHECK(DumpPlan(read) == DumpPlan(plan));
  CHECK_THAT(PlanHelp(), ContainsSubstring("[note]"));
}

TEST_CASE("what a plan leaves in float and the size of the whole network survive the round trip") {
  Plan plan = ParsePlan(Golden(), "plan-v1.yaml");
  CHECK_FALSE(plan.left_in_float);
  CHECK(plan.achieved.network_bytes == 0);
  CHECK_THAT(DumpPlan(plan), !ContainsSubstring("network_bytes") && !ContainsSubstring("left_in_float"));
  plan.achieved.network_bytes = 164927;
  plan.achieved.network_compression = 10.455;
  plan.left_in_float = LeftInFloat{
      1100, 0.0025, {{"lstm.weight_ih_l0", {32, 34}, "used by aten::lstm"}, {"gain", {}, "used by aten::mul"}}};
  const std::string text = DumpPlan(plan);
  CHECK_THAT(text, ContainsSubstring("network_bytes: 164927, network_compression: 10.455"));
  CHECK_THAT(text, ContainsSubstring("    - {name: lstm.weight_ih_l0, shape: [32, 34], reason: "));
  const Plan read = ParsePlan(text, "plan.yaml");
  CHECK(read.achieved.network_bytes == 164927);
  REQUIRE(read.left_in_float);
  CHECK(read.left_in_float->weights == 1100);
  CHECK(read.left_in_float->share == 0.0025);
  REQUIRE(read.left_in_float->tensors.size() == 2);
  CHECK(read.left_in_float->tensors[0].weights() == 32 * 34);
  CHECK(read.left_in_float->tensors[1].weights() == 1);
  CHECK(read.left_in_float->tensors[0].reason == "used by aten::lstm");
  CHECK(DumpPlan(read) == text);
  plan.left_in_float->tensors.clear();
  CHECK(ParsePlan(DumpPlan(plan), "plan.yaml").left_in_float->tensors.empty());
  CHECK_THAT(PlanComplaint("compression: 10.5899", "compression: 10.5899, network_bytes: 7"),
             ContainsSubstring("network_compression"));
}

TEST_CASE("the golden plan of format version 1 loads for ever") {
  const Plan plan = ParsePlan(Golden(), "plan-v1.yaml");
  CHECK(plan.model.name == "lenet5-caffe");
  CHECK(plan.model.sha256 == "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
  CHECK(plan.model.weights == 430500);
  CHECK(plan.allocator == "quantile-inform");
  CHECK(plan.allocator_options ==
        std::vector<std::pair<std::string, std::string>>{{"mode", "information"}, {"quantile", "0.9"}});
  CHECK(plan.seed == 1);
  CHECK(plan.posterior_estimator == "laplace");
  CHECK(plan.quantizer.scheme == "symmetric");
  CHECK(plan.quantizer.granularity == "channel");
  CHECK(plan.quantizer.range == "mse");
  CHECK(plan.quantizer.batch_norm == "off");
  CHECK(plan.quantizer.output_correction == "fit");
  REQUIRE(plan.budget.limits.size() == 1);
  CHECK(LimitName(plan.budget.limits[0]) == AverageBits().name);
  CHECK(plan.budget.limits[0].value == 3.0);
  CHECK(plan.achieved.average_bits == 2.978513);
  CHECK(plan.achieved.average_bits_with_overhead == 3.021719);
  CHECK(plan.achieved.stored_bytes == 162607);
  CHECK(plan.achieved.compression == 10.5899);
  CHECK(plan.achieved.predicted_loss_rise == 0.000412);
  CHECK(plan.achieved.optimality_gap == 0.0);
  REQUIRE(plan.layers.size() == 4);
  CHECK(plan.layers[0].kind == "conv2d");
  CHECK(plan.layers[1].shape == std::vector<std::int64_t>{50, 20, 5, 5});
  CHECK(plan.layers[1].macs == 1600000);
  CHECK(plan.layers[2].bits == 2);
  CHECK(plan.layers[2].grid == "half");
  CHECK(plan.layers[3].name == "2");
  CHECK(plan.layers[3].bits == 32);
  REQUIRE(plan.verified);
  CHECK(plan.verified->data == "mnist/test");
  CHECK(plan.verified->samples == 10000);
  CHECK(plan.verified->float_model.accuracy == 0.9949);
  CHECK(plan.verified->float_model.brier == 0.00782);
  CHECK(plan.verified->quantized.nll == 0.015);
  CHECK(plan.verified->quantized.ece == 0.0021);
  CHECK(plan.verified->accuracy_drop.drop == 0.0003);
  CHECK(plan.verified->accuracy_drop.ci_low == -0.0002);
  CHECK(plan.verified->accuracy_drop.ci_high == 0.0009);
  CHECK(plan.verified->accuracy_drop.mcnemar_p == 0.453125);
  CHECK(plan.provenance.bitplan == "0.1.0");
  CHECK(plan.provenance.libtorch == "1.13.0");
  CHECK(plan.provenance.recipe_sha256 == "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9");
}

TEST_CASE("a plan with several limits holds all of them and states what it takes of every resource") {
  const std::string one = "budget: {average_bits: 3.0",
                    several = "budget: {average_bits: 3.0, bytes: 200000, bops: 4e9";
  const Plan plan = ParsePlan(Replaced(Golden(), one, several), "plan.yaml");
  REQUIRE(plan.budget.limits.size() == 3);
  CHECK(plan.budget.Find(StoredBytes())->value == 200000.0);
  CHECK(plan.budget.Find(FindResource("bops"))->value == 4e9);
  const std::string text = DumpPlan(plan);
  CHECK_THAT(text, ContainsSubstring("budget: {average_bits: 3.0, bytes: 200000, bops: 4000000000}\n"));
  CHECK_THAT(text, ContainsSubstring("average_bits: 2.978513") && ContainsSubstring("stored_bytes: 162607"));
  std::int64_t bops = 0;
  for (const PlanLayer& layer : plan.layers) bops += layer.bits > 8 ? 0 : layer.macs * layer.bits * 32;
  CHECK_THAT(text, ContainsSubstring(", bops: " + std::to_string(bops) + "}"));
  CHECK(DumpPlan(ParsePlan(text, "plan.yaml")) == text);
  // The order in which a file names them says nothing; with one limit nothing is added.
  const std::string turned = "budget: {bops: 4e9, bytes: 200000, average_bits: 3.0";
  CHECK(DumpPlan(ParsePlan(Replaced(Golden(), one, turned), "plan.yaml")) == text);
  CHECK(DumpPlan(ParsePlan(Golden(), "plan.yaml")).find("bops") == std::string::npos);
}

TEST_CASE("a plan may have a budget of every resource, and Spent counts in its unit") {
  for (const Resource& resource : Resources()) {
    CAPTURE(resource.name);
    const std::string budget = std::string("budget: {") + resource.name + ": 300000";
    Plan plan = ParsePlan(Replaced(Golden(), "budget: {average_bits: 3.0", budget), "plan.yaml");
    CHECK(LimitName(plan.budget.limits[0]) == resource.name);
    CHECK_THAT(DumpPlan(plan), ContainsSubstring(budget));
    plan.achieved.activation_bytes = 4096;
    plan.achieved.latency = 1500.25;
    const double spent = Spent(plan, resource);
    for (PlanLayer& layer : plan.layers) layer.bits = 8;
    const bool stated = &resource == &StoredBytes() || resource.kind != ResourceKind::kCounted;  // measured
    CHECK((stated ? Spent(plan, resource) == spent : Spent(plan, resource) > spent));
    CHECK(spent > 0.0);
  }
}

TEST_CASE("a plan states the peak of its activations and its latency where it has them") {
  Plan plan = ParsePlan(Golden(), "plan.yaml");
  CHECK_FALSE(plan.achieved.activation_bytes);
  CHECK(DumpPlan(plan).find("latency") == std::string::npos);
  plan.achieved.activation_bytes = 24576;
  plan.achieved.latency = 1500.25;
  const std::string text = DumpPlan(plan);
  CHECK_THAT(text, ContainsSubstring(", activation_bytes: 24576, latency: 1500.25}"));
  const Plan again = ParsePlan(text, "plan.yaml");
  CHECK(again.achieved.activation_bytes == 24576);
  CHECK(again.achieved.latency == 1500.25);
  CHECK(DumpPlan(again) == text);
}

TEST_CASE("the golden plan is dumped to the bytes it was read from") {
  CHECK(DumpPlan(ParsePlan(Golden(), "plan-v1.yaml")) == Golden());
}

TEST_CASE("parts that a plan need not have are left out, not written empty") {
  Plan plan = ParsePlan(Golden(), "plan.yaml");
  plan.posterior_estimator.clear();
  plan.verified.reset();
  plan.achieved.optimality_gap = -1.0;
  plan.allocator_options.clear();
  const std::string text = DumpPlan(plan);
  for (const char* absent : {"posterior:", "verified:", "optimality_gap"}) CHECK_THAT(text, !ContainsSubstring(absent));
  CHECK_THAT(text, ContainsSubstring("options: {}"));
  const Plan again = ParsePlan(text, "plan.yaml");
  CHECK(again.posterior_estimator.empty());
  CHECK_FALSE(again.verified);
  CHECK(again.achieved.optimality_gap < 0.0);
  CHECK(DumpPlan(again) == text);
}

TEST_CASE("a plan edited by hand parses: comments, block style, another order of keys") {
  const std::string text = Replaced(
      Replaced(Golden(), "  - {name: fc1, kind: linear, shape: [500, 800], macs: 400000, bits: 2, grid: half}\n",
               "  # more bits for the big one\n"
               "  - bits: 4   # was 2\n"
               "    shape:\n"
               "      - 500\n"
               "      - 800\n"
               "    name: 'fc1'\n"
               "    kind: linear\n"
               "    macs: 400000\n"),
      "budget: {average_bits: 3.0}\n", "budget:\n  bytes: 200000\n");
  const Plan plan = ParsePlan(text, "plan.yaml");
  CHECK(plan.layers[2].bits == 4);
  CHECK(plan.layers[2].grid == "zero");
  CHECK(LimitName(plan.budget.limits[0]) == StoredBytes().name);
  CHECK_THAT(DumpPlan(plan), ContainsSubstring("budget: {bytes: 200000}\n"));
}

TEST_CASE("an unknown key in a plan names file, line and the nearest key") {
  CHECK(PlanComplaint("budget:", "budgets:") == "plan.yaml:6: unknown key 'budgets'; nearest known key: budget");
  CHECK(PlanComplaint("macs: 288000", "mac: 288000") ==
        "plan.yaml:10: unknown key 'mac' in layers[0]; nearest known key: macs");
  CHECK_THAT(PlanComplaint("predicted_loss_rise", "predicted_lossrise"),
             ContainsSubstring("nearest known key: predicted_loss_rise"));
  CHECK_THAT(PlanComplaint("ece: 0.002}", "ece: 0.002, f1: 1}"),
             ContainsSubstring("unknown key 'f1' in verified.float"));
}

TEST_CASE("a missing key in a plan is named with the map that lacks it") {
  CHECK(PlanComplaint(", bits: 8, grid", ", grid") == "plan.yaml:10: missing key 'bits' in layers[0]");
  CHECK_THAT(PlanComplaint("budget: {average_bits: 3.0}\n", ""), ContainsSubstring("missing key 'budget'"));
  CHECK_THAT(PlanComplaint("samples: 10000\n", "\n"), ContainsSubstring("missing key 'samples' in verified"));
  CHECK_THAT(PlanComplaint(", seed: 1}", "}"), ContainsSubstring("missing key 'seed' in allocator"));
}

TEST_CASE("a bit width that no layer can have is refused") {
  for (const char* bits : {"9", "-1", "17", "64", "2.5", "two", "[2, 2]"}) {
    CHECK_THAT(PlanComplaint("bits: 8,", "bits: " + std::string(bits) + ","),
               ContainsSubstring("plan.yaml:10: layers[0].bits") && ContainsSubstring("it must be"));
  }
  for (const char* bits : {"0", "1", "16", "32"}) {
    CHECK_NOTHROW(ParsePlan(Replaced(Golden(), "bits: 8,", "bits: " + std::string(bits) + ","), "plan.yaml"));
  }
}

TEST_CASE("values that no plan can hold are refused") {
  CHECK_THAT(PlanComplaint("grid: half", "grid: full"),
             ContainsSubstring("layers[2].grid is 'full'; it must be one of zero, half"));
  CHECK_THAT(PlanComplaint("range: mse", "range: mean"),
             ContainsSubstring("quantizer.range is 'mean'; it must be one of max"));
  CHECK_THAT(PlanComplaint("shape: [500, 800]", "shape: [500, -800]"), ContainsSubstring("layers[2].shape is -800"));
  CHECK_THAT(PlanComplaint("shape: [500, 800]", "shape: [400000]"), ContainsSubstring("at least two sizes"));
  CHECK_THAT(PlanComplaint("accuracy: 0.9949", "accuracy: 99.49"),
             ContainsSubstring("verified.float.accuracy is 99.49"));
  CHECK_THAT(PlanComplaint("nll: 0.0148", "nll: .nan"), ContainsSubstring("verified.float.nll"));
  CHECK_THAT(PlanComplaint("[-0.0002, 0.0009]", "[-0.0002]"), ContainsSubstring("must have two ends"));
  CHECK_THAT(PlanComplaint("{average_bits: 3.0}", "{}"),
             ContainsSubstring("must have one of the keys average_bits, bytes, bops"));
}

TEST_CASE("a plan whose layers do not add up to the model is refused") {
  CHECK_THAT(PlanComplaint("shape: [500, 800]", "shape: [500, 801]"),
             ContainsSubstring("model.weights is 430500, but the shapes of the layers make 431000"));
  CHECK_THAT(PlanComplaint("name: conv2,", "name: conv1,"), ContainsSubstring("layer 'conv1' is given twice"));
}

TEST_CASE("text that is no plan is refused in one line") {
  for (const char* text : {"", "hello", "- 1\n", "{a: [", "bitplan: 1\n", "name: x\n"}) {
    const Error error = ErrorOf([&] { (void)ParsePlan(text, "plan.yaml"); });
    CHECK(error.kind() == ErrorKind::kData);
    CHECK_THAT(error.what(), ContainsSubstring("plan.yaml") && !ContainsSubstring("\n"));
  }
  CHECK(PlanComplaint("bitplan: 1\n", "bitplan: 7\n") ==
        "plan.yaml:1: plan format 7 is unknown; this program reads 'bitplan: 1'");
}

TEST_CASE("a number that is not finite never reaches a plan") {
  Plan plan = ParsePlan(Golden(), "plan.yaml");
  plan.achieved.predicted_loss_rise = std::numeric_limits<double>::quiet_NaN();
  CHECK(ErrorOf([&] { (void)DumpPlan(plan); }).kind() == ErrorKind::kInternal);
}

TEST_CASE("numbers and texts of a plan survive the round trip bit for bit") {
  Plan plan = ParsePlan(Golden(), "plan.yaml");
  for (const double value : {0.1, 1.0 / 3.0, 1e-300, 1.7976931348623157e308, 123456789.0, 1e-5, 9.999e-6, 100000.0}) {
    plan.achieved.compression = value;
    CHECK(ParsePlan(DumpPlan(plan), "plan.yaml").achieved.compression == value);
  }
  for (const char* name : {"features.3", "0", "1e5", "true", "off", "a b", "a: b", "#x", "\"q\"", "back\\slash",
                           "two\nlines", "-", "caf\xc3\xa9", "0.1.0", "~"}) {
    plan.layers[0].name = name;
    CHECK(ParsePlan(DumpPlan(plan), "plan.yaml").layers[0].name == name);
  }
}

TEST_CASE("a missing plan is not found") {
  const Error error = ErrorOf([] { (void)LoadPlan("no-such-plan.yaml"); });
  CHECK(error.kind() == ErrorKind::kNotFound);
  CHECK(std::string(error.what()) == "plan no-such-plan.yaml not found");
}

TEST_CASE("the help on plans and docs/plan.md explain every key that a complete plan holds") {
  const std::string help = PlanHelp();
  const std::string page = ReadFile(std::filesystem::path(BITPLAN_SOURCE_DIR) / "docs" / "plan.md", "page");
  for (const PlanKey& key : PlanKeys()) {
    INFO(key.map << " " << key.key);
    CHECK_THAT(help, ContainsSubstring(key.key));
    CHECK_THAT(page, ContainsSubstring(key.key));
  }
  CHECK_THAT(help, ContainsSubstring("[confidence]") && ContainsSubstring("  stored_bytes"));
}

TEST_CASE("a key that must be there is asked for, one that may be missing is not") {
  CHECK_THAT(PlanComplaint(", macs: 288000", ""), ContainsSubstring("missing key 'macs' in layers[0]"));
  CHECK_NOTHROW(ParsePlan(Replaced(Golden(), ", optimality_gap: 0.0", ""), "plan.yaml"));
}
