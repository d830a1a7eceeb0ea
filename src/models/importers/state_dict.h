// A dictionary of tensors that Python wrote with torch.save: a ZIP archive of a pickle and the numbers of the tensors.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace bitplan {

// Tensors by name. Of a checkpoint, a dictionary that holds others, the dictionary under state_dict, model_state_dict
// or model. The pickle is read as data: nothing in it is run, and a value that is no tensor is passed over.
// Source: docs.python.org/3/library/pickletools (opcodes), torch/serialization.py and torch/_utils.py (what tensors
// are). Error(kData) for a damaged file, and for one that holds no dictionary of tensors; `what` begins the messages.
[[nodiscard]] std::map<std::string, torch::Tensor> ReadStateDict(const std::filesystem::path& file,
                                                                 const std::string& what);

// The same of the pickle alone. `numbers` gives the bytes (uint8 [n]) of the storage of a name. Error(kData), one line
// without the name of the file.
[[nodiscard]] std::map<std::string, torch::Tensor> UnpickleTensors(
    std::string_view pickle, const std::function<torch::Tensor(const std::string& name)>& numbers);

}  // namespace bitplan
