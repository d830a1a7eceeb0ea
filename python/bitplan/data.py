"""Whatever holds inputs and labels becomes a pair of npy files, written batch by batch."""
import os
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import (BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler,
                              Subset)

from .errors import BAD_DATA, USAGE, Error, one_line
from .models import answers

_BATCH = 256  # inputs of a batch where the user's data have none
_HEADER_BYTES = 256  # of an npy file, so that the number of rows fits in when it is known

_WANTED = ("give a DataLoader, a Dataset, (inputs, labels) as arrays, or an iterable of (inputs, labels) batches; data "
           "without labels are inputs alone in each of these")


def _is_array(value):
    return isinstance(value, (np.ndarray, torch.Tensor))


def _chosen(count, limit, seed):
    """Rows in their order: all, or `limit` of them drawn by seed."""
    if limit is None or count <= limit:
        return None
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def _of_arrays(inputs, labels, name, limit, seed):
    for value in (inputs,) if labels is None else (inputs, labels):
        if not len(getattr(value, "shape", ())):
            raise Error(f"{name}: (inputs, labels) are arrays with a row for every sample", BAD_DATA)
    if labels is not None and len(inputs) != len(labels):
        raise Error(f"{name}: {len(inputs)} inputs, but {len(labels)} labels", BAD_DATA)
    rows = _chosen(len(inputs), limit, seed)
    rows = range(len(inputs)) if rows is None else rows
    for begin in range(0, len(rows), _BATCH):
        part = rows[begin:begin + _BATCH]
        part = slice(part[0], part[-1] + 1) if isinstance(part, range) else part
        yield inputs[part] if labels is None else (inputs[part], labels[part])


def _in_order(loader):
    """Whether a loader's batches are those of its data set, only shuffled or without the last one."""
    sampler = loader.sampler
    whole = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(loader.dataset))
    plain = type(loader) is DataLoader and type(loader.batch_sampler) is BatchSampler
    return plain and whole and not isinstance(loader.dataset, IterableDataset)


def _of_loader(loader, limit, seed):
    """A shuffled loader is read in the order of its data set, to the last sample: the same data give the same plan."""
    if _in_order(loader):
        rows = _chosen(len(loader.dataset), limit, seed)
        dataset = loader.dataset if rows is None else Subset(loader.dataset, rows.tolist())
        loader = DataLoader(dataset, batch_size=loader.batch_size, num_workers=loader.num_workers,
                            collate_fn=loader.collate_fn, worker_init_fn=loader.worker_init_fn)
    return iter(loader)


def _batches(data, name, limit, seed):
    if isinstance(data, DataLoader):
        return _of_loader(data, limit, seed)
    if isinstance(data, (tuple, list)) and len(data) == 2 and (_is_array(data[0]) or _is_array(data[1])):
        inputs, labels = (value if _is_array(value) else np.asarray(value) for value in data)
        return _of_arrays(inputs, labels, name, limit, seed)
    if _is_array(data):
        return _of_arrays(data, None, name, limit, seed)
    if isinstance(data, IterableDataset):
        return iter(DataLoader(data, batch_size=_BATCH))
    if isinstance(data, Dataset):
        return _of_loader(DataLoader(data, batch_size=_BATCH), limit, seed)
    if isinstance(data, (str, bytes, dict, os.PathLike)) or not hasattr(data, "__iter__"):
        raise Error(f"{name} is a {type(data).__name__}; {_WANTED}", USAGE)
    return iter(data)


def _pair(batch, name):
    """(inputs, labels) of one batch, as tensors; labels are None where the batch is inputs alone."""
    if _is_array(batch):
        batch = (batch, None)
    if isinstance(batch, list) and len(batch) == 1 and _is_array(batch[0]):  # as a TensorDataset of inputs gives them
        batch = (batch[0], None)
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        kind = type(batch).__name__ + (f" of {len(batch)}" if hasattr(batch, "__len__") else "")
        raise Error(f"{name}: a batch is a {kind}; a pair (inputs, labels) is wanted: for other batches give a "
                    "generator, ((batch['image'], batch['label']) for batch in loader)", BAD_DATA)
    inputs, labels = batch
    if isinstance(inputs, (dict, tuple, list)):
        raise Error(f"{name}: the inputs of a batch are a {type(inputs).__name__}; one tensor is wanted: a module of "
                    "several inputs needs a module around it that takes one", BAD_DATA)
    try:
        return _tensor(inputs), None if labels is None else _tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Error(f"{name}: a batch is no pair of arrays: {one_line(error)}", BAD_DATA) from error


