#include "data/pen.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "bitplan/core/random.h"

namespace bitplan {
namespace {

constexpr int kCanvasSide = 28;
constexpr int kPointsPerSpan = 6;
constexpr double kTwoPi = 6.283185307179586;

using Canvas = std::array<float, kCanvasSide * kCanvasSide>;

// Displacement of the plane by three long waves in each direction.
class Waves {
 public:
  Waves(RandomStream& stream, double amplitude) {
    for (auto& wave : waves_) {
      const double angle = stream.Uniform(0, kTwoPi), frequency = stream.Uniform(1.5, 6.5);
      wave = {frequency * std::cos(angle), frequency * std::sin(angle), stream.Uniform(0, kTwoPi),
              amplitude * stream.Normal() / (0.5 + 0.25 * frequency)};
    }
  }
  [[nodiscard]] StrokePoint Move(StrokePoint p) const {
    double moved[2] = {p.x, p.y};
    for (std::size_t i = 0; i < waves_.size(); ++i) {
      const Wave& w = waves_[i];
      moved[i % 2] += w.amplitude * std::sin(w.x * p.x + w.y * p.y + w.phase);
    }
    return {static_cast<float>(moved[0]), static_cast<float>(moved[1])};
  }

 private:
  struct Wave {
    double x, y, phase, amplitude;
  };
  std::array<Wave, 6> waves_;
};

// Points along the Catmull-Rom curve through `stroke`, in units of the sign's height around its middle.
std::vector<StrokePoint> Curve(const Stroke& stroke) {
  std::vector<StrokePoint> points;
  const auto last = static_cast<int>(stroke.size()) - 1;
  const auto at = [&](int i) { return stroke[static_cast<std::size_t>(std::clamp(i, 0, last))]; };
  for (int i = 0; i < last; ++i) {
    const StrokePoint a = at(i - 1), b = at(i), c = at(i + 1), d = at(i + 2);
    const auto blend = [](float p, float q, float r, float s, float t) {
      return q + 0.5F * t * (r - p + t * (2 * p - 5 * q + 4 * r - s + t * (3 * (q - r) + s - p)));
    };
    for (int k = i == 0 ? 0 : 1; k <= kPointsPerSpan; ++k) {
      const float t = static_cast<float>(k) / kPointsPerSpan;
      points.push_back({blend(a.x, b.x, c.x, d.x, t) / 100 - 0.5F, blend(a.y, b.y, c.y, d.y, t) / 100 - 0.5F});
    }
  }
  return points;
}

// Ink around the segment a-b, its edge softened over one pixel.
void DrawSegment(Canvas& canvas, StrokePoint a, StrokePoint b, float radius, float ink) {
  const float reach = radius + 0.5F;
  const auto low = [&](float p, float q) { return std::max(0, static_cast<int>(std::ceil(std::min(p, q) - reach))); };
  const auto high = [&](float p, float q) {
    return std::min(kCanvasSide - 1, static_cast<int>(std::floor(std::max(p, q) + reach)));
  };
  const float dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
  for (int y = low(a.y, b.y); y <= high(a.y, b.y); ++y) {
    for (int x = low(a.x, b.x); x <= high(a.x, b.x); ++x) {
      const float px = static_cast<float>(x) - a.x, py = static_cast<float>(y) - a.y;
      const float t = length > 0 ? std::clamp((px * dx + py * dy) / length, 0.0F, 1.0F) : 0.0F;
      const float away_x = px - t * dx, away_y = py - t * dy, away = away_x * away_x + away_y * away_y;
      if (away >= reach * reach) continue;
      float& pixel = canvas[static_cast<std::size_t>(y * kCanvasSide + x)];
      pixel = std::max(pixel, ink * std::min(reach - std::sqrt(away), 1.0F));
    }
  }
}

void DrawSign(Canvas& canvas, const std::vector<SignStyle>& styles, RandomStream& stream) {
  const SignStyle& style = styles[stream.Index(styles.size())];
  const Waves waves(stream, 0.055);
  const double angle = 0.16 * stream.Normal(), shear = 0.18 * stream.Normal();
  const double height = stream.Uniform(16, 22), width = height * stream.Uniform(0.65, 1.1);
  const double center_x = 13.5 + 1.2 * stream.Normal(), center_y = 13.5 + 1.2 * stream.Normal();
  const double radius = stream.Uniform(0.6, 1.8), swell = stream.Uniform(0, 0.35);
  const double swell_rate = stream.Uniform(0.1, 0.5), swell_phase = stream.Uniform(0, kTwoPi);
  const double cosine = std::cos(angle), sine = std::sin(angle);
  const auto placed = [&](StrokePoint p) -> StrokePoint {
    const StrokePoint q = waves.Move(p);
    const double x = width * (q.x - shear * q.y), y = height * q.y;
    return {static_cast<float>(center_x + cosine * x - sine * y), static_cast<float>(center_y + sine * x + cosine * y)};
  };
  int drawn = 0;
  for (const Stroke& stroke : style) {
    auto points = Curve(stroke);
    std::transform(points.begin(), points.end(), points.begin(), placed);
    for (std::size_t i = 1; i < points.size(); ++i, ++drawn) {
      const double swollen = radius * (1 + swell * std::sin(swell_rate * drawn + swell_phase));
      DrawSegment(canvas, points[i - 1], points[i], static_cast<float>(swollen), 1.0F);
    }
  }
}

// A short line somewhere: ink that does not belong to the sign, or a place where the pen did not touch.
void Disturb(Canvas& canvas, RandomStream& stream) {
  const auto anywhere = [&]() -> StrokePoint {
    const double x = stream.Uniform(2, kCanvasSide - 3), y = stream.Uniform(2, kCanvasSide - 3);
    return {static_cast<float>(x), static_cast<float>(y)};
  };
  const StrokePoint from = anywhere();
  const double angle = stream.Uniform(0, kTwoPi), length = stream.Uniform(2, 9);
  const StrokePoint to{from.x + static_cast<float>(length * std::cos(angle)),
                       from.y + static_cast<float>(length * std::sin(angle))};
  const auto radius = static_cast<float>(stream.Uniform(0.4, 1.1));
  if (stream.Uniform() < 0.5) {
    DrawSegment(canvas, from, to, radius, static_cast<float>(stream.Uniform(0.4, 1.0)));
    return;
  }
  Canvas gap{};
  DrawSegment(gap, from, to, radius, 1.0F);
  for (std::size_t i = 0; i < canvas.size(); ++i) canvas[i] *= 1 - gap[i];
}

// The kernel (side, 1 - 2 side, side) along lines of pixels `step` apart, black beyond their ends; `across` is the
// distance between neighbouring lines.
Canvas BlurredAlong(const Canvas& canvas, int step, int across, float side) {
  Canvas out;
  for (int line = 0; line < kCanvasSide; ++line) {
    float before = 0.0F;
    for (int i = 0; i < kCanvasSide; ++i) {
      const auto at = static_cast<std::size_t>(line * across + i * step);
      const float after = i + 1 < kCanvasSide ? canvas[at + static_cast<std::size_t>(step)] : 0.0F;
      out[at] = (1 - 2 * side) * canvas[at] + side * (before + after);
      before = canvas[at];
    }
  }
  return out;
}

// Nearly normal with unit variance: the sum of four uniform 16-bit numbers.
float CheapNormal(RandomStream& stream) {
  const std::uint64_t bits = stream.Next();
  const auto sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
  return (static_cast<float>(sum) - 2 * 65535.0F) * (1.7320508F / 65536.0F);
}

void Render(const std::vector<SignStyle>& styles, RandomStream stream, std::uint8_t* pixels) {
  Canvas canvas{};
  DrawSign(canvas, styles, stream);
  while (stream.Uniform() < 0.3) Disturb(canvas, stream);
  const auto blur = static_cast<float>(stream.Uniform(0.02, 0.25));
  canvas = BlurredAlong(BlurredAlong(canvas, 1, kCanvasSide, blur), kCanvasSide, 1, blur);
  const auto contrast = static_cast<float>(stream.Uniform(0.6, 1.0));
  const auto noise = static_cast<float>(stream.Uniform(0.0, 0.12));
  for (std::size_t i = 0; i < canvas.size(); ++i) {
    const float value = contrast * canvas[i] + noise * CheapNormal(stream);
    pixels[i] = static_cast<std::uint8_t>(255 * std::clamp(value, 0.0F, 1.0F) + 0.5F);
  }
}

}  // namespace

Dataset DrawSigns(const std::string& name, const std::string& split, std::int64_t count, int signs,
                  const std::vector<SignStyle>& (*styles)(int sign), std::uint64_t seed) {
  Dataset data{name + "/" + split, torch::empty({count, 1, kCanvasSide, kCanvasSide}, torch::kUInt8),
               torch::arange(count, torch::kInt64) % signs, signs};
  std::uint8_t* pixels = data.images.data_ptr<std::uint8_t>();
  at::parallel_for(0, count, 256, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      Render(styles(static_cast<int>(i % signs)), RandomStream(seed, fmt::format("data/{}/{}/{}", name, split, i)),
             pixels + i * kCanvasSide * kCanvasSide);
    }
  });
  return data;
}

}  // namespace bitplan
