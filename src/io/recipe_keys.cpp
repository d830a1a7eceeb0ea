// The keys of a recipe; src/io/recipe_options.cpp looks them up and writes them.
#include <utility>

#include "io/recipe_options.h"

namespace bitplan {
namespace {

// clang-format off
#define FIELD(member) [](Recipe& recipe) -> auto& { return recipe.member; }
// clang-format on

// Kinds of entries.
RecipeOption Any(std::string path, RecipeField field, std::string help) {
  return {std::move(path), field, "", {}, {}, false, std::move(help)};
}
RecipeOption OneOrMore(std::string path, RecipeField field, std::string help) {
  return {std::move(path), field, "", {}, {}, false, std::move(help), true};
}
RecipeOption Required(std::string path, RecipeField field, std::string help) {
  return {std::move(path), field, "", {}, {}, true, std::move(help)};
}
RecipeOption Number(std::string path, RecipeField field, const Range& range, std::string unit, std::string help) {
  return {std::move(path), field, std::move(unit), range, {}, false, std::move(help)};
}
RecipeOption Count(std::string path, RecipeField field, std::string unit, std::string help) {
  return Number(std::move(path), field, {.low = 1}, std::move(unit), std::move(help));
}
RecipeOption OneOf(std::string path, RecipeField field, std::vector<std::string> choices, std::string help) {
  return {std::move(path), field, "", {}, std::move(choices), false, std::move(help)};
}

// allocate.budget.NAME of every resource.
std::vector<RecipeOption> BudgetOptions() {
  std::vector<RecipeOption> options;
  for (const Resource& resource : Resources()) {
    const std::string path = std::string("allocate.budget.") + resource.name;
    const std::string help = resource.help + std::string("; of several resources every limit holds");
    options.push_back(resource.per_weight ? Number(path, BudgetField{&resource},
                                                   {.low = 0, .high = 32, .low_is_open = true}, resource.unit, help)
                                          : Count(path, BudgetField{&resource}, resource.unit, help));
  }
  return options;
}

std::vector<std::string> ResourceNames() {
  std::vector<std::string> names;
  for (const Resource& resource : Resources()) names.emplace_back(resource.name);
  return names;
}

std::vector<RecipeOption> MakeOptions() {
  std::vector<RecipeOption> options = {
      Required("name", FIELD(name), "name of the run and of its default output folder, out/NAME"),
      Number("seed", FIELD(seed), kNotNegative, "", "root of all random streams"),
      Number("calibration_seed", FIELD(calibration_seed), kNotNegative, "",
             "root of what calibration data give: which training images posterior, sensitivity, confidence and "
             "corrections see, and which are the calibration images of a model from a file; the network stays; none: "
             "seed"),

      Any("model.architecture", FIELD(model.architecture),
          "built-in architecture, trained by the run or with weights; this or file"),
      Any("model.file", FIELD(model.file),
          "trained TorchScript or ONNX file (.onnx), relative to the data folder or the recipe; this or architecture"),
      Any("model.weights", FIELD(model.weights),
          "trained weights for the architecture or the file: safetensors, or a state dict of PyTorch (torch.save); "
          "relative as file is; an architecture is not trained then"),
      Any("model.answers_may_vary", FIELD(model.answers_may_vary),
          "take a model whose answers depend on the other images of a batch or on chance; its figures then do too, and "
          "the plan says so in model.note"),
      Number(
          "model.equalize", FIELD(model.equalize), {.low = 0, .high = 1}, "share",
          "even out the ranges of the channels of a tensor between the layers that make it and read it; the share of "
          "its own ranges in the factors, the rest is that of the weights that read it; 0: leave them"),

      Required("data.name", FIELD(data.name), "data set; npy, folder and csv: files of your own"),
      Any("data.normalize.mean", FIELD(data.normalize_mean), "per channel, subtracted from pixels scaled to 0..1"),
      Number("data.normalize.std", FIELD(data.normalize_std), kPositive, "", "per channel, divides what is left"),
      Count(
          "data.calibration", FIELD(data.calibration), "images",
          "images that choices are made on, taken by seed; where that is more than half of their split, a fifth of it; "
          "never trained on by the run, but a model from a file has probably seen those of its training split"),
      OneOf("data.calibration_from", FIELD(data.calibration_from), {"train", "test"},
            "the split that they are taken off; a model from a file knows train by heart, and test is measured without "
            "them"),
      Number("data.noise", FIELD(data.noise), kNotNegative, "",
             "standard deviation of Gaussian noise on the normalized images of all splits, drawn once by seed"),
      Any("data.train_images", FIELD(data.train_images), "npy: training images"),
      Any("data.train_labels", FIELD(data.train_labels), "npy: their labels; none: the answers of the float network"),
      Any("data.test_images", FIELD(data.test_images), "npy: images never used before verification"),
      Any("data.test_labels", FIELD(data.test_labels), "npy: their labels; none: the answers of the float network"),
      Any("data.calibration_images", FIELD(data.calibration_images),
          "npy: images that choices are made on, of files of their own; best those that the model has never seen"),
      Any("data.calibration_labels", FIELD(data.calibration_labels),
          "npy: their labels; none: the answers of the float network"),
      OneOf("data.layout", FIELD(data.layout), {"images", "as-is"},
            "npy: images gives arrays [N, H, W] a channel, [N, 1, H, W]; as-is leaves them, as a conv1d or a sequence "
            "model needs"),
      Any("data.train", FIELD(data.train),
          "folder: what holds a folder of training pictures for every class; csv: the table of training rows"),
      Any("data.test", FIELD(data.test), "folder, csv: the same, never used before verification"),
      Number("data.train_at_most", FIELD(data.train_at_most), kNotNegative, "images",
             "folder: this many training pictures, as evenly from every class as it has them, one of each or more; 0: "
             "all"),
      Number("data.resize", FIELD(data.resize), {.low = 0, .high = 16384}, "pixels",
             "folder: length of the shorter side, reached with antialiasing as by torchvision; 0: as it is"),
      Number("data.crop", FIELD(data.crop), {.low = 0, .high = 16384}, "pixels",
             "folder: side of the square that is cut from the middle; 0: the whole picture"),
      OneOf("data.channels", FIELD(data.channels), {"rgb", "bgr", "gray"}, "folder: channels and their order"),
      Any("data.label", FIELD(data.label),
          "csv: the column of labels, in both tables, or in one where the other has none; without this key the last "
          "one; the word none: no labels, so the answers of the float network"),
      Any("data.columns", FIELD(data.columns), "csv: the columns that are inputs; none: all but the label"),
      Any("data.task", FIELD(data.task),
          "npy, csv: what the labels are, and with that the loss, what the Fisher information is of, and what verify "
          "measures; none: classification"),

      Count("train.epochs", FIELD(train.epochs), "passes", "passes over the training split"),
      OneOf("train.optimizer", FIELD(train.optimizer), {"adam", "sgd"}, "adam, or sgd with Nesterov momentum 0.9"),
      Number("train.learning_rate", FIELD(train.learning_rate), kPositive, "", "peak of the one-cycle schedule"),
      Number("train.weight_decay", FIELD(train.weight_decay), kNotNegative, "",
             "decoupled from adam's moments; added to the gradient for sgd"),
      Number("train.dropout", FIELD(train.dropout), {.low = 0, .high = 0.95}, "",
             "probability that an input of the last linear layers is dropped; also makes them robust to few bits"),
      Count("train.batch", FIELD(train.batch), "images", "images of one step"),
      Any("train.augment", FIELD(train.augment), "random changes of training images"),

      Any("posterior.estimator", FIELD(posterior.estimator),
          "laplace (curvature at the trained weights) or svi (variational inference, started from laplace)"),
      Count("posterior.samples", FIELD(posterior.samples), "images", "training images that the estimate uses"),
      Count("posterior.batch", FIELD(posterior.batch), "images", "images of one forward and backward pass"),
      Number("posterior.prior_sigma", FIELD(posterior.prior_sigma), kNotNegative, "",
             "standard deviation of the prior; 0: root mean square of each layer's weights"),
      Count("posterior.epochs", FIELD(posterior.epochs), "passes", "svi: passes over the samples"),
      Number("posterior.learning_rate", FIELD(posterior.learning_rate), kPositive, "", "svi: step size"),
      Any("posterior.free_mean", FIELD(posterior.free_mean), "svi: let the means move"),

      Any("sensitivity.metric", FIELD(sensitivity.metric),
          "posterior (from the likelihood information), measured, predictive or compensated (quantize one layer, "
          "evaluate; predictive corrects batch norms as the plan will, compensated rounds as the plan will too), or a "
          "peer's: hawq, activation-distance, gradient, fisher-output"),
      Count("sensitivity.samples", FIELD(sensitivity.samples), "images",
            "training images for the coherence of rounding errors, or of every evaluation of measured"),
      Any("sensitivity.coherence", FIELD(sensitivity.coherence),
          "posterior: measure how far the rounding errors of a layer act together"),

      OneOf("quantizer.scheme", FIELD(quantizer.scheme), {"symmetric"}, "uniform levels, symmetric around zero"),
      OneOf("quantizer.granularity", FIELD(quantizer.granularity), {"channel", "tensor"},
            "one scale per output channel, or one per layer"),
      OneOf("quantizer.range", FIELD(quantizer.range), {"max", "mse", "posterior", "output", "auto"},
            "scale by the largest weight, the least squared error, the least error weighted by information, or the "
            "least error of the outputs on training images; auto: mse or output, per layer"),
      OneOf("quantizer.grid", FIELD(quantizer.grid), {"auto", "zero", "half"},
            "with a level at zero, with levels at odd halves (1 bit always), or at 2 and 3 bits the better of both"),
      OneOf("quantizer.rounding", FIELD(quantizer.rounding), {"nearest", "compensated"},
            "every weight to its nearest level, or so that the errors of an output cancel on training images (GPTQ)"),
      OneOf("quantizer.centring", FIELD(quantizer.centring), {"off", "batch-norm", "outputs", "both", "auto"},
            "the corrections that ranges, rounding and the metric predictive count on: what these take away of an "
            "output's "
            "error is none; auto: those that are not off"),
      OneOf("quantizer.batch_norm", FIELD(quantizer.batch_norm), {"off", "re-estimate", "transfer", "auto"},
            "correction of batch-norm statistics after quantization; auto: the best on the calibration images"),
      OneOf("quantizer.output_correction", FIELD(quantizer.output_correction), {"off", "fit", "auto"},
            "scale and shift of the outputs of layers without batch norm, fitted to the float model; auto: if it is "
            "better on the calibration images"),
      OneOf(
          "quantizer.activation_range", FIELD(quantizer.activation_range), {"max", "percentile", "mse", "output"},
          "ends of the levels of activations, on training images: the lowest and the highest value, the same without 1 "
          "in 10,000, those of least squared error, or of least error of the outputs of the layers that read them"),
      Number("quantizer.range_sweeps", FIELD(quantizer.range_sweeps), kNotNegative, "",
             "after weights are rounded: how often every range of activations is tried wider and narrower, and keeps "
             "what lowers the network's divergence from the float one on training images; 0: never"),
      OneOf("quantizer.activation_sums", FIELD(quantizer.activation_sums), {"float", "rounded"},
            "where activations are rounded: what is added to another tensor, as behind a residual connection, stays as "
            "it is, or is rounded to 8 bits, so that a runtime adds integers"),
      Count("quantizer.correction_samples", FIELD(quantizer.correction_samples), "images",
            "unlabelled training images for compensated rounding and both corrections"),
      Number("quantizer.learned_steps", FIELD(quantizer.learned_steps), kNotNegative, "minibatches",
             "learned rounding after the corrections: minibatches of up to 64 images on which codes and scales "
             "follow the gradient of the network's divergence from the float one; 0: none"),
      Count("quantizer.learned_samples", FIELD(quantizer.learned_samples), "images",
            "unlabelled training images for learned rounding, of which an eighth decide whether it is kept"),
      Number("quantizer.learned_rate", FIELD(quantizer.learned_rate), {.low = 0, .low_is_open = true}, "levels",
             "learned rounding: largest step of a code"),
      Any("quantizer.exportable", FIELD(quantizer.exportable),
          "the plan keeps to what this format of export holds: its grids, signs of scales and widths, layers of other "
          "kinds in float; then the export refuses nothing, changes no value and stores no width in a wider type; "
          "none: anything"),

      Any("allocate.allocator", FIELD(allocate.allocator),
          "who spends the budget; 'bitplan help allocators' says what each does"),
      Number("allocate.budget.drop", FIELD(allocate.drop), {.low = 0, .high = 100, .low_is_open = true}, "points",
             "the smallest plan of which calibration images make 95 % sure that it loses no more accuracy; other "
             "limits hold as well"),
      OneOf("allocate.budget.smallest", FIELD(allocate.smallest), ResourceNames(),
            "the resource by which drop looks for the smallest plan, and that a curve goes along; none: average_bits, "
            "or bops where activations have several widths"),
      Number("allocate.bits", FIELD(allocate.bits), {.low = 0, .high = 8}, "bits",
             "widths that a layer may get; 0 removes a layer, 1 is binary"),
      Number(
          "allocate.activation_bits", FIELD(allocate.activation_bits), {.low = 2, .high = 16}, "bits",
          "widths that the input of a planned layer may get, 2 to 8 or 16; of several one is chosen together with the "
          "width of the weights, by exact, lagrangian, greedy, random or uniform; none: activations stay in float"),
      Number("allocate.quantile", FIELD(allocate.quantile), kShare, "",
             "quantile-inform: which quantile of a layer's scores speaks for it"),
      OneOf("allocate.mode", FIELD(allocate.mode), {"information", "rank"},
            "quantile-inform: bits from the scores, or from the order of the layers"),
      Any("allocate.guard", FIELD(allocate.guard),
          "our allocators: never a plan that is predicted worse than uniform at the same budget"),
      Number("allocate.draws", FIELD(allocate.draws), {.low = 0}, "draws",
             "networks from the posterior behind the confidence of the widths; 0: none"),
      Number("allocate.pins", FIELD(allocate.pins), {.low = 0, .high = 8}, "bits",
             "layers that keep a width, by name or pattern: {conv1: 8, \"layer3.*\": 4}; the last one that matches "
             "counts, an exclusion before any"),
      Any("allocate.groups", FIELD(allocate.groups), "layers that share a width: [[conv1, conv2], [\"layer3.*\"]]"),
      Any("allocate.exclude", FIELD(allocate.exclude),
          "layers left in float and out of the budget, by name or pattern"),
      Any("allocate.latency", FIELD(allocate.latency),
          "table of the time that layers take at their widths, CSV with the columns "
          "layer,kind,weight_bits,activation_bits,microseconds, relative to the data folder or the recipe"),
      OneOf("allocate.random_bits.estimator", FIELD(allocate.random_bits.estimator),
            {"gumbel-softmax", "score-function"}, "random-bits: gradient of the expected loss"),
      Count("allocate.random_bits.steps", FIELD(allocate.random_bits.steps), "minibatches", "random-bits: steps"),
      Number("allocate.random_bits.samples", FIELD(allocate.random_bits.samples), {.low = 2}, "plans",
             "random-bits: drawn on every minibatch by score-function"),
      Number("allocate.random_bits.learning_rate", FIELD(allocate.random_bits.learning_rate), kPositive, "",
             "random-bits: step size in typical gaps between the best two widths of a layer"),
      Number("allocate.random_bits.data_weight", FIELD(allocate.random_bits.data_weight), kNotNegative, "",
             "random-bits: weight of the likelihood of the data"),
      Number("allocate.random_bits.posterior_weight", FIELD(allocate.random_bits.posterior_weight), kNotNegative, "",
             "random-bits: weight of the sensitivity table"),

      OneOf("verify.split", FIELD(verify.split), {"test", "calibration"},
            "images on which float and quantized model are compared"),
      Count("verify.batch", FIELD(verify.batch), "images", "images of one forward pass"),
      Number("verify.bootstrap", FIELD(verify.bootstrap), {.low = 100}, "resamples",
             "resamples of the paired interval"),

      Any("compare.allocators", FIELD(compare.allocators), "which allocators to compare; none named: all"),
      Number("compare.budgets", FIELD(compare.budgets), {.low = 0, .high = 32, .low_is_open = true}, "bits per weight",
             "budgets to compare at, average bits; of a recipe with several limits the others hold at each"),
      Any("compare.pairs", FIELD(compare.pairs),
          "where allocate.activation_bits has several widths: compare at the bit operations of these widths for all "
          "weights and all activations, [W4A4, W2A4]; in the place of compare.budgets"),
      Number("compare.calibration_seeds", FIELD(compare.calibration_seeds), {.low = 0}, "seeds",
             "repetitions of the whole comparison with other calibration data, calibration_seed, calibration_seed + 1, "
             "...; figures are means, intervals hold for other seeds and images; 0: 5 where one pass of verify and "
             "calibration images through the network takes at most 1e12 multiply-accumulates (15,000 images of "
             "ResNet-20 take 6e11), else 1"),
      Count("compare.seeds", FIELD(compare.seeds), "seeds",
            "plans of every allocator whose answer depends on the seed, where there is one calibration seed; several "
            "give every repetition a seed of its own"),
      Number("compare.tolerance", FIELD(compare.tolerance), kShare, "",
             "accuracy, as a share, that the plan recommended over all budgets may cost at most: the upper end of the "
             "paired interval on calibration images"),

      Number("curve.points", FIELD(curve.points), {.low = 2, .high = 1000}, "budgets",
             "budgets at which plans are measured, from the narrowest to the widest plan, evenly spaced in their "
             "logarithm"),
      Any("curve.uniform", FIELD(curve.uniform), "measure one width for all layers at each of these budgets too"),

      Any("bayes.from", FIELD(bayes.from),
          "trained TorchScript file whose weights are the first means, relative to the data folder or the recipe; in "
          "the "
          "place of model"),
      OneOf("bayes.activation", FIELD(bayes.activation), {"relu", "clipped-relu", "hard-tanh", "signed-levels"},
            "takes the place of every relu of the network"),
      Count("bayes.epochs", FIELD(bayes.epochs), "passes",
            "variational inference in float: passes over the training split"),
      Number("bayes.learning_rate", FIELD(bayes.learning_rate), kPositive, "", "its one-cycle schedule's peak"),
      Count("bayes.batch", FIELD(bayes.batch), "images", "images of one step"),
      Number("bayes.prior_sigma", FIELD(bayes.prior_sigma), kNotNegative, "",
             "standard deviation of the prior; 0: fitted to every layer while it learns"),
      Number("bayes.first_sigma", FIELD(bayes.first_sigma), kPositive, "",
             "standard deviations at first, as a share of the layer's root mean square weight"),
      Number("bayes.draws", FIELD(bayes.draws), {.low = 2}, "draws", "draws of the weights for every prediction"),
      Count("bayes.seeds", FIELD(bayes.seeds), "networks", "networks trained and quantized, seed, seed + 1, ..."),
      OneOf("bayes.schemes", FIELD(bayes.schemes), {"vpq", "spq", "jq"},
            "what is rounded: vpq variational parameters, spq drawn weights, jq both"),
      Number("bayes.bits", FIELD(bayes.bits), {.low = 1, .high = 8}, "bits",
             "widths to measure, for whatever is rounded"),
      OneOf("bayes.stages", FIELD(bayes.stages), {"trained", "fine-tuned", "scratch"},
            "rounded after training, rounded and fine-tuned, or rounded from the first step on"),
      OneOf("bayes.sigma_scales", FIELD(bayes.sigma_scales), {"log", "linear"},
            "levels of the standard deviations: even in their logarithm, or even in themselves"),
      Number("bayes.mean_bits", FIELD(bayes.mean_bits), {.low = 0, .high = 32}, "bits",
             "means, where they have a width of their own: 1..8, 32 for float; 0: as bayes.bits"),
      Number("bayes.sigma_bits", FIELD(bayes.sigma_bits), {.low = 0, .high = 32}, "bits",
             "standard deviations, likewise"),
      Number("bayes.sample_bits", FIELD(bayes.sample_bits), {.low = 0, .high = 32}, "bits", "drawn weights, likewise"),
      Number("bayes.activation_bits", FIELD(bayes.activation_bits), {.low = 0, .high = 32}, "bits",
             "inputs of every layer but the first, likewise"),
      OneOf("bayes.fine_tune", FIELD(bayes.fine_tune), {"reference", "draws", "bound"},
            "follow the float network draw by draw and hold its uncertainties, follow its draws alone, or raise the "
            "evidence lower bound"),
      Count("bayes.fine_tune_epochs", FIELD(bayes.fine_tune_epochs), "passes", "passes over the training split"),
      Number("bayes.fine_tune_learning_rate", FIELD(bayes.fine_tune_learning_rate), kPositive, "",
             "its one-cycle schedule's peak"),
      Any("bayes.control", FIELD(bayes.control),
          "where stages holds fine-tuned: also fine-tune the float network, nothing rounded, as the others are, and "
          "compare with it too; with fine_tune draws there is nothing to learn, and no control"),
      Any("bayes.clean", FIELD(bayes.clean), "data set whose test split is measured; none: that of data.name"),
      Any("bayes.ambiguous", FIELD(bayes.ambiguous),
          "data set of ambiguous inputs, its test split; none: not measured"),
      OneOrMore("bayes.out_of_distribution", FIELD(bayes.out_of_distribution),
                "data sets of unknown inputs, their test splits, one or a list; none: not measured"),
      Number("bayes.plan.average_bits", FIELD(bayes.plan.average_bits), {.low = 0, .high = 8}, "bits per parameter",
             "budget of a plan that gives means and standard deviations of every layer their own widths, fine-tuned, "
             "drawn "
             "weights and activations at sample_bits and activation_bits or 4; 0: no plan"),
      Number("bayes.plan.accuracy_drop", FIELD(bayes.plan.accuracy_drop), kShare, "",
             "most that the plan may lose, on any kind of image of the third quarter of the calibration images, by the "
             "upper end of an interval over images and draws; the budget rises until it holds"),
      Number(
          "bayes.plan.drift", FIELD(bayes.plan.drift), kPositive, "",
          "most that mean aleatoric and epistemic uncertainty may change there, as a share of themselves, by an upper "
          "bound"),
  };
  const std::vector<RecipeOption> budget = BudgetOptions();
  const auto allocator = std::find_if(options.begin(), options.end(),
                                      [](const RecipeOption& option) { return option.path == "allocate.allocator"; });
  options.insert(allocator + 1, budget.begin(), budget.end());
  return options;
}

#undef FIELD

}  // namespace

const std::vector<RecipeOption>& RecipeOptions() {
  static const std::vector<RecipeOption> options = MakeOptions();
  return options;
}

const std::vector<RecipeSection>& RecipeSections() {
  static const std::vector<RecipeSection> sections = {
      {"", "The run."},
      {"model", "The network to plan: built in and trained by the run, or a trained file."},
      {"data",
       "Images and labels. Allocation uses the training split, choices the calibration images, verify the test split."},
      {"train", "Training of a built-in architecture; skipped when the model is a file."},
      {"posterior", "How precisely every weight is known."},
      {"sensitivity", "What every width of every layer is expected to cost."},
      {"quantizer", "How weights are rounded."},
      {"allocate", "Which plan: the budget and who spends it."},
      {"verify", "Measurement of the plan on images that nothing before has seen."},
      {"compare", "Which allocators `bitplan compare` sets against each other, and where."},
      {"curve", "What `bitplan curve` measures."},
      {"bayes", "Bayesian networks that `bitplan bayes` trains, quantizes and measures."},
  };
  return sections;
}

}  // namespace bitplan
