"""ONNX models as bitplan reads them: ONNX Runtime must give the same answers.

    onnx_import.py ANSWERS KIND     ANSWERS: the program onnx_answers of tests/models
    onnx_import.py --list           the kinds

`networks` are exported by torch.onnx.export for several operator sets, with batches of any size and of one, and must
also have the layers of the same network as TorchScript. `operators` are those of onnx_networks.py, one in a network.
`nodes` are written here, one operator with attributes that torch does not export. Every number must be that of ONNX
Runtime to 1e-4 of the largest. Exit codes: 0 as expected, 1 not, 77 when torch, numpy, node or ONNX Runtime is missing.
"""
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings

try:
    import numpy as np
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)

import networks
import onnx_networks
from onnx_writer import model, node, tensor

BATCH, WORST = 5, 1e-4
RUNTIME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "onnx_answers.js")


class Case:
    """A file, its inputs, and the size of batches that it takes (0: any)."""

    def __init__(self, name, file, inputs, batch=0, like=None, note=""):
        self.name, self.file, self.inputs, self.batch, self.like, self.note = name, file, inputs, batch, like, note


class Separable(nn.Module):
    """A depthwise separable network with average pools, squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = onnx_networks.Inverted(), nn.Identity()

    def forward(self, x):
        return self.fc(self.body(F.pad(x, (1, 0, 0, 1))[:, :, 1:, :8]))


class Keywords(nn.Module):
    """conv1d over time with batch norm, as networks for spoken words are."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(8, 16, 5, padding=2), nn.BatchNorm1d(16)
        self.conv2, self.bn2 = nn.Conv1d(16, 16, 3, stride=2, groups=4), nn.BatchNorm1d(16)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x.squeeze(1))))
        x = F.max_pool1d(F.relu(self.bn2(self.conv2(x))), 2, ceil_mode=True)
        return self.fc(F.adaptive_avg_pool1d(x, 1).flatten(1))


class Upwards(nn.Module):
    """Down by convolutions, up by transposed ones."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 12, 3, 2, 1), nn.ConvTranspose2d(12, 6, 3, 2, 1, output_padding=1)
        self.fc = nn.Linear(6 * 64, 4)

    def forward(self, x):
        return self.fc(torch.sigmoid(self.up(F.leaky_relu(self.down(x), 0.1))).reshape(x.shape[0], -1))


class Gates(nn.Module):
    """A recurrent layer over the rows of an image."""

    def __init__(self, kind, **options):
        super().__init__()
        self.rows, self.fc = kind(8, 10, batch_first=True, **options), nn.Linear(20 if options else 10, 4)

    def forward(self, x):
        return self.fc(self.rows(x.squeeze(1))[0][:, -1])


class TimeFirst(nn.Module):
    """An encoder that sees time before the batch."""

    def __init__(self):
        super().__init__()
        self.embed, self.attention, self.fc = nn.Linear(8, 16), nn.MultiheadAttention(16, 4), nn.Linear(16, 4)
        self.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1))

    def forward(self, x):
        x = self.embed(x.squeeze(1).permute(1, 0, 2))
        return self.fc((x + self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]).mean(0))


class ClassToken(nn.Module):
    """A vision transformer of one layer by hand: patches, a token before them, positions."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 2, 2)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.fc1, self.fc2, self.fc = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out((torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v).transpose(1, 2).reshape(n, t, c))
        return self.fc((x + self.fc2(F.gelu(self.fc1(x))))[:, 0])


NETWORKS = {"mlp": networks.Mlp, "cnn": networks.Cnn, "depthwise": networks.Depthwise, "separable": Separable,
            "residual": networks.Residual, "keywords": Keywords, "upwards": Upwards,
            "lstm": lambda: Gates(nn.LSTM), "lstm both ways": lambda: Gates(nn.LSTM, bidirectional=True),
            "gru": lambda: Gates(nn.GRU), "gru both ways": lambda: Gates(nn.GRU, bidirectional=True),
            "encoder": lambda: networks.Encoder(True), "time first": TimeFirst, "class token": ClassToken,
            "tokens": onnx_networks.Tokens, "tied": networks.Tied, "time-major rows": networks.TimeMajorRows}


def fail(text):
    print("FAILED:", text)
    sys.exit(1)


def prepared(make, seed=3):
    torch.manual_seed(seed)
    made = make()
    for module in made.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5) if module.affine else None
    for parameter in made.parameters():  # equal ones would become one tensor of the file
        parameter.data += torch.randn_like(parameter) * 0.05
    return made.eval()


