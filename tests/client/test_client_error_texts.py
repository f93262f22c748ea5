"""An error of a JVM says the same after that has ended."""

import pytest

from sparkbroker.client._error_texts import keep_texts


class Jvm:
    alive = True

    def say(self, text):
        if not self.alive:
            raise AssertionError
        return text


def kind(module, name, jvm):
    return type(name, (Exception,), {"__module__": module, "__str__": lambda self: jvm.say(self.args[0])})


@pytest.mark.parametrize(
    ("module", "name"),
    [("py4j.protocol", "Py4JJavaError"), ("pyspark.errors.exceptions.captured", "CapturedException")],
)
def test_its_text_and_that_of_its_causes_are_kept(module, name):
    jvm = Jvm()
    base = kind(module, name, jvm)
    derived = type("Derived", (base,), {})
    cause, error = base("the cause"), derived("the error")
    wrapped = ValueError("wrapped")
    error.__cause__, wrapped.__context__, cause.__context__ = cause, error, wrapped
    keep_texts(wrapped)
    keep_texts(wrapped)
    jvm.alive = False
    assert (str(error), str(cause), str(wrapped)) == ("the error", "the cause", "wrapped")
    assert isinstance(error, derived)
    assert type(error).__name__ == "Derived"


def test_one_whose_jvm_has_ended_already_is_left_as_it_is():
    jvm = Jvm()
    error = kind("py4j.protocol", "Py4JJavaError", jvm)("x")
    jvm.alive = False
    keep_texts(error)
    assert "kept" not in repr(vars(type(error)))
    jvm.alive = True
    assert str(error) == "x"


def test_pysparks_own_needs_it(monkeypatch):
    """Its class is told by its name, and its text needs the JVM: this fails when pyspark changes either."""
    pytest.importorskip("py4j")
    from pyspark import SparkContext
    from pyspark.errors.exceptions.captured import AnalysisException

    monkeypatch.setattr(SparkContext, "_gateway", object())
    monkeypatch.setattr(SparkContext, "_jvm", object())
    kept, left = (AnalysisException("no such column", stackTrace="at …") for _ in range(2))
    keep_texts(kept)
    monkeypatch.setattr(SparkContext, "_jvm", None)
    assert str(kept).startswith("no such column")
    assert isinstance(kept, AnalysisException)
    with pytest.raises(AssertionError):
        str(left)
