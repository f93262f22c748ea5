"""Which of a task's template fields may name a file."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from sparkbroker.airflow_provider._compat import BaseOperator


class TemplatedOperator(BaseOperator):
    """The base of all operators here.

    Airflow takes the text of any template field that ends as ``template_ext`` says for the name of a template's file, also
    within lists and mappings. Here only that of ``file_fields`` is: all else is a value, whatever it ends in.
    """

    template_fields: Sequence[str]
    template_ext: Sequence[str]
    file_fields: ClassVar[Sequence[str]] = ()

    def get_template_env(self, dag: Any = None) -> Any:
        """See BaseOperator. It finds the files of ``file_fields``."""
        return _reading_text(super().get_template_env(dag), ", ".join(self.file_fields))

    def resolve_template_files(self) -> None:
        """See BaseOperator. It reads the files where the DAG is parsed."""
        every, self.template_fields = self.template_fields, self.file_fields
        try:
            super().resolve_template_files()
        finally:
            self.template_fields = every

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        """See BaseOperator. It renders the fields of ``parent``: this task, or an object in one of its fields."""
        every = self.template_ext
        try:
            for name in template_fields:
                if parent is self:
                    self.template_ext = every if name in self.file_fields else ()
                reading = _reading_text(jinja_env, name)
                super()._do_render_template_fields(parent, (name,), context, reading, seen_oids)
        finally:
            self.template_ext = every


def _reading_text(environment: Any, field: str) -> Any:
    from sparkbroker.airflow_provider.template_files import reading_text  # noqa: PLC0415  only where Jinja is loaded

    return reading_text(environment, field)
