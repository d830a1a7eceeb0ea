// OpenCV decodes all formats but PNM (netpbm.sourceforge.net/doc/ppm.html), whose maximum it leaves out of account.
#include "data/picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <opencv2/imgcodecs.hpp>
#include <optional>
#include <string_view>

#include "bitplan/core/error.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr const char* kUndecoded = "cannot be decoded as an image";
constexpr int kMostPnm = 65535;
constexpr std::int64_t kMostSide = 1 << 20;

bool IsPnm(std::string_view bytes) {
  return bytes.size() > 2 && bytes[0] == 'P' && std::string_view("2356").find(bytes[1]) != std::string_view::npos;
}

class PnmReader {
 public:
  PnmReader(const std::filesystem::path& file, std::string_view bytes) : file_(file), bytes_(bytes) {}

  // uint8 [H, W, C], C 1 or 3.
  torch::Tensor Read() {
    const bool text = bytes_[1] == '2' || bytes_[1] == '3';
    const std::int64_t channels = bytes_[1] == '3' || bytes_[1] == '6' ? 3 : 1;
    at_ = 2;
    const std::int64_t wide = InHeader("width", kMostSide), high = InHeader("height", kMostSide);
    const auto most = static_cast<int>(InHeader("maximum", kMostPnm));
    const std::int64_t count = wide * high * channels, bytes = most > 255 ? 2 : 1;
    if (!text) ++at_;  // one blank
    const auto left = static_cast<std::int64_t>(bytes_.size() - std::min(at_, bytes_.size()));
    // As text a value and the blank before it.
    if (text ? count > left / 2 : count > left / bytes) EndsEarly(count);
    torch::Tensor pixels = torch::empty({high, wide, channels}, torch::kUInt8);
    auto* const out = pixels.data_ptr<std::uint8_t>();
    for (std::int64_t i = 0; i < count; ++i) {
      const std::optional<std::int64_t> value = text ? Number() : Binary(bytes);
      if (!value) EndsEarly(count);
      if (*value > most) Fail(fmt::format("the value {} is above the maximum {} of its header", *value, most));
      out[i] = static_cast<std::uint8_t>((2 * 255 * *value + most) / (2 * most));
    }
    return pixels;
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    ThrowBadFile(file_, fmt::format("{}: {}", kUndecoded, what));
  }
  [[noreturn]] void EndsEarly(std::int64_t count) const {
    Fail(fmt::format("it ends before the {} values that its header announces", count));
  }

  std::int64_t InHeader(const char* what, std::int64_t most) {
    const auto value = Number();
    if (!value || *value < 1 || *value > most) Fail(fmt::format("its {} is no number in 1..{}", what, most));
    return *value;
  }

  // The next number behind blanks and comments; none at the end, or where something else stands.
  std::optional<std::int64_t> Number() {
    const auto is = [&](int (*kind)(int)) {
      return at_ < bytes_.size() && kind(static_cast<unsigned char>(bytes_[at_])) != 0;
    };
    while (is(std::isspace) || (at_ < bytes_.size() && bytes_[at_] == '#')) {
      if (bytes_[at_] == '#') at_ = std::min(bytes_.find('\n', at_), bytes_.size() - 1);
      ++at_;
    }
    if (!is(std::isdigit)) return std::nullopt;
    std::int64_t value = 0;
    for (; is(std::isdigit); ++at_) value = std::min<std::int64_t>(kMostSide + 1, 10 * value + (bytes_[at_] - '0'));
    return value;
  }

  std::int64_t Binary(std::int64_t bytes) {
    std::int64_t value = 0;
    for (; bytes > 0; --bytes) value = 256 * value + static_cast<unsigned char>(bytes_[at_++]);
    return value;
  }

  const std::filesystem::path& file_;
  std::string_view bytes_;
  std::size_t at_ = 0;
};

// A JPEG without its end is a picture with a gray part for the decoder.
bool IsCutOffJpeg(std::string_view bytes) {
  if (!bytes.starts_with("\xFF\xD8\xFF")) return false;
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  std::size_t i = 2;  // a marker; other segments, which may hold a small picture with an end of its own, state lengths
  while (i + 4 <= bytes.size() && at(i) == 0xFF && at(i + 1) != 0xDA) {
    i += at(i + 1) == 0xFF ? 1 : 2 + 256 * std::size_t{at(i + 2)} + at(i + 3);
  }
  return i >= bytes.size() || bytes.find("\xFF\xD9", i) == std::string_view::npos;
}

// uint8 [H, W, C], C 1 or 3, blue first.
torch::Tensor DecodedByOpenCv(const std::filesystem::path& file, const std::string& bytes, bool gray) {
  if (IsCutOffJpeg(bytes)) ThrowBadFile(file, fmt::format("{}: it is cut off, its end marker is missing", kUndecoded));
  cv::Mat image;
  try {
    const int flags = (gray ? cv::IMREAD_GRAYSCALE : cv::IMREAD_COLOR) | cv::IMREAD_ANYDEPTH;
    const cv::Mat all(1, static_cast<int>(bytes.size()), CV_8U, const_cast<char*>(bytes.data()));
    image = cv::imdecode(all, flags | cv::IMREAD_IGNORE_ORIENTATION);
  } catch (const std::exception&) {
    image.release();
  }
  if (image.empty()) ThrowBadFile(file, kUndecoded);
  if (image.depth() == CV_16U) {
    cv::Mat shallow;
    image.convertTo(shallow, CV_8U, 255.0 / 65535.0);
    image = shallow;
  }
  if (image.depth() != CV_8U) ThrowBadFile(file, "has neither 8 nor 16 bits a value; save it with one of them");
  if (!image.isContinuous()) image = image.clone();
  return torch::from_blob(image.data, {image.rows, image.cols, image.channels()}, torch::kUInt8).clone();
}

// By the weights of ITU-R BT.601 in 1/2^14, as OpenCV has them. `pixels`: [H, W, 3], red first.
torch::Tensor GrayOf(const torch::Tensor& pixels) {
  const torch::Tensor weights = torch::tensor({4899, 9617, 1868}, torch::kInt32);
  return ((pixels.to(torch::kInt32) * weights).sum(2, /*keepdim=*/true, torch::kInt32) + 8192)
      .bitwise_right_shift(14)
      .to(torch::kUInt8);
}

}  // namespace

torch::Tensor DecodePicture(const std::filesystem::path& file, const std::string& channels) {
  std::ifstream in(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (!in) throw Error(ErrorKind::kNotFound, file.string() + ": cannot be read; check its permissions");
  const bool gray = channels == "gray", pnm = IsPnm(bytes);
  torch::Tensor pixels = pnm ? PnmReader(file, bytes).Read() : DecodedByOpenCv(file, bytes, gray);
  if (gray && pixels.size(2) == 3) pixels = GrayOf(pixels);
  if (!gray && pixels.size(2) == 1) pixels = pixels.expand({-1, -1, 3});
  if (!gray && pnm != (channels == "rgb")) pixels = pixels.flip(2);
  return pixels.permute({2, 0, 1}).contiguous();
}

QuietDecoders::QuietDecoders()
    : cerr_(std::cerr.rdbuf(nullptr)), stderr_(stderr), nowhere_(std::fopen("/dev/null", "w")) {
  if (nowhere_ != nullptr) stderr = nowhere_;
}

QuietDecoders::~QuietDecoders() {
  std::cerr.rdbuf(cerr_);
  if (nowhere_ == nullptr) return;
  stderr = stderr_;
  std::fclose(nowhere_);
}

}  // namespace bitplan
