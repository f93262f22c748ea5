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
