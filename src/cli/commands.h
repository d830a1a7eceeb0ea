// The sub-commands: a table of name, help and function.
#pragma once

#include <string>
#include <vector>

namespace bitplan::cli {

// Parses the command line (without the program's name), runs the sub-command, prints its result on stdout. Returns the
// exit code; throws what the sub-command throws, and Error(kUsage) for a command line that is not understood.
int Main(std::vector<std::string> arguments);

}  // namespace bitplan::cli
