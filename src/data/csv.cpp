// Tables as CSV (RFC 4180): a line of column names, then a line for every row. Fields may stand in double quotes, with
// "" for one of them; comma, semicolon and tab separate, whichever the first line has most of. Lines end with a line
// feed, with or without a carriage return before it, or all of them with a carriage return alone.
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
#include "bitplan/core/one_line.h"
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
  if (text.find('\n') == std::string::npos) std::replace(text.begin(), text.end(), '\r', '\n');
  return text;
}

char SeparatorOf(const std::string& text) {
  const std::string first = text.substr(0, text.find_first_of("\r\n"));
  const auto count = [&](char c) { return std::count(first.begin(), first.end(), c); };
  return std::max({',', ';', '\t'}, [&](char a, char b) { return count(a) < count(b); });
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

// Whether these are numbers where names should be, but for one at most. Whole numbers in a row, "0,1,2" as pandas names
// columns that have no names, or years, are names.
bool AreNoNames(const std::vector<std::string>& fields) {
  std::vector<double> numbers;
  for (const std::string& field : fields) {
    if (const auto number = ParsedNumber(field)) numbers.push_back(*number);
  }
  if (numbers.empty() || numbers.size() + 1 < fields.size()) return false;
  bool counting = numbers.front() == std::floor(numbers.front()) && (numbers.size() > 1 || numbers.front() == 0.0);
  for (std::size_t i = 1; i < numbers.size(); ++i) counting = counting && numbers[i] == numbers[i - 1] + 1.0;
  return !counting;
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
  if (AreNoNames(table.columns)) {
    ThrowBadFile(file,
                 fmt::format("the first line holds numbers, '{}', where the names of the columns should be; put a "
                             "line of names above it",
                             fmt::join(table.columns, separator == '\t' ? " " : std::string(1, separator))));
  }
  if (table.rows.empty()) ThrowBadFile(file, "has column names but no rows");
  std::set<std::string> names;
  for (const std::string& name : table.columns) {
    if (!names.insert(name).second) ThrowBadFile(file, fmt::format("has the column '{}' twice", name));
  }
  return table;
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
  bool train_labelled = true, test_labelled = true;
};

constexpr const char* kNoLabel = "none";  // a word of data.label, unless a column has that name

bool HasColumn(const CsvTable& table, const std::string& name) {
  return std::find(table.columns.begin(), table.columns.end(), name) != table.columns.end();
}

Chosen ChooseColumns(const CsvTable& train, const CsvTable& test, const DataOptions& options) {
  Chosen chosen{options.columns, options.label.empty() ? train.columns.back() : options.label};
  if (!options.label.empty()) {
    chosen.train_labelled = HasColumn(train, chosen.label);
    chosen.test_labelled = HasColumn(test, chosen.label);
    const bool somewhere = chosen.train_labelled || chosen.test_labelled;
    if (!somewhere && chosen.label != kNoLabel) (void)train.Column(chosen.label, "data.label");
  }
  if (chosen.inputs.empty()) {
    for (const std::string& name : train.columns) {
      if (name != chosen.label) chosen.inputs.push_back(name);
    }
  }
  if (chosen.inputs.empty()) ThrowBadFile(train.file, "has a label but no other column to learn from");
  std::set<std::string> names;
  for (const std::string& name : chosen.inputs) {
    if (name == chosen.label) {
      throw Error(ErrorKind::kUsage, fmt::format("data.columns: '{}' is the label; leave it out", name));
    }
    if (!names.insert(name).second) {
      throw Error(ErrorKind::kUsage, fmt::format("data.columns: '{}' is there twice; name it once", name));
    }
  }
  if (!options.task.empty() && !(chosen.train_labelled && chosen.test_labelled)) {
    throw Error(ErrorKind::kUsage,
                fmt::format("data.label: {} has no labels; only classes may be missing, and data.task is {}",
                            (chosen.train_labelled ? test : train).file.string(), options.task));
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

// Class numbers where the labels are numbers, else names in alphabetical order, those of the first table.
class ClassNumbers {
 public:
  // `tables`: those that have labels.
  ClassNumbers(const std::vector<const CsvTable*>& tables, const std::string& label) {
    std::int64_t numbers = 0, rows = 0;
    std::string odd;  // the first label that is no number
    for (const CsvTable* table : tables) {
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
      throw Error(ErrorKind::kData,
                  OneLine(odd) + " is no number, and most labels are; take the row out, or name all classes");
    }
    if (numbers == rows) {
      for (const CsvTable* table : tables) CheckWhole(*table, label);
      return;
    }
    first_ = tables.front()->file;
    std::set<std::string> names;
    const std::size_t column = tables.front()->Column(label, "data.label");
    for (const auto& row : tables.front()->rows) names.insert(Trimmed(row[column]));
    for (const std::string& name : names) named_.emplace(name, static_cast<int>(named_.size()));
  }

  [[nodiscard]] int count() const { return named_.empty() ? largest_ + 1 : static_cast<int>(named_.size()); }

  // By number; empty: they are numbers.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, number] : named_) names.push_back(name);
    return names;
  }

  [[nodiscard]] std::int64_t Of(const CsvTable& table, std::size_t row, std::size_t column) const {
    const std::string& text = table.rows[row][column];
    if (named_.empty()) return static_cast<std::int64_t>(*ParsedNumber(text));
    const auto found = named_.find(Trimmed(text));
    if (found != named_.end()) return found->second;
    ThrowBadFile(table.file,
                 fmt::format("line {}, column '{}': the class '{}' is not in {}, whose classes are {}; take "
                             "the row out, or add training rows of that class",
                             table.lines[row], table.columns[column], text, first_.string(), Some(names())));
  }

 private:
  static constexpr int kMost = 1 << 20;

  static std::string Some(const std::vector<std::string>& names) {
    constexpr std::size_t kNamed = 10;
    const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(kNamed, names.size()));
    return fmt::format("{}{}", fmt::join(names.begin(), end, ", "), names.size() > kNamed ? ", ..." : "");
  }

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

  std::filesystem::path first_;
  int largest_ = -1;
  std::map<std::string, int> named_;  // empty: numbers
};

std::vector<const CsvTable*> Labelled(const CsvTable& train, const CsvTable& test, const Chosen& chosen) {
  std::vector<const CsvTable*> tables;
  if (chosen.train_labelled) tables.push_back(&train);
  if (chosen.test_labelled) tables.push_back(&test);
  return tables;
}

Dataset RowsOf(const char* name, const CsvTable& table, const Chosen& chosen, std::vector<std::string> classes) {
  Dataset data{name, Inputs(table, chosen.inputs), {}, 0};
  RowNames rows{.row = "row", .classes = std::move(classes)};
  rows.place = [lines = table.lines, file = table.file.string()](std::int64_t row) {
    return fmt::format("line {} of {}", lines[static_cast<std::size_t>(row)], file);
  };
  data.names = std::make_shared<const RowNames>(std::move(rows));
  return data;
}

}  // namespace

