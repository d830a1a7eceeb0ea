#include "bitplan/io/recipe.h"

#include <cstdlib>
#include <sstream>

#include "bitplan/io/files.h"
#include "io/scratch.h"
#include "support/catch.h"

using namespace bitplan;
namespace fs = std::filesystem;

namespace {

const std::string kSmall =
    "bitplan: 1\n"
    "name: small\n"
    "model: {architecture: lenet5-caffe}\n"
    "data: {name: mnist}\n";

Recipe Load(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const Scratch scratch;
  WriteFileAtomically(scratch / "r.yaml", text);
  return LoadRecipe(scratch / "r.yaml", overrides);
}

// What the user reads, from the file's name on.
std::string Complaint(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const Error error = ErrorOf([&] { (void)Load(text, overrides); });
  CHECK(error.kind() == ErrorKind::kUsage);
  const std::string message = error.what();
  CHECK(message.find('\n') == std::string::npos);
  const auto file = message.find("r.yaml");
  return file == std::string::npos ? message : message.substr(file);
}

std::string SetComplaint(const std::string& override) { return Complaint(kSmall, {override}); }

}  // namespace

TEST_CASE("a recipe gives its values, and defaults for the rest") {
  const Recipe recipe = Load(
      "bitplan: 1\nname: lenet-mnist\nseed: 18446744073709551615\n"
      "model: {file: models/a.pt}\n"
      "data: {name: mnist, normalize: {mean: [0.1307], std: [0.3081]}, calibration: 4000}\n"
      "train: {optimizer: sgd, learning_rate: 1e-1, augment: [shift, flip]}\n"
      "posterior: {estimator: svi, free_mean: true}\n"
      "allocate:\n  budget:\n    bytes: 200000\n  bits: [8, 1, 4]\n");
  CHECK(recipe.name == "lenet-mnist");
  CHECK(recipe.seed == 18446744073709551615ULL);
  CHECK_FALSE(recipe.calibration_seed);
  CHECK(recipe.CalibrationSeed() == recipe.seed);
  CHECK(recipe.model.file == "models/a.pt");
  CHECK(recipe.model.architecture.empty());
  CHECK(recipe.data.normalize_mean == std::vector<double>{0.1307});
  CHECK(recipe.data.normalize_std == std::vector<double>{0.3081});
  CHECK(recipe.data.calibration == 4000);
  CHECK(recipe.train.optimizer == "sgd");
  CHECK(recipe.train.learning_rate == 0.1);
  CHECK(recipe.train.augment == std::vector<std::string>{"shift", "flip"});
  CHECK(recipe.train.epochs == TrainOptions().epochs);
  CHECK(recipe.posterior.free_mean);
  REQUIRE(recipe.allocate.budget.limits.size() == 1);
  CHECK(LimitName(recipe.allocate.budget.limits[0]) == StoredBytes().name);
  CHECK(recipe.allocate.budget.limits[0].value == 200000.0);
  CHECK(recipe.allocate.bits == std::vector<int>{1, 4, 8});
}

TEST_CASE("a misspelt key names file, line and the nearest key") {
  CHECK(Complaint(kSmall + "train:\n  batch: 64\n  epoch: 2\n") ==
        "r.yaml:7: unknown key 'epoch' in train; nearest known key: epochs");
  CHECK(Complaint(kSmall + "trian: {}\n") == "r.yaml:5: unknown key 'trian'; nearest known key: train");
  CHECK(Complaint(kSmall + "allocate: {budget: {average_bit: 3}}\n") ==
        "r.yaml:5: unknown key 'average_bit' in allocate.budget; nearest known key: average_bits");
  CHECK(Complaint(kSmall + "verify: {zzz: 1}\n") ==
        "r.yaml:5: unknown key 'zzz' in verify; known keys: split, batch, bootstrap");
}

