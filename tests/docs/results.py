"""Values of benchmarks/results/*.json, and templates that show them as a document does.

A template is text with {EXPRESSION:FORMAT} in it; FORMAT is Python's, for decimal numbers. An expression holds numbers,
+ - * / ( ), paths, and mean, min, max or all of a (PATH) over all values that a path finds; a minus has spaces around
it. A path is [FILE#]KEY.KEY[SELECTOR,...].KEY, FILE without folder and ".json". A selector is an index or KEY=VALUE; a
list without a selector stands for all of its elements. $N stands for the text of column N of the row, $column for the
first number of the column's head:

    {100 * result.plans[allocator=$1,budget=$column].metrics.accuracy:.2f} %
"""
import json
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"

SEGMENT = r"[A-Za-z_][\w-]*(?:\[[^\]]*\])?"
PATH = rf"(?:[\w.-]+#)?{SEGMENT}(?:\.{SEGMENT})*"
TOKEN = re.compile(rf"(?P<call>(?:mean|min|max|all)\({PATH}\))|(?P<path>{PATH})|(?P<other>[\d.]+|[-+*/()\s])")
FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


class Missing(Exception):
    """A path finds nothing."""


class Malformed(Exception):
    """A comment, a path or a file that cannot be understood."""


_loaded = {}


def load(name):
    """The result file benchmarks/results/NAME.json with exact decimal numbers. Malformed when it is not there."""
    if name not in _loaded:
        file = RESULTS / f"{name}.json"
        if not file.is_file():
            raise Malformed(f"no file benchmarks/results/{name}.json")
        _loaded[name] = json.loads(file.read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal)
    return _loaded[name]


def states_command(value):
    """Whether a result says by which command it was made: a key "command" on any level."""
    if isinstance(value, dict):
        return bool(value.get("command")) or any(states_command(v) for v in value.values())
    return isinstance(value, list) and any(states_command(v) for v in value)


def same(value, text):
    """Whether a value of a file is what a selector names: 1.25 is 1.250."""
    if isinstance(value, Decimal):
        try:
            return value == Decimal(text)
        except InvalidOperation:
            return False
    return value == text


def chosen(value, selectors):
    """The elements of the list `value` that all selectors ("3", "KEY=VALUE") name."""
    if not isinstance(value, list):
        raise Missing
    if len(selectors) == 1 and re.fullmatch(r"\d+", selectors[0]):
        return value[int(selectors[0]):int(selectors[0]) + 1]
    pairs = [selector.split("=", 1) for selector in selectors]
    return [v for v in value if all(same(v.get(key), text) for key, text in pairs)]


def find(path, names):
    """All values that a path finds, at least one; `names` says what $N and $column are."""
    def filled(text):
        return re.sub(r"\$(\w+)", lambda match: names[match[1]], text)

    file, _, keys = path.rpartition("#")
    values = [load(file or filled(names["file"]))]
    for key, _, selectors in re.findall(r"([A-Za-z_][\w-]*)(\[([^\]]*)\])?", keys):
        values = [v[key] for v in values if isinstance(v, dict) and key in v and v[key] is not None]
        if selectors:
            # Split before names are filled in: a name may hold a comma.
            named = [filled(selector) for selector in selectors.split(",")]
            values = [element for v in values for element in chosen(v, named)]
        elif values and isinstance(values[0], list):
            values = [element for v in values for element in v]
    if not values:
        raise Missing(path)
    return values


def evaluate(expression, names):
    """The value of an expression. Missing when a path finds nothing, Malformed when a plain path finds several."""
    python, values, at = "", {}, 0
    while at < len(expression):
        token = TOKEN.match(expression, at)
        if token is None:
            raise Malformed(f"'{expression}' at '{expression[at:]}'")
        at = token.end()
        if token["other"]:
            number = re.fullmatch(r"[\d.]+", token["other"])
            python += f"Decimal('{token['other']}')" if number else token["other"]
            continue
        function, _, path = token["call"].rstrip(")").partition("(") if token["call"] else ("", "", token["path"])
        found = find(path, names)
        if not function and len(found) != 1:
            raise Malformed(f"{path} finds {len(found)} values; write mean(...) or the like")
        combine = {"": lambda v: v[0], "mean": lambda v: sum(v) / len(v), "min": min, "max": max, "all": all}[function]
        values[f"v{len(values)}"] = combine(found)
        python += f"v{len(values) - 1}"
    # Only names, numbers and operators that the loop above has put there.
    return eval(python, {"__builtins__": {}, "Decimal": Decimal}, values)


def shown(template, names):
    """The template with its values; Missing when one of them is in no file."""
    def text(field):
        value, form = evaluate(field[1].strip(), names), field[2] or ""
        return format(float(value) if form.endswith("g") else value, form)

    return FIELD.sub(text, template)
