"""The files that templates come from: without a byte order mark, and named where they aren't UTF-8.

Only imported where there is a template: Jinja is no small import.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import BaseLoader

from sparkbroker.airflow_provider.failures import LeaseRefused
from sparkbroker.airflow_provider.request import InvalidArgument
from sparkbroker.client.file_text import NotText, decode


class TextLoader(BaseLoader):
    """Another loader, whose texts are read as ``decode`` does. ``field`` is the operator's that names the file, or takes it
    in. A file that isn't UTF-8 raises LeaseRefused."""

    def __init__(self, loader: BaseLoader, field: str) -> None:
        self.loader = loader
        self.field = field

    def __repr__(self) -> str:
        return f"<TextLoader {self.field} of {self.loader!r}>"

    def get_source(self, environment: Any, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        """See BaseLoader."""
        path = is_current = None
        try:
            source, path, is_current = self.loader.get_source(environment, template)
            content = source.encode()
        except UnicodeDecodeError as error:
            content = error.object
        try:
            return decode(content), path, is_current
        except NotText as error:
            wrong = InvalidArgument(self.field, f"the file {template!r} {error}", "save it as UTF-8")
            raise LeaseRefused(str(wrong)) from None


def reading_text(environment: Any, field: str) -> Any:
    """The same environment of Jinja's, with a TextLoader for ``field``."""
    loader = environment.loader
    if isinstance(loader, TextLoader):
        loader = loader.loader
    # Those that compile by themselves, or out of several, have their own ways to the text.
    if loader is None or type(loader).load is not BaseLoader.load or not loader.has_source_access:
        return environment
    return environment.overlay(loader=TextLoader(loader, field))