TEST_CASE("a value out of range names the key, the value and the bound") {
  CHECK(Complaint(kSmall + "train: {learning_rate: 0}\n") == "r.yaml:5: train.learning_rate is 0; it must be > 0");
  CHECK(Complaint(kSmall + "train: {epochs: -1}\n") == "r.yaml:5: train.epochs is -1; it must be >= 1");
  CHECK(Complaint(kSmall + "train: {epochs: 3000000000}\n") ==
        "r.yaml:5: train.epochs is 3000000000; it must be <= 2147483647");
  CHECK(Complaint(kSmall + "allocate: {quantile: 1.5}\n") == "r.yaml:5: allocate.quantile is 1.5; it must be in 0..1");
  CHECK(Complaint(kSmall + "allocate: {bits: [1, 9]}\n") == "r.yaml:5: allocate.bits[1] is 9; it must be in 0..8");
  CHECK(Complaint(kSmall + "allocate: {budget: {average_bits: 0}}\n") ==
        "r.yaml:5: allocate.budget.average_bits is 0; it must be > 0 and <= 32");
  CHECK(Complaint(kSmall + "train: {optimizer: adma}\n") ==
        "r.yaml:5: train.optimizer is 'adma'; it must be one of adam, sgd; nearest: adam");
}

TEST_CASE("NaN and infinity are no values of a recipe") {
  for (const char* value : {"nan", ".nan", "inf", ".inf", "-.inf", "1e999"}) {
    CHECK_THAT(
        Complaint(kSmall + "train: {learning_rate: " + value + "}\n"),
        ContainsSubstring("r.yaml:5: train.learning_rate is '" + std::string(value) + "'; it must be a number > 0"));
  }
}

TEST_CASE("a value of the wrong type names the type that is wanted") {
  CHECK(Complaint(kSmall + "train: {epochs: many}\n") ==
        "r.yaml:5: train.epochs is 'many'; it must be a whole number >= 1");
  CHECK(Complaint(kSmall + "train: {epochs: 2.5}\n") ==
        "r.yaml:5: train.epochs is 2.5; it must be a whole number >= 1");
  CHECK(Complaint(kSmall + "train: {epochs: [2]}\n") ==
        "r.yaml:5: train.epochs is a list; it must be a whole number >= 1");
  CHECK(Complaint(kSmall + "train: {epochs: }\n") ==
        "r.yaml:5: train.epochs has no value; it must be a whole number >= 1");
  CHECK(Complaint(kSmall + "posterior: {free_mean: 1}\n") ==
        "r.yaml:5: posterior.free_mean is 1; it must be true or false");
  CHECK(Complaint(kSmall + "train: {augment: shift}\n") ==
        "r.yaml:5: train.augment is 'shift'; it must be a list, such as [a, b]");
  CHECK(Complaint(kSmall + "seed: -1\n") == "r.yaml:5: seed is -1; it must be a whole number >= 0 and < 2^64");
  CHECK(Complaint(kSmall + "train: 3\n") == "r.yaml:5: train must be a map of keys, such as '{epochs: ...}'");
  CHECK(Complaint(kSmall + "posterior: {estimator: ''}\n") == "r.yaml:5: posterior.estimator is empty");
}

TEST_CASE("a key given twice is refused instead of one value winning silently") {
  CHECK(Complaint(kSmall + "train: {epochs: 1, epochs: 2}\n") == "r.yaml:5: key 'epochs' in train is given twice");
  CHECK(Complaint(kSmall + "name: other\n") == "r.yaml:5: key 'name' is given twice");
}

TEST_CASE("text that is no recipe is refused in one line") {
  CHECK(Complaint("") == "r.yaml: is empty");
  CHECK(Complaint("# nothing\n") == "r.yaml: is empty");
  CHECK_THAT(Complaint("- a\n- b\n"), ContainsSubstring("r.yaml:1: the document must be a map"));
  CHECK_THAT(Complaint("just words\n"), ContainsSubstring("the document must be a map"));
  CHECK_THAT(Complaint("bitplan: 1\nname: [a\n"), ContainsSubstring("YAML syntax"));
  CHECK_THAT(Complaint("bitplan: 1\n\tname: a\n"), ContainsSubstring("r.yaml:2: YAML syntax"));
  CHECK_THAT(Complaint(kSmall + "---\nname: b\n"), ContainsSubstring("a second YAML document"));
  CHECK_THAT(Complaint(std::string(3000, '[')), ContainsSubstring("YAML syntax"));
  CHECK_THAT(Complaint(kSmall + "? [a, b]\n: 1\n"), ContainsSubstring("is not a plain word"));
}

