"""The contract's modules say of themselves what they hold: names, error tree, hook docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import attrs
import pytest

import nim_core
from nim_core import errors, hookspecs, types
from nim_core.registry import checks

CONTRACT = [nim_core, errors, hookspecs, types]
HOOKS = [hook for name, hook in sorted(vars(hookspecs.NimHookSpecs).items()) if name.startswith("nim_")]
ERRORS = [getattr(errors, name) for name in errors.__all__]
RECORDS = [it for name in types.__all__ if attrs.has(it := getattr(types, name))]
ERROR_LINE = re.compile(r"^(?P<indent> +)(?P<name>\w+Error) +(?P<code>\d+)\b", re.MULTILINE)


def sort_key(name):
    """As ruff sorts: constants, then classes, then the rest."""
    return (not name.isupper(), not name[0].isupper(), name)


def defined_in(module):
    """Public names that a module, or for a package its modules, define."""
    prefix = module.__name__
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and str(getattr(value, "__module__", "")).startswith(prefix)
    }


class TestNames:
    @pytest.mark.parametrize("module", CONTRACT, ids=lambda module: module.__name__)
    def test_all_is_sorted_and_has_no_name_twice(self, module):
        assert module.__all__ == sorted(set(module.__all__), key=sort_key)

    @pytest.mark.parametrize("module", CONTRACT, ids=lambda module: module.__name__)
    def test_all_names_exist(self, module):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []

    @pytest.mark.parametrize("module", [errors, hookspecs, types], ids=lambda module: module.__name__)
    def test_all_is_complete(self, module):
        assert defined_in(module) - set(module.__all__) == set()

    def test_every_public_class_of_types_is_exported(self):
        modules = [
            importlib.import_module(f"{types.__name__}.{it.name}") for it in pkgutil.iter_modules(types.__path__)
        ]
        classes = {
            name
            for module in modules
            for name, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }

        assert classes - set(types.__all__) == set()


class TestRecords:
    @pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
    def test_it_cannot_be_changed_and_takes_keywords(self, record):
        assert record.__setattr__ is not object.__setattr__
        assert record is types.Digest or all(field.kw_only for field in attrs.fields(record))

    @pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
    def test_it_is_documented(self, record):
        assert record.__doc__
        if "Attributes:" in record.__doc__:
            for field in attrs.fields(record):
                assert re.search(rf"^ +{field.name}: ", record.__doc__, re.MULTILINE), field.name


class TestErrors:
    @pytest.fixture
    def tree(self):
        """Name to exit code and name of the parent, as the module's docstring draws it."""
        drawn, path = {}, []
        for line in ERROR_LINE.finditer(errors.__doc__):
            depth = len(line["indent"])
            path = [(above, name) for above, name in path if above < depth]
            drawn[line["name"]] = (int(line["code"]), path[-1][1] if path else "Exception")
            path.append((depth, line["name"]))
        return drawn

    def test_the_tree_in_the_docstring_is_the_tree(self, tree):
        assert tree == {cls.__name__: (cls.exit_code, cls.__bases__[0].__name__) for cls in ERRORS}

    def test_every_class_has_a_code_of_its_own(self):
        codes = [cls.exit_code for cls in ERRORS]

        assert sorted(set(codes)) == sorted(codes)

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
    def test_codes_are_free_for_us(self, error):
        assert error.exit_code not in {0, 2}
        assert error.exit_code < 126

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
    def test_it_says_what_happened_and_what_to_do(self, error):
        made = error("it broke", hint="mend it")

        assert (str(made), made.message, made.hint) == ("it broke", "it broke", "mend it")
        assert error("it broke").hint is None
        assert error.__doc__

    @pytest.mark.parametrize(
        "error", [it for it in ERRORS if issubclass(it, errors.SourceError)], ids=lambda it: it.__name__
    )
    def test_a_sources_error_says_where(self, error):
        made = error("it broke", uri="s://a/b", plugin="s")

        assert (made.uri, made.plugin) == ("s://a/b", "s")
        assert (error("it broke").uri, error("it broke").plugin) == (None, None)

    def test_what_may_be_tried_again(self):
        assert [cls.__name__ for cls in ERRORS if cls.retryable] == [
            "RateLimitedError",
            "StalledError",
            "TransientError",
        ]
        assert errors.RateLimitedError("slow down", retry_after=3.5).retry_after == 3.5
        assert errors.RateLimitedError("slow down").retry_after is None


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
class TestHooks:
    def says(self, hook):
        """A hook's docstring, with that of the hook it refers to for how it fails."""
        text = inspect.getdoc(hook)
        referred = re.search(r"failing, like\s+:meth:`(\w+)`", text)
        return text + (inspect.getdoc(getattr(hookspecs.NimHookSpecs, referred[1])) if referred else "")

    def test_what_it_is_for_in_one_line(self, hook):
        first, blank, *_ = inspect.getdoc(hook).splitlines()

        assert first.endswith((".", "``."))
        assert blank == ""

    def test_when_it_is_called(self, hook):
        assert re.search(r"\bCalled\b", self.says(hook))
        assert re.search(r"\bthread|Called once per file", self.says(hook))

    def test_what_may_be_raised(self, hook):
        assert re.search(r"^Raises:\n    \w+: ", self.says(hook), re.MULTILINE)

    def test_since_when_it_exists(self, hook):
        assert re.search(r"^\.\. versionadded:: \d+\.\d+$", inspect.getdoc(hook), re.MULTILINE)

    def test_what_none_means_where_it_may_be_returned(self, hook):
        if "| None" in str(inspect.signature(hook).return_annotation):
            assert "None" in inspect.getdoc(hook)

    def test_its_arguments_can_be_seen_by_pluggy_and_are_annotated(self, hook):
        for parameter in list(inspect.signature(hook).parameters.values())[1:]:
            assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            assert parameter.default is parameter.empty
            assert parameter.annotation is not parameter.empty

    def test_its_name_and_kind(self, hook):
        collects = hook.__name__.startswith("nim_register_")

        assert hook.__name__ in checks.HOOK_NAMES
        assert (hook.__name__ in checks.COLLECT_HOOKS) is collects
        assert not (collects and hook.nim_spec["firstresult"])


def test_records_that_hooks_collect_are_the_ones_they_say():
    said = {
        hook.__name__: re.fullmatch(r"list\[(\w+)\]", inspect.signature(hook).return_annotation)[1]
        for hook in HOOKS
        if hook.__name__ in checks.COLLECT_HOOKS
    }

    assert said == {name: record.__name__ for name, record in checks.COLLECT_HOOKS.items()}
