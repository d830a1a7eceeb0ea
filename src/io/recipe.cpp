#include "bitplan/io/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <optional>
#include <utility>

#include "bitplan/io/files.h"
#include "io/recipe_options.h"
#include "io/yaml_source.h"

namespace bitplan {
namespace {

constexpr const char* kVersionKey = "bitplan";
constexpr int kRecipeVersion = 1;

std::string Join(const std::string& path, const std::string& key) { return path.empty() ? key : path + "." + key; }

// One value that the recipe gives, and where.
struct Setting {
  YAML::Node value;
  const YamlSource* source;

  [[noreturn]] void Fail(const std::string& what) const { source->Fail(value, what); }
};

void Set(const Setting& setting, const RecipeOption& option, int& field) {
  const std::int64_t value = setting.source->Integer(setting.value, option.path, option.range);
  constexpr int most = std::numeric_limits<int>::max();
  if (value > most) setting.Fail(fmt::format("{} is {}; it must be <= {}", option.path, value, most));
  field = static_cast<int>(value);
}
void Set(const Setting& setting, const RecipeOption& option, std::uint64_t& field) {
  field = setting.source->Seed(setting.value, option.path);
}
void Set(const Setting& setting, const RecipeOption& option, std::optional<std::uint64_t>& field) {
  field = setting.source->Seed(setting.value, option.path);
}
void Set(const Setting& setting, const RecipeOption& option, double& field) {
  field = setting.source->Number(setting.value, option.path, option.range);
}
void Set(const Setting& setting, const RecipeOption& option, std::optional<double>& field) {
  field = setting.source->Number(setting.value, option.path, option.range);
}
void Set(const Setting& setting, const RecipeOption& option, bool& field) {
  field = setting.source->Flag(setting.value, option.path);
}
void Set(const Setting& setting, const RecipeOption& option, std::string& field) {
  field = option.choices.empty() ? setting.source->Text(setting.value, option.path)
                                 : setting.source->Choice(setting.value, option.path, option.choices);
  if (field.empty()) setting.Fail(option.path + " is empty");
}
template <typename T>
void Set(const Setting& setting, const RecipeOption& option, std::vector<T>& field) {
  field.clear();
  RecipeOption item = option;
  if (option.alone && setting.value.IsScalar()) {
    Set(setting, item, field.emplace_back());
    return;
  }
  for (const YAML::Node& entry : setting.source->List(setting.value, option.path)) {
    item.path = fmt::format("{}[{}]", option.path, field.size());
    Set({entry, setting.source}, item, field.emplace_back());
  }
}

void Set(const Setting& setting, const RecipeOption& option, std::vector<Pin>& field) {
  if (!setting.value.IsMap()) setting.Fail(option.path + " must be a map of layers and widths, such as '{conv1: 8}'");
  field.clear();
  for (const auto& entry : setting.value) {
    Pin pin{.pattern = setting.source->Text(entry.first, "a layer in " + option.path), .bits = 0};
    for (const Pin& other : field) {
      if (other.pattern == pin.pattern) setting.Fail(option.path + ": '" + pin.pattern + "' is given twice");
    }
    RecipeOption item = option;
    item.path += "." + pin.pattern;
    Set({entry.second, setting.source}, item, pin.bits);
    field.push_back(std::move(pin));
  }
}

class RecipeReader {
 public:
  explicit RecipeReader(std::string file) : file_(std::move(file), ErrorKind::kUsage, true) {}

  void Read(const std::string& text) { Collect(file_.Parse(text), "", file_); }

  // "key.path=value": replaces the option, or the whole section, of that path.
  void Override(const std::string& text) {
    const YamlSource& source = overrides_.emplace_back("--set " + text, ErrorKind::kUsage, false);
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0) source.Fail("must be key.path=value");
    const std::string path = text.substr(0, equals);
    // The value, wrapped into one map per word of the path, is read like a file of its own.
    YAML::Node node;
    source.ForEachKey(source.Parse("value: " + text.substr(equals + 1)), "", {"value"},
                      [&](const std::string&, const YAML::Node& value) { node.reset(value); });
    Replace(path);
    std::string rest = path;
    while (!rest.empty()) {
      const auto dot = rest.rfind('.');
      YAML::Node outer;
      outer[dot == std::string::npos ? rest : rest.substr(dot + 1)] = node;
      node.reset(outer);
      rest = dot == std::string::npos ? "" : rest.substr(0, dot);
    }
    Collect(node, "", source);
  }