TEST_CASE("the version of the format must be given and known") {
  CHECK(Complaint("name: a\nmodel: {file: a.pt}\ndata: {name: mnist}\n") ==
        "r.yaml: missing key 'bitplan'; a recipe begins with 'bitplan: 1'");
  CHECK(Complaint("bitplan: 2\nname: a\n") == "r.yaml:1: recipe format 2 is unknown; this program reads 'bitplan: 1'");
}

TEST_CASE("a recipe without name, data or model says what is missing") {
  CHECK_THAT(Complaint("bitplan: 1\nmodel: {file: a.pt}\ndata: {name: mnist}\n"),
             ContainsSubstring("missing key 'name'"));
  CHECK_THAT(Complaint("bitplan: 1\nname: a\nmodel: {file: a.pt}\n"), ContainsSubstring("missing key 'data.name'"));
  CHECK(Complaint("bitplan: 1\nname: a\ndata: {name: mnist}\n") == "r.yaml: model needs an architecture or a file");
}

TEST_CASE("keys that exclude each other are refused") {
  CHECK(Complaint("bitplan: 1\nname: a\nmodel:\n  architecture: b\n  file: c\ndata: {name: mnist}\n") ==
        "r.yaml:5: model has both an architecture and a file; keep one");
}

TEST_CASE("values that do not fit together are refused") {
  CHECK_THAT(
      Complaint("bitplan: 1\nname: a\nmodel: {file: b}\ndata: {name: c, normalize: {mean: [0, 0, 0], std: [1]}}\n"),
      ContainsSubstring("r.yaml:4: data.normalize has 3 means and 1 standard deviations"));
  CHECK_THAT(Complaint("bitplan: 1\nname: a\nmodel: {file: b}\ndata: {name: c, normalize: {mean: [0]}}\n"),
             ContainsSubstring("1 means and 0 standard deviations"));
  CHECK(Complaint(kSmall + "allocate: {bits: [2, 1, 2]}\n") == "r.yaml:5: allocate.bits holds 2 twice");
  CHECK(Complaint(kSmall + "allocate: {bits: []}\n") ==
        "r.yaml:5: allocate.bits is empty; it must hold at least one width");
  CHECK_THAT(Complaint("bitplan: 1\nname: a\nmodel: {file: b}\ndata: {name: npy, train_images: x.npy}\n"),
             ContainsSubstring("r.yaml:4: data set npy needs the key 'data.test_images'"));
  CHECK_THAT(Complaint("bitplan: 1\nname: a\nmodel: {file: b}\ndata: {name: csv, train: x.csv}\n"),
             ContainsSubstring("r.yaml:4: data set csv needs the key 'data.test'"));
  CHECK_THAT(Complaint("bitplan: 1\nname: a\nmodel: {file: b}\ndata: {name: mnist, crop: 20}\n"),
             ContainsSubstring("r.yaml:4: data.crop: only data.name folder takes it, and this is mnist"));
}

TEST_CASE("a name that would leave the output folder is refused") {
  for (const char* name : {"../up", "/tmp/x", "a b", ".hidden"}) {
    CHECK_THAT(SetComplaint("name=" + std::string(name)), ContainsSubstring("name is '" + std::string(name) + "'"));
  }
}

