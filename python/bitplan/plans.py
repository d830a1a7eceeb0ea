"""A plan: what the program found, and what can be done with it."""
import json
import math
import os
import re
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Optional, Tuple

import torch

from . import packed, picture, yaml
from .errors import BAD_DATA, CANNOT_WRITE, NOT_FOUND, USAGE, Error
from .models import tensor_at, unwrap
from .program import find, run

_NOTE = "python"  # key of the file's metadata under which save() keeps what plan.yaml has no place for
_OF_THE_GRAPH = re.compile(r"constant \d+")  # names of tensors that no module holds
_EXACT = (torch.float32, torch.float64)  # types that hold every quantized weight
_OWN_LABELS = " labelled by the float network"  # as the program names such data


@dataclass(frozen=True)
class Layer:
    """One planned layer."""

    name: str
    kind: str  # conv2d, linear, ...
    shape: Tuple[int, ...]
    weights: int
    bits: int  # 0: removed; 16 or 32: left alone
    grid: str  # zero: a level at zero; half: levels at odd halves of a step
    predicted_rise: Optional[float] = None  # nats per sample that the bits of this layer cost; None: not known
    confidence: Optional[float] = None  # share of repetitions that gave the same bits; None: not stated
    macs: int = 0  # multiply-accumulates of one input
    range: Optional[str] = None  # what the scales were fitted to; None: as the plan says
    activation_bits: int = 32  # of its input: 2..8 or 16; 32: float


@dataclass(frozen=True)
class Drop:
    """Float minus quantized accuracy, as shares, on the same samples."""

    value: float
    low: float  # paired bootstrap interval of 95 %
    high: float
    mcnemar_p: Optional[float]  # None: of another task than classification
    share: bool = True  # of samples or positions; else in the unit of the score

    def __str__(self):
        if not self.share:
            return f"{self.value:.4g}, 95 % interval [{self.low:.4g}, {self.high:.4g}]"
        return f"{100 * self.value:.2f} points, 95 % interval [{100 * self.low:.2f}, {100 * self.high:.2f}]"


def _layer(entry, rises):
    known = {field.name for field in fields(Layer)}
    values = {key: value for key, value in entry.items() if key in known}
    values.update(shape=tuple(entry["shape"]), weights=math.prod(entry["shape"]), grid=entry.get("grid", "zero"),
                  name=str(entry["name"]), predicted_rise=rises.get(entry["name"]))
    return Layer(**values)


