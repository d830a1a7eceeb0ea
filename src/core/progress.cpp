#include "bitplan/core/progress.h"

namespace bitplan {
namespace {

class Silent final : public ProgressSink {
 public:
  void Begin(const std::string&, std::int64_t, const std::string&) override {}
  void Advance(std::int64_t) override {}
  void End(const std::string&) override {}
  void Info(const std::string&) override {}
  void Warn(const std::string&) override {}
};

}  // namespace

ProgressSink& SilentSink() {
  static Silent sink;
  return sink;
}

}  // namespace bitplan
