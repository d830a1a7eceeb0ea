#include "bitplan/posterior/posterior.h"

#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>
#include <torch/types.h>

#include <cerrno>
#include <fstream>
#include <system_error>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "bitplan/io/files.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "posterior/laplace.h"
#include "posterior/svi.h"

namespace bitplan {
namespace {

constexpr std::int64_t kFormat = 1;
constexpr double kRounding = 5e-7;  // relative, of a float32 sigma squared: four units in the last place

void Update(Sha256& hash, const torch::Tensor& tensor) {
  const torch::Tensor values = tensor.contiguous();
  hash.Update(values.data_ptr<float>(), static_cast<std::size_t>(values.numel()) * sizeof(float));
}

bool IsSound(const LayerPosterior& layer) {
  return AreFinite({layer.mean, layer.sigma}) && layer.sigma.gt(0.0).all().item<bool>();
}

}  // namespace

torch::Tensor Posterior::Information(std::size_t layer) const {
  const LayerPosterior& posterior = layers.at(layer);
  const double prior_precision = 1.0 / (posterior.prior_sigma * posterior.prior_sigma);
  torch::Tensor information = posterior.sigma.to(torch::kFloat64).square().reciprocal().sub_(prior_precision);
  // Sigma is a float32: what is left of the prior after the subtraction is rounding, not data.
  information.masked_fill_(information < kRounding * prior_precision, 0.0);
  return information.div_(static_cast<double>(data_size)).to(torch::kFloat32);
}

std::string Posterior::Hash() const {
  Sha256 hash;
  hash.Update(estimator).Update(std::to_string(data_size));
  for (const LayerPosterior& layer : layers) {
    hash.Update(layer.layer);
    Update(hash, layer.mean);
    Update(hash, layer.sigma);
    hash.Update(&layer.prior_sigma, sizeof layer.prior_sigma);
  }
  return hash.Hex();
}

const std::vector<PosteriorEstimator>& PosteriorEstimators() {
  static const std::vector<PosteriorEstimator> list = {
      {"laplace", "diagonal Laplace approximation from the Fisher information of the predictions", EstimateLaplace},
      {"svi", "stochastic variational inference with reparameterized weights, started from laplace", EstimateSvi},
  };
  return list;
}

const PosteriorEstimator& FindPosteriorEstimator(const std::string& name) {
  return FindByName(PosteriorEstimators(), "posterior estimator", name);
}

Posterior EstimatePosterior(const Network& network, const Dataset& train, const Normalizer& normalizer,
                            const PosteriorOptions& options, std::uint64_t seed, ProgressSink& progress) {
  const PosteriorEstimator& estimator = FindPosteriorEstimator(options.estimator);
  if (train.size() == 0) throw Error(ErrorKind::kData, "posterior: the data set has no training images");
  RequireGradients(network, train, normalizer);
  Posterior posterior = estimator.estimate(network, train, normalizer, options, seed, progress);
  for (const LayerPosterior& layer : posterior.layers) {
    if (IsSound(layer)) continue;
    throw Error(ErrorKind::kData, std::string("posterior ") + estimator.name + " of layer " + layer.layer +
                                      " is not finite: its gradients on the training images overflow float32; scale "
                                      "the layer or its inputs down");
  }
  return posterior;
}

void SavePosterior(const Posterior& posterior, const std::filesystem::path& file) {
  WriteFileAtomically(file, [&](const std::filesystem::path& temporary) {
    torch::serialize::OutputArchive archive;
    archive.write("format", torch::tensor(kFormat));
    archive.write("estimator", c10::IValue(posterior.estimator));
    archive.write("data_size", torch::tensor(posterior.data_size));
    archive.write("layers", torch::tensor(static_cast<std::int64_t>(posterior.layers.size())));
    for (std::size_t l = 0; l < posterior.layers.size(); ++l) {
      const LayerPosterior& layer = posterior.layers[l];
      torch::serialize::OutputArchive entry;
      entry.write("name", c10::IValue(layer.layer));
      entry.write("mean", layer.mean);
      entry.write("sigma", layer.sigma);
      entry.write("prior_sigma", torch::tensor(layer.prior_sigma, torch::kFloat64));
      archive.write(std::to_string(l), entry);
    }
    // LibTorch's own writer of files throws from its destructor, and so aborts, when the disk is full.
    std::ofstream out(temporary, std::ios::binary);
    int reason = out ? 0 : errno;
    archive.save_to([&](const void* bytes, std::size_t count) {
      if (reason == 0 && !out.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(count))) {
        reason = errno == 0 ? EIO : errno;
      }
      return count;
    });
    if (reason == 0 && !out.flush()) reason = errno == 0 ? EIO : errno;
    if (reason != 0) throw std::system_error(reason, std::generic_category());
  });
}

Posterior LoadPosterior(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) {
    throw Error(ErrorKind::kNotFound, "posterior file " + file.string() + " does not exist; run `bitplan posterior`");
  }
  try {
    torch::serialize::InputArchive archive;
    archive.load_from(file.string());
    torch::Tensor number;
    c10::IValue text;
    archive.read("format", number);
    if (number.item<std::int64_t>() != kFormat) throw Error(ErrorKind::kData, "another format version");
    Posterior posterior;
    archive.read("estimator", text);
    posterior.estimator = text.toStringRef();
    archive.read("data_size", number);
    posterior.data_size = number.item<std::int64_t>();
    archive.read("layers", number);
    for (std::int64_t l = 0; l < number.item<std::int64_t>(); ++l) {
      torch::serialize::InputArchive entry;
      archive.read(std::to_string(l), entry);
      LayerPosterior layer;
      torch::Tensor prior;
      entry.read("name", text);
      layer.layer = text.toStringRef();
      entry.read("mean", layer.mean);
      entry.read("sigma", layer.sigma);
      entry.read("prior_sigma", prior);
      layer.prior_sigma = prior.item<double>();
      if (!IsSound(layer)) throw Error(ErrorKind::kData, "not finite");
      posterior.layers.push_back(std::move(layer));
    }
    return posterior;
  } catch (const std::exception&) {
    throw Error(ErrorKind::kData, "posterior file " + file.string() + " is damaged; delete it and run again");
  }
}

}  // namespace bitplan
