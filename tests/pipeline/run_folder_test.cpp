#include "bitplan/pipeline/run_folder.h"

#include <stdlib.h>

#include <fstream>

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
