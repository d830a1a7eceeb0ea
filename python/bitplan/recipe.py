"""Writes the recipe of a run (docs/recipe.md)."""
import json
import os

from .errors import USAGE, Error

MARK = "# Written by the Python package bitplan; it writes this file anew."


def _plain(value):
    """What JSON can hold, of numpy's and the like."""
    if hasattr(value, "tolist"):  # numpy and torch
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise Error(f"settings: a value of type {type(value).__name__} has no place in a recipe", USAGE)


def put(tree, key, value, said_by):
    """Sets the dotted key in nested maps. Error where another argument has set it."""
    *sections, last = key.split(".")
    for name in sections:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise Error(f"{said_by}: '{name}' in '{key}' is a value, not a section", USAGE)
    if last in tree:
        raise Error(f"{said_by}: '{key}' is given twice, here and by another argument", USAGE)
    tree[last] = value


def _leaves(value, path):
    """(dotted key, value) of nested maps; maps whose keys are names of layers are values."""
    if isinstance(value, dict) and path not in ("allocate.pins",):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def merge(given, settings):
    """Nested maps of `given`, {dotted key: value} without those that are None, and of the user's settings."""
    tree = {}
    for key, value in given.items():
        if value is not None:
            put(tree, key, value, "arguments")
    if settings is not None and not isinstance(settings, dict):
        raise Error("settings is a dict: {'quantizer.grid': 'zero'} or {'quantizer': {'grid': 'zero'}}", USAGE)
    for key, value in _leaves(settings or {}, ""):
        put(tree, key, value, "settings")
    return tree


def text(tree):
    """The recipe: one line for every key of the root, its value in JSON, which is YAML."""
    lines = [MARK, "bitplan: 1"]
    try:
        for key, value in tree.items():
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)}")
    except ValueError as error:
        raise Error(f"settings: {error}; a recipe holds finite numbers", USAGE) from error
    return "\n".join(lines) + "\n"