DataFiles CsvFiles(const DataOptions& options, const Folders& folders) {
  return {{RequireOwnFile("train", options.train, folders)}, {RequireOwnFile("test", options.test, folders)}, "", ""};
}

std::vector<std::string> CsvClassNames(const DataOptions& options, const Folders& folders) {
  if (!options.task.empty()) return {};
  const DataFiles files = CsvFiles(options, folders);
  const CsvTable train = ReadTable(files.train.front()), test = ReadTable(files.test.front());
  const Chosen chosen = ChooseColumns(train, test, options);
  return ClassNumbers(Labelled(train, test, chosen), chosen.label).names();
}

DataSplits LoadCsv(const DataOptions& options, const Folders& folders, std::uint64_t) {
  const DataFiles files = CsvFiles(options, folders);
  const CsvTable train = ReadTable(files.train.front()), test = ReadTable(files.test.front());
  const Chosen chosen = ChooseColumns(train, test, options);
  DataSplits splits;
  if (options.task.empty()) {
    const ClassNumbers numbers(Labelled(train, test, chosen), chosen.label);
    const auto read = [&](const char* name, const CsvTable& table, bool labelled) {
      Dataset data = RowsOf(name, table, chosen, numbers.names());
      data.classes = numbers.count();
      if (!labelled) {
        SetUnlabelled(data);
        return data;
      }
      std::vector<std::int64_t> labels;
      const std::size_t column = table.Column(chosen.label, "data.label");
      for (std::size_t i = 0; i < table.rows.size(); ++i) labels.push_back(numbers.Of(table, i, column));
      data.labels = torch::tensor(labels, torch::kInt64);
      return data;
    };
    splits.train = read("csv/train", train, chosen.train_labelled);
    splits.test = read("csv/test", test, chosen.test_labelled);
    return splits;
  }
  const std::shared_ptr<Likelihood> likelihood = FindLikelihood(options.task).make();
  const auto read = [&](const char* name, const CsvTable& table) {
    Dataset data = RowsOf(name, table, chosen, {});
    data.labels = Inputs(table, {chosen.label});
    data.likelihood = likelihood;
    if (const std::string wrong = likelihood->AdoptLabels(data.labels); !wrong.empty()) {
      ThrowBadFile(table.file, fmt::format("column '{}': {}", chosen.label, wrong));
    }
    return data;
  };
  splits.train = read("csv/train", train);
  splits.test = read("csv/test", test);
  return splits;
}

}  // namespace bitplan
