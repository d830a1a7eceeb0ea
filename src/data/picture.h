// One file with a picture, decoded.
#pragma once

#include <torch/types.h>

#include <cstdio>
#include <filesystem>
#include <iosfwd>
#include <string>

namespace bitplan {

// uint8 [C, H, W] of a JPEG, PNG, BMP, WebP, TIFF or PNM file: 0..255 is 0 to the largest value that the file can hold,
// which is 65535 of 16 bits, and of PNM what its header says. `channels`: rgb, bgr, gray. Nothing is turned by the
// orientation that a camera noted, and alpha is dropped, as Pillow does. Error(kData), one line, for a file that is
// none of these, damaged or cut off.
[[nodiscard]] torch::Tensor DecodePicture(const std::filesystem::path& file, const std::string& channels);

// Decoders write complaints of their own to the standard error stream, beside the error that names the file. Nothing
// that this process writes through std::cerr or the C library's stderr is seen while one of these lives.
class QuietDecoders {
 public:
  QuietDecoders();
  ~QuietDecoders();
  QuietDecoders(const QuietDecoders&) = delete;
  QuietDecoders& operator=(const QuietDecoders&) = delete;

 private:
  std::streambuf* cerr_;
  FILE* stderr_;
  FILE* nowhere_;
};

}  // namespace bitplan
