// What each operator of TorchScript becomes in ONNX: one file for each kind of operator, one list of all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "exporters/onnx_call.h"

namespace bitplan::onnx_operators {

using Names = std::vector<std::string>;
using Numbers = std::vector<std::int64_t>;

void AddLayers(OnnxTranslators& all);       // convolution, linear, matrix products, embedding, attention
void AddNorms(OnnxTranslators& all);        // batch, layer, group and instance norm
void AddPools(OnnxTranslators& all);        // pools, padding, resizing
void AddActivations(OnnxTranslators& all);  // relu and what followed
void AddQuantizers(OnnxTranslators& all);   // of activations
void AddElements(OnnxTranslators& all);     // arithmetic, comparisons, casts
void AddRecurrent(OnnxTranslators& all);    // lstm, gru, rnn and their cells
void AddReductions(OnnxTranslators& all);   // mean, sum, maximum and the like
void AddShapes(OnnxTranslators& all);       // view, permute, slice, cat and the like

// An operation on the first operand, cast to the type of the result where it has another.
[[nodiscard]] std::string OnSelf(const OnnxCall& call, const std::string& type,
                                 const std::vector<onnx_file::Attribute>& attributes = {});

// All of them, by name without "aten::". relu stands for relu_ too.
[[nodiscard]] const OnnxTranslators& All();

}  // namespace bitplan::onnx_operators
