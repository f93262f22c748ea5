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
                super()._do_render_template_fields(parent, (name,), context, jinja_env, seen_oids)
        finally:
            self.template_ext = every
