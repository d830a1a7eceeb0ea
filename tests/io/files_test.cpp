#include "bitplan/io/files.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <fstream>
#include <stdexcept>

#include "bitplan/core/error.h"
#include "io/json_text.h"
#include "io/scratch.h"
#include "support/catch.h"

using namespace bitplan;
namespace fs = std::filesystem;

namespace {

// While it lives no file may grow beyond `bytes`: what a full disk does, for one process.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

int FilesIn(const fs::path& folder) {
  return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

}  // namespace

TEST_CASE("a written file holds the content, and nothing else stays in the folder") {
  const Scratch scratch;
  WriteFileAtomically(scratch / "a.txt", "one");
  WriteFileAtomically(scratch / "a.txt", "two");
  CHECK(ReadFile(scratch / "a.txt", "note") == "two");
  CHECK(FilesIn(scratch.folder()) == 1);
}

TEST_CASE("a path without a folder is written into the current folder") {
  const Scratch scratch;
  const fs::path before = fs::current_path();
  fs::current_path(scratch.folder());
  WriteFileAtomically("plain.txt", "x");
  fs::current_path(before);
  CHECK(ReadFile(scratch / "plain.txt", "note") == "x");
}

TEST_CASE("a writer that fails leaves the old content and no temporary file") {
  const Scratch scratch;
  WriteFileAtomically(scratch / "model.pt", "old");
  const auto fail = [](const fs::path& temporary) {
    std::ofstream(temporary) << "half";
    throw std::runtime_error("the writer broke\nwith a second line");
  };
  const Error error = ErrorOf([&] { WriteFileAtomically(scratch / "model.pt", fail); });
  CHECK(error.kind() == ErrorKind::kIo);
  CHECK(std::string(error.what()) == "cannot write " + (scratch / "model.pt").string() + ": the writer broke");
  CHECK(ReadFile(scratch / "model.pt", "model") == "old");
  CHECK(FilesIn(scratch.folder()) == 1);
}

TEST_CASE("an interrupted writer stays interrupted and leaves no temporary file") {
  const Scratch scratch;
  const Error error = ErrorOf([&] {
    WriteFileAtomically(scratch / "model.pt", [](const fs::path& temporary) {
      std::ofstream(temporary) << "half";
      throw Error(ErrorKind::kInterrupted, "interrupted");
    });
  });
  CHECK(error.kind() == ErrorKind::kInterrupted);
  CHECK(FilesIn(scratch.folder()) == 0);
}

TEST_CASE("a full disk is an input/output error with the system's reason, and the old file survives") {
  const Scratch scratch;
  WriteFileAtomically(scratch / "plan.yaml", "old");
  const Error error = ErrorOf([&] {
    const FileSizeLimit full(4096);
    WriteFileAtomically(scratch / "plan.yaml", std::string(10000, 'x'));
  });
  CHECK(error.kind() == ErrorKind::kIo);
  CHECK(std::string(error.what()) == "cannot write " + (scratch / "plan.yaml").string() + ": File too large");
  CHECK(ReadFile(scratch / "plan.yaml", "plan") == "old");
  CHECK(FilesIn(scratch.folder()) == 1);
}

TEST_CASE("the reason of a full disk is not lost in a library's own message") {
  const Scratch scratch;
  const Error error = ErrorOf([&] {
    WriteFileAtomically(scratch / "model.pt", [](const fs::path&) {
      const int full = open("/dev/full", O_WRONLY);
      const auto written = write(full, "x", 1);
      const int reason = errno;
      close(full);
      errno = reason;
      if (written != 1) throw std::runtime_error("archive writer failed writing file data/0");
    });
  });
  CHECK(std::string(error.what()) == "cannot write " + (scratch / "model.pt").string() + ": No space left on device");
}

TEST_CASE("a writer that writes nothing is an error, not an empty file") {
  const Scratch scratch;
  CHECK(ErrorOf([&] { WriteFileAtomically(scratch / "a", [](const fs::path&) {}); }).kind() == ErrorKind::kIo);
  CHECK_FALSE(fs::exists(scratch / "a"));
}

TEST_CASE("a missing folder or a folder in the file's place is an input/output error") {
  const Scratch scratch;
  const Error missing = ErrorOf([&] { WriteFileAtomically(scratch / "no/such/plan.yaml", "x"); });
  CHECK(missing.kind() == ErrorKind::kIo);
  CHECK_THAT(missing.what(), ContainsSubstring("no/such/plan.yaml: No such file or directory"));
  fs::create_directories(scratch / "plan.yaml/below");
  CHECK(ErrorOf([&] { WriteFileAtomically(scratch / "plan.yaml", "x"); }).kind() == ErrorKind::kIo);
  CHECK(FilesIn(scratch.folder()) == 1);
}

TEST_CASE("reading names what is missing") {
  const Scratch scratch;
  const Error missing = ErrorOf([&] { (void)ReadFile(scratch / "r.yaml", "recipe"); });
  CHECK(missing.kind() == ErrorKind::kNotFound);
  CHECK(std::string(missing.what()) == "recipe " + (scratch / "r.yaml").string() + " not found");
  const Error folder = ErrorOf([&] { (void)ReadFile(scratch.folder(), "recipe"); });
  CHECK(folder.kind() == ErrorKind::kNotFound);
  CHECK_THAT(folder.what(), ContainsSubstring("is a folder"));
}

TEST_CASE("an output folder is made with its parents, and refused where it cannot be written") {
  const Scratch scratch;
  EnsureWritableFolder(scratch / "a/b/c");
  EnsureWritableFolder(scratch / "a/b/c");
  CHECK(fs::is_directory(scratch / "a/b/c"));
  CHECK(FilesIn(scratch / "a/b/c") == 0);
  WriteFileAtomically(scratch / "file", "x");
  for (const fs::path& bad : {scratch / "file", scratch / "file/below", fs::path("/proc/bitplan")}) {
    const Error error = ErrorOf([&] { EnsureWritableFolder(bad); });
    CHECK(error.kind() == ErrorKind::kIo);
    CHECK_THAT(error.what(), ContainsSubstring(bad.string()));
  }
}

TEST_CASE("SHA-256 gives the published digests") {
  CHECK(Sha256Hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(Sha256Hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(Sha256().Update("a", std::size_t{1}).Update("bc", std::size_t{2}).Hex() == Sha256Hex("abc"));
}

TEST_CASE("hashed texts keep their borders") {
  const std::string_view a = "a", b = "b", c = "c", ab = "ab", bc = "bc";
  CHECK(Sha256().Update(ab).Update(c).Hex() != Sha256().Update(a).Update(bc).Hex());
  CHECK(Sha256().Update(a).Update(b).Hex() == Sha256().Update(a).Update(b).Hex());
}

TEST_CASE("an error of a writer names the file that was asked for, not the temporary one") {
  const Scratch folder;
  const auto target = folder / "wanted.bin";
  const auto error = ErrorOf([&] {
    WriteFileAtomically(target, [](const fs::path& temporary) {
      throw Error(ErrorKind::kIo, "cannot write " + temporary.string() + ": no");
    });
  });
  CHECK(std::string(error.what()) == "cannot write " + target.string() + ": no");
}

TEST_CASE("text of any bytes becomes JSON") {
  const std::string text = JsonText(nlohmann::json{{"path", "o\xff/\xc3"}});
  CHECK_THAT(text, ContainsSubstring("\xef\xbf\xbd"));
  CHECK(ValidUtf8("caf\xc3\xa9") == "caf\xc3\xa9");
  CHECK(ValidUtf8("caf\xe9") == "caf\xef\xbf\xbd");
}
