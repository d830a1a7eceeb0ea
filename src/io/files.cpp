#include "bitplan/io/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {

namespace fs = std::filesystem;

std::string Reason(int code) { return std::generic_category().message(code); }

[[noreturn]] void ThrowCannotWrite(const fs::path& path, const std::string& reason) {
  throw Error(ErrorKind::kIo, "cannot write " + path.string() + ": " + reason);
}

// A descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : value_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int value() const { return value_; }
  // Some file systems report a full disk only here. Returns errno, or 0.
  [[nodiscard]] int Close() { return ::close(std::exchange(value_, -1)) == 0 ? 0 : errno; }

 private:
  int value_;
};

// Of the names that bitplan gives to what it has not finished: .NAME.bitplan-PROCESS-NUMBER.tmp
constexpr std::string_view kTemporaryMark = ".bitplan-", kTemporaryEnd = ".tmp";
constexpr std::size_t kLongestName = 200;  // bytes kept of NAME; file systems allow 255 for all

// The process that a temporary name states; nothing for a name that is not one of bitplan's.
std::optional<pid_t> WriterOf(const std::string& name) {
  const auto mark = name.rfind(kTemporaryMark);
  if (name.size() < 2 || name[0] != '.' || mark == std::string::npos || mark == 0) return std::nullopt;
  const auto text = name.substr(mark + kTemporaryMark.size());
  int process = 0, number = 0, length = 0;
  if (std::sscanf(text.c_str(), "%9d-%9d%n", &process, &number, &length) != 2 || process <= 0) return std::nullopt;
  if (text.substr(static_cast<std::size_t>(length)) != kTemporaryEnd) return std::nullopt;
  return process;
}

// A name beside `path`, its own for every write of every process; a file of this name goes when the object goes.
class TemporaryFile {
 public:
  explicit TemporaryFile(const fs::path& path) : path_(TemporaryName(path)) {}
  ~TemporaryFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string ReplacedAll(std::string text, const std::string& from, const std::string& to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

void WriteAll(const fs::path& target, const fs::path& temporary, std::string_view content) {
  Descriptor file(temporary, O_WRONLY | O_CREAT | O_EXCL);
  if (file.value() < 0) ThrowCannotWrite(target, Reason(errno));
  while (!content.empty()) {
    const ssize_t written = ::write(file.value(), content.data(), content.size());
    if (written >= 0) {
      content.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      ThrowCannotWrite(target, Reason(errno));
    }
  }
  if (const int error = file.Close()) ThrowCannotWrite(target, Reason(error));
}

// Waits until the content, and afterwards the new name, are on the disk.
void SyncAndRename(const fs::path& temporary, const fs::path& target) {
  {
    Descriptor file(temporary, O_RDONLY);
    if (file.value() < 0 || ::fsync(file.value()) != 0) ThrowCannotWrite(target, Reason(errno));
  }
  std::error_code error;
  fs::rename(temporary, target, error);
  if (error) ThrowCannotWrite(target, error.message());
  const Descriptor folder(target.has_parent_path() ? target.parent_path() : fs::path("."), O_RDONLY | O_DIRECTORY);
  if (folder.value() >= 0) (void)::fsync(folder.value());  // some file systems cannot; the file itself is safe
}

// Libraries wrap the system's reason in text of their own, or lose it.
std::string ReasonOf(const std::exception& failure, int system_error) {
  switch (system_error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EIO:
    case EROFS:
    case EACCES:
    case ENOENT:
      return Reason(system_error);
  }
  const std::string text = failure.what();
  return text.substr(0, text.find('\n'));
}

}  // namespace

std::string ReadFile(const fs::path& path, std::string_view what) {
  const std::string name = std::string(what) + " " + path.string();
  const Descriptor file(path, O_RDONLY);
  if (file.value() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) throw Error(ErrorKind::kNotFound, name + " not found");
    throw Error(ErrorKind::kIo, "cannot read " + name + ": " + Reason(errno));
  }
  std::string content;
  char buffer[1 << 16];
  while (true) {
    const ssize_t size = ::read(file.value(), buffer, sizeof buffer);
    if (size == 0) return content;
    if (size > 0) {
      content.append(buffer, static_cast<std::size_t>(size));
    } else if (errno == EISDIR) {
      throw Error(ErrorKind::kNotFound, name + " is a folder, not a file");
    } else if (errno != EINTR) {
      throw Error(ErrorKind::kIo, "cannot read " + name + ": " + Reason(errno));
    }
  }
}

