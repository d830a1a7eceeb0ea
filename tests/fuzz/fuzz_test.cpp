// Every parser on the committed seeds, on inputs that once broke one, and on damaged seeds. The seeds lie in
// seeds/TARGET, the others in regressions/TARGET; scripts/fuzz searches for more.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <iterator>
#include <random>

#include "bitplan/core/error.h"
#include "fuzz/targets.h"
#include "support/catch_torch.h"

namespace bitplan::fuzz {
namespace {

constexpr double kMostSeconds = 5.0;                // of the processor; a parser takes microseconds
constexpr std::int64_t kMostBytes = 256LL << 20;    // that parsing a seed of some kilobytes may touch
constexpr rlim_t kMostAddresses = rlim_t{2} << 30;  // that a parser may ask for
constexpr std::size_t kMostCuts = 300;

double ProcessorSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// A line of /proc/self/status, in bytes.
std::int64_t StatusBytes(const std::string& key) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

// Makes VmHWM, the most memory that the process had, what it has now.
void ForgetPeak() { std::ofstream("/proc/self/clear_refs") << "5"; }

// While it lives, a request for much more memory than the process has fails.
class AddressLimit {
 public:
  AddressLimit() {
    getrlimit(RLIMIT_AS, &before_);
    rlimit limit = before_;
    limit.rlim_cur = std::min<rlim_t>(before_.rlim_max, static_cast<rlim_t>(StatusBytes("VmSize")) + kMostAddresses);
    setrlimit(RLIMIT_AS, &limit);
  }
  ~AddressLimit() { setrlimit(RLIMIT_AS, &before_); }
  AddressLimit(const AddressLimit&) = delete;
  AddressLimit& operator=(const AddressLimit&) = delete;

