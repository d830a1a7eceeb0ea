#include "data/archive.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include "bitplan/core/interrupt.h"

namespace bitplan {
namespace {

constexpr std::uint64_t kEndBytes = 22, kMostComment = 65535, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr std::uint64_t kEntryBytes = 46, kLocalBytes = 30;
constexpr std::uint64_t kMostDirectory = std::uint64_t{1} << 28;  // bytes
constexpr std::uint64_t kMostSmall = std::uint64_t{1} << 26;      // bytes that any file may unpack to
constexpr std::uint64_t kMostGrowth = 16;                         // times its size that a larger file may
constexpr std::uint64_t kArchivePart = std::uint64_t{1} << 20;    // bytes read at once
constexpr std::uint16_t kStored = 0, kDeflated = 8, kEncrypted = 1, kWide = 1;

struct ArchiveEntry {
  std::string name;
  std::uint16_t flags = 0, method = 0;
  std::uint32_t checksum = 0;
  std::uint64_t packed = 0, unpacked = 0, at = 0;
};

struct Fault {
  std::string what;
};

std::string ShownName(std::string_view name) {
  std::string shown;
  for (const char c : name.substr(0, 80)) shown += c >= ' ' && c <= '~' ? c : '?';
  return shown;
}

template <typename Number>
Number NumberAt(std::string_view bytes, std::uint64_t at) {  // little-endian, as this machine
  Number number = 0;
  std::memcpy(&number, bytes.data() + at, sizeof number);
  return number;
}

class ArchiveReader {
 public:
  explicit ArchiveReader(const std::filesystem::path& file)
      : in_(file, std::ios::binary), size_(std::filesystem::file_size(file)) {}

  void Check() {
    if (size_ < 4 || !Read(0, 4).starts_with("PK\3\4")) throw Fault{"it is no archive"};
    std::vector<ArchiveEntry> entries = Directory();
    if (entries.empty()) throw Fault{"it is empty"};
    std::uint64_t unpacked = 0;
    const std::uint64_t most = std::max(kMostSmall, kMostGrowth * size_);
    for (const ArchiveEntry& entry : entries) {
      if (entry.unpacked > most - unpacked) throw Fault{"it would unpack to much more than it has"};
      unpacked += entry.unpacked;
    }
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.at < b.at; });
    std::uint64_t end = 0;
    for (const ArchiveEntry& entry : entries) {
      if (entry.at < end) throw Fault{fmt::format("entry '{}' overlaps another", ShownName(entry.name))};
      end = CheckEntry(entry);
    }
  }

 private:
  std::string Read(std::uint64_t at, std::uint64_t count) {
    if (at > size_ || count > size_ - at) throw Fault{"it is cut off"};
    std::string bytes(count, '\0');
    in_.clear();
    in_.seekg(static_cast<std::streamoff>(at));
    if (!in_.read(bytes.data(), static_cast<std::streamsize>(count))) throw Fault{"it cannot be read to its end"};
    return bytes;
  }

  std::vector<ArchiveEntry> Directory() {
    const std::uint64_t tail = std::min(size_, kEndBytes + kMostComment);
    const std::string bytes = Read(size_ - tail, tail);
    std::uint64_t end = size_;  // where the end record begins
    for (std::uint64_t back = kEndBytes; back <= tail && end == size_; ++back) {
      const std::string_view record = std::string_view(bytes).substr(tail - back);
      if (record.starts_with("PK\5\6") && NumberAt<std::uint16_t>(record, 20) == back - kEndBytes) end = size_ - back;
    }
    if (end == size_) throw Fault{"it is cut off: its table of contents is missing"};
    const std::string record = Read(end, kEndBytes);
    std::uint64_t count = NumberAt<std::uint16_t>(record, 10), length = NumberAt<std::uint32_t>(record, 12);
    std::uint64_t begin = NumberAt<std::uint32_t>(record, 16), behind = end;
    const std::string locator = end >= kLocatorBytes ? Read(end - kLocatorBytes, kLocatorBytes) : "";
    if (locator.starts_with("PK\6\7")) {
      behind = NumberAt<std::uint64_t>(locator, 8);
      const std::string wide = Read(behind, kEnd64Bytes);
      if (!wide.starts_with("PK\6\6")) throw Fault{"its table of contents is damaged"};
      count = NumberAt<std::uint64_t>(wide, 32);
      length = NumberAt<std::uint64_t>(wide, 40);
      begin = NumberAt<std::uint64_t>(wide, 48);
    }
    if (begin > behind || length != behind - begin || length > kMostDirectory || count > length / kEntryBytes) {
      throw Fault{"its table of contents is damaged"};
    }
    directory_ = begin;
    const std::string table = Read(begin, length);
    std::vector<ArchiveEntry> entries;
    std::string_view rest = table;
    for (std::uint64_t i = 0; i < count; ++i) entries.push_back(NextEntry(rest));
    if (!rest.empty()) throw Fault{"its table of contents is damaged"};
    return entries;
  }

