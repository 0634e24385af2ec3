"""The one error of the export."""

from monitor.errors import BabelwatchError


class ExportError(BabelwatchError):
    """A checkpoint that cannot be exported, data that do not fit, or an export that did not pass its gate."""
