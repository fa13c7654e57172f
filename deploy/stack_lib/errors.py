"""The one exception that ends a command with a message instead of a traceback."""


class StackError(Exception):
    """Something outside went wrong; `status` is the exit status (1 failed, 2 wrong usage)."""

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status
