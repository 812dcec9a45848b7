"""What a user can cause and mend."""

import contextlib
from collections.abc import Callable, Iterator


class InputError(ValueError):
    """A value, a flag, a field or a file that cannot be used.

    The message is one line for the user: the value, what is allowed, and where it came from.
    The command ends with it and exit code 2; any other exception keeps its traceback.
    """


@contextlib.contextmanager
def foreign(line: Callable[[Exception], str]) -> Iterator[None]:
    """Turns whatever another library raises inside into an `InputError` of the line for it.

    For decoders of files (pickle, zip, YAML, images, protobuf) and for the network. Which errors
    damaged bytes cause is not documented and differs between versions; `MemoryError` is among them,
    as a header may claim any size.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(line(error)) from error