  Recipe Finish(const std::function<void(const Recipe&)>& check_names) {
    CheckRecipeVersion();
    Recipe recipe;
    const bool drop = Find("allocate.budget.drop") != nullptr;
    if (drop || !Limits().empty()) recipe.allocate.budget.limits.clear();  // the default is one limit
    for (const RecipeOption& option : RecipeOptions()) {
      const Setting* setting = Find(option.path);
      if (setting != nullptr) {
        Assign(*setting, option, recipe);
      } else if (option.required) {
        file_.Fail("missing key '" + option.path + "': " + option.help);
      }
    }
    CheckModel();
    if (check_names) check_names(recipe);
    CheckOwnKeys(recipe);
    CheckData(recipe.data);
    CheckName(recipe.name);
    SortBits(recipe.allocate.bits);
    recipe.allocate.bits_are_asked = Find("allocate.bits") != nullptr;
    return recipe;
  }

 private:
  void Collect(const YAML::Node& map, const std::string& path, const YamlSource& source) {
    std::vector<std::string> known = RecipeKeys(path);
    if (path.empty()) known.insert(known.begin(), kVersionKey);
    source.ForEachKey(map, path, known, [&](const std::string& key, const YAML::Node& value) {
      const std::string below = Join(path, key);
      if (below == kVersionKey || FindRecipeOption(below) != nullptr) {
        settings_.insert_or_assign(below, Setting{value, &source});
      } else if (!value.IsNull()) {  // "train:" with nothing below it
        Collect(value, below, source);
      }
    });
  }

  // Where only one of two keys may stand, an override of one replaces the other too.
  void Replace(const std::string& path) {
    std::vector<std::string> replaced = {path};
    if (path.starts_with("allocate.budget.")) replaced = ReplacedLimits(path);
    if (path == "model.architecture" || path == "model.file") replaced = {"model.architecture", "model.file"};
    std::erase_if(settings_, [&](const auto& setting) {
      return std::any_of(replaced.begin(), replaced.end(), [&](const std::string& key) {
        return setting.first == key || setting.first.starts_with(key + ".");
      });
    });
  }

  // Paths of the limits that are set.
  [[nodiscard]] std::vector<std::string> Limits() const {
    std::vector<std::string> paths;
    for (const Resource& resource : Resources()) {
      std::string path = std::string("allocate.budget.") + resource.name;
      if (Find(path) != nullptr) paths.push_back(std::move(path));
    }
    return paths;
  }

  // An override sets one limit and leaves the others. Only where the file has a single limit, on another resource, that
  // one goes: the override says what to limit instead, together with further overrides.
  [[nodiscard]] std::vector<std::string> ReplacedLimits(const std::string& path) const {
    const std::vector<std::string> limits = Limits();
    const bool only = limits.size() == 1 && Find(limits.front())->source == &file_;
    return only ? std::vector<std::string>{path, limits.front()} : std::vector<std::string>{path};
  }

  static void Assign(const Setting& setting, const RecipeOption& option, Recipe& recipe) {
    std::visit(
        [&](const auto& field) {
          if constexpr (std::is_same_v<std::decay_t<decltype(field)>, BudgetField>) {
            recipe.allocate.budget.Set(*field.resource,
                                       setting.source->Number(setting.value, option.path, option.range));
          } else {
            Set(setting, option, field(recipe));
          }
        },
        option.field);
  }

  [[nodiscard]] const Setting* Find(const std::string& path) const {
    const auto found = settings_.find(path);
    return found == settings_.end() ? nullptr : &found->second;
  }

  void CheckRecipeVersion() const {
    const Setting* version = Find(kVersionKey);
    if (version == nullptr) file_.Fail("missing key 'bitplan'; a recipe begins with 'bitplan: 1'");
    if (version->source->Integer(version->value, kVersionKey, {}) != kRecipeVersion) {
      version->Fail("recipe format " + version->value.Scalar() + " is unknown; this program reads 'bitplan: 1'");
    }
  }

  void CheckModel() const {
    const Setting* architecture = Find("model.architecture");
    const Setting* file = Find("model.file");
    if (architecture == nullptr && file == nullptr && Find("bayes.from") == nullptr) {
      file_.Fail("model needs an architecture or a file");
    }
    if (architecture != nullptr && file != nullptr) {
      file->Fail("model has both an architecture and a file; keep one");
    }
    const Setting* const weights = Find("model.weights");
    if (weights != nullptr && architecture == nullptr && file == nullptr) {
      weights->Fail("model.weights need an architecture or a file to lie over");
    }
    const Setting* const model = architecture != nullptr ? architecture : file;
    if (weights != nullptr && weights->source == &file_ && model->source != &file_) {
      model->Fail(
          "the recipe's model.weights are those of the model that is replaced; set model.weights too, or the "
          "whole section: --set 'model={file: my_model.pt}'");
    }
  }