void WriteFileAtomically(const fs::path& path, std::string_view content) {
  const TemporaryFile temporary(path);
  WriteAll(path, temporary.path(), content);
  SyncAndRename(temporary.path(), path);
}

void WriteFileAtomically(const fs::path& path, const std::function<void(const fs::path& temporary)>& write) {
  const TemporaryFile temporary(path);
  errno = 0;
  try {
    write(temporary.path());
  } catch (const Error& error) {
    throw Error(error.kind(), ReplacedAll(error.what(), temporary.path().string(), path.string()));
  } catch (const std::exception& failure) {
    ThrowCannotWrite(path, ReasonOf(failure, errno));
  }
  SyncAndRename(temporary.path(), path);
}

fs::path TemporaryName(const fs::path& path) {
  static std::atomic<int> count{0};
  const auto name = path.filename().string().substr(0, kLongestName);
  return path.parent_path() / fmt::format(".{}{}{}-{}{}", name, kTemporaryMark, ::getpid(), count++, kTemporaryEnd);
}

void RemoveLeftovers(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const auto writer = WriterOf(entry.path().filename().string());
    if (!writer) continue;
    const bool alive = *writer != ::getpid() && (::kill(*writer, 0) == 0 || errno == EPERM);
    if (!alive) fs::remove_all(entry.path(), ignored);
  }
}

fs::path MoveAside(const fs::path& file, const std::string& mark) {
  auto kept = file;
  kept.replace_filename(file.stem().string() + "." + mark + file.extension().string());
  for (int k = 2; fs::exists(fs::symlink_status(kept)); ++k) {
    kept.replace_filename(fmt::format("{}.{}-{}{}", file.stem().string(), mark, k, file.extension().string()));
  }
  std::error_code error;
  fs::rename(file, kept, error);
  if (error) throw Error(ErrorKind::kIo, "cannot move " + file.string() + " aside: " + error.message());
  return kept;
}

void EnsureWritableFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(ErrorKind::kIo, "cannot create folder " + folder.string() + ": " + error.message());
  if (!fs::is_directory(folder)) {
    throw Error(ErrorKind::kIo, "cannot create folder " + folder.string() + ": a file of this name is in the way");
  }
  const TemporaryFile probe(folder / "writable");
  const Descriptor file(probe.path(), O_WRONLY | O_CREAT | O_EXCL);
  if (file.value() < 0) {
    throw Error(ErrorKind::kIo, "cannot write into folder " + folder.string() + ": " + Reason(errno));
  }
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  if (context_ == nullptr || EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) != 1) {
    EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_));
    throw Error(ErrorKind::kInternal, "OpenSSL offers no SHA-256");
  }
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

Sha256& Sha256::Update(const void* data, std::size_t size) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data, size);
  return *this;
}

Sha256& Sha256::Update(std::string_view text) {
  unsigned char length[8];
  for (int i = 0; i < 8; ++i)
    length[i] = static_cast<unsigned char>(static_cast<std::uint64_t>(text.size()) >> (8 * i));
  return Update(length, sizeof length).Update(text.data(), text.size());
}

std::string Sha256::Hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest, &size);
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) {
    hex += "0123456789abcdef"[digest[i] >> 4];
    hex += "0123456789abcdef"[digest[i] & 15];
  }
  return hex;
}

std::string Sha256Hex(std::string_view text) { return Sha256().Update(text.data(), text.size()).Hex(); }

std::string Sha256OfParts(std::initializer_list<std::string_view> parts) {
  Sha256 hash;
  for (const auto part : parts) hash.Update(part);
  return hash.Hex();
}

}  // namespace bitplan
