#include "quantizers/deflate.h"

#include <zlib.h>

#include "bitplan/core/error.h"

namespace bitplan {

std::string Deflated(const std::string& bytes) {
  uLongf size = compressBound(bytes.size());
  std::string deflated(size, '\0');
  if (compress2(reinterpret_cast<Bytef*>(deflated.data()), &size, reinterpret_cast<const Bytef*>(bytes.data()),
                bytes.size(), Z_BEST_COMPRESSION) != Z_OK) {
    throw Error(ErrorKind::kInternal, "zlib cannot deflate");
  }
  deflated.resize(size);
  return deflated;
}

}  // namespace bitplan
