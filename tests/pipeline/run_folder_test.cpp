#include "bitplan/pipeline/run_folder.h"

#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "bitplan/core/error.h"
#include "support/catch_torch.h"

using bitplan::Error;
using bitplan::pipeline::RunFolder;

namespace {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "bitplan-folder-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

void WriteText(const std::filesystem::path& file, const std::string& text) { std::ofstream(file) << text; }

void CompleteOne(const std::filesystem::path& path) {
  RunFolder folder(path);
  WriteText(folder.File("model.pt"), "weights");
  folder.Complete("model", {"input", "content", R"({"epochs":3})", 1.5}, {"model.pt"});
}

}  // namespace

TEST_CASE("a completed stage is found again with its facts") {
  const TemporaryFolder temporary;
  CompleteOne(temporary.path);
  const RunFolder folder(temporary.path);
  const auto record = folder.Find("model", "input");
  REQUIRE(record);
  CHECK(record->content == "content");
  CHECK(record->facts == R"({"epochs":3})");
  CHECK(record->seconds == 1.5);
}

TEST_CASE("a stage with another input, another name or an altered file is not found") {
  const TemporaryFolder temporary;
  CompleteOne(temporary.path);
  const RunFolder folder(temporary.path);
  CHECK_FALSE(folder.Find("model", "another input"));
  CHECK_FALSE(folder.Find("posterior", "input"));
  WriteText(folder.File("model.pt"), "weightz");
  CHECK_FALSE(folder.Find("model", "input"));
  std::filesystem::remove(folder.File("model.pt"));
  CHECK_FALSE(folder.Find("model", "input"));
}

TEST_CASE("a manifest that cannot be read is refused, and without one every stage runs again") {
  for (const std::string text :
       {"", "{", "[]", R"({"bitplan": 99, "stages": {}})", R"({"bitplan": 1, "stages": {"model": 3}})"}) {
    INFO(text);
    const TemporaryFolder temporary;
    CompleteOne(temporary.path);
    WriteText(temporary.path / "manifest.json", text);
    CHECK_THROWS_WITH(RunFolder(temporary.path),
                      ContainsSubstring((temporary.path / "manifest.json").string()) &&
                          ContainsSubstring(text.find("99") == std::string::npos ? "damaged" : "version") &&
                          ContainsSubstring("remove it"));
    std::filesystem::remove(temporary.path / "manifest.json");
    RunFolder folder(temporary.path);
    CHECK_FALSE(folder.Find("model", "input"));
    folder.Complete("model", {"input", "content", "{}", 0.0}, {"model.pt"});
    CHECK(folder.Find("model", "input"));
  }
}

TEST_CASE("a folder serves one run at a time") {
  const TemporaryFolder temporary;
  {
    const RunFolder first(temporary.path);
    CHECK_THROWS_WITH(RunFolder(temporary.path),
                      ContainsSubstring("in use by another run") && ContainsSubstring(temporary.path.string()));
  }
  CHECK_NOTHROW(RunFolder(temporary.path));
}

