"""The errors that Babelwatch raises on purpose: a message for a person, never a traceback."""


class BabelwatchError(Exception):
    """Something the user can mend.

    Args:
        what: What is wrong, in one clause.
        where: The file, key or address it is about.
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


class ConfigError(BabelwatchError):
    """The configuration or the watchlist cannot be used."""


class BundleError(BabelwatchError):
    """A model bundle is missing, damaged, or of a format this version does not read."""


class BrokerError(BabelwatchError):
    """The broker cannot be used as configured."""
