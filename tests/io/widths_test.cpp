#include "bitplan/io/widths.h"

#include "io/scratch.h"
#include "support/catch.h"

namespace bitplan {
namespace {

std::string Told(const std::string& text, const std::string& file) {
  std::string told;
  for (const auto& [name, bits] : ParseWidths(text, file)) told += name + "=" + std::to_string(bits) + " ";
  return told;
}

}  // namespace

TEST_CASE("widths of other tools are read from CSV, YAML and JSON in the forms that tools write") {
  const std::string both = "conv1=8 layer1.0.fc=2 ";
  CHECK(Told("conv1,8\nlayer1.0.fc,2\n", "a.csv") == both);
  CHECK(Told("layer,shape,num_bits\nconv1,20x1,8\nlayer1.0.fc,\"a,b\",2.0\n", "a.csv") == both);
  CHECK(Told("# chosen by hand\r\n\r\nconv1;8\r\nlayer1.0.fc ; 2\r\n", "a.txt") == both);
  CHECK(Told("bits\tname\n8\tconv1\n2\t\"layer1.0.fc\"", "a.tsv") == both);
  CHECK(Told("conv1: 8\nlayer1.0.fc: {bits: 2, group_size: -1}\n", "a.yaml") == both);
  CHECK(Told(R"([{"module": "conv1", "bits": 8}, {"module": "layer1.0.fc", "bitwidth": 2}])", "a.json") == both);
  CHECK(Told("bitplan: 1\nlayers:\n  - {name: conv1, bits: 8}\n  - {name: layer1.0.fc, bits: 2}\n", "plan.yml") ==
        both);
  CHECK(Told("a,0\nb,16\nc,32\n", "a.csv") == "a=0 b=16 c=32 ");
}

TEST_CASE("widths that are none, and files of something else, are refused in one line with file and line") {
  const auto refused = [](const std::string& text, const std::string& file, const std::string& why) {
    INFO(text);
    const Error error = ErrorOf([&] { (void)ParseWidths(text, file); });
    CHECK(error.kind() == ErrorKind::kData);
    CHECK_THAT(error.what(), ContainsSubstring(file) && ContainsSubstring(why));
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
  };
  refused("conv1,8\nfc,9\n", "a.csv", "a.csv:2: '9' is no width");
  refused("conv1,8\nfc\n", "a.csv", "a.csv:2:");
  refused("conv1,8\nconv1,4\n", "a.csv", "comes twice");
  refused("fc,2.5\n", "a.csv", "no width");
  refused("fc,-1\n", "a.csv", "no width");
  refused("fc,99999999999999999999\n", "a.csv", "no width");
  refused("", "a.csv", "no layers");
  refused(
      "\x7f"
      "ELF\x02\x01\x01",
      "a.bin", "a.bin:1:");
  refused("conv1: wide\n", "a.yaml", "a.yaml:1");
  refused("- 8\n- 4\n", "a.yaml", "keys name, layer, module");
  refused("[[8]]", "a.json", "keys name");
  refused("conv1: {grid: half}\n", "a.yaml", "keys bits");
  refused("{\"conv1\": 8, \"conv1\": 4}", "a.json", "comes twice");
  refused("eight", "a.yaml", "no widths");
  refused("{", "a.json", "a.json");
}

}  // namespace bitplan
