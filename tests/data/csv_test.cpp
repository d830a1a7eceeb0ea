#include <sys/stat.h>

#include "bitplan/core/random.h"
#include "bitplan/data/dataset.h"
#include "data/data_files.h"
#include "support/catch_torch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

DataOptions TableOptions() { return OwnData("csv", ".csv"); }

DataSplits Read(const std::string& train, const std::string& test, const DataOptions& options = TableOptions()) {
  const TemporaryFolder folder;
  folder.Write("train.csv", train);
  folder.Write("test.csv", test);
  return FindDatasetSource("csv").load(options, {folder.path()}, 1);
}

std::string WhyNot(const std::string& train, const std::string& test, const DataOptions& options = TableOptions()) {
  return LineOf([&] { (void)Read(train, test, options); });
}

TEST_CASE("csv: the last column is the label, the others are inputs") {
  const DataSplits splits = Read("a,b,kind\n1,2.5,0\n-3e1,+4,2\n", "a,b,kind\n5,6,1\n");
  CHECK(splits.train.images.equal(torch::tensor({{1.0F, 2.5F}, {-30.0F, 4.0F}})));
  CHECK(splits.train.labels.equal(torch::tensor(std::vector<std::int64_t>{0, 2})));
  CHECK(splits.test.labels.equal(torch::tensor(std::vector<std::int64_t>{1})));
  CHECK(splits.train.classes == 3);
  CHECK(splits.test.classes == 3);
}

TEST_CASE("csv: names of classes are numbered in alphabetical order, by the training table") {
  const DataSplits splits = Read("x,kind\n1,owl\n2,cat\n3,owl\n", "x,kind\n4,cat\n");
  CHECK(splits.train.labels.equal(torch::tensor(std::vector<std::int64_t>{1, 0, 1})));
  CHECK(splits.test.labels.equal(torch::tensor(std::vector<std::int64_t>{0})));
  CHECK_THAT(WhyNot("x,kind\n1,owl\n", "x,kind\n4,bat\n"),
             ContainsSubstring("test.csv: line 2, column 'kind': the class 'bat' is not in "));
  // Numbers are class numbers, with blanks and as pandas writes those of a column with gaps.
  CHECK(Read("x,kind\n1, 0\n2,10.0\n", "x,kind\n4,7\n")
            .train.labels.equal(torch::tensor(std::vector<std::int64_t>{0, 10})));
  CHECK_THAT(WhyNot("x,kind\n1,-1\n2,7\n", "x,kind\n4,7\n"),
             ContainsSubstring("line 2, column 'kind': the label -1 is no class number from 0"));
  CHECK_THAT(WhyNot("x,kind\n1,0.5\n2,7\n", "x,kind\n4,7\n"), ContainsSubstring("the label 0.5 is no class number"));
  CHECK_THAT(WhyNot("x,kind\n1,0\n2,1\n3,NA\n", "x,kind\n4,1\n"),
             ContainsSubstring("train.csv: line 4, column 'kind': 'NA' is no number, and most labels are"));
  CHECK_THAT(WhyNot("x,kind\n1,owl\n2,\n", "x,kind\n4,owl\n"),
             ContainsSubstring("line 3, column 'kind': the label is empty"));
}

TEST_CASE("csv: quotes, other separators, a byte order mark and line ends of Windows") {
  for (const std::string& table :
       {std::string("a;b;\"the; kind\"\r\n1;2;\"an \"\"owl\"\"\"\r\n3;4;cat\r\n"),
        std::string("\xEF\xBB\xBF") + "a\tb\t\"the; kind\"\n\n1\t2\t\"an \"\"owl\"\"\"\n3\t4\tcat"}) {
    DataOptions options = TableOptions();
    options.label = "the; kind";
    const DataSplits splits = Read(table, table, options);
    CHECK(splits.train.images.equal(torch::tensor({{1.0F, 2.0F}, {3.0F, 4.0F}})));
    CHECK(splits.train.labels.equal(torch::tensor(std::vector<std::int64_t>{0, 1})));
  }
}

TEST_CASE("csv: columns by name, in the order of the recipe, wherever they stand in the test table") {
  DataOptions options = TableOptions();
  options.columns = {"b", "a"};
  options.label = "kind";
  const DataSplits splits = Read("name,a,kind,b\nx,1,0,2\n", "b,a,kind\n3,4,0\n", options);
  CHECK(splits.train.images.equal(torch::tensor({{2.0F, 1.0F}})));
  CHECK(splits.test.images.equal(torch::tensor({{3.0F, 4.0F}})));
  options.columns = {"a", "kind"};
  CHECK_THAT(WhyNot("a,kind\n1,0\n", "a,kind\n1,0\n", options), ContainsSubstring("'kind' is the label"));
  options.columns = {"size"};
  CHECK_THAT(WhyNot("a,kind\n1,0\n", "a,kind\n1,0\n", options),
             ContainsSubstring("has no column 'size' of data.columns; its columns are a, kind"));
}

