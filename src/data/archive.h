// Whether an archive of PyTorch is whole, before LibTorch reads it. Its reader takes what it finds: it knows of no
// checksums, and may crash on a damaged file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace bitplan {

// What is wrong with the archive, as in "entry 'net/data/0' is damaged: its checksum is another"; nothing when every
// entry is there with the checksum that the archive states, and the entries together are not much larger than the file.
// Source: PKWARE's APPNOTE.TXT 6.3 (ZIP and its 64-bit form); entries are stored or deflated.
[[nodiscard]] std::optional<std::string> ArchiveFault(const std::filesystem::path& file);

}  // namespace bitplan
