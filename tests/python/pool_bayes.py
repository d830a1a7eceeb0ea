#!/usr/bin/env python3
"""Seeds of `bitplan bayes` that are run one at a time, and pooled, give what one run of all gives.

    pool_bayes.py BITPLAN POOL_BAYES
"""
import json
import math
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPE = """
bitplan: 1
name: little
model: {architecture: lenet-300-100}
data: {name: npy, train_images: x.npy, train_labels: y.npy, test_images: xt.npy, test_labels: yt.npy, calibration: 60}
bayes: {epochs: 1, batch: 40, seeds: 3, draws: 3, schemes: [jq], bits: [4], stages: [fine-tuned, scratch],
        fine_tune_epochs: 1, out_of_distribution: synthetic-digits}
seed: 4
"""


def write_npy(file, kind, shape, values):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    body = bytes(values) if kind == "|u1" else struct.pack(f"<{len(values)}q", *values)
    file.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body)


def write_split(folder, images, labels, count, rng):
    classes = [i % 4 for i in range(count)]
    pixels = []
    for c in classes:
        for row in range(28):
            pixels += [min(255, rng.randrange(60) + 150 * (row // 7 == c)) for _ in range(28)]
    write_npy(folder / images, "|u1", (count, 28, 28), pixels)
    write_npy(folder / labels, "<i8", (count,), classes)


def numbers(value, path=""):
    """Every number of a result with the path to it."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(part, f"{path}.{key}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from numbers(part, f"{path}[{i}]")
    elif isinstance(value, (int, float)):
        yield path, value


def main():
    bitplan, pool = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = random.Random(1)
        write_split(folder, "x.npy", "y.npy", 260, rng)
        write_split(folder, "xt.npy", "yt.npy", 120, rng)
        (folder / "little.yaml").write_text(RECIPE)

        def run(out, *settings):
            subprocess.run([bitplan, "bayes", "little.yaml", "--data", ".", "--out", out, "--quiet", *settings],
                           cwd=folder, check=True, stdout=subprocess.DEVNULL)
            return json.loads((folder / out / "bayes.json").read_text())

        def pooled(*outs):
            return subprocess.run([sys.executable, pool, *(f"{out}/bayes.json" for out in outs), "--out", "pooled.json"],
                                  cwd=folder, capture_output=True, text=True)

        whole = run("whole")
        for seed in (4, 5, 6):
            run(f"alone-{seed}", "--set", f"seed={seed}", "--set", "bayes.seeds=1")
        outcome = pooled("alone-5", "alone-4", "alone-6")  # in any order
        assert outcome.returncode == 0, outcome.stderr
        assert "jq-4-scratch" in outcome.stdout and "changes against float-fine-tuned" in outcome.stdout, outcome.stdout
        result = dict(numbers(json.loads((folder / "pooled.json").read_text())))
        compared = 0
        for path, value in numbers(whole):
            if ".ci95[" in path:
                assert path not in result, path
                continue
            assert math.isclose(value, result[path], rel_tol=1e-6, abs_tol=1e-9), f"{path}: {value}, {result[path]}"
            compared += 1
        assert compared > 300, compared
        assert any(".seeds_ci95[" in path for path in result)

        twice = pooled("alone-5", "alone-5")
        assert twice.returncode == 65 and "seed 5" in twice.stderr, twice.stderr
        run("other", "--set", "seed=9", "--set", "bayes.seeds=1", "--set", "bayes.draws=2")
        other = pooled("alone-5", "other")
        assert other.returncode == 65 and "draws is 2" in other.stderr, other.stderr
        one = pooled("alone-5")
        assert one.returncode == 0 and "no interval over seeds" in one.stdout, one.stdout
    return 0


if __name__ == "__main__":
    sys.exit(main())