class Plan:
    """Bits of every layer of a module, its quantized weights, and what was measured.

    layers           list of Layer, in the order of execution
    average_bits     over the weights of all layers; with_overhead: scales and bit widths included
    stored_bytes     of the planned layers; compression: against their size in float32
    predicted_rise   nats per sample, by the sensitivity table
    accuracy, float_accuracy, drop, drop_corrected
                     shares and Drops, on the test data; None where none were given
    agreement        of test data without labels: the share answered as by the float network; None otherwise
    figures          all that was measured on them, of any task (docs/models.md#tasks)
    drop_bound       what a plan that was asked for with drop= surely keeps, a dict (docs/plan.md); None otherwise
    notes            what the program remarks about its figures
    record           the whole plan.yaml as nested dicts (docs/plan.md)
    file             the packed file that weights are read from (docs/formats.md)
    folder, recipe   where the plan was made, and the recipe of its run; None for a plan from a file
    """

    def __init__(self, file, folder=None, program_path=None, rises=None, notes=()):
        self.file = Path(file)
        self.folder = None if folder is None else Path(folder)
        self.recipe = None if folder is None else self.folder / "recipe.yaml"
        self.notes = list(notes)
        self._program = program_path
        network = packed.read(self.file)
        if not network.plan:
            raise Error(f"{self.file}: holds codes, but no plan; 'bitplan export --to packed' writes both", BAD_DATA)
        self.record = yaml.read(network.plan, f"{self.file}: plan")
        note = _note(network.metadata)
        if rises is None:
            rises, self.notes = note.get("rises", {}), note.get("notes", [])
        self._rises = rises
        if not isinstance(self.record, dict) or self.record.get("bitplan") != 1:
            raise Error(f"{self.file}: its plan is not of version 1, which this package reads", BAD_DATA)
        try:
            self.layers = [_layer(entry, rises) for entry in self.record["layers"]]
            achieved = self.record["achieved"]
            self.average_bits, self.stored_bytes = achieved["average_bits"], achieved["stored_bytes"]
            self.average_bits_with_overhead = achieved["average_bits_with_overhead"]
            self.compression, self.predicted_rise = achieved["compression"], achieved["predicted_loss_rise"]
        except (KeyError, TypeError) as error:
            raise Error(f"{self.file}: its plan lacks {error}", BAD_DATA) from error

    @property
    def _measured(self):
        """What was measured on test data; None where there were none, or where it is not measured yet."""
        verified = self.record.get("verified")
        return None if verified is None or "/calibration" in verified["data"] else verified

    @property
    def _labelled(self):
        """What was measured on test data with labels: without them the float network's own answers stand in."""
        return None if self._measured is None or self._measured["data"].endswith(_OWN_LABELS) else self._measured

    @property
    def agreement(self):
        """The share of test data for which float and quantized network answer alike, where these have no labels; None
        where they have."""
        return None if self._labelled or not self._measured else self._measured["quantized"]["accuracy"]

    @property
    def accuracy(self):
        """Of the quantized network on the test data; None without test data, or without their labels."""
        return self._labelled and self._labelled["quantized"].get("accuracy")

    @property
    def float_accuracy(self):
        return self._labelled and self._labelled["float"].get("accuracy")

    @property
    def figures(self):
        """{"float": {"accuracy": ..., ...}, "quantized": ...}: all that was measured, of any task; None without test
        data with labels."""
        return self._labelled and {name: dict(self._labelled[name]) for name in ("float", "quantized")}

    def _drop(self, key):
        drop = (self._labelled or {}).get(key)
        share = drop and drop.get("figure", "accuracy") == "accuracy"
        return drop and Drop(drop["value"], *drop["ci95"], drop.get("mcnemar_p"), share)

    @property
    def drop(self):
        """What quantization costs: float minus quantized accuracy, or score of another task."""
        return self._drop("accuracy_drop") or self._drop("drop")

    @property
    def drop_corrected(self):
        """The same against the float network with the correction of batch norms that the plan got; None without one."""
        return self._drop("accuracy_drop_corrected")

    @property
    def rounds_activations(self):
        """Whether the input of any layer is rounded."""
        return any(layer.activation_bits <= 16 for layer in self.layers)

    @property
    def bops(self):
        """Bit operations of one input: multiply-accumulates times the bits of both sides, 32 where one is float."""
        return sum(layer.macs * layer.bits * layer.activation_bits for layer in self.layers if layer.bits <= 8)

    @property
    def drop_bound(self):
        """The bound that drop= asked for, with the calibration samples that show it; shares of samples."""
        return self.record.get("drop")

    def apply(self, module):
        """Puts quantized weights, corrected batch-norm statistics and biases into a module, by name; returns it.

        The module is changed in place and keeps its mode, devices and optimizers. Error, and nothing changed, where
        names or shapes are not those of the planned module, or where a type cannot hold the weights. A warning where the
        plan rounds activations: the module does not, so its accuracy is not the plan's; quantized.pt rounds both.
        """
        target = unwrap(module)
        if not isinstance(target, torch.nn.Module):
            raise Error(f"module is a {type(module).__name__}; a torch.nn.Module is wanted", USAGE)
        values = packed.read(self.file).tensors()
        values = {name: value for name, value in values.items() if not _OF_THE_GRAPH.fullmatch(name)}
        places = {name: tensor_at(target, name) for name in values}
        _check_fit(target, values, places)
        if any(layer.activation_bits <= 16 for layer in self.layers):
            warnings.warn("the plan rounds activations, and this module will not: its accuracy is another than the "
                          "plan's; quantized.pt of the plan's folder rounds both", stacklevel=2)
        with torch.no_grad():
            for name, value in values.items():
                places[name].copy_(torch.from_numpy(value.copy()))
        return module

    def save(self, path):
        """Writes weights and plan into one file, as small as the plan says: a packed safetensors file (docs/formats.md)
        that load_plan reads, and every reader of the format."""
        note = json.dumps({"rises": self._rises, "notes": self.notes})
        data = packed.with_metadata(self.file, _NOTE, note)
        partial = f"{os.fspath(path)}.tmp"
        try:
            with open(partial, "wb") as file:
                file.write(data)
            os.replace(partial, path)
        except OSError as error:
            raise Error(f"{path}: cannot be written: {error.strerror}", CANNOT_WRITE) from error
        return Path(path)

    def export(self, format, file):
        """Writes the quantized network in a format of 'bitplan help formats': packed, torchscript, json, ..."""
        if self.folder is None:
            if format == "packed":
                return self.save(file)
            raise Error(f"export to {format} needs the folder of the run, and this plan is from a file: load_plan that "
                        "folder, which plan(..., folder=) keeps", USAGE)
        file = Path(file).absolute()
        run(find(self._program), ["export", "--out", self.folder / "out", "--plan",
                                                  self.file.parent / "plan.yaml", "--to", format, "--file", file,
                                                  "--quiet"], quiet=True)
        return file

    def to_frame(self):
        """The layers as a pandas.DataFrame, a row each."""
        try:
            import pandas
        except ImportError as error:
            raise Error("to_frame() needs pandas: pip install pandas; plan.layers holds the same", NOT_FOUND) from error
        return pandas.DataFrame([asdict(layer) for layer in self.layers])

    def summary(self):
        """[(what, value)] of the figures that stand below the table of layers."""
        lines = [("average bits", f"{self.average_bits:.3f} ({self.average_bits_with_overhead:.3f} with scales)"),
                 ("planned layers", f"{self.stored_bytes:,} bytes ({self.compression:.1f} times smaller)")]
        if self.rounds_activations:
            lines.append(("bit operations", f"{self.bops:,}"))
        lines.append(("predicted rise", f"{self.predicted_rise:.3g} nats per sample"
                                        + (", activations included" if self.rounds_activations else "")))
        bound = self.drop_bound
        if bound:
            lines.append(("drop bound", f"{100 * bound['at_most']:g} points, 95 % sure: at most "
                                        f"{100 * bound['upper95']:.2f} on {bound['images']:,} calibration samples"))
        if self._measured and "task" in self._measured:
            lines += [("measured on", f"{self._measured['samples']:,} samples, task {self._measured['task']}")]
            for name in ("float", "quantized"):
                figures = self._measured[name].items()
                lines.append((name, ", ".join(f"{figure} {value:.4g}" for figure, value in figures)))
            drop = self._measured["drop"]
            low, high = drop["ci95"]
            lines.append((f"drop of {drop['figure']}", f"{drop['value']:.4g}, 95 % interval [{low:.4g}, {high:.4g}]"))
        elif self._measured and not self._labelled:
            lines += [("measured on", f"{self._measured['samples']:,} samples without labels"),
                      ("agreement with float", f"{100 * self.agreement:.2f} %")]
        elif self._measured:
            lines += [("measured on", f"{self._measured['samples']:,} samples"),
                      ("float accuracy", f"{100 * self.float_accuracy:.2f} %"),
                      ("quantized accuracy", f"{100 * self.accuracy:.2f} %"), ("drop", str(self.drop))]
            if self.drop_corrected:
                lines.append(("drop, both corrected", str(self.drop_corrected)))
        return lines + [("note", note) for note in self.notes]

    def __str__(self):
        return picture.text(self)

    def __repr__(self):
        return f"<bitplan.Plan: {len(self.layers)} layers, {self.average_bits:.3f} bits on average>"

    def _repr_html_(self):
        return picture.html(self)