TEST_CASE("an override replaces one key, a list or a whole section") {
  CHECK(Load(kSmall, {"train.epochs=3", "train.epochs=4"}).train.epochs == 4);
  CHECK(Load(kSmall, {"allocate.bits=[4, 2]"}).allocate.bits == std::vector<int>{2, 4});
  const Recipe replaced = Load(kSmall + "train: {epochs: 3, batch: 7}\n", {"train={epochs: 5}"});
  CHECK(replaced.train.epochs == 5);
  CHECK(replaced.train.batch == TrainOptions().batch);
  CHECK(Load(kSmall, {"seed=9"}).seed == 9);
}

TEST_CASE("a recipe may limit several resources, in any order") {
  const Budget budget =
      Load(kSmall + "allocate: {budget: {bops: 4e9, average_bits: 3, bytes: 10}}\n", {}).allocate.budget;
  CHECK(BudgetText(budget) == "average_bits 3, bytes 10, bops 4e+09");
  CHECK(BudgetText(Load(kSmall, {}).allocate.budget) == "average_bits 3");  // the default
}

TEST_CASE(
    "an override sets one limit beside the others, and only a recipe's single limit gives way to another resource") {
  const std::string bits = kSmall + "allocate: {budget: {average_bits: 3}}\n";
  const std::string both = kSmall + "allocate: {budget: {average_bits: 3, bytes: 10}}\n";
  const auto budget = [](const std::string& recipe, const std::vector<std::string>& overrides) {
    return BudgetText(Load(recipe, overrides).allocate.budget);
  };
  CHECK(budget(bits, {"allocate.budget.average_bits=2", "allocate.budget.bytes=500"}) == "average_bits 2, bytes 500");
  CHECK(budget(bits, {"allocate.budget.bytes=500", "allocate.budget.average_bits=2"}) == "average_bits 2, bytes 500");
  CHECK(budget(bits, {"allocate.budget.bytes=500", "allocate.budget.bops=9"}) == "bytes 500, bops 9");
  CHECK(budget(both, {"allocate.budget.bytes=500"}) == "average_bits 3, bytes 500");
  CHECK(budget(both, {"allocate.budget.bops=9"}) == "average_bits 3, bytes 10, bops 9");
  CHECK(budget(both, {"allocate.budget={bytes: 7}"}) == "bytes 7");
  CHECK(budget(kSmall, {"allocate.budget.bytes=7"}) == "bytes 7");
}

TEST_CASE("an override of one kind of budget replaces the other kind") {
  const std::string bytes = kSmall + "allocate: {budget: {bytes: 1000}}\n";
  const std::string bits = kSmall + "allocate: {budget: {average_bits: 3}}\n";
  const Recipe to_bits = Load(bytes, {"allocate.budget.average_bits=1.25"});
  CHECK(LimitName(to_bits.allocate.budget.limits.at(0)) == AverageBits().name);
  CHECK(to_bits.allocate.budget.limits.at(0).value == 1.25);
  const Recipe to_bytes = Load(bits, {"allocate.budget.bytes=500"});
  CHECK(LimitName(to_bytes.allocate.budget.limits.at(0)) == StoredBytes().name);
  CHECK(to_bytes.allocate.budget.limits.at(0).value == 500.0);
  CHECK(Load(bits, {"allocate.budget={bytes: 7}"}).allocate.budget.limits.at(0).value == 7.0);
}

TEST_CASE("an override of the model's file replaces its architecture") {
  const Recipe recipe = Load(kSmall, {"model.file=a.pt"});
  CHECK(recipe.model.file == "a.pt");
  CHECK(recipe.model.architecture.empty());
  const Recipe varying = Load(kSmall, {"model.file=a.pt", "model.answers_may_vary=true"});
  CHECK(varying.model.file == "a.pt");
  CHECK(varying.model.answers_may_vary);
}

