"""
The contract with plugins, pinned.

``hook_api.json`` is what plugins are written against. It changes in the commit that changes the contract, and the
change is read there: a minor version may add a hook, an argument, a field with a default or an error, nothing else.
"""

from __future__ import annotations

import enum
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal, get_origin

import attrs
import pytest

from nim_core import errors, hookspecs, types

PINNED = Path(__file__).with_name("hook_api.json")
UPDATE_VARIABLE = "UPDATE_HOOK_API"
HOW_TO_UPDATE = f"if that is meant: {UPDATE_VARIABLE}=1 pytest tests/meta/test_hook_api.py, and read the difference"


def describe_parameter(parameter: inspect.Parameter) -> str:
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{parameter.name}: {parameter.annotation}{default}"


def describe_function(function: Any) -> dict[str, Any]:
    signature = inspect.signature(function)
    parameters = [describe_parameter(it) for name, it in signature.parameters.items() if name not in {"self", "cls"}]
    return {"arguments": parameters, "returns": str(signature.return_annotation)}


def describe_member(member: Any) -> Any:
    if isinstance(member, property):
        return {"property": str(inspect.signature(member.fget).return_annotation)}
    return describe_function(getattr(member, "__func__", member))


def describe_methods(cls: type) -> dict[str, Any]:
    public = {name: it for name, it in vars(cls).items() if not name.startswith("_") and not is_field(cls, name)}
    return {name: describe_member(member) for name, member in sorted(public.items())}


def is_field(cls: type, name: str) -> bool:
    return attrs.has(cls) and name in attrs.fields_dict(cls)


def describe_default(default: Any) -> str:
    """Return a default as it is written; one made by a function by its name, not where that is in memory."""
    if isinstance(default, attrs.Factory) and default.takes_self:
        return f"made by {default.factory.__name__}"
    return repr(default)


def describe_field(cls: type, field: Any) -> str:
    alias = getattr(sys.modules[cls.__module__], field.type, None)
    kind = repr(alias).removeprefix("typing.") if get_origin(alias) is Literal else field.type
    default = "" if field.default is attrs.NOTHING else f" = {describe_default(field.default)}"
    return f"{kind}{default}{'' if field.kw_only else ' (positional)'}"


def describe_class(cls: type) -> dict[str, Any]:
    if issubclass(cls, enum.Enum):
        return {"members": {member.name: member.value for member in cls}}
    described: dict[str, Any] = {}
    if attrs.has(cls):
        described["fields"] = {field.name: describe_field(cls, field) for field in attrs.fields(cls)}
    elif "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        described["arguments"] = describe_function(vars(cls)["__init__"])["arguments"]
    methods = describe_methods(cls)
    return described | ({"methods": methods} if methods else {})


def describe_name(value: Any) -> Any:
    if inspect.isclass(value):
        return describe_class(value)
    if inspect.isfunction(value):
        return describe_function(value)
    alternatives = getattr(value, "__args__", None)
    if alternatives is not None:
        return {"one of": sorted(it.__name__ if inspect.isclass(it) else repr(it) for it in alternatives)}
    return {"value": dict(value)}


def describe_hook(name: str) -> dict[str, Any]:
    hook = vars(hookspecs.NimHookSpecs)[name]
    return {"firstresult": hook.nim_spec["firstresult"]} | describe_function(hook)


def describe_error(name: str) -> dict[str, Any]:
    cls = getattr(errors, name)
    return {
        "bases": [base.__name__ for base in cls.__bases__],
        "exit_code": cls.exit_code,
        "retryable": cls.retryable,
        "arguments": describe_function(cls)["arguments"],
    }


def hook_names() -> list[str]:
    return sorted(name for name in vars(hookspecs.NimHookSpecs) if not name.startswith("_"))


def describe_contract() -> dict[str, Any]:
    return {
        "project": hookspecs.PROJECT_NAME,
        "entry_point_group": hookspecs.ENTRY_POINT_GROUP,
        "hooks": {name: describe_hook(name) for name in hook_names()},
        "types": {name: describe_name(getattr(types, name)) for name in types.__all__},
        "errors": {name: describe_error(name) for name in errors.__all__},
    }


@pytest.mark.parametrize("part", ["project", "entry_point_group", "hooks", "types", "errors"])
def test_the_contract_is_as_pinned(part):
    actual = describe_contract()
    if os.environ.get(UPDATE_VARIABLE):
        PINNED.write_text(json.dumps(actual, indent=1, ensure_ascii=False) + "\n")

    expected = json.loads(PINNED.read_text())

    assert actual[part] == expected[part], f"the contract with plugins has changed; {HOW_TO_UPDATE}"
    assert actual.keys() == expected.keys()
