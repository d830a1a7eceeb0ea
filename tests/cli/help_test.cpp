#include <cstdlib>

#include "bitplan/allocators/allocator.h"
#include "cli/blas.h"
#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

// What bash offers for a command line whose last word stands before the cursor, as a person would type it: words as
// bash splits them, '=' a word of its own.
std::vector<std::string> Offered(const Workplace& place, const std::vector<std::string>& words) {
  WriteText(place / "bitplan.bash", place.Bitplan({"help", "completion", "bash"}).out);
  std::string script = "source bitplan.bash; COMP_WORDS=(bitplan";
  for (const auto& word : words) script += " '" + word + "'";
  script += "); COMP_CWORD=" + std::to_string(words.size()) + "; _bitplan; printf '%s\\n' \"${COMPREPLY[@]}\"";
  const std::string command = "cd '" + (place / "").string() + "' && bash -c \"$(cat script.bash)\" > offered.txt 2>&1";
  WriteText(place / "script.bash", script);
  REQUIRE(std::system(command.c_str()) == 0);
  std::istringstream lines(ReadText(place / "offered.txt"));
  std::vector<std::string> offered;
  for (std::string line; std::getline(lines, line);) offered.push_back(line);
  return offered;
}

bool Has(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

TEST_CASE("help lists its topics, and every topic says what there is") {
  const Workplace place;
  const auto help = place.Bitplan({"help"});
  for (const char* topic : {"recipe", "plan", "allocators", "formats", "completion"}) {
    CHECK_THAT(help.out, ContainsSubstring(std::string("\n  ") + topic + " "));
    CHECK_THAT(ErrorLine(place.Bitplan({"help", "topics"})), ContainsSubstring(topic));
  }
  CHECK_THAT(place.Bitplan({"--help"}).out, ContainsSubstring("Topics of 'bitplan help'"));
  CHECK_THAT(place.Bitplan({"help", "run"}).out, !ContainsSubstring("Topics"));

  const auto recipe = place.Bitplan({"help", "recipe"}).out, allocators = place.Bitplan({"help", "allocators"}).out;
  for (const auto& allocator : bitplan::Allocators()) {
    CHECK_THAT(recipe, ContainsSubstring(allocator.name));
    CHECK_THAT(allocators, ContainsSubstring(allocator.description));
  }
  for (const char* name : {"resnet20", "dirty-mnist", "svi", "fisher-output", "pad-and-crop", "sgd"})
    CHECK_THAT(recipe, ContainsSubstring(name));
  for (const char* format : {"packed", "torchscript", "json"})
    CHECK_THAT(place.Bitplan({"help", "formats"}).out, ContainsSubstring(format));
  CHECK_THAT(place.Bitplan({"help", "export"}).out, ContainsSubstring("--to"));
  CHECK_THAT(place.Bitplan({"help", "plan"}).out, ContainsSubstring("average_bits_with_overhead"));
}

TEST_CASE("bash completes sub-commands, options, their values, recipe keys and names") {
  const Workplace place;
  CHECK(Offered(place, {"comp"}) == std::vector<std::string>{"compare"});
  CHECK(Has(Offered(place, {""}), "run"));
  CHECK(Has(Offered(place, {"verify", "--"}), "--against"));
  CHECK_FALSE(Has(Offered(place, {"train", "--"}), "--against"));
  CHECK(Offered(place, {"run", "--device", "c"}) == std::vector<std::string>{"cpu", "cuda"});
  CHECK(Offered(place, {"run", "ti"}) == std::vector<std::string>{"tiny.yaml"});
  CHECK(Offered(place, {"run", "--threads", "2", "--quiet", "ti"}) == std::vector<std::string>{"tiny.yaml"});
  CHECK(Offered(place, {"run", "--set", "allocate.budget.av"}) ==
        std::vector<std::string>{"allocate.budget.average_bits="});
  CHECK(Offered(place, {"run", "--set", "allocate.allocator", "=", "quan"}) ==
        std::vector<std::string>{"quantile-inform", "quantile-inform-rank"});
  CHECK(Has(Offered(place, {"run", "--set", "train.optimizer", "="}), "sgd"));
  CHECK(Offered(place, {"run", "--set", "seed", "=", "2", "ti"}) == std::vector<std::string>{"tiny.yaml"});
  CHECK(Offered(place, {"export", "tiny.yaml", "--to", "p"}) == std::vector<std::string>{"packed"});
  CHECK(Offered(place, {"inspect", "resn"}) == std::vector<std::string>{"resnet20"});
  CHECK(Offered(place, {"help", "alloc"}) == std::vector<std::string>{"allocate", "allocators"});
  CHECK(Offered(place, {"help", "completion", "z"}) == std::vector<std::string>{"zsh"});
  CHECK(Offered(place, {"compare", "tiny.yaml", "--metrics", "haw"}) == std::vector<std::string>{"hawq"});
  std::filesystem::create_directories(place / "a folder");
  WriteText(place / "a file", "");
  CHECK(Offered(place, {"run", "--out", "a "}) == std::vector<std::string>{"a folder"});
}

TEST_CASE("zsh reads its completion without complaint") {
  const Workplace place;
  const auto script = place.Bitplan({"help", "completion", "zsh"});
  REQUIRE(script.code == 0);
  CHECK_THAT(script.out, ContainsSubstring("#compdef bitplan\n") && ContainsSubstring("--against["));
  WriteText(place / "_bitplan", script.out);
  if (std::system("command -v zsh > /dev/null") != 0) return;
  CHECK(std::system(("zsh -n '" + (place / "_bitplan").string() + "'").c_str()) == 0);
}

TEST_CASE("completion for a shell that is not there is a usage error") {
  const Workplace place;
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"help", "completion"}, {"help", "completion", "fish"}}) {
    const auto refused = place.Bitplan(words);
    CHECK(refused.code == 64);
    CHECK_THAT(ErrorLine(refused), ContainsSubstring("bash"));
  }
}

TEST_CASE("the reference BLAS is warned of by name, a tuned one never") {
  const auto library = std::filesystem::path(bitplan::cli::BlasLibrary());
  const auto reference = library.parent_path().parent_path() / "blas";
  const Workplace place;
  if (!bitplan::cli::IsReferenceBlas(library.string()))
    CHECK_THAT(place.Bitplan({"train", place.recipe()}).err, !ContainsSubstring("BLAS"));
  if (!std::filesystem::exists(reference / "libblas.so.3")) return;  // a distribution that lays it elsewhere
  setenv("LD_PRELOAD", (reference / "libblas.so.3").c_str(), 1);
  const auto slow = place.Bitplan({"train", place.recipe()});
  unsetenv("LD_PRELOAD");
  CHECK(slow.code == 0);
  CHECK_THAT(slow.err, ContainsSubstring("warning: matrix products are made by the reference BLAS"));
}