def _tensor(value):
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    array = np.asarray(value)
    if array.dtype.kind in "ui" and array.dtype != np.uint8:
        array = array.astype(np.int64)  # torch has no wide unsigned integers
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))


def batches(data, name, limit, seed):
    """(inputs, labels or None) of every batch as tensors on the CPU, at most `limit` samples; `name` is what errors call the
    data. Of arrays and data sets the samples are drawn by seed, of everything else they are the first."""
    left = float("inf") if limit is None else limit
    try:
        source = _batches(data, name, limit, seed)
        while left > 0:
            batch = next(source, None)
            if batch is None:
                return
            inputs, labels = _pair(batch, name)
            shape = None if labels is None else list(labels.shape)
            if inputs.dim() == 0 or shape == [] or (shape and len(inputs) != shape[0]):
                raise Error(f"{name}: a batch of inputs {list(inputs.shape)} and labels {shape}; "
                            "the first dimension counts samples", BAD_DATA)
            if left < len(inputs):
                inputs, labels = inputs[:int(left)], None if labels is None else labels[:int(left)]
            left -= len(inputs)
            yield inputs, labels
    except (Error, MemoryError):
        raise
    except Exception as error:
        hint = ""
        if "PIL" in str(error):
            hint = "; the data set gives images of PIL: its transform wants torchvision.transforms.ToTensor()"
        raise Error(f"{name}: reading the data fails: {one_line(error)}{hint}", BAD_DATA) from error


@dataclass
class Feed:
    """How inputs are stored, so that the module gets from the program what it gets from its user."""

    dtype: str  # of the npy file
    classes: int
    scale: float = 1.0  # what the program divides by
    task: str = "classification"

    def stored(self, inputs):
        return inputs.to(torch.float32).numpy() if self.dtype == "float32" else inputs.numpy().astype(self.dtype)

    def seen(self, inputs):
        """What the module gets."""
        return inputs.long() if self.dtype == "int64" else inputs.float() / self.scale


def _tried(module, x):
    try:
        return answers(module, x), None
    except Exception as error:
        return None, error


def feed(module, inputs, name, check, task="classification"):
    """The Feed for a module and its first batch. `check(output, count, task)` refuses what are no answers to it.

    Floats are stored as they are. Integers and bytes that the module takes itself are stored as floats of the same
    value, or as integers where it takes no floats. Bytes that it does not take are divided by 255.
    """
    if inputs.dim() < 2:
        raise Error(f"{name}: inputs of shape {list(inputs.shape)}; a row of features for every sample is wanted, "
                    "[N, features]", BAD_DATA)
    if inputs.is_complex() or inputs.is_quantized or inputs.layout != torch.strided:
        raise Error(f"{name}: inputs are {inputs.dtype}; plain integers or floats are wanted", BAD_DATA)
    as_float, why = _tried(module, inputs.float())
    answer, stored = as_float, Feed("float32", 0)
    if not inputs.is_floating_point():
        itself, why_not = _tried(module, inputs)
        if itself is not None and as_float is None:
            answer, stored = itself, Feed("int64", 0)
        elif itself is None and inputs.dtype == torch.uint8:
            answer, why = _tried(module, inputs.float() / 255)
            stored = Feed("uint8", 0, 255.0)
            warnings.warn(f"{name}: inputs of uint8 are divided by 255, for the module takes floats; give floats where "
                          "it wants others", stacklevel=4)
        elif itself is not None and isinstance(itself, torch.Tensor) and not torch.equal(itself, as_float):
            raise Error(f"{name}: the module answers otherwise to {inputs.dtype} than to floats of the same values; "
                        "give inputs as floats, with a module that takes them", BAD_DATA)
        why = why or why_not
    if answer is None:
        raise Error(f"{name}: the module fails on inputs of {inputs.dtype} and shape {list(inputs.shape)}: "
                    f"{one_line(why)}", BAD_DATA) from why
    check(answer, len(inputs), task)
    stored.classes = answer.shape[-1 if task == "tokens" else 1] if answer.dim() > 1 else 1
    stored.task = task
    return stored


