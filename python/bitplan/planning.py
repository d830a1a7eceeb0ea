"""From a module and data to a plan: writes what the program reads, runs it, reads what it leaves."""
import json
import shutil
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch

from . import data, models, recipe
from .errors import BAD_DATA, CANNOT_WRITE, INTERNAL, USAGE, Error, one_line
from .plans import of_folder
from .program import find, run

_FILES = ["model.pt"] + [f"{split}-{what}.npy" for split in ("train", "test", "calibration")
                         for what in ("images", "labels")]
_AVERAGE_BITS = 4  # where no budget is given
_CALIBRATION, _CALIBRATION_PART = 5000, 5  # samples taken off at most, and the part: one in five


def _open_folder(folder):
    """The working folder, absolute; refuses one with files of the same names that are not the package's."""
    try:
        if folder is None:
            return Path(tempfile.mkdtemp(prefix="bitplan-"))
        folder = Path(folder).expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
        before = folder / "recipe.yaml"
        ours = before.is_file() and before.read_text(encoding="utf-8", errors="replace").startswith(recipe.MARK)
        foreign = [name for name in ["recipe.yaml", "out", *_FILES] if not ours and (folder / name).exists()]
        if foreign:
            raise Error(f"folder {folder} holds {foreign[0]}, which this package has not written; give another folder",
                        USAGE)
        if not ours:  # now it is, also where what follows fails
            before.write_text(recipe.MARK + "\n", encoding="utf-8")
    except OSError as error:
        raise Error(f"folder {folder}: {error.strerror}", CANNOT_WRITE) from error
    return folder


def _tree(name, settings, arguments, splits):
    """The recipe as nested maps."""
    given = {"name": name, "model.file": "model.pt", "data.name": "npy", "data.layout": "as-is", **arguments}
    for split in ("train", "test", "calibration"):
        if split in splits:
            given[f"data.{split}_images"] = f"{split}-images.npy"
    if "test" not in splits:  # nothing to measure on but what choices were made on
        given.update({"data.test_images": "train-images.npy", "verify.split": "calibration"})
    tree = recipe.merge(given, settings)
    budget = tree.setdefault("allocate", {}).setdefault("budget", {})
    if isinstance(budget, dict) and not set(budget) - {"smallest"}:
        budget["average_bits"] = _AVERAGE_BITS
    return tree


