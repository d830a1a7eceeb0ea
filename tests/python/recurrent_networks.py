"""Attention and recurrent networks, trained here, planned by the program and looked at again in Python.

    recurrent_networks.py PROGRAM NETWORK
    recurrent_networks.py --list              the names

Every weight matrix is a layer of the plan, four bits lose less than half a point, and quantized.pt holds exactly what
the codes and scales of the JSON export say: weights rounded to nearest are those of the state dict, rounded here. The
packed file holds the same. A plan from before, without these weights, is refused. Exit codes: 0 as expected, 1 not, 77
when torch or numpy is missing.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
try:
    import numpy as np
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    from bitplan import packed
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)

STEPS, FEATURES, CLASSES = 10, 8, 5
TRAINING, TEST = 2000, 2000


class EncoderClassifier(nn.Module):
    """A transformer encoder over embedded steps with learned positions."""

    def __init__(self):
        super().__init__()
        self.embed, self.positions = nn.Linear(FEATURES, 24), nn.Parameter(torch.randn(STEPS, 24) * 0.3)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 4, 48, dropout=0.0, batch_first=True), 2)
        self.fc = nn.Linear(24, CLASSES)

    def forward(self, x):
        return self.fc(self.encoder(self.embed(x) + self.positions).mean(1))


class CrossAttention(nn.Module):
    """nn.MultiheadAttention with queries of its own: parts of one in-projection meet two tensors."""

    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Linear(FEATURES, 24), nn.MultiheadAttention(24, 4, batch_first=True)
        self.positions = nn.Parameter(torch.randn(STEPS, 24) * 0.3)
        self.queries, self.fc = nn.Parameter(torch.randn(1, 3, 24)), nn.Linear(72, CLASSES)

    def forward(self, x):
        h = torch.tanh(self.embed(x)) + self.positions
        y, _ = self.attention(self.queries.expand(x.shape[0], -1, -1), h, h)
        return self.fc(y.flatten(1))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(FEATURES, 32, batch_first=True), nn.Linear(32, CLASSES)

    def forward(self, x):
        y, _ = self.lstm(x)
        return self.fc(y[:, -1])


class Gru(nn.Module):
    """Two layers, both directions, read by the last states."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(FEATURES, 20, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(40, CLASSES)

    def forward(self, x):
        _, h = self.gru(x)
        return self.fc(torch.cat([h[2], h[3]], 1))


class Cells(nn.Module):
    """An nn.LSTMCell, step by step."""

    def __init__(self):
        super().__init__()
        self.cell, self.fc = nn.LSTMCell(FEATURES, 32), nn.Linear(32, CLASSES)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 32)
        c = torch.zeros(x.shape[0], 32)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
        return self.fc(h)


def traced(model):
    return torch.jit.trace(model, torch.zeros(2, STEPS, FEATURES), check_trace=False)


NETWORKS = {"transformer encoder": (EncoderClassifier, torch.jit.script), "lstm": (Lstm, torch.jit.script),
            "gru of two layers both ways": (Gru, torch.jit.script), "lstm traced": (Lstm, traced),
            "lstm cells": (Cells, torch.jit.script), "attention over two tensors": (CrossAttention, traced),
            "lstm from onnx": (Lstm, torch.jit.script)}


def fail(text):
    print("FAILED:", text)
    sys.exit(1)


def sequences(count, seed):
    """Which of five motifs a noisy sequence holds, somewhere in it."""
    rng = np.random.default_rng(seed)
    motifs = np.random.default_rng(0).normal(size=(CLASSES, 4, FEATURES))
    labels = rng.integers(0, CLASSES, count)
    x = rng.normal(size=(count, STEPS, FEATURES)) * 0.5
    for i, start in enumerate(rng.integers(0, STEPS - 4, count)):
        x[i, start:start + 4] += motifs[labels[i]]
    return x.astype("f4"), labels.astype("i8")