def class_numbers(labels, classes, name, first):
    """Labels [N], [N, 1] or one-hot [N, classes] as int64 class numbers; `first`: number of their first sample."""
    wanted = f"class numbers 0..{classes - 1} are wanted"
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() == 2:
        numbers = labels.argmax(1)
        one_hot = torch.nn.functional.one_hot(numbers, labels.shape[1])
        if labels.shape[1] != classes:
            raise Error(f"{name}: labels of shape {list(labels.shape)}, but the module has {classes} outputs; {wanted}",
                        BAD_DATA)
        if not torch.equal(one_hot.to(labels.dtype), labels):
            raise Error(f"{name}: labels of shape {list(labels.shape)} that are not one-hot; {wanted}, without "
                        "mixing or smoothing", BAD_DATA)
        labels = numbers
    if labels.dim() != 1:
        raise Error(f"{name}: labels of shape {list(labels.shape)}; {wanted}, [N]", BAD_DATA)
    if labels.is_complex() or (labels.is_floating_point() and not torch.equal(labels, labels.floor())):
        raise Error(f"{name}: labels are {labels.dtype} that are no whole numbers; {wanted}", BAD_DATA)
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        at = int(wrong[0])
        raise Error(f"{name}: label {labels[at].item():g} of sample {first + at}; {wanted}", BAD_DATA)
    return labels.to(torch.int64)


def answers_wanted(labels, stored, name, first):
    """Labels of any task as the program reads them: class numbers of inputs or of positions as int64, numbers as
    float32; `first`: number of their first sample."""
    if stored.task == "classification":
        return class_numbers(labels, stored.classes, name, first)
    if labels.is_complex():
        raise Error(f"{name}: labels are {labels.dtype}; plain integers or floats are wanted", BAD_DATA)
    if stored.task in ("segmentation", "tokens"):
        if labels.is_floating_point() and not torch.equal(labels, labels.floor()):
            raise Error(f"{name}: labels are {labels.dtype} that are no whole numbers; class numbers of every position "
                        "are wanted", BAD_DATA)
        return labels.to(torch.int64)
    return labels.to(torch.float32)


class NpyWriter:
    """An npy file (version 1.0) that grows by rows: with NpyWriter(path) as file: file.append(array). Without rows there
    is no file."""

    def __init__(self, path):
        self.path, self.rows, self.shape, self.dtype = path, 0, None, None
        self.partial = f"{path}.tmp"

    def __enter__(self):
        self.file = open(self.partial, "wb")
        self.file.write(b" " * _HEADER_BYTES)
        return self

    def append(self, array):
        self.shape, self.dtype = array.shape[1:], array.dtype
        self.rows += len(array)
        self.file.write(np.ascontiguousarray(array).tobytes())

    def __exit__(self, kind, *_):
        if kind is None and self.dtype is not None:
            header = str({"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False,
                          "shape": (self.rows, *self.shape)})
            self.file.seek(0)
            length = _HEADER_BYTES - 10
            self.file.write(b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little"))
            self.file.write(header.encode("latin1").ljust(length - 1) + b"\n")
        self.file.close()
        if kind is None and self.dtype is not None:
            os.replace(self.partial, self.path)
        else:
            os.unlink(self.partial)


def write(source, stored, name, files):
    """Writes batches (inputs, labels) into the files for inputs and labels; returns the number of samples, and whether
    they have labels. Without them there is no second file."""
    shape, kind, labelled = None, None, None
    with NpyWriter(files[0]) as inputs_file, NpyWriter(files[1]) as labels_file:
        for inputs, labels in source:
            first = inputs_file.rows
            if shape is None:
                shape, kind, labelled = inputs.shape[1:], inputs.dtype, labels is not None
            if labelled != (labels is not None):
                raise Error(f"{name}: samples before {first} {'have' if labelled else 'lack'} labels, those from there "
                            f"on {'lack' if labelled else 'have'} them; all or none have labels", BAD_DATA)
            if inputs.shape[1:] != shape or inputs.is_floating_point() != kind.is_floating_point:
                raise Error(f"{name}: inputs from sample {first} on are {inputs.dtype} of shape "
                            f"{list(inputs.shape[1:])}, those before {kind} of {list(shape)}; all inputs are of one "
                            "shape", BAD_DATA)
            values = stored.stored(inputs)
            finite = np.isfinite(values.reshape(len(values), -1)).all(1)
            if not finite.all():
                raise Error(f"{name}: sample {first + int(finite.argmin())} holds NaN or infinite values", BAD_DATA)
            if labelled:
                wanted = answers_wanted(labels, stored, name, first).numpy()
                if labels_file.rows and wanted.shape[1:] != labels_file.shape:
                    raise Error(f"{name}: labels from sample {first} on have shape {list(wanted.shape[1:])}, those "
                                f"before {list(labels_file.shape)}; all labels are of one shape", BAD_DATA)
                labels_file.append(wanted)
            inputs_file.append(values)
        if inputs_file.rows == 0:
            raise Error(f"{name} holds no samples", BAD_DATA)
    return inputs_file.rows, labelled