def _write(folder, module, sources, tree, train_samples):
    """Module, data and recipe, whose data.calibration follows from the number of samples where nobody set it."""
    copied = models.evaluation_copy(module)
    may_vary = bool(tree.get("model", {}).get("answers_may_vary"))
    seed = int(tree.get("seed", 1))
    task = tree["data"].get("task", "classification")
    feed, counts, labelled = None, {}, {}
    with torch.random.fork_rng(devices=[]):  # loaders draw from the generator of the user's training
        torch.default_generator.manual_seed(seed)
        for split, source in sources.items():
            limit = train_samples if split == "train" else None
            batches = data.batches(source, split, limit, seed)
            if feed is None:
                first = next(batches, None)
                if first is None:
                    raise Error(f"{split} holds no samples", BAD_DATA)
                feed = data.feed(copied, first[0], split, models.check_answers, task)
                graph = models.torchscript(copied, feed.seen(first[0]), may_vary)
                torch.jit.save(graph, str(folder / "model.pt"))
                batches = _again(first, batches)
            files = [folder / f"{split}-{what}.npy" for what in ("images", "labels")]
            counts[split], labelled[split] = data.write(batches, feed, split, files)
            if labelled[split]:
                tree["data"].setdefault(f"{split}_labels", files[1].name)
            elif task != "classification":
                raise Error(f"{split} has no labels; {task} needs them", BAD_DATA)
            else:
                files[1].unlink(missing_ok=True)  # of an earlier call
    if "test" not in sources and labelled["train"]:
        tree["data"].setdefault("test_labels", "train-labels.npy")
    if "calibration" not in sources:
        count = counts.get(tree["data"].get("calibration_from"), counts["train"])
        tree["data"].setdefault("calibration", max(1, min(_CALIBRATION, count // _CALIBRATION_PART)))
    (folder / "recipe.yaml").write_text(recipe.text(tree), encoding="utf-8")


def _again(first, rest):
    yield first
    yield from rest


def _arguments(threads, device, quiet):
    arguments = ["--json"]
    for name, value in (("--threads", threads), ("--device", device)):
        if value is not None:
            arguments += [name, str(value)]
    return arguments + ["--quiet"] * quiet


def plan(module, train, test=None, *, calibration=None, average_bits=None, bytes=None, bops=None,
         activation_bytes=None, drop=None, smallest=None, allocator=None,
         metric=None, task=None, bits=None, pins=None, groups=None, exclude=None, exportable=None, seed=None, settings=None,
         train_samples=20_000, folder=None,
         program=None, threads=None, device=None, quiet=False):
    """Decides how many bits every layer of a trained network gets; returns the Plan.

    module         torch.nn.Module or ScriptModule: inputs [N, ...] -> logits [N, classes], or the answers of another
                   task. It is not changed; a copy in evaluation mode and float32 is scripted, else traced, and compared
                   with it
    train          what the network was trained on: a DataLoader, a Dataset, (inputs, labels) as arrays, or an iterable
                   of (inputs, labels) batches. Labels are class numbers, or one-hot. Inputs alone are enough: then the
                   network's own answers stand in for labels
    test           samples that nothing before has seen, in the same forms; None: no accuracy is measured
    calibration    samples that choices are made on, in the same forms; None: taken off train
    average_bits, bytes, bops, activation_bytes
                   the budget: bits per weight, size of the packed weights, bit operations and peak of live activations
                   of one input; all that are given hold; none: 4 bits
    drop, smallest
                   instead, or within these: the plan that takes least of `smallest` ("average_bits", "bytes", ...) and
                   of which calibration samples make 95 % sure that it loses at most so many points of accuracy
    task           what the labels are: classification, segmentation, tokens, regression, multi-label (docs/models.md)
    allocator, metric, bits, pins, groups, exclude, seed
                   as the recipe's allocate.allocator, sensitivity.metric, allocate.bits, ..., seed (docs/recipe.md)
    exportable     a format of Plan.export, "onnx", "gguf", ...: the plan keeps to what that holds; None: anything
    settings       {key: value} of any other key of the recipe, dotted or nested
    train_samples  most samples of train that are used: drawn by seed from arrays and data sets, else the first
    folder         where model, data, recipe and results are kept, and where a later call continues; None: a temporary
                   one that lives as long as the plan
    program        the program bitplan; None: the environment variable BITPLAN, PATH, the build of a checkout
    threads, device
                   of the program: a number; auto, cpu or cuda
    quiet          no progress on stderr

    Error says what is wrong in one line, with the exit code of the program.
    """
    found = find(program)
    if train_samples is not None and train_samples < 1:
        raise Error(f"train_samples is {train_samples}; it is at least 1, or None for all", USAGE)
    sources = {name: source for name, source in (("train", train), ("test", test), ("calibration", calibration))
               if source is not None}
    if isinstance(test, (np.ndarray, torch.Tensor)) and test.ndim <= 1:
        raise Error("test is one row of numbers: it is test data, and labels go with their inputs: plan(module, (x, y))",
                    USAGE)
    if train is None:
        raise Error("train is None; the plan is made from training data", USAGE)
    name = type(models.unwrap(module)).__name__
    tree = _tree(name, settings, {
        "allocate.budget.average_bits": average_bits, "allocate.budget.bytes": bytes, "allocate.budget.bops": bops,
        "allocate.budget.activation_bytes": activation_bytes, "allocate.budget.drop": drop,
        "allocate.budget.smallest": smallest,
        "allocate.allocator": allocator,
        "sensitivity.metric": metric, "data.task": task, "allocate.bits": bits, "allocate.pins": pins, "allocate.groups": groups,
        "allocate.exclude": exclude, "quantizer.exportable": exportable, "seed": seed}, sources)
    recipe.text(tree)  # refuses settings before anything is written
    if not isinstance(tree.get("seed", 1), (int, np.integer)) or not 0 <= tree.get("seed", 1) < 2 ** 63:
        raise Error(f"seed is {tree['seed']}; it is a whole number >= 0", USAGE)
    temporary = folder is None
    folder = _open_folder(folder)
    try:
        try:
            _write(folder, module, sources, tree, train_samples)
        except OSError as error:
            reason = error.strerror or one_line(error)
            raise Error(f"folder {folder}: cannot be written: {reason}", CANNOT_WRITE) from error
        made = _run(found, folder, _arguments(threads, device, quiet), quiet)
        if "test" not in sources:  # the program was given training data in their place, and nothing is stated of them
            made.notes = [note for note in made.notes if not note.startswith("the test files are training files")]
    except BaseException:
        if temporary:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if temporary:
        weakref.finalize(made, shutil.rmtree, str(folder), True)
    return made


def _run(found, folder, arguments, quiet):
    out = folder / "out"
    output, notes = run(found, ["run", "recipe.yaml", "--data", ".", "--out", "out", *arguments], quiet, folder)
    try:
        report = json.loads(output)
        notes += [note for note in [report.get("note"), *report.get("notes", [])] if note]
    except (ValueError, TypeError, AttributeError) as error:
        raise Error(f"{found}: its report is no JSON: {one_line(error)}", INTERNAL) from error
    if not quiet:
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
    return of_folder(out, folder, found, notes)
