// Files that are never half-written, and hashes of what they hold.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

namespace bitplan {

// Reads a whole file. Error(kNotFound) when missing, Error(kIo) when unreadable; messages name `what` ("recipe").
[[nodiscard]] std::string ReadFile(const std::filesystem::path& path, std::string_view what);

// Writes to a temporary name in the same folder (TemporaryName), syncs, renames. Error(kIo) on a read-only folder or a
// full disk, and the target keeps its old content.
void WriteFileAtomically(const std::filesystem::path& path, std::string_view content);

// The same for writers that need a path (torch::jit::save): `write` gets the temporary path.
void WriteFileAtomically(const std::filesystem::path& path,
                         const std::function<void(const std::filesystem::path& temporary)>& write);

// A name beside `path` that no other write has, of this process or another: .NAME.bitplan-PROCESS-NUMBER.tmp. Nothing
// but bitplan gives such names, so what a killed process left under one can be removed.
[[nodiscard]] std::filesystem::path TemporaryName(const std::filesystem::path& path);

// Removes what processes that are gone left in the folder (not in its subfolders) under temporary names.
void RemoveLeftovers(const std::filesystem::path& folder);

// Renames a file that is in the way: plan.yaml becomes plan.MARK.yaml, or plan.MARK-2.yaml where that is taken.
// Returns the new name. Error(kIo).
std::filesystem::path MoveAside(const std::filesystem::path& file, const std::string& mark);

// Creates the folder and its parents; Error(kIo) when it cannot be created or written into.
void EnsureWritableFolder(const std::filesystem::path& folder);

// Incremental SHA-256, lower-case hexadecimal.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  Sha256& Update(const void* data, std::size_t size);
  Sha256& Update(std::string_view text);  // length-prefixed, so that ("ab", "c") differs from ("a", "bc")
  [[nodiscard]] std::string Hex();        // finishes; call once

 private:
  void* context_;
};

[[nodiscard]] std::string Sha256Hex(std::string_view text);
// Of several texts, each length-prefixed.
[[nodiscard]] std::string Sha256OfParts(std::initializer_list<std::string_view> parts);

}  // namespace bitplan