TEST_CASE("weights of a recipe are not laid over another model without a word") {
  const std::string text = "bitplan: 1\nname: a\nmodel: {architecture: b, weights: w.pth}\ndata: {name: mnist}\n";
  CHECK(Load(text).model.weights == "w.pth");
  CHECK(Load(text).model.is_trained());
  CHECK_THAT(Complaint(text, {"model.file=c.pt"}), ContainsSubstring("set model.weights too"));
  CHECK_THAT(Complaint(text, {"model.architecture=c"}), ContainsSubstring("set model.weights too"));
  CHECK(Load(text, {"model={file: c.pt}"}).model.weights.empty());
  CHECK(Load(text, {"model.file=c.pt", "model.weights=v.pth"}).model.weights == "v.pth");
  CHECK(Load(text, {"model.weights=v.pth", "model.file=c.pt"}).model.weights == "v.pth");
  CHECK_FALSE(Load(kSmall).model.is_trained());
  CHECK_THAT(Complaint("bitplan: 1\nname: a\nmodel: {weights: w}\nbayes: {from: m.pt}\ndata: {name: mnist}\n"),
             ContainsSubstring("model.weights need an architecture or a file"));
}

TEST_CASE("a wrong override is quoted") {
  CHECK(SetComplaint("allocate.bugdet=3") ==
        "--set allocate.bugdet=3: unknown key 'bugdet' in allocate; nearest known key: budget");
  CHECK(SetComplaint("train.epochs=0") == "--set train.epochs=0: train.epochs is 0; it must be >= 1");
  CHECK(SetComplaint("train.epochs") == "--set train.epochs: must be key.path=value");
  CHECK(SetComplaint("=3") == "--set =3: must be key.path=value");
  CHECK_THAT(SetComplaint("train.epochs="), ContainsSubstring("train.epochs has no value"));
  CHECK_THAT(SetComplaint("train.epochs.x=1"), ContainsSubstring("train.epochs is a map"));
  CHECK_THAT(SetComplaint("allocate.bits=[1, 2"), ContainsSubstring("--set allocate.bits=[1, 2: YAML syntax"));
  CHECK_THAT(SetComplaint("allocate.bits=[1, 2\nseed: 3"), ContainsSubstring("YAML syntax"));
  CHECK_THAT(SetComplaint("seed=3\nname: x"), ContainsSubstring("unknown key 'name'"));
  CHECK_THAT(Complaint(kSmall + "\"two\\nlines\": 1\n"), ContainsSubstring("unknown key 'two lines'"));
}

TEST_CASE("calibration labels come with their images, and not beside a split to take the images from") {
  const std::string npy = "data={name: npy, train_images: a, train_labels: b, test_images: c, test_labels: d, ";
  CHECK_THAT(SetComplaint(npy + "calibration_labels: e}"), ContainsSubstring("give both"));
  CHECK_THAT(SetComplaint(npy + "calibration_images: e, calibration_labels: f, calibration_from: test}"),
             ContainsSubstring("keep one"));
  CHECK(Load(kSmall, {npy + "calibration_images: e, calibration_labels: f}"}).data.calibration_images == "e");
  CHECK_THAT(SetComplaint("data={name: mnist, calibration_images: e, calibration_labels: f}"),
             ContainsSubstring("only the data set npy"));
}

TEST_CASE("keys of another data set than the recipe's are refused with their line") {
  const auto why = [](const std::string& data) {
    return Complaint("bitplan: 1\nname: small\nmodel: {architecture: lenet5-caffe}\ndata:\n  " + data + "\n");
  };
  const std::string pictures = "name: folder\n  train: a\n  test: b\n  ",
                    table = "name: csv\n  train: a\n  test: b\n  ";
  const std::string arrays = "name: npy\n  train_images: a\n  test_images: b\n  ";
  CHECK_THAT(why(pictures + "train_images: x"),
             ContainsSubstring("r.yaml:8: data.train_images: only data.name npy takes it, and this is folder"));
  CHECK_THAT(why(pictures + "layout: as-is"), ContainsSubstring("data.layout: only data.name npy takes it"));
  CHECK_THAT(why(pictures + "columns: [a]"), ContainsSubstring("data.columns: only data.name csv takes it"));
  CHECK_THAT(why(table + "resize: 0"), ContainsSubstring("data.resize: only data.name folder takes it"));
  CHECK_THAT(why(table + "channels: rgb"), ContainsSubstring("data.channels: only data.name folder takes it"));
  CHECK_THAT(why(table + "test_labels: x"), ContainsSubstring("data.test_labels: only data.name npy takes it"));
  CHECK_THAT(why(arrays + "label: x"), ContainsSubstring("data.label: only data.name csv takes it"));
  CHECK_THAT(why(arrays + "train: x"), ContainsSubstring("data.train: only data.name folder and csv takes it"));
  CHECK_THAT(why("name: mnist\n  train_labels: x"),
             ContainsSubstring("only data.name npy takes it, and this is mnist"));
  // Where bayes measures another data set, its keys stand here too.
  CHECK(Load(kSmall, {"data={name: mnist, train_images: a, test_images: b}", "bayes.out_of_distribution=npy"})
            .data.test_images == "b");
}

