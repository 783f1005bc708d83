"""
Make the pages of the contract from its source: ``python docs/contract.py docs/reference`` writes them.

A page of its own for each hook, with the example that ``examples/hooks`` has; one page for all records, and one for the
suites of the kit with their tests.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from html import escape
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
MADE = "<!-- Made by `python docs/contract.py docs/reference`; do not edit. -->"
EXAMPLES = ROOT / "examples" / "hooks"
ROLE = re.compile(r":(?:class|meth|attr|mod|func|data):`~?(?:nim_core\.[\w.]*\.)?([^`]+)`")
SUITES = {
    "SourceSuite": "Served",
    "SinkSuite": "Stored",
    "BackendSuite": "ServedModel",
    "CredentialSuite": "CredentialCase",
}
"""Suites of the kit, and the record that the author's fixture gives."""

BAR = "&#124;"
"""A bar within a cell."""

SUBJECTS = {
    "uris": "URIs",
    "files": "Files and where they are",
    "sources": "Sources",
    "sinks": "Sinks",
    "credentials": "Credentials",
    "secret": "Secrets",
    "environment": "Environment variables",
    "events": "Events and checks",
    "backends": "Backends",
    "arguments": "Arguments of engines",
    "hardware": "Hardware",
}
"""Modules of ``nim_core.types`` in the order of the page, and what they are about."""


def pages() -> dict[str, str]:
    """Return the text of every page by its path beneath the folder of reference pages."""
    core = griffe.load("nim_core", search_paths=[str(ROOT)], docstring_parser="google")
    hooks = [it for it in core["hookspecs.NimHookSpecs"].functions.values() if it.name.startswith("nim_")]
    records = core["types"]
    names = {name for name in records.exports if records[name].target_path}
    made = {f"hooks/{hook.name}.md": hook_page(hook, names) for hook in hooks}
    return {
        "hooks.md": index_page(hooks),
        **made,
        "records.md": records_page(records),
        "kit.md": kit_page(core["testing.conformance"]),
    }


def index_page(hooks: Iterable[griffe.Function]) -> str:
    """Return the page that leads to the pages of hooks."""
    rows = "\n".join(f"| [`{it.name}`](hooks/{it.name}.md) | {first_line(it)} | {who(it)} |" for it in hooks)
    return (
        f"# Hooks\n\n{MADE}\n\n"
        "A plugin is a module named by an entry point in group `nim_core.plugins`; its functions that carry\n"
        "`@hookimpl` of `nim_core` are called as told on the pages below. [Records](records.md) are in\n"
        "`nim_core.types`, [errors](exit-codes.md) in `nim_core.errors`.\n\n"
        f"| hook | does | called |\n|---|---|---|\n{rows}\n"
    )


def hook_page(hook: griffe.Function, names: set[str]) -> str:
    """Return the page of one hook."""
    parameters = [it for it in hook.parameters if it.name != "self"]
    shown = f"def {hook.name}({', '.join(f'{it.name}: {it.annotation}' for it in parameters)}) -> {hook.returns}"
    rows = "\n".join(f"| `{it.name}` | {linked(str(it.annotation), names)} |" for it in parameters)
    takes = f"\n| argument | is |\n|---|---|\n{rows}\n" if rows else "\nIt takes no arguments.\n"
    example = (EXAMPLES / f"{hook.name}.py").read_text(encoding="utf-8")
    return (
        f"# {hook.name}\n\n{MADE}\n\n```python\n@hookimpl\n{shown}\n```\n\n{who(hook)[0].upper()}{who(hook)[1:]}.\n\n"
        f"{described(hook)}\n## Arguments and answer\n{takes}\n"
        f"It returns {linked(str(hook.returns), names)}.\n\n"
        f"## Example\n\n```python\n{example}```\n"
    )


def records_page(types: griffe.Object | griffe.Alias) -> str:
    """Return the page of all that ``nim_core.types`` exports, by subject."""
    exported = [types[name].final_target for name in types.exports or ()]
    sections = []
    for module, title in SUBJECTS.items():
        found = [it for it in exported if it.module.name == module]
        sections.append("\n".join([f"## {title}\n", *(record_section(it) for it in found)]))
    left = {it.module.name for it in exported} - SUBJECTS.keys()
    if left:
        raise SystemExit(f"no subject for nim_core.types.{', '.join(sorted(left))}: see SUBJECTS")
    return (
        f"# Records\n\n{MADE}\n\n"
        "What travels between core and plugins: all of it is in `nim_core.types`. Records are frozen and made by\n"
        "keywords; a field with a default may be left out, and later versions add only such.\n\n" + "\n".join(sections)
    )


def record_section(record: griffe.Object) -> str:
    """Return the section of one record, protocol, function or constant."""
    text = f"### {record.name}\n\n{described(record)}"
    if isinstance(record, griffe.Function):
        shown = ", ".join(f"{it.name}: {it.annotation}" for it in record.parameters)
        return f"{text}\n```python\n{record.name}({shown}) -> {record.returns}\n```\n"
    if isinstance(record, griffe.Attribute):
        return (
            f"{text}\n```python\n{record.name} = {str(record.value).replace(chr(39), chr(34))}\n```\n"
            if len(str(record.value)) < 200
            else text
        )
    public = [it for it in record.attributes.values() if not it.name.startswith("_")]
    fields = [it for it in public if "property" not in it.labels]
    properties = [it for it in public if "property" in it.labels and it.docstring]
    methods = [it for it in record.functions.values() if not it.name.startswith("_") and it.docstring]
    if fields:
        told = documented(record)
        rows = "\n".join(
            f"| `{it.name}` | {code(str(it.annotation or ''))} | {default_of(it)} | {told.get(it.name, '')} |"
            for it in fields
        )
        text += f"\n| field | type | default | meaning |\n|---|---|---|---|\n{rows}\n"
    for it in properties:
        text += f"\n`{it.name}: {it.annotation}`\n\n{quoted(described(it))}"
    for method in methods:
        parameters = ", ".join(
            f"{it.name}: {it.annotation}" for it in method.parameters if it.name not in {"self", "cls"}
        )
        text += f"\n`{method.name}({parameters}) -> {method.returns}`\n\n{quoted(described(method))}"
    return text


