"""The one error of training: a message for a person. Its own, since training imports nothing of the daemon."""


class TrainingError(Exception):
    """Something the user can mend: a recipe, data, a base model, the machine.

    Args:
        what: What is wrong, in one clause.
        where: The file, key or row it is about.
        hint: What to do about it.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.what}{advice}"
