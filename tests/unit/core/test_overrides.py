"""What a user's subclass overrides: who is found, and what is said when the class is made."""

import warnings

import pytest

from airflow_resilient.core.overrides import NotCalled, check_overrides, overriding_class


class Base:
    def execute(self): ...
    def resume_execution(self): ...


Base.__module__ = "ours.operators"


class Ours(Base):
    def execute(self): ...


Ours.__module__ = "ours.services"


class Quiet(Ours):
    def resume_execution(self): ...


class Mine(Ours):
    def execute(self): ...


class Mixin:
    def execute(self): ...


class Mixed(Mixin, Ours):
    pass


class Below(Mine):
    pass


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(Base, "", id="the-base"),
        pytest.param(Ours, "", id="a-class-of-ours"),
        pytest.param(Quiet, "", id="a-class-that-overrides-something-else"),
        pytest.param(Mine, "Mine", id="a-class-of-a-user"),
        pytest.param(Below, "Mine", id="its-subclass"),
        pytest.param(Mixed, "Mixin", id="a-mixin"),
    ],
)
def test_which_class_outside_of_the_package_overrides_execute(kind, name):
    assert overriding_class(kind, Base, "execute") == name


# --- what nothing calls ---------------------------------------------------------------------------


class Checked:
    not_called = {  # noqa: RUF012 - as in the package
        "_check": NotCalled("override conclude()"),
        "_start": NotCalled("set overrides", refused=True),
        "client": NotCalled("set aws_conn_id", even_if_used=True),
    }

    def __init_subclass__(cls):
        if cls.__name__ != "OursChecked":
            check_overrides(cls, cls.not_called)

    def execute(self): ...


Checked.__module__ = "airflow_resilient.operators"


def check_in_a_mixin():
    class Mixin:
        def _check(self): ...

    class Mine(Mixin, Checked): ...


def check_in_the_base_of_a_class():
    class Mine(Checked):
        def _check(self): ...

    warnings.simplefilter("error")

    class Below(Mine): ...


def check_as_an_attribute():
    class Mine(Checked):
        _check = None


def calls_its_own():
    class Mine(Checked):
        def _start(self):
            return super()._start()

        def execute(self):
            self._start()


def calls_it_in_a_mixin():
    class Mixin:
        @property
        def all_of_it(self):
            return self._check()

    class Mine(Mixin, Checked):
        def _check(self): ...


def calls_only_the_one_above():
    class Mine(Checked):
        def _check(self):
            return super()._check()


def uses_its_own_client():
    class Mine(Checked):
        client = None

        def execute(self):
            return self.client


def uses_what_is_not_there():
    class Mine(Checked):
        def execute(self):
            return self._check()


def nothing_of_it():
    class Mine(Checked):
        def execute(self): ...


SAID = "overrides _check, which the provider's class uses and this one does not. Override conclude()."


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(check_in_a_mixin, f"check_in_a_mixin.<locals>.Mixin {SAID}", id="a-mixin"),
        pytest.param(check_in_the_base_of_a_class, f"Mine {SAID}", id="once-not-for-its-subclasses"),
        pytest.param(check_as_an_attribute, f"Mine {SAID}", id="an-attribute"),
        pytest.param(calls_its_own, "", id="its-own-code-calls-it"),
        pytest.param(calls_it_in_a_mixin, "", id="a-property-of-a-mixin-calls-it"),
        pytest.param(calls_only_the_one_above, f"Mine {SAID}", id="super-is-no-call"),
        pytest.param(uses_its_own_client, "Set aws_conn_id.", id="a-client-that-only-its-own-code-uses"),
        pytest.param(
            uses_what_is_not_there,
            "Mine uses _check, which the provider's class has and this one does not. Override conclude().",
            id="a-call-of-what-is-not-there",
        ),
        pytest.param(nothing_of_it, "", id="nothing"),
    ],
)
def test_a_class_that_overrides_what_nothing_calls_is_told(make, said):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    assert len(caught) == bool(said)
    assert all(said in str(each.message) for each in caught)
    assert all(each.filename == __file__ for each in caught)


def test_a_class_whose_override_would_change_the_job_cannot_be_made():
    with pytest.raises(TypeError, match=r"Mine overrides _start, .*Set overrides\. The page"):

        class Mine(Checked):
            def _start(self): ...