def kit_page(kit: griffe.Object | griffe.Alias) -> str:
    """Return the page of the kit's suites: what each wants, and the tests it brings."""
    common = kit["PluginSuite"].final_target
    sections = [suite_section(common, None, {})]
    for name, given in SUITES.items():
        sections.append(suite_section(kit[name].final_target, kit[given].final_target, tests_of(common)))
    return (
        f"# The kit\n\n{MADE}\n\n"
        "The suites of `nim_core.testing.conformance`, what their fixtures give, and the tests they bring. How they\n"
        "are used says [the tests of a plugin](../plugins/kit.md). A test that needs what is not declared or given\n"
        "does not apply.\n\n" + "\n".join(sections)
    )


def suite_section(suite: griffe.Class, given: griffe.Class | None, common: dict[str, griffe.Function]) -> str:
    """Return the section of one suite, without the tests that it has in common with others."""
    tests = {name: test for name, test in tests_of(suite).items() if name not in common}
    rows = "\n".join(f"| `{name}` | {' | '.join(cell(it) for it in case_of(test))} |" for name, test in tests.items())
    also = "It has the tests of `PluginSuite`, too.\n\n" if common else ""
    text = f"## {suite.name}\n\n{described(suite)}\n{also}"
    if given is not None:
        text += record_section(given) + "\n"
    return f"{text}| test | level | needs | says |\n|---|---|---|---|\n{rows}\n"


def tests_of(suite: griffe.Class) -> dict[str, griffe.Function]:
    """Return the tests of a suite and of what it inherits from, in their order."""
    found = {}
    for each in (*reversed(suite.mro()), suite):
        found |= {name: it for name, it in each.functions.items() if name.startswith("test_")}
    return found


def case_of(test: griffe.Function) -> tuple[str, str, str]:
    """Return a test's level, what it needs, and what its docstring begins with."""
    calls = [ast.parse(str(it.value), mode="eval").body for it in test.decorators]
    (call,) = [it for it in calls if isinstance(it, ast.Call) and isinstance(it.func, ast.Name)]
    (level,) = [ast.literal_eval(it) for it in call.args]
    needs = [word for keyword in call.keywords for word in ast.literal_eval(keyword.value)]
    return level, ", ".join(needs), first_line(test)


def documented(record: griffe.Object) -> dict[str, str]:
    """Return what a docstring says of each field."""
    wanted = {griffe.DocstringSectionKind.attributes, griffe.DocstringSectionKind.parameters}
    sections = record.docstring.parsed if record.docstring else []
    return {it.name: cell(it.description) for section in sections if section.kind in wanted for it in section.value}


def described(thing: griffe.Object) -> str:
    """Return a docstring as Markdown: its text, and what is raised as a list."""
    out = []
    for section in thing.docstring.parsed if thing.docstring else ():
        if section.kind is griffe.DocstringSectionKind.text:
            out.append(marked(section.value))
        if section.kind is griffe.DocstringSectionKind.raises:
            out.append(
                "\n".join(["Raises:", "", *(f"- `{it.annotation}`: {cell(it.description)}." for it in section.value)])
            )
    return "\n\n".join(out) + "\n" if out else ""


def marked(text: str) -> str:
    """Return the text of a docstring as Markdown."""
    text = ROLE.sub(r"`\1`", text).replace("``", "`")
    text = re.sub(r"(?m)^(?=[A-Z]+: )", "- ", text)
    return re.sub(r"\.\. versionadded:: (.*)", r"Since \1.", text).strip()


def who(hook: griffe.Function) -> str:
    """Return which plugins are called."""
    first = any("firstresult=True" in str(it.value) for it in hook.decorators)
    return (
        "plugins are called one after the other, and the first answer that is not None counts"
        if first
        else ("every plugin is called")
    )


def first_line(thing: griffe.Object) -> str:
    return cell(marked(thing.docstring.value).splitlines()[0]) if thing.docstring else ""


def linked(annotation: str, names: set[str]) -> str:
    """Return a type as code, and links to the records it names, as a cell of a table."""
    found = [name for name in dict.fromkeys(re.findall(r"\w+", annotation)) if name in names]
    links = ", ".join(f"[{name}](../records.md#{name.lower()})" for name in found)
    return f"{code(annotation)} ({links})" if links else code(annotation)


def default_of(attribute: griffe.Attribute) -> str:
    value = str(attribute.value) if attribute.value is not None else ""
    if value.startswith("field("):
        named = re.search(r"(?:default|factory)=(\(\)|[^,)]+)", value)
        value = named[1].replace("dict", "{}") if named else ""
    return code(value)


def code(text: str) -> str:
    """Return code for a cell; readers of Markdown differ about a bar in backticks there."""
    return f"<code>{escape(text, quote=False).replace('|', BAR)}</code>" if "|" in text else f"`{text}`" if text else ""


def cell(text: str) -> str:
    """Return text as the cell of a table: one line, no full stop at the end."""
    return " ".join(marked(text).split()).rstrip(".").replace("|", BAR)


def quoted(text: str) -> str:
    return "".join(f"> {line}".rstrip() + "\n" for line in text.splitlines())


def main(folder: Path) -> None:
    """Write the pages beneath ``folder``."""
    for name, text in pages().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
