// Answers of ONNX models as bitplan reads them, for tests/python/onnx_import.py.
//
//   onnx_answers < LIST
//
// A line of LIST: MODEL INPUTS SHAPE TYPE OUTPUTS, divided by tabs. INPUTS: plain little-endian float32 or int64 (TYPE)
// of SHAPE ("5,3,8,8"); OUTPUTS: the file that gets the answers as float32. A line of JSON for each: the shape of the
// answers, the layers with shape and multiply-accumulates, how many batch norms, seconds a pass (the fastest of several
// where REPEATS is given behind OUTPUTS), or the error.
#include <torch/types.h>
#include <torch/utils.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/models/network.h"

namespace {

torch::Tensor ReadInputs(const std::string& file, const std::vector<std::int64_t>& shape, torch::ScalarType type) {
  std::ifstream in(file, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  torch::Tensor inputs = torch::empty(shape, type);
  if (bytes.size() != inputs.nbytes()) throw std::runtime_error(file + " is not of the shape given");
  std::memcpy(inputs.data_ptr(), bytes.data(), bytes.size());
  return inputs;
}

nlohmann::json Answer(const std::vector<std::string>& words) {
  std::vector<std::int64_t> shape;
  std::istringstream sizes(words.at(2));
  for (std::string size; std::getline(sizes, size, ',');) shape.push_back(std::stoll(size));
  const torch::Tensor inputs = ReadInputs(words.at(1), shape, words.at(3) == "int64" ? torch::kInt64 : torch::kFloat);
  const torch::jit::Module module = bitplan::LoadModule(words.at(0));
  const torch::Tensor answers = bitplan::RunForward(module, inputs).to(torch::kFloat).contiguous();
  std::ofstream(words.at(4), std::ios::binary)
      .write(static_cast<const char*>(answers.data_ptr()), static_cast<std::streamsize>(answers.nbytes()));
  nlohmann::json report = {{"shape", answers.sizes().vec()}};
  const int repeats = words.size() > 5 ? std::stoi(words[5]) : 0;
  if (repeats > 0) {
    double fastest = std::numeric_limits<double>::infinity();
    for (int i = 0; i < repeats; ++i) {
      const auto begun = std::chrono::steady_clock::now();
      (void)bitplan::RunForward(module, inputs);
      fastest = std::min(fastest, std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
    }
    report["seconds"] = fastest;
  }
  const std::vector<std::int64_t> one(shape.begin() + 1, shape.end());
  try {
    const bitplan::Network network = bitplan::DescribeNetwork(module, "network", one);
    for (const bitplan::Layer& layer : network.layers) {
      report["layers"].push_back({{"name", layer.name},
                                  {"kind", layer.kind},
                                  {"shape", layer.shape},
                                  {"output_dim", layer.output_dim},
                                  {"bias", layer.bias},
                                  {"macs", layer.macs}});
    }
    report["batch_norms"] = network.batch_norms.size();
  } catch (const bitplan::Error& error) {
    report["no_layers"] = error.what();
  }
  return report;
}

}  // namespace

int main() {
  const torch::NoGradGuard no_grad;
  at::set_num_threads(2);
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> words;
    std::istringstream text(line);
    for (std::string word; std::getline(text, word, '\t');) words.push_back(word);
    nlohmann::json report;
    try {
      report = Answer(words);
    } catch (const std::exception& error) {
      report["error"] = error.what();
    }
    std::cout << report.dump() << std::endl;
  }
}