def trained(make):
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = make().train()
    x, y = (torch.from_numpy(part) for part in sequences(TRAINING, 1))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(8):
        for rows in torch.randperm(TRAINING).split(100):
            loss = F.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def write_recipe(folder, model="model.pt"):
    with open(f"{folder}/recipe.yaml", "w", encoding="utf-8") as recipe:
        recipe.write(f"bitplan: 1\nname: network\nmodel: {{file: {model}}}\n"
                     "data: {name: npy, train_images: train-x.npy, train_labels: train-y.npy,\n"
                     "       test_images: test-x.npy, test_labels: test-y.npy, calibration: 300, layout: as-is}\n"
                     "posterior: {samples: 400}\nverify: {bootstrap: 100}\n"
                     "allocate: {allocator: exact, bits: [2, 3, 4, 5, 6, 8], budget: {average_bits: 4.0}}\n")


def call(folder, *words):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"{' '.join(words[1:4])}: exit code {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def export(folder, program, out):
    for kind, ending in (("json", "json"), ("packed", "safetensors")):
        call(folder, program, "export", "recipe.yaml", "--out", out, "--to", kind, "--file", f"{out}.{ending}", "--json")
    with open(f"{folder}/{out}.json", encoding="utf-8") as file:
        return json.load(file)


def meets_states(name):
    """Whether no inputs of its own are known, so that compensated rounding cannot serve it."""
    return "weight_hh" in name or "_l1" in name or name.startswith(("cell.", "attention.in_proj"))


def check_weights(model, quantized, codes):
    """quantized.pt against codes and scales. The layers whose codes are those of the state dict, rounded here."""
    state, rounded, nearest = model.state_dict(), quantized.state_dict(), set()
    for layer in codes["layers"]:
        name, values, codes_of_state = layer["parameter"], [], []
        begin = 0
        for block in layer["blocks"]:
            rows = state[name].numpy()[begin:begin + block["channels"]].astype("f4")
            begin += block["channels"]
            scales = np.asarray(block["scales"], "f4").reshape(-1, 1)
            integers = np.asarray(block["codes"], "f4").reshape(rows.shape)
            values.append(scales * (integers + np.float32(block["offset"])))
            lowest = -(2 ** (block["bits"] - 1))
            exact = rows.astype("f8") / np.where(scales == 0, 1, scales) - block["offset"]
            codes_of_state.append((integers, np.clip(np.rint(exact), lowest, -lowest - 1), exact, scales))
        if not np.array_equal(np.concatenate(values), rounded[name].numpy()):
            fail(f"{name} of quantized.pt is not scale * (code + offset)")
        ties = [np.abs(exact - np.floor(exact) - 0.5) < 1e-5 for _, _, exact, _ in codes_of_state]
        if all((np.equal(integers, expected) | tie | (scales == 0)).all()
               for (integers, expected, _, scales), tie in zip(codes_of_state, ties)):
            nearest.add(name)
    planned = {layer["parameter"] for layer in codes["layers"]}
    for name, value in state.items():
        if value.dim() >= 2 and name not in planned and name not in ("positions", "queries"):
            fail(f"{name} is a weight matrix without codes")
        if name not in planned and not torch.equal(value, rounded[name]):
            if not name.endswith("bias"):  # which a correction may change
                fail(f"{name} has no codes, but other values in quantized.pt")
    return planned, nearest


def check_packed(file, quantized):
    network, rounded = packed.read(file), quantized.state_dict()
    for name, value in (network.weights | network.others).items():
        if name in rounded and not np.array_equal(value, rounded[name].numpy()):
            fail(f"{name} of the packed file is not that of quantized.pt")
    missing = set(rounded) - set(network.weights) - set(network.others)
    if missing:
        fail(f"the packed file lacks {missing}")


