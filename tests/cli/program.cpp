#include "cli/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "bitplan/core/random.h"

namespace bitplan::test {
namespace {

constexpr std::int64_t kSide = 28;
constexpr int kClasses = 4;

// A bright square in one of four corners, in noise.
void WriteImages(const std::filesystem::path& folder, const std::string& split, std::int64_t count) {
  RandomStream stream(7, "test/" + split);
  std::string images, labels;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto label = static_cast<int>(stream.Index(kClasses));
    const std::int64_t top = label / 2 * 14 + 3, left = label % 2 * 14 + 3;
    for (std::int64_t y = 0; y < kSide; ++y) {
      for (std::int64_t x = 0; x < kSide; ++x) {
        const bool bright = y >= top && y < top + 8 && x >= left && x < left + 8;
        images.push_back(static_cast<char>(static_cast<unsigned char>(stream.Uniform(0, 120) + (bright ? 60 : 0))));
      }
    }
    const std::int64_t wide = label;
    labels.append(reinterpret_cast<const char*>(&wide), sizeof wide);
  }
  WriteNpy(folder / (split + "-images.npy"), "|u1", {count, 1, kSide, kSide}, images);
  WriteNpy(folder / (split + "-labels.npy"), "<i8", {count}, labels);
}

constexpr const char* kRecipe = R"(bitplan: 1
name: tiny
model: {architecture: lenet-300-100}
data:
  name: npy
  train_images: train-images.npy
  train_labels: train-labels.npy
  test_images: test-images.npy
  test_labels: test-labels.npy
  calibration: 50
train: {epochs: 2, batch: 50}
posterior: {estimator: laplace, samples: 128}
sensitivity: {metric: posterior}
allocate: {allocator: quantile-inform, budget: {average_bits: 3.0}}
verify: {bootstrap: 500}
seed: 1
)";

}  // namespace

std::string ReadText(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

void WriteText(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  if (at == std::string::npos) throw std::logic_error("nothing to replace: " + from);
  return text.replace(at, from.size(), to);
}

void WriteNpy(const std::filesystem::path& file, const std::string& type, const std::vector<std::int64_t>& shape,
              const std::string& bytes) {
  std::string sizes;
  for (const auto size : shape) sizes += std::to_string(size) + ",";
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + sizes + "), }";
  header.append(64 - (header.size() + 11) % 64, ' ');
  header += '\n';
  std::string text("\x93NUMPY\x01\x00", 8);
  text += static_cast<char>(header.size() & 0xff);
  text += static_cast<char>(header.size() >> 8);
  WriteText(file, text + header + bytes);
}

bool NothingHalfWritten(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder)) return true;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto name = entry.path().filename().string();
    if (name == "plan.yaml" || name.find(".tmp") != std::string::npos) return false;
  }
  return true;
}

std::string ErrorLine(const Outcome& outcome) {
  const std::string mark = "bitplan: ";
  const auto begin = outcome.err.rfind(mark, 0) == 0 ? 0 : outcome.err.find("\n" + mark);
  if (begin == std::string::npos) return "";
  auto line = outcome.err.substr(begin == 0 ? 0 : begin + 1);
  if (line.empty() || line.find('\n') != line.size() - 1) return "";
  line.pop_back();
  return line;
}

Workplace::Workplace() {
  std::string name = (std::filesystem::temp_directory_path() / "bitplan-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot create a temporary folder");
  folder_ = name;
  WriteImages(folder_, "train", 300);
  WriteImages(folder_, "test", 100);
  WriteText(recipe(), kRecipe);
}

Workplace::~Workplace() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

void Workplace::EditRecipe(const std::string& from, const std::string& to) const {
  WriteText(recipe(), Replaced(ReadText(recipe()), from, to));
}

std::filesystem::path Workplace::Said(const std::string& stream, pid_t process) const {
  return folder_ / (stream + "-" + std::to_string(process) + ".txt");
}

pid_t Workplace::Start(const std::vector<std::string>& arguments, std::int64_t file_limit) const {
  std::vector<std::string> words = {BITPLAN_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const pid_t process = fork();
  if (process != 0) return process;
  setenv("BITPLAN_DATA", folder_.c_str(), 1);
  const auto out = Said("stdout", getpid()), err = Said("stderr", getpid());
  const int out_file = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const int err_file = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  dup2(out_file, STDOUT_FILENO);
  dup2(err_file, STDERR_FILENO);
  if (file_limit > 0) {
    const rlimit limit{static_cast<rlim_t>(file_limit), static_cast<rlim_t>(file_limit)};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  if (chdir(folder_.c_str()) == 0) execv(pointers[0], pointers.data());
  _exit(127);
}

Outcome Workplace::Collect(pid_t process) const {
  int status = 0;
  waitpid(process, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), ReadText(Said("stdout", process)),
          ReadText(Said("stderr", process))};
}

Outcome Workplace::Bitplan(const std::vector<std::string>& arguments, std::int64_t file_limit) const {
  return Collect(Start(arguments, file_limit));
}

Outcome Workplace::BitplanStopped(const std::vector<std::string>& arguments, int signal,
                                  const std::function<bool()>& when) const {
  const pid_t process = Start(arguments, 0);
  siginfo_t state{};
  while (!when()) {
    state.si_pid = 0;
    if (waitid(P_PID, static_cast<id_t>(process), &state, WEXITED | WNOHANG | WNOWAIT) == 0 && state.si_pid != 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  kill(process, signal);
  return Collect(process);
}

}  // namespace bitplan::test
