"""The one exception of the package, with the exit codes of the program."""

USAGE, BAD_DATA, NOT_FOUND, INTERNAL, CANNOT_WRITE, INTERRUPTED = 64, 65, 66, 70, 74, 130


class Error(Exception):
    """One line that says what is wrong, where, and what to do.

    code: exit code of the program, or what the program would give for an error that the package finds itself:
    64 usage or recipe, 65 bad input, 66 not found, 70 internal, 74 cannot be written, 75 the budget cannot be met,
    130 interrupted. Negative: the program was ended by the signal of that number.
    """

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


def one_line(error):
    """Type and text of an exception, short and on one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else text[:297] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
