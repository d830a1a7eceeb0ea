#!/usr/bin/env bash
# What scripts/fetch-data promises, tried without a network. Usage: fetch_data_test.sh PATH-OF-FETCH-DATA
set -uo pipefail
fetch=$1
if ! command -v curl >/dev/null; then
  echo "skipped: curl is not installed"
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

# must WHAT STATUS TEXT ARGUMENT...: fetch-data with the arguments exits with STATUS and says TEXT.
must() {
  local what=$1 status=$2 text=$3 got=0 output
  shift 3
  output=$("$fetch" "$@" 2>&1) || got=$?
  if [ "$got" -ne "$status" ] || [[ "$output" != *"$text"* ]]; then
    echo "FAILED: $what: exit code $got, expected $status and '$text':" "$output"
    failures=$((failures + 1))
  fi
}

# hold WHAT COMMAND...
hold() {
  local what=$1
  shift
  "$@" || { echo "FAILED: $what"; failures=$((failures + 1)); }
}

must "no folder given is a usage error" 64 "usage:"
must "help names the data sets" 0 "fashion-mnist" --help
must "help says that trained models are not fetched" 0 "no trained models" --help
must "an unknown data set lists the known ones" 64 "known: mnist, fashion-mnist, cifar10" "$folder/a" mnits
must "an unknown option is a usage error" 64 "unknown option --form" --form x "$folder/a"

must "a mirror that cannot be reached is named with the file" 69 "train-images-idx3-ubyte.gz" \
  --from "file://$folder/nowhere" "$folder/b"
must "without a mirror there is still synthetic-digits" 69 "synthetic-digits" \
  --from "file://$folder/nowhere" "$folder/b" cifar10
hold "nothing is left behind when no mirror is reached" test -z "$(find "$folder/b" -mindepth 1)"

mkdir -p "$folder/mirror/mnist"
echo "a login page" >"$folder/mirror/mnist/train-images-idx3-ubyte.gz"
must "a file with another checksum is refused" 69 "wrong checksum" --from "file://$folder/mirror" "$folder/c"
hold "a file with another checksum is not installed" test ! -e "$folder/c/mnist"

touch "$folder/file"
must "a folder that cannot be created is an output error" 74 "cannot write into" \
  --from "file://$folder/mirror" "$folder/file/d"

published=${BITPLAN_DATA:-$(dirname "$fetch")/../data}
if [ -e "$published/mnist/train-images-idx3-ubyte.gz" ]; then
  published=$(cd "$published" && pwd)
  must "files from a mirror are installed" 0 "" --from "file://$published" "$folder/e" mnist
  hold "all four MNIST files are installed" test "$(find "$folder/e/mnist" -name '*.gz' | wc -l)" -eq 4
  must "what is in place is not fetched again" 0 "" --from "file://$folder/nowhere" "$folder/e" mnist
  echo damage >>"$folder/e/mnist/t10k-labels-idx1-ubyte.gz"
  must "a damaged file is fetched again" 0 "t10k-labels" --from "file://$published" "$folder/e" mnist
  hold "a damaged file is replaced" cmp -s "$folder/e/mnist/t10k-labels-idx1-ubyte.gz" \
    "$published/mnist/t10k-labels-idx1-ubyte.gz"
else
  echo "partly skipped: no MNIST in $published"
fi
exit $((failures > 0))
