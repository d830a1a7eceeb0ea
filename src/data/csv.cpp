// Tables as CSV (RFC 4180): a line of column names, then a line for every row. Fields may stand in double quotes, with
// "" for one of them; comma, semicolon and tab separate, whichever the first line has most of.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
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

double NumberIn(const CsvTable& table, std::size_t row, std::size_t column) {
  std::string_view text = table.rows[row][column];
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0.0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) {
    ThrowBadFile(table.file, fmt::format("line {}, column '{}': '{}' is no number; name the columns that are inputs in "
                                         "data.columns, or write numbers",
                                         table.lines[row], table.columns[column], table.rows[row][column]));
  }
  return value;
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

// Class numbers where every label of both files is a whole number from 0, else the names in alphabetical order.
class ClassNumbers {
 public:
  ClassNumbers(const CsvTable& train, const CsvTable& test, const std::string& label) : train_(train.file) {
    bool all = true;
    for (const CsvTable* table : {&train, &test}) {
      const std::size_t column = table->Column(label, "data.label");
      for (const auto& row : table->rows) {
        int number = 0;
        const std::string& text = row[column];
        const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
        const bool whole = failure == std::errc{} && end == text.data() + text.size() && number >= 0 && number < kMost;
        all = all && whole;
        if (whole) largest_ = std::max(largest_, number);
      }
    }
    numbered_ = all;
    if (numbered_) return;
    std::set<std::string> names;
    const std::size_t column = train.Column(label, "data.label");
    for (const auto& row : train.rows) names.insert(row[column]);
    for (const std::string& name : names) numbers_.emplace(name, static_cast<int>(numbers_.size()));
  }

  [[nodiscard]] int count() const { return numbered_ ? largest_ + 1 : static_cast<int>(numbers_.size()); }

  [[nodiscard]] std::int64_t Of(const CsvTable& table, std::size_t row, std::size_t column) const {
    const std::string& text = table.rows[row][column];
    if (numbered_) return std::stoll(text);
    const auto found = numbers_.find(text);
    if (found != numbers_.end()) return found->second;
    ThrowBadFile(table.file, fmt::format("line {}, column '{}': the class '{}' is not in {}", table.lines[row],
                                         table.columns[column], text, train_.string()));
  }

 private:
  static constexpr int kMost = 1 << 20;
  std::filesystem::path train_;
  bool numbered_ = false;
  int largest_ = 0;
  std::map<std::string, int> numbers_;
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