  // Keys of data sets that the recipe does not have would do nothing.
  void CheckOwnKeys(const Recipe& recipe) const {
    struct Own {
      const char* path;
      std::vector<std::string> sources;  // that take it
    };
    const Own own[] = {
        {"data.train", {"folder", "csv"}}, {"data.test", {"folder", "csv"}}, {"data.train_at_most", {"folder"}},
        {"data.resize", {"folder"}},       {"data.crop", {"folder"}},        {"data.channels", {"folder"}},
        {"data.label", {"csv"}},           {"data.columns", {"csv"}},        {"data.train_images", {"npy"}},
        {"data.train_labels", {"npy"}},    {"data.test_images", {"npy"}},    {"data.test_labels", {"npy"}},
        {"data.layout", {"npy"}}};
    std::vector<std::string> named = recipe.bayes.out_of_distribution;
    named.insert(named.end(), {recipe.data.name, recipe.bayes.clean, recipe.bayes.ambiguous});
    for (const Own& key : own) {
      const Setting* const given = Find(key.path);
      const bool taken = std::any_of(named.begin(), named.end(), [&](const std::string& name) {
        return std::find(key.sources.begin(), key.sources.end(), name) != key.sources.end();
      });
      // Every dumped recipe states the layout.
      const bool as_always = key.path == std::string_view("data.layout") && recipe.data.layout == DataOptions{}.layout;
      if (given == nullptr || taken || as_always) continue;
      given->Fail(fmt::format("{}: only data.name {} takes it, and this is {}", key.path,
                              fmt::join(key.sources, " and "), recipe.data.name));
    }
  }

  void CheckData(const DataOptions& data) const {
    if (data.normalize_mean.size() != data.normalize_std.size()) {
      const Setting* given =
          Find("data.normalize.std") != nullptr ? Find("data.normalize.std") : Find("data.normalize.mean");
      given->Fail(
          fmt::format("data.normalize has {} means and {} standard deviations; it must have one of each per "
                      "channel",
                      data.normalize_mean.size(), data.normalize_std.size()));
    }
    const bool has_files = data.name == "folder" || data.name == "csv";
    for (const char* path : {"data.train", "data.test"}) {
      if (has_files && Find(path) == nullptr) {
        Find("data.name")->Fail(fmt::format("data set {} needs the key '{}'", data.name, path));
      }
    }
    const Setting* images = Find("data.calibration_images");
    const Setting* labels = Find("data.calibration_labels");
    if (data.name != "npy") {
      for (const Setting* given : {images, labels}) {
        if (given == nullptr) continue;
        given->Fail(
            "only the data set npy takes calibration files; 'calibration_from: test' takes the images off the "
            "test split");
      }
      return;
    }
    if (images == nullptr && labels != nullptr) {
      labels->Fail("data.calibration_labels are those of data.calibration_images; give both");
    }
    if (images != nullptr && data.calibration_from != "train") {
      Find("data.calibration_from")->Fail("data has both calibration_from and calibration_images; keep one");
    }
    for (const char* path : {"data.train_images", "data.test_images"}) {
      if (Find(path) == nullptr) Find("data.name")->Fail(fmt::format("data set npy needs the key '{}'", path));
    }
  }

  void CheckName(const std::string& name) const {
    const char* allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    if (name.find_first_not_of(allowed) != std::string::npos || name.front() == '.') {
      Find("name")->Fail("name is '" + name + "'; it must be letters, digits and ._- and not begin with a point");
    }
  }

  void SortBits(std::vector<int>& bits) const {
    const auto fail = [this](const std::string& what) { Find("allocate.bits")->Fail("allocate.bits " + what); };
    if (bits.empty()) fail("is empty; it must hold at least one width");
    std::sort(bits.begin(), bits.end());
    const auto twice = std::adjacent_find(bits.begin(), bits.end());
    if (twice != bits.end()) fail(fmt::format("holds {} twice", *twice));
  }

  YamlSource file_;
  std::list<YamlSource> overrides_;  // settings point to them
  std::map<std::string, Setting> settings_;
};

}  // namespace

Recipe LoadRecipe(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                  const std::function<void(const Recipe&)>& check_names) {
  RecipeReader reader(file.string());
  reader.Read(ReadFile(file, "recipe"));
  for (const std::string& override : overrides) reader.Override(override);
  return reader.Finish(check_names);
}

}  // namespace bitplan
