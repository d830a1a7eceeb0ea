"""How many bits every layer of a trained PyTorch network needs.

    import bitplan

    plan = bitplan.plan(module, train_loader, test_loader, average_bits=4)
    print(plan)                    # bits per layer, sizes, accuracy before and after
    plan.apply(module)             # the quantized weights, in the module itself
    plan.save("module.safetensors")
    plan = bitplan.load_plan("module.safetensors")

The package drives the program `bitplan`, which does the work: it writes module, data and recipe into a folder, runs the
program there, and reads what comes out. All errors are bitplan.Error.
"""
from . import packed
from .errors import Error
from .planning import plan
from .plans import Drop, Layer, Plan, load_plan
from .program import VERSION as __version__

__all__ = ["Drop", "Error", "Layer", "Plan", "load_plan", "packed", "plan", "__version__"]
