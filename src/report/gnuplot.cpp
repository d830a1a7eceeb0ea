#include "report/gnuplot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "bitplan/io/files.h"

namespace bitplan {
namespace {

bool RunGnuplot(const std::filesystem::path& folder, const std::string& script) {
  const pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) {
    const int nowhere = open("/dev/null", O_WRONLY);
    if (nowhere >= 0) dup2(nowhere, STDERR_FILENO);  // its warnings about empty ranges help nobody
    if (chdir(folder.c_str()) == 0) execlp("gnuplot", "gnuplot", script.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return false;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

// Only names of allocators and layers reach a script; a quote or a line break in them would end a string.
std::string GnuplotText(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (c != '\n' && c != '\r') quoted += c;
  }
  return quoted + "\"";
}

const std::vector<std::string>& PlotColours() {
  static const std::vector<std::string> colours = {"#1f5fa8", "#c62f2f", "#1b7837", "#8e3fae", "#b35806",
                                                   "#007a87", "#d4267d", "#5c4033", "#4b4bd6", "#6b7a00",
                                                   "#0b2f5b", "#7a0c2e", "#0f8a5f", "#555555", "#a3619b"};
  return colours;
}

std::string GnuplotHeader(const std::string& name, int width, int height) {
  std::string types;
  for (std::size_t i = 0; i < PlotColours().size(); ++i)
    types += fmt::format("set linetype {} lc rgb '{}'\n", i + 1, PlotColours()[i]);
  types += fmt::format("set linetype cycle {}\n", PlotColours().size());
  return types +
         fmt::format(
             "set terminal svg size {},{} dynamic background rgb 'white' font 'Helvetica,13'\nset output '{}.svg'\n"
             "set grid lc rgb '#dddddd'\nset border lc rgb '#555555'\nset key outside right noenhanced\n",
             width, height, name);
}

std::vector<DrawnFigure> Draw(const std::vector<Drawing>& drawings, const std::filesystem::path& folder) {
  EnsureWritableFolder(folder);
  // What an earlier report drew and this one does not is gone.
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto kind = entry.path().extension();
    std::error_code ignored;
    if (kind == ".svg" || kind == ".dat" || kind == ".gp") std::filesystem::remove(entry.path(), ignored);
  }
  std::vector<DrawnFigure> figures;
  for (const Drawing& drawing : drawings) {
    if (drawing.name.empty()) continue;
    const auto svg = folder / (drawing.name + ".svg");
    WriteFileAtomically(folder / (drawing.name + ".dat"), drawing.data);
    WriteFileAtomically(folder / (drawing.name + ".gp"), drawing.script);
    DrawnFigure figure{drawing.name, drawing.caption, ""};
    if (RunGnuplot(folder, drawing.name + ".gp") && std::filesystem::exists(svg)) figure.svg = ReadFile(svg, "figure");
    figures.push_back(std::move(figure));
  }
  return figures;
}

}  // namespace bitplan