 private:
  rlimit before_{};
};

std::string ContentOf(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::filesystem::path> FilesIn(const char* kind, const std::string& target) {
  std::vector<std::filesystem::path> files;
  const auto folder = std::filesystem::path(BITPLAN_SOURCE_DIR) / "tests/fuzz" / kind / target;
  if (!std::filesystem::is_directory(folder)) return files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// Keeps the input for libFuzzer where the parser does what it must not.
void Check(const FuzzTarget& target, const std::string& bytes, const std::string& what) {
  const double begin = ProcessorSeconds();
  ForgetPeak();
  const std::int64_t memory = StatusBytes("VmHWM");
  std::string failure;
  try {
    ParseOne([&] { target.parse(bytes); });
  } catch (const std::exception& error) {
    failure = error.what();
    failure = fmt::format("'{}' is thrown", failure.substr(0, failure.find('\n')));
  } catch (...) {
    failure = "something is thrown that is no exception";
  }
  const double seconds = ProcessorSeconds() - begin;
  const std::int64_t most = StatusBytes("VmHWM") - memory;
  if (failure.empty() && seconds > kMostSeconds) failure = fmt::format("it takes {:.1f} s", seconds);
  if (failure.empty() && most > kMostBytes) failure = fmt::format("it takes {} MiB", most >> 20);
  if (failure.empty()) return;
  const auto kept = std::filesystem::temp_directory_path() / fmt::format("bitplan-fuzz-{}", target.name);
  std::ofstream(kept, std::ios::binary) << bytes;
  FAIL_CHECK(fmt::format("{}, {}: {}; the input is kept in {}", target.name, what, failure, kept.string()));
}

void CheckTruncated(const FuzzTarget& target, const std::string& seed, const std::string& name) {
  const std::size_t step = std::max<std::size_t>(1, seed.size() / kMostCuts);
  for (std::size_t size = 0; size < seed.size(); size += size < 64 ? 1 : step) {
    Check(target, seed.substr(0, size), fmt::format("{} cut to {} bytes", name, size));
  }
  if (!seed.empty()) Check(target, seed.substr(0, seed.size() - 1), name + " without its last byte");
}

void CheckFlipped(const FuzzTarget& target, std::string seed, const std::string& name) {
  const std::size_t bits = 8 * seed.size();
  const std::size_t step = std::max<std::size_t>(1, bits / static_cast<std::size_t>(target.flips)) | 1U;
  for (std::size_t bit = 0; bit < bits; bit += step) {
    const char mask = static_cast<char>(1 << bit % 8);
    seed[bit / 8] = static_cast<char>(seed[bit / 8] ^ mask);
    Check(target, seed, fmt::format("{} with bit {} flipped", name, bit));
    seed[bit / 8] = static_cast<char>(seed[bit / 8] ^ mask);
  }
}

// Random bytes, some of them behind the first bytes of a seed.
void CheckRandom(const FuzzTarget& target, const std::string& seed, const std::string& name) {
  std::mt19937 random(7);
  for (int i = 0; i < 60; ++i) {
    std::string bytes = seed.substr(0, i % 3 == 0 ? 0 : random() % 32);
    const std::size_t count = random() % 512;
    for (std::size_t b = 0; b < count; ++b) bytes += static_cast<char>(random());
    Check(target, bytes, fmt::format("random bytes {} with the beginning of {}", i, name));
  }
}

void CheckTarget(const std::string& name) {
  const auto& targets = FuzzTargets();
  const auto target = std::find_if(targets.begin(), targets.end(), [&](const auto& one) { return name == one.name; });
  REQUIRE(target != targets.end());
  const auto seeds = FilesIn("seeds", name);
  CHECK_FALSE(seeds.empty());
  for (const auto& file : seeds) {
    INFO(file.string());
    CHECK_NOTHROW(target->parse(ContentOf(file)));  // also makes what is made once
  }
  const AddressLimit limit;
  for (const auto& file : FilesIn("regressions", name)) Check(*target, ContentOf(file), file.filename().string());
  for (const auto& file : seeds) {
    const std::string seed = ContentOf(file), shown = file.filename().string();
    CheckTruncated(*target, seed, shown);
    CheckFlipped(*target, seed, shown);
    CheckRandom(*target, seed, shown);
  }
}

TEST_CASE("damaged recipes end in an error") { CheckTarget("recipe"); }
TEST_CASE("damaged plans end in an error") { CheckTarget("plan"); }
TEST_CASE("damaged tables of latencies end in an error") { CheckTarget("latency"); }
TEST_CASE("damaged widths in CSV end in an error") { CheckTarget("widths_csv"); }
TEST_CASE("damaged widths in YAML end in an error") { CheckTarget("widths_yaml"); }
TEST_CASE("damaged sensitivity tables end in an error") { CheckTarget("sensitivity"); }
TEST_CASE("damaged draws of a posterior end in an error") { CheckTarget("draws"); }
TEST_CASE("damaged npy files end in an error") { CheckTarget("npy"); }
TEST_CASE("damaged CSV data end in an error") { CheckTarget("csv"); }
TEST_CASE("damaged idx files end in an error") { CheckTarget("idx"); }
TEST_CASE("damaged CIFAR-10 batches end in an error") { CheckTarget("cifar10"); }
TEST_CASE("damaged tensors of torch.save end in an error") { CheckTarget("pickled_tensor"); }
TEST_CASE("damaged pictures end in an error") { CheckTarget("picture"); }
TEST_CASE("damaged safetensors files end in an error") { CheckTarget("safetensors"); }
TEST_CASE("damaged packed networks end in an error") { CheckTarget("packed"); }
TEST_CASE("packed networks with a wrong index and a right checksum end in an error") { CheckTarget("packed_index"); }
TEST_CASE("damaged packed Bayesian networks end in an error") { CheckTarget("bayes_packed"); }
TEST_CASE("damaged ONNX files end in an error when they are read") { CheckTarget("onnx_file"); }
TEST_CASE("damaged ONNX models end in an error when they are translated") { CheckTarget("onnx_model"); }
TEST_CASE("damaged TorchScript archives end in an error") { CheckTarget("torchscript"); }
TEST_CASE("damaged state dicts of torch.save end in an error") { CheckTarget("state_dict"); }

TEST_CASE("a flipped bit of a weight in a TorchScript archive is seen, LibTorch would take it") {
  const auto seeds = FilesIn("seeds", "torchscript");
  REQUIRE_FALSE(seeds.empty());
  std::string archive = ContentOf(seeds.front());
  const std::string entry = seeds.front().stem().string() + "/data/0";
  const std::size_t header = archive.find(entry) - 30;  // of its local header, whose extra field has a length
  const std::size_t extra = static_cast<unsigned char>(archive[header + 28]);
  archive[header + 30 + entry.size() + extra + 2] ^= 1;
  CHECK_THROWS_WITH(FuzzTorchScript(archive), ContainsSubstring("entry '" + entry + "' is damaged: its checksum"));
}

TEST_CASE("every target of the fuzzer has a test") { CHECK(FuzzTargets().size() == 21); }

}  // namespace
}  // namespace bitplan::fuzz