TEST_CASE("csv: labels of a regression are numbers") {
  DataOptions options = TableOptions();
  options.task = "regression";
  const DataSplits splits = Read("a,y\n1,0.5\n2,-1.5\n", "a,y\n3,2\n", options);
  CHECK(splits.train.labels.is_floating_point());
  CHECK(splits.train.labels.flatten().equal(torch::tensor({0.5F, -1.5F})));
  CHECK(splits.train.likelihood != nullptr);
}

TEST_CASE("csv: what is wrong is said with file and line") {
  const std::string good = "a,kind\n1,0\n";
  CHECK_THAT(WhyNot("a,kind\n1,0\nx,1\n", good),
             ContainsSubstring("train.csv: line 3, column 'a': 'x' is no number; name the columns"));
  CHECK_THAT(WhyNot("a,kind\n,0\n", good), ContainsSubstring("line 2, column 'a': '' is no number"));
  CHECK_THAT(WhyNot("a,kind\nnan,0\n", good), ContainsSubstring("'nan' is no number"));
  CHECK_THAT(WhyNot("a,kind\n1e39,0\n", good), ContainsSubstring("'1e39' is no number"));
  CHECK_THAT(WhyNot("a,kind\n1,0,5\n", good), ContainsSubstring("line 2 has 3 fields, the first line 2"));
  CHECK_THAT(WhyNot("a,kind\n\"1,0\n", good), ContainsSubstring("the quotation mark of line 2 is not closed"));
  CHECK_THAT(WhyNot("", good), ContainsSubstring("is empty"));
  CHECK_THAT(WhyNot("a,kind\n", good), ContainsSubstring("has column names but no rows"));
  CHECK_THAT(WhyNot("a,a\n1,0\n", good), ContainsSubstring("has the column 'a' twice"));
  CHECK_THAT(WhyNot("kind\n1\n", good), ContainsSubstring("has a label but no other column"));
  CHECK_THAT(WhyNot(good, "b,kind\n1,0\n"), ContainsSubstring("test.csv: has no column 'a' of data.columns"));
  CHECK_THAT(WhyNot(good + std::string("\0", 1), good), ContainsSubstring("line 3 holds a zero byte"));
}

TEST_CASE("csv: lines may end as an old Mac ended them") {
  const DataSplits splits = Read("a,kind\r1,0\r2,1", "a,kind\r3,1\r");
  CHECK(splits.train.images.equal(torch::tensor({{1.0F}, {2.0F}})));
  CHECK(splits.test.labels.equal(torch::tensor(std::vector<std::int64_t>{1})));
}

TEST_CASE("csv: a table that begins with a row and not with names is told so") {
  const std::string good = "a,b,kind\n1,2,0\n";
  CHECK_THAT(WhyNot("5.1,3.5,0\n4.9,3.0,1\n", good),
             ContainsSubstring("train.csv: the first line holds numbers, '5.1,3.5,0', where the names of the columns "
                               "should be; put a line of names above it"));
  CHECK_THAT(WhyNot("1,1,0\n1,2,1\n", good), ContainsSubstring("put a line of names above it"));
  CHECK_THAT(WhyNot("5.1;3.5;owl\n", good), ContainsSubstring("'5.1;3.5;owl'"));
  // Names that pandas gave, and years.
  CHECK(Read("0,1,2\n5,6,1\n", "0,1,2\n7,8,0\n").train.images.equal(torch::tensor({{5.0F, 6.0F}})));
  CHECK(Read("2019,2020,kind\n5,6,1\n", "2019,2020,kind\n7,8,0\n").train.size() == 1);
}

TEST_CASE("csv: a column is an input once") {
  DataOptions options = TableOptions();
  options.columns = {"a", "b", "a"};
  CHECK(WhyNot("a,b,kind\n1,2,0\n", "a,b,kind\n1,2,0\n", options) == "data.columns: 'a' is there twice; name it once");
}

