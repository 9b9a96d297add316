"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake that the user can mend; the command line prints it as one line and exits with code 2.

    Args:
        what: what is wrong, in plain words.
        where: the file, row, option or column it was found at.
        mend: what to do about it.
    """

    def __init__(self, what: str, *, where: object = None, mend: str | None = None) -> None:
        text = what if where is None else f"{where}: {what}"
        if mend is not None:
            text = f"{text}; {mend}"
        super().__init__(" ".join(text.split()))  # one line, whatever the parts held