TEST_CASE("names are looked up before keys are held against them") {
  const auto check = [](const Recipe& recipe) { throw Error(ErrorKind::kUsage, "no " + recipe.data.name); };
  const Error error = ErrorOf([&] {
    const Scratch scratch;
    WriteFileAtomically(scratch / "r.yaml", kSmall);
    (void)LoadRecipe(scratch / "r.yaml", {"data={name: mnits, train_images: a}"}, check);
  });
  CHECK(std::string(error.what()) == "no mnits");
}

TEST_CASE("a missing recipe is not found") {
  const Error error = ErrorOf([] { (void)LoadRecipe("no-such-recipe.yaml", {}); });
  CHECK(error.kind() == ErrorKind::kNotFound);
  CHECK(std::string(error.what()) == "recipe no-such-recipe.yaml not found");
}

TEST_CASE("a dumped recipe loads to the same recipe, every key included") {
  const std::vector<std::string> overrides = {
      "data={name: npy, normalize: {mean: [0.1, 1e-7], std: [0.3, 12345678.5]}, calibration: 7, train_images: a b.npy, "
      "train_labels: 'x: y', test_images: \"12\", test_labels: true, calibration_images: c.npy, calibration_labels: "
      "d.npy, "
      "layout: as-is}",
      "train={epochs: 3, optimizer: sgd, learning_rate: 0.3, weight_decay: 0.0005, batch: 9, augment: [flip, shift]}",
      "posterior={estimator: svi, samples: 5, batch: 6, prior_sigma: 0.125, epochs: 2, learning_rate: 1e-9, "
      "free_mean: true}",
      "sensitivity={metric: measured, samples: 77, coherence: false}",
      "quantizer={granularity: tensor, range: posterior, grid: half, batch_norm: off, correction_samples: 11}",
      "allocate={allocator: exact, budget: {bytes: 100000}, bits: [0, 3], quantile: 0.5, mode: rank, guard: false, "
      "draws: 7, pins: {conv1: 8, 'layer3.*': 4}, groups: [[a, 'b*'], [c]], exclude: [fc], random_bits: {estimator: "
      "score-function, steps: 7, samples: 3, learning_rate: 0.5, data_weight: 2, posterior_weight: 0}}",
      "compare={allocators: [exact, uniform], budgets: [2, 2.5], seeds: 4}",
      "verify={split: calibration, batch: 3, bootstrap: 123}",
      "seed=12345678901234567890"};
  const std::string dumped = DumpRecipe(Load(kSmall, overrides));
  const Recipe again = Load(dumped);
  CHECK(DumpRecipe(again) == dumped);
  CHECK(again.data.train_images == "a b.npy");
  CHECK(again.data.train_labels == "x: y");
  CHECK(again.data.normalize_mean == std::vector<double>{0.1, 1e-7});
  CHECK(again.train.learning_rate == 0.3);
  CHECK(again.posterior.learning_rate == 1e-9);
  CHECK(again.seed == 12345678901234567890ULL);
  REQUIRE(again.allocate.pins.size() == 2);
  CHECK(again.allocate.pins[1].pattern == "layer3.*");
  CHECK(again.allocate.pins[1].bits == 4);
  CHECK(again.allocate.groups == std::vector<std::vector<std::string>>{{"a", "b*"}, {"c"}});
  for (const char* key : {"weight_decay: ", "free_mean: true", "correction_samples: 11", "batch_norm: \"off\"",
                          "bootstrap: 123", "mode: rank", "guard: false", "draws: 7", "exclude: [fc]", "samples: 3",
                          "budgets: [2.0, 2.5]", "coherence: false", "budget: {bytes: 100000}", "bits: [0, 3]"}) {
    CHECK_THAT(dumped, ContainsSubstring(key));
  }
}