TEST_CASE("the SHA-256 of a file is the one that sha256sum prints") {
  const TemporaryFolder temporary;
  WriteText(temporary.path / "abc", "abc");
  CHECK(bitplan::pipeline::FileSha256(temporary.path / "abc") ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_THROWS_AS(bitplan::pipeline::FileSha256(temporary.path / "nothing"), Error);
}

namespace {

std::string FolderText(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace

TEST_CASE("a stage keeps the records whose files no other has overwritten") {
  const TemporaryFolder temporary;
  {
    RunFolder folder(temporary.path);
    for (const std::string key : {"one", "two"}) {
      folder.Write("plans/" + key + "/quantized.pt", key);
      folder.Complete("apply", {key, "content of " + key, "{}", 0.0}, {"plans/" + key + "/quantized.pt"});
      folder.Write("table.json", key);
      folder.Complete("table", {key, key, "{}", 0.0}, {"table.json"});
      folder.Complete("allocate", {key, key, "{}", 0.0}, {});
    }
  }
  const RunFolder folder(temporary.path);
  for (const std::string key : {"one", "two"}) {
    REQUIRE(folder.Find("apply", key));
    CHECK(folder.Find("apply", key)->content == "content of " + key);
    CHECK(folder.Find("apply", key)->files == std::vector<std::string>{"plans/" + key + "/quantized.pt"});
    CHECK(folder.Find("allocate", key));
  }
  CHECK_FALSE(folder.Find("table", "one"));
  CHECK(folder.Find("table", "two"));
}

TEST_CASE("a file that is not as the folder left it is moved aside, its own are replaced") {
  const TemporaryFolder temporary;
  std::vector<std::string> notes;
  const auto note = [&](const std::string& line) { notes.push_back(line); };
  WriteText(temporary.path / "model.pt", "somebody's");
  {
    RunFolder folder(temporary.path, note);
    folder.Write("model.pt", "first");
    folder.Write("model.pt", "second");
    CHECK(folder.Wrote("model.pt"));
  }
  REQUIRE(notes.size() == 1);
  CHECK_THAT(notes[0], ContainsSubstring("model.pt") && ContainsSubstring("model.kept.pt"));
  CHECK(FolderText(temporary.path / "model.kept.pt") == "somebody's");
  WriteText(temporary.path / "model.pt", "somebody's again");
  RunFolder folder(temporary.path, note);
  CHECK_FALSE(folder.Wrote("model.pt"));
  folder.Write("model.pt", "third");
  CHECK(FolderText(temporary.path / "model.kept-2.pt") == "somebody's again");
  CHECK(FolderText(temporary.path / "model.pt") == "third");
}

TEST_CASE("killed before the stage was recorded, the folder still knows its file") {
  const TemporaryFolder temporary;
  { RunFolder(temporary.path).Write("model.pt", "written"); }  // and nothing completed
  RunFolder folder(temporary.path);
  CHECK(folder.Wrote("model.pt"));
  // Or while the file was being replaced: its old content is known as well.
  CHECK_THROWS(folder.Write("model.pt", [](const std::filesystem::path& file) {
    WriteText(file, "new");
    throw Error(bitplan::ErrorKind::kIo, "stopped");
  }));
  CHECK(folder.Wrote("model.pt"));
  CHECK(FolderText(temporary.path / "model.pt") == "written");
}

TEST_CASE("only temporary names of bitplan are removed, and only of processes that are gone") {
  const TemporaryFolder temporary;
  const auto living = ".plan.yaml.bitplan-" + std::to_string(getppid()) + "-0.tmp";
  const std::vector<std::string> stay = {"mine.tmp", "plan.yaml.12-0.tmp", ".plan.yaml.tmp", ".bitplan-1-0.tmp",
                                         living};
  const std::vector<std::string> go = {".plan.yaml.bitplan-999999999-0.tmp",
                                       "plans/a/.quantized.pt.bitplan-999999999-12.tmp",
                                       ".report.bitplan-999999999-3.tmp/plots/x.svg"};
  for (const auto& list : {stay, go}) {
    for (const auto& name : list) {
      std::filesystem::create_directories((temporary.path / name).parent_path());
      WriteText(temporary.path / name, "text");
    }
  }
  const RunFolder folder(temporary.path);
  for (const auto& name : stay)
    CHECK((name + (std::filesystem::exists(temporary.path / name) ? "" : " is gone")) == name);
  for (const auto& name : go) CHECK_FALSE(std::filesystem::exists(temporary.path / name));
}

TEST_CASE("files written together replace those of the last time and leave others alone") {
  const TemporaryFolder temporary;
  RunFolder folder(temporary.path);
  const auto write = [&](const std::vector<std::string>& names) {
    folder.WriteTogether([&](const std::filesystem::path& place) {
      std::filesystem::create_directory(place / "plots");
      for (const auto& name : names) WriteText(place / name, name);
    });
  };
  write({"report.html", "plots/a.svg", "plots/b.svg"});
  WriteText(temporary.path / "plots/mine.svg", "mine");
  write({"report.html", "plots/a.svg"});
  CHECK(FolderText(temporary.path / "plots/mine.svg") == "mine");
  CHECK(FolderText(temporary.path / "plots/a.svg") == "plots/a.svg");
  CHECK_FALSE(std::filesystem::exists(temporary.path / "plots/b.svg"));
  CHECK(folder.Wrote("report.html"));
  for (const auto& entry : std::filesystem::directory_iterator(temporary.path)) {
    CHECK(entry.path().extension() != ".tmp");
  }
}

TEST_CASE("one content under two names takes its place once, and each name can be replaced alone") {
  const TemporaryFolder temporary;
  RunFolder folder(temporary.path);
  folder.Write("plans/a/quantized.pt", "a");
  folder.Link("quantized.pt", "plans/a/quantized.pt");
  CHECK(std::filesystem::hard_link_count(temporary.path / "quantized.pt") == 2);
  folder.Write("plans/b/quantized.pt", "b");
  folder.Link("quantized.pt", "plans/b/quantized.pt");
  CHECK(FolderText(temporary.path / "quantized.pt") == "b");
  CHECK(FolderText(temporary.path / "plans/a/quantized.pt") == "a");
  CHECK_FALSE(std::filesystem::exists(temporary.path / "quantized.kept.pt"));
}

TEST_CASE("a manifest of version 1 is read: its stages are found and its files are bitplan's") {
  const TemporaryFolder temporary;
  WriteText(temporary.path / "model.pt", "weights");
  const auto state = "7:" + bitplan::pipeline::FileSha256(temporary.path / "model.pt");
  WriteText(temporary.path / "manifest.json",
            R"({"bitplan": 1, "stages": {"model": {"input": "i", "content": "c", "facts": {}, "seconds": 1.0,
                "files": {"model.pt": ")" +
                state + R"("}}}})");
  RunFolder folder(temporary.path);
  CHECK(folder.Find("model", "i"));
  CHECK(folder.Wrote("model.pt"));
}
