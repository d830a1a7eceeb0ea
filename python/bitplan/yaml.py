"""Reads the YAML that the program writes into plan.yaml, without a YAML library: maps and lists, block and flow style,
plain and double-quoted texts, numbers, comments. Anything else is an Error.

Lists are lists, maps are dicts with keys of text. 4 is an int, 4.0 and 1e-09 are floats, true and false are bools.
"""
import re

from .errors import BAD_DATA, Error

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$")
_ESCAPE = re.compile(r'\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|["\\/nt])')
_PLAIN_END = re.compile(r"\s*(?:[,\[\]{}]|:(?=[\s,\]}]|$)|\s#|$)", re.MULTILINE)


class _Reader:
    def __init__(self, text, name):
        self.text, self.name, self.at = text, name, 0

    def fail(self, what):
        line = self.text.count("\n", 0, self.at) + 1
        raise Error(f"{self.name}:{line}: {what}", BAD_DATA)

    def skip(self):
        """Blanks, line ends and comments."""
        self.at = re.compile(r"(?:\s|(?<![^\s])#[^\n]*)*").match(self.text, self.at).end()

    def column(self):
        return self.at - (self.text.rfind("\n", 0, self.at) + 1)

    def next(self):
        return self.text[self.at:self.at + 1]

    def quoted(self):
        end = re.compile(r'"((?:[^"\\]|\\.)*)"').match(self.text, self.at)
        if end is None:
            self.fail("a quoted text does not end")
        self.at = end.end()
        plain = {'"': '"', "\\": "\\", "/": "/", "n": "\n", "t": "\t"}
        return _ESCAPE.sub(lambda m: plain.get(m[1]) or chr(int(m[1][1:], 16)), end[1])

    def word(self):
        """A plain text as it stands there."""
        end = _PLAIN_END.search(self.text, self.at)
        word, self.at = self.text[self.at:end.start()], end.start()
        if not word or word[0] in "&*!|>'%@`?":
            self.fail(f"'{word or self.next()}' is not understood")
        return word

    def scalar(self):
        if self.next() == '"':
            return self.quoted()
        word = self.word()
        if word in ("true", "false"):
            return word == "true"
        if word in ("null", "~"):
            return None
        if _NUMBER.match(word):
            return float(word) if any(c in word for c in ".eE") else int(word)
        return word

    def key(self):
        key = self.quoted() if self.next() == '"' else self.word()
        if self.next() != ":":
            self.fail(f"no ':' behind '{key}'")
        self.at += 1
        return key

    def flow(self, close):
        """What stands between brackets; `close` ends it."""
        self.at += 1
        values = {} if close == "}" else []
        while True:
            self.skip()
            if self.next() == close:
                self.at += 1
                return values
            if close == "}":
                key = self.key()
                self.skip()
                values[key] = self.value(None)
            else:
                values.append(self.value(None))
            self.skip()
            if self.next() == ",":
                self.at += 1
            elif self.next() != close:
                self.fail(f"no ',' and no '{close}'")

    def value(self, parent):
        """A value in flow style or on its own lines; `parent`: column of the key or dash that it belongs to, None
        between brackets."""
        if self.next() in "[{" and self.next():
            return self.flow("]" if self.next() == "[" else "}")
        if parent is None:
            return self.scalar()
        if re.compile(r"- ").match(self.text, self.at):
            return self.block(parent, self.items)
        if re.compile(r'(?:"(?:[^"\\\n]|\\.)*"|[^\s#\[\]{},"][^\n#]*?):(?:\s|$)').match(self.text, self.at):
            return self.block(parent, self.entries)
        return self.scalar()

    def block(self, parent, read):
        column = self.column()
        if column <= parent and not (read == self.items and column == parent):
            self.fail("is not indented as it should be")
        return read(column)

    def items(self, column):
        values = []
        while self.column() == column and re.compile(r"- ").match(self.text, self.at):
            self.at += 1
            self.skip()
            values.append(self.value(column))
            self.skip()
        return values

    def entries(self, column):
        values = {}
        while self.at < len(self.text) and self.column() == column:
            key = self.key()
            if key in values:
                self.fail(f"'{key}' stands there twice")
            self.skip()
            values[key] = self.value(column)
            self.skip()
        return values


def read(text, name):
    """The value of a text; `name` is what errors call it."""
    reader = _Reader(text, name)
    reader.skip()
    try:
        value = reader.value(-1)
    except RecursionError:
        reader.fail("is nested too deeply")
    reader.skip()
    if reader.at < len(text):
        reader.fail("is not indented as it should be")
    return value
