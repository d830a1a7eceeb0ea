"""A user's module becomes a TorchScript file that the program reads. The module itself is never touched."""
import copy
import io
import warnings

import torch
from torch import nn

from .errors import BAD_DATA, USAGE, Error, one_line

_RELATIVE = 1e-3  # of the largest logit: how far a scripted or traced module may be off
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)

_TAKE_LOGITS = ("plan a module that returns the logits alone: class Logits(torch.nn.Module) with the module as an "
                "attribute and a forward that returns {}")


def unwrap(module):
    """The module inside DataParallel, DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(module, _WRAPPERS):
            module = module.module
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod
        else:
            return module


def _check_kind(module):
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise Error(f"module is the class {module.__name__}; give a trained object of it", USAGE)
    if not isinstance(module, nn.Module):
        raise Error(f"module is a {type(module).__name__}; a torch.nn.Module is wanted", USAGE)
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise Error(f"parameter {name} has no shape yet: let the module see one batch, and train it", BAD_DATA)


def evaluation_copy(module):
    """The module unwrapped, copied, on the CPU, in float32 and evaluation mode."""
    module = unwrap(module)
    _check_kind(module)
    try:
        if isinstance(module, torch.jit.ScriptModule):
            file = io.BytesIO()
            torch.jit.save(module, file)
            file.seek(0)
            copied = torch.jit.load(file, map_location="cpu")
        else:
            copied = copy.deepcopy(module)
        return copied.cpu().float().eval()
    except Exception as error:
        raise Error(f"the module cannot be copied: {one_line(error)}; tensors that forward has computed must not be "
                    "attributes of the module (torch.nn.utils.remove_weight_norm and the like)", BAD_DATA) from error


def answers(module, x):
    with torch.no_grad():
        return module(x)


def check_answers(output, count, task="classification"):
    """Refuses what are no answers of the task, logits [N, classes]; `count`: inputs of the batch."""
    if isinstance(output, dict) or hasattr(output, "keys"):
        keys = ", ".join(map(str, list(output.keys())[:5]))
        raise Error(f"the module returns a dictionary ({keys}); " + _TAKE_LOGITS.format("output['logits']"), BAD_DATA)
    if isinstance(output, (tuple, list)):
        raise Error(f"the module returns a {type(output).__name__} of {len(output)}; "
                    + _TAKE_LOGITS.format("output[0]"), BAD_DATA)
    if not isinstance(output, torch.Tensor):
        raise Error(f"the module returns a {type(output).__name__}; logits [N, classes] are wanted", BAD_DATA)
    shape = list(output.shape)
    if task != "classification":
        if not shape or shape[0] != count or not output.is_floating_point():
            raise Error(f"the module returns {output.dtype} of shape {shape} for {count} inputs; floats [{count}, ...] "
                        "are wanted", BAD_DATA)
        return
    if len(shape) <= 1 or shape[1:] == [1]:
        raise Error(f"the module returns one number for every input (shape {shape}); a classifier of two classes needs "
                    "two logits: return torch.cat([torch.zeros_like(y), y], 1) of a [N, 1] output y", BAD_DATA)
    if len(shape) != 2 or shape[0] != count or not output.is_floating_point():
        raise Error(f"the module returns {output.dtype} of shape {shape} for {count} inputs; "
                    f"logits [{count}, classes] are wanted", BAD_DATA)


def _same(expected, seen):
    if not isinstance(seen, torch.Tensor) or seen.shape != expected.shape:
        return False
    finite = expected[torch.isfinite(expected)]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    return torch.allclose(expected, seen, rtol=_RELATIVE, atol=_RELATIVE * scale, equal_nan=True)


def _differs(module, graph, x):
    """Whether the graph answers otherwise than the module, also on batches of another size. None, or a description."""
    for part in (x, x[:1], x.flip(0)[:max(1, len(x) - 1)], x):  # a graph is compiled anew on its second batch
        try:
            seen = answers(graph, part)
        except Exception as error:
            return f"it fails on a batch of {len(part)}: {one_line(error)}"
        if not _same(answers(module, part), seen):
            return f"it answers otherwise on a batch of {len(part)}"
    return None


def _scripted(module, _):
    return torch.jit.script(module)


def _traced(module, x):
    example = x[:max(1, min(2, len(x)))]
    with torch.no_grad():
        return torch.jit.trace(module, example, check_trace=False)


def torchscript(module, x, may_vary=False):
    """The module as a TorchScript module, scripted, else traced, that gives the same logits on the batch x.

    may_vary: its logits depend on chance or on the other inputs of a batch, and are not compared.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return module
    if not may_vary and not _same(answers(module, x), answers(module, x)):
        raise Error("the module answers otherwise when it is asked again: does forward draw random numbers in "
                    "evaluation mode? settings={'model.answers_may_vary': True} takes it as it is", BAD_DATA)
    reasons = []
    for name, make in (("scripted", _scripted), ("traced", _traced)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                graph = make(module, x).eval()
                reason = None if may_vary else _differs(module, graph, x)
            except Exception as error:
                reason = one_line(error)
        if reason is None:
            return graph
        reasons.append(f"{name}: {reason}")
    raise Error("the module cannot be turned into TorchScript that answers as it does. " + "; ".join(reasons),
                BAD_DATA)


def tensor_at(module, name):
    """The parameter or buffer of a dotted name, or None."""
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, torch.Tensor) else None