def check_earlier_plan(folder, program, layer):
    """A plan that lacks a layer, as those from before do."""
    with open(f"{folder}/nearest/plan.yaml", encoding="utf-8") as file:
        lines = file.read().splitlines(keepends=True)
    name, weights = layer["name"], int(np.prod(layer["shape"]))
    kept = [line for line in lines if not line.lstrip().startswith(f"- {{name: {name},")]
    if len(kept) != len(lines) - 1:
        fail(f"layer {name} does not stand in one line of the plan")
    with open(f"{folder}/earlier.yaml", "w", encoding="utf-8") as file:
        file.write(re.sub(r"weights: (\d+)", lambda stated: f"weights: {int(stated[1]) - weights}", "".join(kept), count=1))
    done = subprocess.run([program, "verify", "recipe.yaml", "--data", ".", "--out", "nearest", "--plan", "earlier.yaml"],
                          cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 65 or f"the plan has no layer {name}" not in done.stderr:
        fail(f"expected a refusal of a plan without {name}, got {done.returncode}: {done.stderr}")


def accuracy(network, folder):
    x, y = (torch.from_numpy(np.load(f"{folder}/test-{part}.npy")) for part in "xy")
    with torch.no_grad():
        answers = torch.cat([network(rows) for rows in x.split(37)])
    return float((answers.argmax(1) == y).float().mean()), answers


def check_onnx(folder, program, model):
    """The same network from an ONNX file: the same layers, under names of its own, with the same widths."""
    options = {"input_names": ["input"], "output_names": ["output"], "opset_version": 13,
               "dynamic_axes": {"input": {0: "n"}, "output": {0: "n"}}}
    torch.onnx.export(model, torch.zeros(2, STEPS, FEATURES), f"{folder}/model.onnx", **options)
    plans = {}
    for file in ("model.pt", "model.onnx"):
        write_recipe(folder, file)
        out = file.replace(".", "-")
        plans[file] = call(folder, program, "run", "recipe.yaml", "--data", ".", "--out", out, "--json", "--quiet",
                           "--threads", "1")["layers"]
    stated = {file: [(layer["kind"], layer["shape"], layer["bits"]) for layer in layers]
              for file, layers in plans.items()}
    print(stated)
    if stated["model.pt"] != stated["model.onnx"]:
        fail("the plan of the ONNX file is another one")


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(NETWORKS))
        return
    program, (make, save) = os.path.abspath(sys.argv[1]), NETWORKS[sys.argv[2]]
    with tempfile.TemporaryDirectory() as folder:
        model = trained(make)
        for split, count, seed in (("train", TRAINING, 1), ("test", TEST, 2)):
            for part, values in zip("xy", sequences(count, seed)):
                np.save(f"{folder}/{split}-{part}.npy", values)
        save(model).save(f"{folder}/model.pt")
        if "onnx" in sys.argv[2]:
            check_onnx(folder, program, model)
            return
        write_recipe(folder)
        runs = {"compensated": [], "nearest": ["--set", "quantizer.rounding=nearest", "--set",
                                               "quantizer.output_correction=off"]}
        for rounding, settings in runs.items():
            report = call(folder, program, "run", "recipe.yaml", "--data", ".", "--out", rounding, "--json", "--quiet",
                          "--threads", "1", *settings)
            verified = (report["plan"] if "plan" in report else report)["verified"]
            before, after = verified["float"]["accuracy"], verified["quantized"]["accuracy"]
            quantized = torch.jit.load(f"{folder}/{rounding}/quantized.pt").eval()
            measured, answers = accuracy(quantized, folder)
            print(f"{sys.argv[2]}, {rounding}: float {100 * before:.2f} %, plan {100 * after:.2f} %, "
                  f"Python {100 * measured:.2f} %, bits {[layer['bits'] for layer in report['layers']]}")
            if before < 0.97:
                fail("the float network is not good at its task")
            if abs(measured - after) > 0.5 / TEST:
                fail("the plan states another accuracy than Python measures")
            if rounding == "compensated" and before - after > 0.005:
                fail("four bits lose more than half a point")
            codes = export(folder, program, rounding)
            planned, nearest = check_weights(model, quantized, codes)
            expected = planned if rounding == "nearest" else {name for name in planned if meets_states(name)}
            if not expected <= nearest:
                fail(f"{expected - nearest} are not rounded to nearest")
            inputs = {name for name in planned if "weight_ih_l0" in name or "self_attn.in_proj" in name}
            if rounding == "compensated" and "cells" not in sys.argv[2] and inputs & nearest:
                fail(f"rounding of {inputs & nearest} compensates nothing")
            check_packed(f"{folder}/{rounding}.safetensors", quantized)
            # The network itself, with the weights of quantized.pt: by its fused operations, where it has some.
            model_again = make().eval()
            model_again.load_state_dict({name: quantized.state_dict()[name] for name in model_again.state_dict()})
            _, own = accuracy(model_again, folder)
            if not torch.allclose(answers, own, atol=1e-3 * float(own.abs().max())):
                fail("the network of Python gives other answers with the weights of quantized.pt")
        check_earlier_plan(folder, program, codes["layers"][0])


if __name__ == "__main__":
    main()