TEST_CASE("a dumped recipe has one stable form") {
  const Recipe recipe =
      Load(kSmall, {"data={name: mnist, calibration: 50, normalize: {std: [0.3081], mean: [0.1307]}}",
                    "allocate={quantile: 1, bits: [8, 2], mode: rank, budget: {average_bits: 3}, allocator: exact}"});
  const std::string dumped = DumpRecipe(recipe);
  CHECK(dumped.rfind("bitplan: 1\n"
                     "name: small\n"
                     "seed: 1\n"
                     "model:\n"
                     "  architecture: lenet5-caffe\n"
                     "  answers_may_vary: false\n  equalize: 0.0\n"
                     "data:\n"
                     "  name: mnist\n"
                     "  normalize: {mean: [0.1307], std: [0.3081]}\n"
                     "  calibration: 50\n"
                     "  calibration_from: train\n"
                     "  noise: 0.0\n"
                     "  layout: images\n"
                     "train:\n",
                     0) == 0);
  CHECK_THAT(dumped, ContainsSubstring("\nallocate:\n"
                                       "  allocator: exact\n"
                                       "  budget: {average_bits: 3.0}\n"
                                       "  bits: [2, 8]\n"
                                       "  quantile: 1.0\n"
                                       "  mode: rank\n"
                                       "  guard: true\n"
                                       "  draws: 4\n"
                                       "  random_bits: {"));
}

TEST_CASE("a section's text changes with its own keys only") {
  const Recipe before = Load(kSmall), after = Load(kSmall, {"train.epochs=3"});
  CHECK(DumpRecipeSection(before, "train") != DumpRecipeSection(after, "train"));
  CHECK(DumpRecipeSection(before, "data") == DumpRecipeSection(after, "data"));
  CHECK(DumpRecipeSection(before, "model") ==
        "model:\n  architecture: lenet5-caffe\n  answers_may_vary: false\n  equalize: 0.0\n");
  CHECK(ErrorOf([&] { (void)DumpRecipeSection(before, "trian"); }).kind() == ErrorKind::kInternal);
}

TEST_CASE("every recipe that comes with bitplan loads, and is named like its file") {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(BITPLAN_SOURCE_DIR) / "recipes")) {
    INFO(entry.path().string());
    const Recipe recipe = LoadRecipe(entry.path(), {});
    CHECK(recipe.name == entry.path().stem().string());
    CHECK_FALSE(recipe.data.normalize_mean.empty());
    ++count;
  }
  CHECK(count >= 4);
}

TEST_CASE("the help lists every key that a complete recipe holds") {
  const std::string help = RecipeHelp({{"data.name", {"mnist", "a-new-one"}}});
  CHECK_THAT(help, ContainsSubstring("(text; one of mnist, a-new-one; required)"));
  for (const char* key : {"learning_rate", "budget.average_bits", "budget.bytes", "normalize.mean", "batch_norm"}) {
    CHECK_THAT(help, ContainsSubstring(std::string("  ") + key + " "));
  }
  CHECK_THAT(help, ContainsSubstring("peak of the one-cycle schedule") && ContainsSubstring("(number; > 0; default "));
}

TEST_CASE("no line of the recipe's help is wider than a page") {
  std::vector<std::string> many(60, "quantile-inform");
  std::istringstream help(RecipeHelp({{"allocate.allocator", many}}));
  for (std::string line; std::getline(help, line);) CHECK(line.size() <= 120);
}
