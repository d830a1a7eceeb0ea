// Tables as CSV (RFC 4180): a line of column names, then a line for every row. Fields may stand in double quotes, with
// "" for one of them; comma, semicolon and tab separate, whichever the first line has most of.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "data/sources.h"

namespace bitplan {
namespace {

struct CsvTable {
  std::filesystem::path file;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::int64_t> lines;  // where each row begins

  [[nodiscard]] std::size_t Column(const std::string& name, const char* key) const {
    const auto found = std::find(columns.begin(), columns.end(), name);
    if (found != columns.end()) return static_cast<std::size_t>(found - columns.begin());
    ThrowBadFile(file,
                 fmt::format("has no column '{}' of {}; its columns are {}", name, key, fmt::join(columns, ", ")));
  }
};

std::string ReadText(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw Error(ErrorKind::kNotFound, file.string() + ": cannot be opened; check its permissions");
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  return text;
}

char SeparatorOf(const std::string& text) {
  const std::string first = text.substr(0, text.find_first_of("\r\n"));
  const auto count = [&](char c) { return std::count(first.begin(), first.end(), c); };
  return std::max({',', ';', '\t'}, [&](char a, char b) { return count(a) < count(b); });
}

CsvTable ReadTable(const std::filesystem::path& file) {
  const std::string text = ReadText(file);
  const char separator = SeparatorOf(text);
  CsvTable table{file, {}, {}, {}};
  std::vector<std::string> fields(1);
  std::int64_t line = 1, begun = 1;
  bool quoted = false, was_quoted = false;
  const auto end_row = [&] {
    if (fields.size() > 1 || !fields[0].empty() || was_quoted) {  // else an empty line
      if (table.columns.empty()) {
        table.columns = fields;
      } else if (fields.size() != table.columns.size()) {
        ThrowBadFile(file, fmt::format("line {} has {}, the first line {}", begun, Counted(fields.size(), "field"),
                                       table.columns.size()));
      } else {
        table.rows.push_back(std::move(fields));
        table.lines.push_back(begun);
      }
    }
    fields.assign(1, "");
    was_quoted = false;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\0') ThrowBadFile(file, fmt::format("line {} holds a zero byte; it is no CSV file", line));
    if (c == '\n') ++line;
    if (quoted) {
      if (c != '"') {
        fields.back() += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        fields.back() += text[++i];
      } else {
        quoted = false;
      }
    } else if (c == '"' && fields.back().empty()) {
      quoted = was_quoted = true;
    } else if (c == separator) {
      fields.emplace_back();
    } else if (c == '\n') {
      end_row();
      begun = line;
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  if (quoted) ThrowBadFile(file, fmt::format("the quotation mark of line {} is not closed", begun));
  end_row();
  if (table.columns.empty()) ThrowBadFile(file, "is empty; a line of column names is wanted");
  if (table.rows.empty()) ThrowBadFile(file, "has column names but no rows");
  std::set<std::string> names;
  for (const std::string& name : table.columns) {
    if (!names.insert(name).second) ThrowBadFile(file, fmt::format("has the column '{}' twice", name));
  }
  return table;
}

// Without the blanks around it.
std::string Trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

std::optional<double> ParsedNumber(const std::string& field) {
  std::string text = Trimmed(field);
  if (text.starts_with('+')) text.erase(0, 1);
  double value = 0.0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return std::isfinite(static_cast<float>(value)) ? std::optional(value) : std::nullopt;
}

double NumberIn(const CsvTable& table, std::size_t row, std::size_t column) {
  const auto value = ParsedNumber(table.rows[row][column]);
  if (!value) {
    ThrowBadFile(table.file, fmt::format("line {}, column '{}': '{}' is no number; name the columns that are inputs in "
                                         "data.columns, or write numbers",
                                         table.lines[row], table.columns[column], table.rows[row][column]));
  }
  return *value;
}

struct Chosen {
  std::vector<std::string> inputs;
  std::string label;
};

Chosen ChooseColumns(const CsvTable& train, const DataOptions& options) {
  Chosen chosen{options.columns, options.label.empty() ? train.columns.back() : options.label};
  (void)train.Column(chosen.label, "data.label");
  if (chosen.inputs.empty()) {
    for (const std::string& name : train.columns) {
      if (name != chosen.label) chosen.inputs.push_back(name);
    }
  }
  if (chosen.inputs.empty()) ThrowBadFile(train.file, "has a label but no other column to learn from");
  for (const std::string& name : chosen.inputs) {
    if (name == chosen.label) {
      throw Error(ErrorKind::kUsage, fmt::format("data.columns: '{}' is the label; leave it out", name));
    }
  }
  return chosen;
}

torch::Tensor Inputs(const CsvTable& table, const std::vector<std::string>& names) {
  const auto count = static_cast<std::int64_t>(table.rows.size());
  torch::Tensor inputs = torch::empty({count, static_cast<std::int64_t>(names.size())});
  auto values = inputs.accessor<float, 2>();
  for (std::size_t j = 0; j < names.size(); ++j) {
    const std::size_t column = table.Column(names[j], "data.columns");
    for (std::size_t i = 0; i < table.rows.size(); ++i) {
      values[static_cast<std::int64_t>(i)][static_cast<std::int64_t>(j)] =
          static_cast<float>(NumberIn(table, i, column));
    }
  }
  return inputs;
}

// Class numbers where the labels are numbers, else names in alphabetical order, those of the training table.
class ClassNumbers {
 public:
  ClassNumbers(const CsvTable& train, const CsvTable& test, const std::string& label) : train_(train.file) {
    std::int64_t numbers = 0, rows = 0;
    std::string odd;  // the first label that is no number
    for (const CsvTable* table : {&train, &test}) {
      const std::size_t column = table->Column(label, "data.label");
      for (std::size_t i = 0; i < table->rows.size(); ++i) {
        if (Trimmed(table->rows[i][column]).empty()) {
          ThrowBadFile(table->file, fmt::format("line {}, column '{}': the label is empty", table->lines[i], label));
        }
        ++rows;
        if (ParsedNumber(table->rows[i][column])) {
          ++numbers;
        } else if (odd.empty()) {
          odd = fmt::format("{}: line {}, column '{}': '{}'", table->file.string(), table->lines[i], label,
                            table->rows[i][column]);
        }
      }
    }
    if (!odd.empty() && 2 * numbers > rows) {
      throw Error(ErrorKind::kData, odd + " is no number, and most labels are; take the row out, or name all classes");
    }
    if (numbers == rows) {
      for (const CsvTable* table : {&train, &test}) CheckWhole(*table, label);
      return;
    }
    std::set<std::string> names;
    const std::size_t column = train.Column(label, "data.label");
    for (const auto& row : train.rows) names.insert(Trimmed(row[column]));
    for (const std::string& name : names) named_.emplace(name, static_cast<int>(named_.size()));
  }

  [[nodiscard]] int count() const { return named_.empty() ? largest_ + 1 : static_cast<int>(named_.size()); }

  [[nodiscard]] std::int64_t Of(const CsvTable& table, std::size_t row, std::size_t column) const {
    const std::string& text = table.rows[row][column];
    if (named_.empty()) return static_cast<std::int64_t>(*ParsedNumber(text));
    const auto found = named_.find(Trimmed(text));
    if (found != named_.end()) return found->second;
    ThrowBadFile(table.file, fmt::format("line {}, column '{}': the class '{}' is not in {}", table.lines[row],
                                         table.columns[column], text, train_.string()));
  }

 private:
  static constexpr int kMost = 1 << 20;

  void CheckWhole(const CsvTable& table, const std::string& label) {
    const std::size_t column = table.Column(label, "data.label");
    for (std::size_t i = 0; i < table.rows.size(); ++i) {
      const double number = *ParsedNumber(table.rows[i][column]);
      if (number >= 0.0 && number < kMost && number == std::floor(number)) {
        largest_ = std::max(largest_, static_cast<int>(number));
        continue;
      }
      ThrowBadFile(
          table.file,
          fmt::format("line {}, column '{}': the label {} is no class number from 0; write those, or names, or "
                      "set data.task: regression",
                      table.lines[i], label, table.rows[i][column]));
    }
  }

  std::filesystem::path train_;
  int largest_ = 0;
  std::map<std::string, int> named_;  // empty: numbers
};

std::filesystem::path RequireTable(const char* key, const std::string& name, const Folders& folders) {
  if (auto found = FindFile({name}, folders)) return *found;
  throw Error(ErrorKind::kNotFound, fmt::format("data.{}: no file {} in {}", key, name, JoinedFolders(folders)));
}

}  // namespace

DataFiles CsvFiles(const DataOptions& options, const Folders& folders) {
  return {{RequireTable("train", options.train, folders)}, {RequireTable("test", options.test, folders)}, "", ""};
}

DataSplits LoadCsv(const DataOptions& options, const Folders& folders, std::uint64_t) {
  const DataFiles files = CsvFiles(options, folders);
  const CsvTable train = ReadTable(files.train.front()), test = ReadTable(files.test.front());
  const Chosen chosen = ChooseColumns(train, options);
  DataSplits splits;
  splits.train = {"csv/train", Inputs(train, chosen.inputs), {}, 0};
  splits.test = {"csv/test", Inputs(test, chosen.inputs), {}, 0};
  if (options.task.empty()) {
    const ClassNumbers numbers(train, test, chosen.label);
    const auto label = [&](Dataset& data, const CsvTable& table) {
      std::vector<std::int64_t> labels;
      const std::size_t column = table.Column(chosen.label, "data.label");
      for (std::size_t i = 0; i < table.rows.size(); ++i) labels.push_back(numbers.Of(table, i, column));
      data.labels = torch::tensor(labels, torch::kInt64);
      data.classes = numbers.count();
    };
    label(splits.train, train);
    label(splits.test, test);
    return splits;
  }
  const std::shared_ptr<Likelihood> likelihood = FindLikelihood(options.task).make();
  const auto label = [&](Dataset& data, const CsvTable& table) {
    data.labels = Inputs(table, {chosen.label});
    data.likelihood = likelihood;
    if (const std::string wrong = likelihood->AdoptLabels(data.labels); !wrong.empty()) {
      ThrowBadFile(table.file, fmt::format("column '{}': {}", chosen.label, wrong));
    }
  };
  label(splits.train, train);
  label(splits.test, test);
  return splits;
}

}  // namespace bitplan