  static ArchiveEntry NextEntry(std::string_view& rest) {
    if (rest.size() < kEntryBytes || !rest.starts_with("PK\1\2")) throw Fault{"its table of contents is damaged"};
    ArchiveEntry entry;
    entry.flags = NumberAt<std::uint16_t>(rest, 8);
    entry.method = NumberAt<std::uint16_t>(rest, 10);
    entry.checksum = NumberAt<std::uint32_t>(rest, 16);
    entry.packed = NumberAt<std::uint32_t>(rest, 20);
    entry.unpacked = NumberAt<std::uint32_t>(rest, 24);
    entry.at = NumberAt<std::uint32_t>(rest, 42);
    const std::uint64_t name = NumberAt<std::uint16_t>(rest, 28), more = NumberAt<std::uint16_t>(rest, 30);
    const std::uint64_t all = kEntryBytes + name + more + NumberAt<std::uint16_t>(rest, 32);
    if (all > rest.size()) throw Fault{"its table of contents is damaged"};
    entry.name = rest.substr(kEntryBytes, name);
    TakeWide(entry, rest.substr(kEntryBytes + name, more));
    rest.remove_prefix(all);
    return entry;
  }

  // Numbers of 64 bits stand in an extra field, those that do not fit elsewhere and in this order.
  static void TakeWide(ArchiveEntry& entry, std::string_view more) {
    while (more.size() >= 4) {
      const std::uint64_t length = NumberAt<std::uint16_t>(more, 2);
      if (length > more.size() - 4) return;
      std::string_view field = more.substr(4, length);
      if (NumberAt<std::uint16_t>(more, 0) == kWide) {
        for (std::uint64_t* number : {&entry.unpacked, &entry.packed, &entry.at}) {
          if (*number != 0xFFFFFFFF) continue;
          if (field.size() < sizeof *number) throw Fault{"its table of contents is damaged"};
          *number = NumberAt<std::uint64_t>(field, 0);
          field.remove_prefix(sizeof *number);
        }
      }
      more.remove_prefix(4 + length);
    }
  }

  // Where it ends.
  std::uint64_t CheckEntry(const ArchiveEntry& entry) {
    const auto fault = [&](const char* why) {
      return Fault{fmt::format("entry '{}' is damaged: {}", ShownName(entry.name), why)};
    };
    if (entry.method != kStored && entry.method != kDeflated) throw fault("it is packed in an unknown way");
    if ((entry.flags & kEncrypted) != 0) throw fault("it is encrypted");
    const std::string local = Read(entry.at, kLocalBytes);
    const std::uint64_t name = NumberAt<std::uint16_t>(local, 26);
    const std::uint64_t begin = entry.at + kLocalBytes + name + NumberAt<std::uint16_t>(local, 28);
    if (!local.starts_with("PK\3\4") || NumberAt<std::uint16_t>(local, 8) != entry.method ||
        Read(entry.at + kLocalBytes, name) != entry.name) {
      throw fault("it is not what the table of contents says");
    }
    if (begin > directory_ || entry.packed > directory_ - begin) throw fault("it reaches into the table of contents");
    if (entry.method == kStored && entry.packed != entry.unpacked) throw fault("its length is another");
    const bool sound = entry.method == kStored ? StoredChecksum(entry, begin) : DeflatedChecksum(entry, begin);
    if (!sound) throw fault("its checksum is another");
    return begin + entry.packed;
  }

  bool StoredChecksum(const ArchiveEntry& entry, std::uint64_t begin) {
    uLong checksum = crc32(0, nullptr, 0);
    for (std::uint64_t done = 0; done < entry.packed; done += kArchivePart) {
      ThrowIfInterrupted();
      const std::string part = Read(begin + done, std::min(kArchivePart, entry.packed - done));
      checksum = crc32(checksum, reinterpret_cast<const Bytef*>(part.data()), static_cast<uInt>(part.size()));
    }
    return checksum == entry.checksum;
  }

  bool DeflatedChecksum(const ArchiveEntry& entry, std::uint64_t begin) {
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw Fault{"zlib cannot unpack it"};
    uLong checksum = crc32(0, nullptr, 0);
    std::uint64_t unpacked = 0;
    int state = Z_OK;
    std::string out(1 << 16, '\0');
    for (std::uint64_t done = 0; done < entry.packed && state == Z_OK; done += kArchivePart) {
      std::string part = Read(begin + done, std::min(kArchivePart, entry.packed - done));
      stream.next_in = reinterpret_cast<Bytef*>(part.data());
      stream.avail_in = static_cast<uInt>(part.size());
      do {
        stream.next_out = reinterpret_cast<Bytef*>(out.data());
        stream.avail_out = static_cast<uInt>(out.size());
        state = inflate(&stream, Z_NO_FLUSH);
        const auto made = static_cast<uInt>(out.size()) - stream.avail_out;
        checksum = crc32(checksum, reinterpret_cast<const Bytef*>(out.data()), made);
        unpacked += made;
      } while (state == Z_OK && stream.avail_out == 0 && unpacked <= entry.unpacked);
    }
    inflateEnd(&stream);
    return state == Z_STREAM_END && unpacked == entry.unpacked && checksum == entry.checksum;
  }

  std::ifstream in_;
  std::uint64_t size_;
  std::uint64_t directory_ = 0;
};

}  // namespace

std::optional<std::string> ArchiveFault(const std::filesystem::path& file) {
  try {
    ArchiveReader(file).Check();
  } catch (const Fault& fault) {
    return fault.what;
  }
  return std::nullopt;
}

}  // namespace bitplan
