"""Attention and recurrent networks, trained here, planned by the program and looked at again in Python.

    recurrent_networks.py PROGRAM NETWORK
    recurrent_networks.py --list              the names

Every weight matrix is a layer of the plan, four bits lose less than half a point, and quantized.pt holds exactly what
the codes and scales of the JSON export say: weights rounded to nearest are those of the state dict, rounded here. Exit
codes: 0 as expected, 1 not, 77 when torch or numpy is missing.
"""
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)

STEPS, FEATURES, CLASSES = 10, 8, 5
TRAINING, TEST = 3000, 2000


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
            "lstm cells": (Cells, torch.jit.script), "attention over two tensors": (CrossAttention, traced)}


def fail(text):
    print("FAILED:", text)
    sys.exit(1)


def sequences(count, seed):
    """Which of five motifs a noisy sequence holds, somewhere in it."""
    rng = np.random.default_rng(seed)
    motifs = np.random.default_rng(0).normal(size=(CLASSES, 4, FEATURES))
    labels = rng.integers(0, CLASSES, count)
    x = rng.normal(size=(count, STEPS, FEATURES)) * 0.3
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
    call(folder, program, "export", "recipe.yaml", "--out", out, "--to", "json", "--file", f"{out}.json", "--json")
    with open(f"{folder}/{out}.json", encoding="utf-8") as file:
        return json.load(file)


def check_weights(model, quantized, codes, nearest):
    """quantized.pt against codes and scales; with `nearest` against the rounded state dict too."""
    state, rounded = model.state_dict(), quantized.state_dict()
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
        for integers, expected, exact, scales in codes_of_state if nearest else ():
            tie = np.abs(np.abs(exact - np.floor(exact)) - 0.5) < 1e-5
            if not (np.equal(integers, expected) | tie | (scales == 0)).all():
                fail(f"{name} has codes that are not the nearest")
    planned = {layer["parameter"] for layer in codes["layers"]}
    for name, value in state.items():
        if value.dim() >= 2 and name not in planned and name not in ("positions", "queries"):
            fail(f"{name} is a weight matrix without codes")
        if name not in planned and not torch.equal(value, rounded[name]):
            fail(f"{name} has no codes, but other values in quantized.pt")


def accuracy(network, folder):
    x, y = (torch.from_numpy(np.load(f"{folder}/test-{part}.npy")) for part in "xy")
    with torch.no_grad():
        answers = torch.cat([network(rows) for rows in x.split(37)])
    return float((answers.argmax(1) == y).float().mean()), answers


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
            check_weights(model, quantized, export(folder, program, rounding), rounding == "nearest")
            # The network itself, with the weights of quantized.pt: by its fused operations, where it has some.
            model_again = make().eval()
            model_again.load_state_dict({name: quantized.state_dict()[name] for name in model_again.state_dict()})
            _, own = accuracy(model_again, folder)
            if not torch.allclose(answers, own, atol=1e-3 * float(own.abs().max())):
                fail("the network of Python gives other answers with the weights of quantized.pt")


if __name__ == "__main__":
    main()
