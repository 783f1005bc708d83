"""Declared variables and how their text is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nim_core.errors import ConfigError
from nim_core.types import EnvVar, Variables


def variables(value=None, **options):
    values = {} if value is None else {"V": value}
    return Variables((EnvVar(name="V", summary="a variable", **options),), values)


class TestText:
    def test_the_value_wins_over_the_default(self):
        assert variables("x", default="d").text("V") == "x"

    @pytest.mark.parametrize("value", [None, ""])
    def test_empty_counts_as_unset(self, value):
        assert variables(value, default="d").text("V") == "d"
        assert variables(value).text("V") is None
        assert not variables(value, default="d").is_set("V")

    def test_blanks_are_a_value(self):
        assert variables(" ").text("V") == " "
        assert variables(" ").is_set("V")


class TestSecret:
    def test_it_is_wrapped_and_stripped(self):
        secret = variables(" key\n", secret=True).secret("V")

        assert secret.reveal() == "key"
        assert "key" not in str(secret)

    @pytest.mark.parametrize("value", [None, "", "  \n"])
    def test_none_when_there_is_none(self, value):
        assert variables(value).secret("V") is None


class TestFlag:
    @pytest.mark.parametrize("value", ["1", "true", "True", "TRUE", "yes", "Yes", "on", "ON", " 1 "])
    def test_true(self, value):
        assert variables(value, kind="flag", default="0").flag("V") is True

    @pytest.mark.parametrize("value", ["0", "false", "FALSE", "no", "off", "Off\n", None, ""])
    def test_false(self, value):
        assert variables(value, kind="flag").flag("V") is False

    def test_default(self):
        assert variables(None, kind="flag", default="1").flag("V") is True

    @pytest.mark.parametrize("value", ["2", "y", "enabled", " ", "ture", "1,0"])
    def test_other_text_names_the_variable(self, value):
        with pytest.raises(ConfigError, match="V is not a boolean: ") as caught:
            variables(value, kind="flag").flag("V")

        assert caught.value.hint == "set V to 1/0, true/false, yes/no or on/off"


class TestNumber:
    @pytest.mark.parametrize(
        ("value", "number"), [("0", 0), ("8", 8), (" 60 ", 60), ("007", 7), ("9" * 15, 10**15 - 1)]
    )
    def test_integers(self, value, number):
        assert variables(value, kind="integer").number("V") == number

    @pytest.mark.parametrize(("value", "number"), [("0.5", 0.5), (".5", 0.5), ("1.", 1), ("60", 60)])
    def test_seconds(self, value, number):
        assert variables(value, kind="seconds").number("V") == number

    @pytest.mark.parametrize("value", ["-1", "1.5", "1e3", "x", " ", "1_000", "٣", "0x10", "inf", "nan", "9" * 400])
    def test_what_is_no_whole_number_names_the_variable(self, value):
        with pytest.raises(ConfigError, match="V is not a whole number: "):
            variables(value, kind="integer").number("V")

    @pytest.mark.parametrize("value", ["-1", ".", "1e3", "inf", "nan", "5s", "", "1.2.3"])
    def test_what_is_no_number_of_seconds_names_the_variable(self, value):
        if value:
            with pytest.raises(ConfigError, match="V is not a number of seconds: "):
                variables(value, kind="seconds").number("V")
        else:
            assert variables(value, kind="seconds").number("V") is None

    @given(st.text(max_size=25))
    def test_any_text_is_a_finite_number_or_refused(self, value):
        for kind in ("integer", "seconds"):
            try:
                number = variables(value, kind=kind).number("V")
            except ConfigError:
                continue
            assert number is None or 0 <= number < 1e19
            assert number is None or kind == "seconds" or int(number) == number


@pytest.mark.parametrize("read", ["text", "secret", "flag", "number", "is_set"])
def test_an_undeclared_name_is_a_bug(read):
    with pytest.raises(KeyError):
        getattr(Variables((), {"V": "1"}), read)("V")


def test_only_declared_values_are_kept():
    made = Variables((EnvVar(name="A", summary=""), EnvVar(name="B", summary="")), {"A": "x", "C": "secret"})

    assert [variable.name for variable in made.declared] == ["A", "B"]
    assert repr(made) == "Variables(['A'] are set)"