TEST_CASE("csv: a folder, a pipe and a link to nowhere are no tables, and are not waited for") {
  const TemporaryFolder folder;
  folder.Write("test.csv", "a,kind\n1,0\n");
  const auto why = [&] { return LineOf([&] { (void)LoadData(TableOptions(), {folder.path()}, 1); }); };
  CHECK_THAT(why(), ContainsSubstring("data.train: no file train.csv in "));
  std::filesystem::create_directory(folder.path() / "train.csv");
  CHECK_THAT(why(), ContainsSubstring("train.csv: is a folder, not a file"));
  std::filesystem::remove(folder.path() / "train.csv");
  REQUIRE(mkfifo((folder.path() / "train.csv").c_str(), 0600) == 0);
  CHECK_THAT(why(), ContainsSubstring("train.csv: is a named pipe, not a file"));
  std::filesystem::remove(folder.path() / "train.csv");
  std::filesystem::create_symlink("gone.csv", folder.path() / "train.csv");
  CHECK_THAT(why(), ContainsSubstring("train.csv: is a link to nowhere, gone.csv"));
}

TEST_CASE("csv: a table may lack its labels, by the word none or where its column is missing") {
  DataOptions options = TableOptions();
  options.label = "none";
  const DataSplits bare = Read("a,b\n1,2\n3,4\n", "b,a\n5,6\n", options);
  CHECK(bare.train.unlabelled);
  CHECK(bare.test.unlabelled);
  CHECK(bare.test.name == "csv/test labelled by the float network");
  CHECK(bare.test.images.equal(torch::tensor({{6.0F, 5.0F}})));
  options.label = "kind";
  const DataSplits half = Read("a,b\n1,2\n3,4\n", "kind,b,a\nowl,5,6\ncat,5,6\n", options);
  CHECK(half.train.unlabelled);
  CHECK_FALSE(half.test.unlabelled);
  CHECK(half.test.labels.equal(torch::tensor(std::vector<std::int64_t>{1, 0})));
  CHECK(half.train.names->classes == std::vector<std::string>{"cat", "owl"});
  CHECK(Read("a,kind\n1,0\n", "a\n5\n", options).test.unlabelled);
  CHECK_THAT(WhyNot("a,b\n1,2\n", "a,b\n1,2\n", options), ContainsSubstring("has no column 'kind' of data.label"));
  options.label = "none";
  CHECK(Read("a,none\n1,3\n", "a,none\n1,2\n", options).train.labels.item<int>() == 3);  // a column of that name
  options.task = "regression";
  CHECK_THAT(WhyNot("a,b\n1,2\n", "a,b\n1,2\n", options),
             ContainsSubstring("has no labels; only classes may be missing, and data.task is regression"));
}

TEST_CASE("csv: classes have names, and what is wrong with a row is said with its line") {
  const TemporaryFolder folder;
  folder.Write("train.csv", "a,kind\n1,owl\n2,cat\n");
  folder.Write("test.csv", "a,kind\n\n1,owl\n");
  const DatasetSource& source = FindDatasetSource("csv");
  CHECK(source.class_names(TableOptions(), {folder.path()}) == std::vector<std::string>{"cat", "owl"});
  const Dataset test = source.load(TableOptions(), {folder.path()}, 1).test;
  const std::string file = (folder.path() / "test.csv").string();
  CHECK(test.ImageName(0) == "line 3 of " + file);
  CHECK(test.RowWord() == "row");
  CHECK(LineOf([&] { CheckLabelsWithin(test, 1, "model m"); }) ==
        "line 3 of " + file +
            " is of class 1, 'owl', but model m has 1 output, for the classes 0..0 of 2; take a model with an output "
            "for every class, or leave out the classes that it does not know");
  folder.Write("train.csv", "a,kind\n1,1\n2,2\n");
  folder.Write("test.csv", "a,kind\n1,2\n");
  CHECK(source.class_names(TableOptions(), {folder.path()}).empty());
  CHECK_THAT(LineOf([&] { CheckLabelsWithin(source.load(TableOptions(), {folder.path()}, 1).train, 2, "model m"); }),
             ContainsSubstring("train.csv has the label 2, but model m has 2 outputs: labels are class numbers 0..1; "
                               "count the classes from 0, leave such rows out"));
}

TEST_CASE("csv: no bytes crash the reader") {
  RandomStream stream(1, "test/csv");
  const std::string some = "a,b;\"\t\r\n1.-e\xC3";
  for (int trial = 0; trial < 500; ++trial) {
    std::string table;
    for (int i = 0; i < 60; ++i) table += some[stream.Next() % some.size()];
    try {
      (void)Read(table, table);
    } catch (const Error& error) {
      CHECK(error.kind() != ErrorKind::kInternal);
    }
  }
}

}  // namespace
