"""What a user can cause and mend."""


class InputError(ValueError):
    """A value, a flag, a field or a file that cannot be used.

    The message is one line for the user: the value, what is allowed, and where it came from.
    The command ends with it and exit code 2; any other exception keeps its traceback.
    """