def exported(made, inputs, file, opset, free=True, keep=False):
    """Whether torch can export it."""
    options = {"input_names": ["input"], "output_names": ["output"], "opset_version": opset}
    if free:
        options["dynamic_axes"] = {"input": {0: "n"}, "output": {0: "n"}}
    if keep:  # batch norms stay, and names of tensors too
        options |= {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    try:
        torch.onnx.export(made, inputs[:2] if free else inputs[:1], file, **options)
        return True
    except Exception as error:  # noqa: torch raises many kinds
        print("torch does not export:", str(error).strip().splitlines()[0][:100])
        return False


def network_cases(folder):
    inputs = torch.randn(BATCH, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for number, (name, make) in enumerate(NETWORKS.items()):
        made = prepared(make)
        script = f"{folder}/{number}.pt"
        torch.jit.trace(made, inputs[:2], check_trace=False).save(script)
        for opset in (11, 13, 16):
            for free in (True, False):
                keep = opset == 13
                file = f"{folder}/{number}-{opset}-{free}.onnx"
                if exported(made, inputs, file, opset, free, keep):
                    title = f"{name}, opset {opset}, batch {'free' if free else '1'}"
                    yield Case(title, file, inputs.numpy(), 0 if free else 1, script if keep or "n" not in name else None)


def operator_cases(folder):
    inputs = torch.randn(BATCH, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    number = 0
    parts = {kind: {name: (operator, None) for name, operator in table.items()}
             for kind, table in onnx_networks.KINDS.items()}
    for kind, make in (("convolutions", onnx_networks.convolutions), ("norms", onnx_networks.norms)):
        whole = prepared(make)
        parts[kind] = {name: (operator, whole.parts[name]) for name, operator in whole.operators.items()}
    for kind, table in parts.items():
        for name, (operator, part) in table.items():
            number += 1
            made = prepared(lambda: onnx_networks.SideBySide({name: operator}, {name: part} if part else {}))
            file = f"{folder}/{number}.onnx"
            opset = (11, 13, 16)[number % 3]
            free = number % 2 == 0
            if exported(made, inputs, file, opset, free):
                yield Case(f"{kind}: {name}, opset {opset}, batch {'free' if free else '1'}", file, inputs.numpy(),
                           0 if free else 1)


def random(*shape, low=-1.0, high=1.0, seed=5):
    return np.random.default_rng(seed + sum(shape)).uniform(low, high, shape).astype(np.float32)


def whole(*numbers):
    return np.array(numbers, np.int64)


def nodes():
    """name: (opset, shape of an input, initializers, operator, further inputs, attributes)"""
    image, row, cube = (4, 7, 9), (12,), (2, 5, 6, 7)
    for word in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for stride in (1, 2, 3):
            yield f"Conv {word} {stride}", (13, image, {"w": random(6, 4, 4, 3)}, "Conv", ["w"],
                                            {"auto_pad": word, "strides": [stride, stride]})
            yield f"MaxPool {word} {stride}", (13, image, {}, "MaxPool", [],
                                               {"auto_pad": word, "strides": [stride, stride], "kernel_shape": [3, 3]})
            yield f"AveragePool {word} {stride}", (13, image, {}, "AveragePool", [],
                                                   {"auto_pad": word, "strides": [stride] * 2, "kernel_shape": [3, 3]})
    yield "Conv uneven", (13, image, {"w": random(6, 2, 3, 3), "b": random(6)}, "Conv", ["w", "b"],
                          {"pads": [0, 1, 2, 0], "group": 2, "dilations": [1, 2]})
    yield "Conv 3-D", (13, cube, {"w": random(3, 2, 2, 3, 3)}, "Conv", ["w"], {"pads": [1, 0, 1, 0, 1, 1]})
    yield "ConvTranspose uneven", (13, image, {"w": random(4, 3, 3, 3), "b": random(3)}, "ConvTranspose", ["w", "b"],
                                   {"strides": [2, 2], "pads": [0, 1, 2, 0], "output_padding": [1, 0]})
    yield "ConvTranspose groups", (13, image, {"w": random(4, 3, 3, 2)}, "ConvTranspose", ["w"],
                                   {"strides": [2, 1], "group": 2, "dilations": [2, 1]})
    yield "ConvTranspose output_shape", (13, image, {"w": random(4, 3, 3, 3)}, "ConvTranspose", ["w"],
                                         {"strides": [2, 2], "output_shape": [14, 19]})
    for word in ("SAME_UPPER", "SAME_LOWER"):
        yield f"ConvTranspose {word}", (13, image, {"w": random(4, 3, 3, 4)}, "ConvTranspose", ["w"],
                                        {"strides": [2, 3], "auto_pad": word})
    yield "Gemm alpha beta", (13, row, {"w": random(12, 7), "b": random(7)}, "Gemm", ["w", "b"],
                              {"alpha": 0.5, "beta": 2.0})
    yield "Gemm transB", (13, row, {"w": random(7, 12), "b": random(1)}, "Gemm", ["w", "b"], {"transB": 1})
    yield "Gemm wide bias", (13, row, {"w": random(12, 7), "b": random(1, 7)}, "Gemm", ["w", "b"], {})
    yield "MatMul", (13, (5, 12), {"w": random(12, 7)}, "MatMul", ["w"], {})
    for kind in ("float32", "float64", "float16"):
        weights = random(12, 7).astype(kind)
        wide = [node("Cast", ["w"], ["v"], "cast", to=1)]  # ONNX Runtime multiplies equal types only
        yield f"MatMul {kind}", (13, (5, 12), {"w": weights}, "MatMul", ["v"], {"before": wide})
        yield f"MatMul {kind} by fields", (13, (5, 12), {"w": tensor("w", weights, raw=False)}, "MatMul", ["v"],
                                           {"before": wide})
    yield "Gemm dequantized", (13, row, {"q": np.arange(84, dtype=np.int8).reshape(12, 7), "s": random(7),
                                               "z": np.arange(7, dtype=np.int8)}, "Gemm", ["v"],
                                 {"before": [node("DequantizeLinear", ["q", "s", "z"], ["v"], "dequantize", axis=1)]})
    yield "Reshape by fields", (13, image, {"s": tensor("s", whole(0, -1, 3), raw=False)}, "Reshape", ["s"], {})
    yield "Einsum", (13, (5, 12), {"w": random(12, 7)}, "Einsum", ["w"], {"equation": "btc,cd->bdt"})
    ends = {"s": random(4), "b": random(4), "m": random(4), "v": random(4, low=0.5, high=2.0)}
    yield "BatchNormalization", (15, image, ends, "BatchNormalization", ["s", "b", "m", "v"], {"epsilon": 1e-3})
    yield "LayerNormalization", (17, (5, 12), {"s": random(12), "b": random(12)}, "LayerNormalization", ["s", "b"], {})
    yield "LayerNormalization of two", (17, (5, 12), {"s": random(5, 12)}, "LayerNormalization", ["s"],
                                        {"axis": -2, "epsilon": 1e-2})
    yield "InstanceNormalization", (13, image, {"s": random(4), "b": random(4)}, "InstanceNormalization", ["s", "b"], {})
    yield "GroupNormalization 21", (21, image, {"s": random(4), "b": random(4)}, "GroupNormalization", ["s", "b"],
                                    {"num_groups": 2})
    yield "LpNormalization", (13, image, {}, "LpNormalization", [], {"axis": 1})
    yield "LRN", (13, image, {}, "LRN", [], {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 1.5})
    for kind, opset, attributes in (("LeakyRelu", 13, {"alpha": 0.3}), ("Elu", 13, {"alpha": 0.7}), ("Selu", 13, {}),
                                    ("Celu", 13, {"alpha": 0.6}), ("Gelu", 20, {}), ("Gelu", 20, {"approximate": "tanh"}),
                                    ("HardSigmoid", 13, {}), ("HardSigmoid", 13, {"alpha": 0.3, "beta": 0.4}),
                                    ("HardSwish", 14, {}), ("Softplus", 13, {}), ("Softsign", 13, {}), ("Mish", 18, {}),
                                    ("ThresholdedRelu", 13, {"alpha": 0.2}), ("Erf", 13, {}), ("Exp", 13, {}),
                                    ("Abs", 13, {}), ("Neg", 13, {}), ("Reciprocal", 13, {}), ("Floor", 13, {}),
                                    ("Ceil", 13, {}), ("Round", 13, {}), ("Sin", 13, {}), ("Cos", 13, {}),
                                    ("Tan", 13, {}), ("Atan", 13, {}), ("Asin", 13, {}), ("Acos", 13, {}),
                                    ("Sinh", 13, {}), ("Cosh", 13, {}), ("Asinh", 13, {}), ("Atanh", 13, {}),
                                    ("Sign", 13, {}), ("Tanh", 13, {}), ("Sigmoid", 13, {}), ("Identity", 13, {}),
                                    ("Clip", 10, {"min": -0.2, "max": 0.6}), ("Dropout", 11, {"ratio": 0.3})):
        yield f"{kind} {attributes}", (opset, image, {}, kind, [], attributes)
    yield "Clip below", (13, image, {"low": np.float32(0.1)}, "Clip", ["low"], {})
    for shape in ((4, 1, 1), (1,), (4, 7, 9), (9,)):
        yield f"PRelu {shape}", (13, image, {"s": random(*shape)}, "PRelu", ["s"], {})
    for opset in (11, 13):
        for kind in ("Softmax", "LogSoftmax"):
            for axis in (1, 2, -1):
                yield f"{kind} {opset} {axis}", (opset, image, {}, kind, [], {"axis": axis})
    for ceil in (0, 1):
        for count in (0, 1):
            yield f"AveragePool {ceil} {count}", (13, image, {}, "AveragePool", [],
                                                  {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1],
                                                   "ceil_mode": ceil, "count_include_pad": count})
            yield f"AveragePool uneven {count}", (13, image, {}, "AveragePool", [],
                                                  {"kernel_shape": [3, 3], "pads": [0, 1, 1, 2],
                                                   "count_include_pad": count})
        yield f"MaxPool {ceil}", (13, image, {}, "MaxPool", [], {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": ceil,
                                                                 "pads": [0, 1, 1, 1], "dilations": [2, 1]})
    yield "MaxPool 1-D", (13, row[:0] + (3, 11), {}, "MaxPool", [], {"kernel_shape": [3], "strides": [2]})
    yield "AveragePool 3-D", (13, cube, {}, "AveragePool", [], {"kernel_shape": [2, 2, 2]})
    yield "GlobalAveragePool", (13, cube, {}, "GlobalAveragePool", [], {})
    yield "GlobalMaxPool", (13, image, {}, "GlobalMaxPool", [], {})
    for kind in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "Less", "GreaterOrEqual", "Equal"):
        final = 13
        yield f"{kind} broadcast", (final, image, {"o": random(7, 1)}, kind, ["o"], {})
        yield f"{kind} one", (final, image, {"o": np.float32(0.4)}, kind, ["o"], {})
    yield "Pow", (13, image, {"o": np.float32(3.0)}, "Pow", ["o"], {})
    yield "Mod", (13, image, {"o": np.float32(0.3)}, "Mod", ["o"], {"fmod": 1})
    yield "Transpose", (13, image, {}, "Transpose", [], {"perm": [0, 3, 1, 2]})
    yield "Reshape zero", (13, image, {"s": whole(0, 0, -1)}, "Reshape", ["s"], {})
    yield "Flatten 2", (13, image, {}, "Flatten", [], {"axis": 2})
    yield "Squeeze", (13, (1, 4, 1, 3), {"a": whole(-2, 1)}, "Squeeze", ["a"], {})
    yield "Unsqueeze", (13, (4, 3), {"a": whole(-1, 2)}, "Unsqueeze", ["a"], {})
    yield "Unsqueeze 11", (11, (4, 3), {}, "Unsqueeze", [], {"axes": [1, 4]})
    yield "Expand", (13, (4, 1), {"s": whole(1, 1, 6)}, "Expand", ["s"], {})
    yield "Tile", (13, (4, 3), {"t": whole(1, 2, 3)}, "Tile", ["t"], {})
    yield "Slice back", (13, image, {"s": whole(-1, 20), "e": whole(0, -100), "a": whole(2, 3), "t": whole(-1, -2)},
                         "Slice", ["s", "e", "a", "t"], {})
    yield "Slice steps", (13, image, {"s": whole(1, -8), "e": whole(6, 2 ** 63 - 1), "a": whole(-2, 3), "t": whole(2, 3)},
                          "Slice", ["s", "e", "a", "t"], {})
    yield "Slice 9", (9, image, {}, "Slice", [], {"starts": [1, -3], "ends": [3, 9], "axes": [1, 3]})
    yield "Split 11", (11, image, {}, "Split", [], {"axis": 2, "split": [3, 4]})
    yield "Split 13", (13, image, {"s": whole(1, 3)}, "Split", ["s"], {"axis": 1})
    yield "Split 18", (18, image, {}, "Split", [], {"axis": 3, "num_outputs": 2})
    yield "Pad constant", (13, image, {"p": whole(0, 0, 1, 2, 0, 0, 0, -1), "v": np.float32(0.3)}, "Pad", ["p", "v"], {})
    yield "Pad reflect", (13, image, {"p": whole(0, 0, 1, 2, 0, 0, 3, 0)}, "Pad", ["p"], {"mode": "reflect"})
    yield "Pad edge", (13, image, {"p": whole(0, 0, 0, 2, 0, 0, 0, 3)}, "Pad", ["p"], {"mode": "edge"})
    yield "Pad edge row", (13, row, {"p": whole(0, 2, 0, 3)}, "Pad", ["p"], {"mode": "edge"})
    yield "Pad edge channels", (13, image, {"p": whole(0, 1, 1, 2, 0, 2, 0, 3)}, "Pad", ["p"], {"mode": "edge"})
    yield "Pad 10", (10, image, {}, "Pad", [], {"pads": [0, 1, 0, 0, 0, 0, 2, 0], "value": 0.7})
    yield "Pad 18", (18, image, {"p": whole(1, 2), "a": whole(-1)}, "Pad", ["p", "", "a"], {})
    for places in (whole(2), np.int64(-1), whole(0, -2, 1).reshape(3, 1)):
        yield f"Gather {places.shape}", (13, image, {"i": places}, "Gather", ["i"], {"axis": 2})
    yield "DepthToSpace", (13, (8, 3, 2), {}, "DepthToSpace", [], {"blocksize": 2})
    yield "DepthToSpace CRD", (13, (8, 3, 2), {}, "DepthToSpace", [], {"blocksize": 2, "mode": "CRD"})
    yield "SpaceToDepth", (13, (3, 4, 6), {}, "SpaceToDepth", [], {"blocksize": 2})
    yield "Trilu", (14, image, {"k": np.int64(1)}, "Trilu", ["k"], {"upper": 0})
    for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                 "ReduceLogSumExp", "ReduceSumSquare"):
        yield f"{kind} 18", (18, image, {"a": whole(-1, 1)}, kind, ["a"], {"keepdims": 0})
        if kind != "ReduceSum":
            yield f"{kind} 13", (13, image, {}, kind, [], {"axes": [2, 3]})
    yield "ReduceLogSum", (13, image, {}, "ReduceLogSum", [], {"axes": [3], "positive": 1})
    for kind in ("ArgMax", "ArgMin"):
        yield kind, (13, image, {}, kind, [], {"axis": -1, "keepdims": 0})
    yield "TopK", (13, image, {"k": whole(3)}, "TopK", ["k"], {"axis": 3, "largest": 0})
    for reverse in (0, 1):
        for exclusive in (0, 1):
            yield f"CumSum {reverse} {exclusive}", (13, image, {"a": np.int64(2)}, "CumSum", ["a"],
                                                    {"reverse": reverse, "exclusive": exclusive})
    for coordinates in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"):
        for mode in ("nearest", "linear"):
            for scale in ([1, 1, 2, 3], [1, 1, 0.6, 1.7]):
                yield f"Resize {coordinates} {mode} {scale}", (
                    13, image, {"s": np.array(scale, np.float32)}, "Resize", ["", "s"],
                    {"coordinate_transformation_mode": coordinates, "mode": mode, "nearest_mode": "round_prefer_ceil"})
            yield f"Resize {coordinates} {mode} sizes", (
                18, image, {"s": whole(11, 5)}, "Resize", ["", "", "s"],
                {"coordinate_transformation_mode": coordinates, "mode": mode, "axes": [2, 3]})
    yield "Resize cubic", (13, image, {"s": np.array([1, 1, 2, 1.5], np.float32)}, "Resize", ["", "s"], {"mode": "cubic"})
    yield "Resize 10", (10, image, {"s": np.array([1, 1, 2, 2.5], np.float32)}, "Resize", ["s"], {"mode": "linear"})
    yield "Upsample", (9, image, {"s": np.array([1, 1, 2, 2], np.float32)}, "Upsample", ["s"], {"mode": "nearest"})
    for kind, gates, attributes in (("LSTM", 4, {}), ("GRU", 3, {"linear_before_reset": 1}), ("RNN", 1, {})):
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            yield f"{kind} {direction}", (13, (3, 6), {"w": random(count, gates * 5, 6), "r": random(count, gates * 5, 5),
                                                       "b": random(count, gates * 10), "h": random(count, 1, 5)}, kind,
                                          ["w", "r", "b", "", "h"], {"hidden_size": 5, "direction": direction} | attributes)


