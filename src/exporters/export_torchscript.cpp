// The TorchScript module, as it lies in the output folder.
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"

namespace bitplan {

void ExportTorchScript(const ExportInputs& inputs, const ExportFiles& files) {
  WriteFileAtomically(files.first, ReadFile(inputs.torchscript, "quantized network"));
}

}  // namespace bitplan