def _note(metadata):
    try:
        note = json.loads(metadata.get(_NOTE, "{}"))
    except ValueError:
        note = {}
    return note if isinstance(note, dict) else {}


def _few(names):
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_fit(module, values, places):
    missing = [name for name, place in places.items() if place is None]
    if missing:
        raise Error(f"the module is not the planned one: it has no {_few(missing)}", BAD_DATA)
    unknown = [name for name, _ in module.named_parameters() if name not in values]
    if unknown:
        raise Error(f"the module is not the planned one: the plan knows no {_few(unknown)}", BAD_DATA)
    for name, place in places.items():
        wanted = values[name].shape
        if tuple(place.shape) != wanted:
            raise Error(f"the module is not the planned one: {name} has shape {list(place.shape)}, in the plan "
                        f"{list(wanted)}", BAD_DATA)
        if values[name].dtype.kind == "f" and place.dtype not in _EXACT:
            raise Error(f"{name} is {place.dtype}, which would round the quantized weights once more; call "
                        "module.float() first", BAD_DATA)


def _rises_of(sensitivity, layers):
    """{name: nats per sample} by the table that a run leaves; {} where there is none."""
    try:
        table = json.loads(Path(sensitivity).read_text(encoding="utf-8"))
        rows = {unit["name"]: dict(zip(table["widths"], unit["loss_rise"])) for unit in table["units"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {layer.name: rows[layer.name][layer.bits] for layer in layers if layer.bits in rows.get(layer.name, {})}


def of_folder(out, folder, program_path, notes):
    """The newest plan of a run's output folder, with its packed file beside it."""
    newest = (out / "plan.yaml").read_bytes()
    home = next((file.parent for file in sorted(out.glob("plans/*/plan.yaml")) if file.read_bytes() == newest), out)
    file = home / "quantized.safetensors"
    run(program_path, ["export", "--out", out, "--plan", home / "plan.yaml", "--to", "packed", "--file", file,
                               "--quiet"], quiet=True)
    plan = Plan(file, folder, program_path, {}, notes)
    plan._rises = _rises_of(out / "sensitivity.json", plan.layers)
    plan.layers = [_layer(entry, plan._rises) for entry in plan.record["layers"]]
    return plan


def load_plan(path, program=None):
    """The plan that save() has written, a packed file of the program, or the newest plan of a folder: one that
    plan(..., folder=) has kept, or an output folder of the program. Folders need the program (docs/python.md)."""
    path = Path(path)
    if not path.is_dir():
        return Plan(path)
    kept = (path / "out" / "plan.yaml").is_file()
    out = path / "out" if kept else path
    if not (out / "plan.yaml").is_file():
        raise Error(f"{path}: there is no plan in this folder", NOT_FOUND)
    return of_folder(out, path if kept else None, find(program), [])