def node_cases(folder):
    for number, (name, (opset, shape, initializers, kind, inputs, attributes)) in enumerate(nodes()):
        positive, before = attributes.pop("positive", 0), attributes.pop("before", [])
        wide = "Split" in kind or "TopK" in kind
        outputs = ["y", "z"] if wide else ["y"]
        made = [node(kind, ["x", *inputs], outputs, **attributes)]
        recurrent = kind in ("LSTM", "GRU", "RNN")
        if kind in ("Less", "GreaterOrEqual", "Equal", "ArgMax", "ArgMin"):
            made = [node(kind, ["x", *inputs], ["t"], **attributes), node("Cast", ["t"], ["y"], "cast", to=1)]
        if recurrent:  # over [time, batch, inputs]
            made = [node("Transpose", ["x"], ["t"], "turn", perm=[1, 0, 2]), node(kind, ["t", *inputs], ["u"], **attributes),
                    node("Transpose", ["u"], ["y"], "back", perm=[2, 0, 1, 3])]
        file = f"{folder}/{number}.onnx"
        made = before + made
        first = 1 if recurrent else "n"
        with open(file, "wb") as out:
            out.write(model(made, (first, *shape), initializers, opset))
        values = random(BATCH, *shape, low=0.1 if positive else -0.9, high=0.9, seed=number)
        yield Case(f"node {name}", file, values, 1 if recurrent else 0)


