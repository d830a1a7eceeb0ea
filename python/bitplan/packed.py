"""Reads quantized networks of the format `packed` (docs/formats.md), with numpy alone.

    network = bitplan.packed.read("quantized.safetensors")
    network.weights["conv1.weight"]     # float32, those of quantized.pt bit for bit
    network.others["conv1.bias"]        # everything else of the module
    network.layers[0].codes             # integers, with .scales and .offset: scale * (code + offset)
"""
import base64
import hashlib
import json
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

from .errors import BAD_DATA, NOT_FOUND, Error

_HALF_GRID = 16  # the bit of a width byte that says so
_NUMPY = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "int64": "<i8", "int32": "<i4", "int16": "<i2",
          "int8": "i1", "uint8": "u1", "bool": "?"}


@dataclass
class Block:
    """Output channels of one width, one after another."""

    bits: int
    offset: float  # 0, or 0.5 on the grid `half`
    codes: np.ndarray  # int16, the shape of the weights
    scales: np.ndarray  # float32, one or one a channel
    channel_dim: int

    def values(self):
        """float32: scale * (code + offset), one product."""
        along = [1] * self.codes.ndim
        along[self.channel_dim] = -1
        return self.scales.reshape(along) * (self.codes.astype(np.float32) + np.float32(self.offset))


@dataclass
class PackedLayer:
    name: str
    parameter: str
    blocks: list

    @property
    def bits(self):
        return max(block.bits for block in self.blocks)

    @property
    def codes(self):
        return np.concatenate([block.codes for block in self.blocks], self.blocks[0].channel_dim)

    @property
    def scales(self):
        return np.concatenate([block.scales for block in self.blocks])

    @property
    def offset(self):
        return self.blocks[0].offset

    def values(self):
        return np.concatenate([block.values() for block in self.blocks], self.blocks[0].channel_dim)


@dataclass
class Network:
    """What a packed file holds."""

    layers: list  # PackedLayer, in the order of execution
    others: dict  # name -> array: biases, batch norms, layers left in float
    tied: dict  # other name -> name, of tensors that are one
    plan: str  # text of plan.yaml; "" where the file holds codes alone
    metadata: dict = field(default_factory=dict)

    @property
    def weights(self):
        """{name: float32 array} of all planned layers, under all names that they have."""
        values = {layer.parameter: layer.values() for layer in self.layers}
        values.update({name: values[source] for name, source in self.tied.items() if source in values})
        return values

    def tensors(self):
        """Every tensor of the module: weights, others, and the other names of both."""
        values = {**self.weights, **self.others}
        values.update({name: values[source] for name, source in self.tied.items()})
        return values


class _Numbers:
    """One tensor of the file, taken piece by piece."""

    def __init__(self, header, body, name, dtype):
        begin, end = header[name]["data_offsets"] if name in header else (0, 0)
        self.left = np.frombuffer(body[begin:end], dtype)

    def take(self, count):
        if count > len(self.left):
            raise ValueError("a tensor is shorter than its shape")
        taken, self.left = self.left[:count], self.left[count:]
        return taken


def _unpacked(stream, bits, count):
    """`count` codes of `bits` bits, counted from the lowest bit of the first byte."""
    if bits == 0:
        return np.zeros(count, np.int16)
    ones = np.unpackbits(stream, bitorder="little")[:count * bits].reshape(count, bits)
    return (ones @ (1 << np.arange(bits, dtype=np.int16)) - (1 << (bits - 1))).astype(np.int16)


def _layer(entry, header, body, scales, widths):
    packed, axis, blocks = _Numbers(header, body, entry["parameter"], np.uint8), entry["channel_dim"], []
    for block in entry["blocks"]:
        (width,) = widths.take(1)
        bits, shape = int(width) & (_HALF_GRID - 1), list(entry["shape"])
        shape[axis] = block["channels"]
        count = int(np.prod(shape, dtype=np.int64))
        codes = _unpacked(packed.take((count * bits + 7) // 8), bits, count).reshape(shape)
        own = scales.take(block["scales"]) if bits else np.zeros(1, np.float32)
        if len(own) not in (1, block["channels"]):
            raise ValueError("it has another number of scales than of channels")
        blocks.append(Block(bits, 0.5 if int(width) & _HALF_GRID else 0.0, codes, own, axis))
    if sum(len(block.codes.swapaxes(0, axis)) for block in blocks) != entry["shape"][axis]:
        raise ValueError("the channels of a layer are not those of its shape")
    return PackedLayer(entry["name"], entry["parameter"], blocks)


def _split(data):
    """(header, tensors' bytes) of a safetensors file."""
    (length,) = struct.unpack_from("<Q", data)
    if length > len(data) - 8:
        raise ValueError("it ends within its header")
    return json.loads(data[8:8 + length].decode("utf-8")), data[8 + length:]


def _parsed(data):
    header, body = _split(data)
    meta = header.pop("__metadata__", {})
    if meta.get("format") != "bitplan":
        raise ValueError("it is a safetensors file of something else")
    if meta["version"] != "1":
        raise ValueError(f"its version is {meta['version']}, this package reads 1")
    hashed = body + meta["index"].encode() + meta.get("plan", "").encode()
    if hashlib.sha256(hashed).hexdigest() != meta["sha256"]:
        raise ValueError("it is damaged: its SHA-256 is not the one that it states")

    def text(key):
        return zlib.decompress(base64.b64decode(meta[key])).decode("utf-8") if key in meta else ""

    index, others, streams = json.loads(text("index")), {}, {}
    scales = _Numbers(header, body, "bitplan:scales", "<f4")
    widths = _Numbers(header, body, "bitplan:widths", np.uint8)
    layers = [_layer(entry, header, body, scales, widths) for entry in index["layers"]]
    for entry in index["others"]:
        kind, shape = entry["type"], entry["shape"]
        if kind not in streams:
            # numpy has no bfloat16: its bits are the upper half of a float32.
            dtype = "<u2" if kind == "bfloat16" else _NUMPY[kind]
            streams[kind] = _Numbers(header, body, "bitplan:" + kind, dtype)
        values = streams[kind].take(int(np.prod(shape, dtype=np.int64)))
        if kind == "bfloat16":
            values = (values.astype("<u4") << 16).view("<f4")
        others[entry["name"]] = values.reshape(shape)
    return Network(layers, others, index["tied"], text("plan"), meta)


def _bytes_of(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror}", NOT_FOUND) from error


def read(path):
    """The Network in a packed file. Error where the file is missing, damaged, or of something else."""
    try:
        return _parsed(_bytes_of(path))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, MemoryError, OverflowError, struct.error,
            zlib.error) as error:
        reason = error if type(error) is ValueError else f"it is no packed file of bitplan ({type(error).__name__})"
        raise Error(f"{path}: {reason}", BAD_DATA) from error


def with_metadata(path, key, text):
    """The bytes of a packed file with one more note in its header, which readers of the format pass over."""
    header, body = _split(_bytes_of(path))
    header["__metadata__"][key] = text
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + body
