// The packed file with the plan in it.
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"

namespace bitplan {

void ExportPacked(const ExportInputs& inputs, const std::filesystem::path& file) {
  WriteFileAtomically(file, PackNetwork(inputs.network));
}

}  // namespace bitplan
