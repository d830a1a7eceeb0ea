"""ONNX models of a few nodes, written byte by byte: the tests need no onnx package."""
import struct

import numpy as np

TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}


def varint(value):
    value &= (1 << 64) - 1
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def data(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def tensor(name, array, raw=True):
    array = np.asarray(array)
    out = b"".join(number(1, size) for size in array.shape) + number(2, TYPES[str(array.dtype)]) + data(8, name)
    if raw:
        return out + data(9, array.tobytes())
    if array.dtype == np.float32:
        return out + data(4, array.tobytes())
    if array.dtype == np.float64:
        return out + data(10, array.tobytes())
    if array.dtype == np.float16:
        return out + data(5, b"".join(varint(int(value)) for value in array.view(np.uint16).reshape(-1)))
    return out + data(7 if array.dtype == np.int64 else 5, b"".join(varint(int(value)) for value in array.reshape(-1)))


def external_tensor(name, array, location, offset, length):
    out = b"".join(number(1, size) for size in array.shape) + number(2, TYPES[str(array.dtype)]) + data(8, name)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        out += data(13, data(1, key) + data(2, value))
    return out + number(14, 1)


def attribute(name, value):
    out = data(1, name)
    if isinstance(value, bool) or isinstance(value, int):
        return out + number(3, int(value)) + number(20, 2)
    if isinstance(value, float):
        return out + varint(2 << 3 | 5) + struct.pack("<f", value) + number(20, 1)
    if isinstance(value, str):
        return out + data(4, value) + number(20, 3)
    if isinstance(value, np.ndarray):
        return out + data(5, tensor("", value)) + number(20, 4)
    if value and isinstance(value[0], float):
        return out + b"".join(varint(7 << 3 | 5) + struct.pack("<f", item) for item in value) + number(20, 6)
    if value and isinstance(value[0], str):
        return out + b"".join(data(9, item) for item in value) + number(20, 8)
    return out + b"".join(number(8, item) for item in value) + number(20, 7)


def node(kind, inputs, outputs=("y",), name="node", **attributes):
    return (b"".join(data(1, item) for item in inputs) + b"".join(data(2, item) for item in outputs) + data(3, name) +
            data(4, kind) + b"".join(data(5, attribute(key, value)) for key, value in attributes.items()))


def port(name, shape, kind="float32"):
    dims = b"".join(data(1, data(2, size) if isinstance(size, str) else number(1, size)) for size in shape)
    return data(1, name) + data(2, data(1, number(1, TYPES[kind]) + data(2, dims)))


def model(nodes, shape, initializers=None, opset=13, kind="float32", outputs=("y",)):
    """`initializers`: arrays, or tensors as bytes, by their names."""
    graph = b"".join(data(1, item) for item in nodes) + data(2, "graph")
    for name, array in (initializers or {}).items():
        graph += data(5, array if isinstance(array, bytes) else tensor(name, array))
    graph += data(11, port("x", shape, kind)) + b"".join(data(12, data(1, name) + data(2, data(1, number(1, 1))))
                                                         for name in outputs)
    return number(1, 8) + data(7, graph) + data(8, data(1, "") + number(2, opset))
