// The packed file with the plan in it.
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"

namespace bitplan {

// Every weight; scales of activations have no place.
HeldLayer PackedHolds(const Layer&) { return {.limits = {.activations = false}}; }

void ExportPacked(const ExportInputs& inputs, const ExportFiles& files) {
  WriteFileAtomically(files.first, PackNetwork(inputs.network));
}

}  // namespace bitplan