KINDS = {"networks": network_cases, "operators": operator_cases, "nodes": node_cases}


def run(command, lines):
    made = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    if made.returncode == 77:
        print("skipped: ONNX Runtime is missing")
        sys.exit(77)
    reports = [json.loads(line) for line in made.stdout.splitlines()]
    if len(reports) != len(lines):
        fail(f"{command[0]} ended after {len(reports)} of {len(lines)} models: {made.stderr[-500:]}")
    return reports


def compare(folder, cases, answers):
    ours, theirs, scripts = [], [], {}
    for i, case in enumerate(cases):
        case.inputs.tofile(f"{folder}/{i}.in")
        line = [case.file, f"{folder}/{i}.in", ",".join(map(str, case.inputs.shape)), str(case.inputs.dtype)]
        ours.append("\t".join([*line, f"{folder}/{i}.ours"]))
        theirs.append("\t".join([*line, f"{folder}/{i}.theirs", str(case.batch or case.inputs.shape[0])]))
        if case.like and case.like not in scripts:
            scripts[case.like] = "\t".join([case.like, *line[1:], f"{folder}/{i}.script"])
    expected = run(["node", RUNTIME], theirs)
    reports = run([answers], ours)
    same = dict(zip(scripts, run([answers], list(scripts.values())))) if scripts else {}
    faults = 0
    for i, (case, report, other) in enumerate(zip(cases, reports, expected)):
        if "error" in other:
            print(f"{case.name}: ONNX Runtime says {other['error'][:300]}")
            faults += 1
            continue
        fault = report.get("error")
        if not fault:
            mine, reference = (np.fromfile(f"{folder}/{i}.{end}", np.float32) for end in ("ours", "theirs"))
            if mine.shape != reference.shape:
                fault = f"answers of shape {report['shape']}, in ONNX Runtime {other['shape']}"
            else:
                scale = np.abs(reference[np.isfinite(reference)]).max(initial=1e-3)
                with np.errstate(invalid="ignore"):
                    off = np.where(mine == reference, 0.0, np.abs(mine - reference))
                worst = float(np.max(off, initial=0.0)) / scale
                if not worst < WORST:
                    fault = f"answers differ by {worst}"
        if not fault and case.like:
            mine, script = ([(layer["kind"], layer["macs"], sorted(layer["shape"])) for layer in one.get("layers", [])]
                            for one in (report, same[case.like]))
            if mine != script:
                fault = f"layers {report.get('layers')} are not those of TorchScript {same[case.like].get('layers')}"
        if fault:
            faults += 1
            print(f"FAILED: {case.name}: {fault}")
    print(f"{len(cases)} models, {faults} faults")
    return faults


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(KINDS))
        return
    answers, kind = os.path.abspath(sys.argv[1]), sys.argv[2]
    if not shutil.which("node"):
        print("skipped: node is missing")
        sys.exit(77)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        keep = os.environ.get("KEEP_ONNX")
        if keep:
            os.makedirs(keep, exist_ok=True)
            folder = keep
        cases = list(KINDS[kind](folder))
        sys.exit(1 if compare(folder, cases, answers) else 0)


if __name__ == "__main__":
    main()
