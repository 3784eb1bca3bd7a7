"""The reference: docstrings, which are Markdown, as pages.

    ```{api} crossent.functional
    ```

documents a module: its own words, then every name of its `__all__`; with `:own:` not those of
`crossent.functional`, which have a page of their own. Inline code anywhere in the
pages that is the name of something documented becomes a link to it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator
from functools import partial
from textwrap import fill
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import signature, stringify_signature

from crossent import functional

HEADING = re.compile(
    r"^(Arguments|Attributes|Errors|Example|Raises|Reference|Returns|Shape|Warns):$"
)
# Sections whose entries are `name: text`; another sentence stands by itself.
ENTRY = {
    "Arguments": re.compile(r"^(\w+(?:, \w+)*): (.*)$"),
    "Attributes": re.compile(r"^(\w+(?:, \w+)*): (.*)$"),
    "Errors": re.compile(r"^([A-Z]\w+(?:, [A-Z]\w+)*): (.*)$"),
}
ENTRY["Raises"] = ENTRY["Warns"] = ENTRY["Errors"]


def described(thing: Any) -> str:
    """A docstring as MyST: sections have headings, entries are definitions, examples are code."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    heads = [at for at, line in enumerate(lines) if HEADING.match(line)]
    result = lines[: heads[0] if heads else None]
    for head, end in zip(heads, [*heads, len(lines)][1:], strict=True):
        title = lines[head][:-1]
        body = inspect.cleandoc("\n".join(lines[head + 1 : end])).splitlines()
        result += ["", f"```{{rubric}} {title}", "```", ""]
        if title in ENTRY:
            body = list(definitions(body, ENTRY[title]))
        result += body
    return "\n".join(with_examples_fenced(result))


def definitions(lines: list[str], entry: re.Pattern[str]) -> Iterator[str]:
    inside = False
    for line in lines:
        found = entry.match(line)
        if found:
            names = ", ".join(f"`{name}`" for name in found[1].split(", "))
            yield from ("", names, f": {found[2]}")
            inside = True
        elif line.startswith(" ") or not line:
            yield line
        else:
            if inside:
                yield ""
            inside = False
            yield line


def with_examples_fenced(lines: list[str]) -> Iterator[str]:
    inside = False
    for line in lines:
        if line.lstrip().startswith(">>>") and not inside:
            inside = True
            yield "```pycon"
        elif not line and inside:
            inside = False
            yield "```"
        yield line.removeprefix("    ") if inside else line
    if inside:
        yield "```"


def shown(thing: Any) -> str:
    """The signature; what types arguments have is said below it."""
    try:
        found = signature(thing, bound_method=False)
    except ValueError:
        return ""
    parameters = [p for p in found.parameters.values() if p.name not in ("self", "cls")]
    bare = found.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return str(stringify_signature(bare, show_annotation=False))


def members(thing: type) -> Iterator[tuple[str, str, Any]]:
    """Public methods and properties of a class, own or of a base in this package."""
    seen = set()
    for base in thing.__mro__:
        if not base.__module__.startswith("crossent"):
            continue
        for member, value in vars(base).items():
            plain = getattr(value, "__func__", value)
            public = not member.startswith("_") or member == "__call__"
            if member in seen or not public or not getattr(plain, "__doc__", None):
                continue
            seen.add(member)
            if isinstance(value, property):
                yield "property", member, value
            elif isinstance(value, classmethod):
                yield "classmethod", member, plain
            elif inspect.isfunction(plain):
                yield "method", member, plain


def documented(module: str) -> Iterator[tuple[str, str, Any]]:
    """Kind, name and object of everything in a module's `__all__`."""
    owner = importlib.import_module(module)
    for name in owner.__all__:
        thing = getattr(owner, name)
        if inspect.isclass(thing):
            yield "class", name, thing
        elif inspect.isroutine(thing):
            yield "function", name, thing
        elif not inspect.ismodule(thing) and not isinstance(thing, str):
            yield "data", name, thing


def page(module: str, own: bool) -> Iterator[str]:
    yield f"```{{py:module}} {module}"
    yield "```"
    yield described(importlib.import_module(module))
    yield ""
    for kind, name, thing in documented(module):
        if own and getattr(functional, name, None) is thing:
            continue
        yield f"::::{{py:{kind}}} {name}{'' if kind == 'data' else shown(thing)}"
        if kind != "data":
            yield described(thing)
        if kind == "class":
            for what, member, value in members(thing):
                inner = "method" if what == "classmethod" else what
                yield f":::{{py:{inner}}} {member}{'' if what == 'property' else shown(value)}"
                if what == "classmethod":
                    yield ":classmethod:"
                yield ""
                yield described(value)
                yield ":::"
        yield "::::"
        yield ""


class Api(SphinxDirective):
    required_arguments = 1
    option_spec = {"own": directives.flag}  # noqa: RUF012 (its name and type are docutils')

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0]
        lines = "\n".join(page(module, "own" in self.options)).splitlines()
        holder = nodes.Element()
        text = StringList(lines, module)
        self.state.nested_parse(text, self.content_offset, holder)
        self.env.note_dependency(inspect.getsourcefile(importlib.import_module(module)) or "")
        return list(holder.children)


# Characters of a terminal, whatever this one has.
WIDTH = 84


class Help(SphinxDirective):
    """What `--help` prints: of `crossent`, or of the command that is named."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        from crossent.cli._main import parser

        whole = parser()
        command = self.arguments[0] if self.arguments else None
        if command:
            (commands,) = (a for a in whole._actions if a.dest == "command")
            whole = commands.choices[command]  # type: ignore[index]
        whole.formatter_class = partial(RawDescriptionHelpFormatter, width=WIDTH)
        lines = whole.format_help().partition("exit codes:")[0].rstrip().splitlines()
        text = "\n".join(fill(line, WIDTH) if len(line) > WIDTH else line for line in lines)
        return [nodes.literal_block(text, text, language="text")]


def scopes(document: str) -> tuple[str, ...]:
    """The modules in which a bare name is looked for on a page."""
    here = document.rpartition("/")[2].replace("-", ".")
    return (f"crossent.{here}", "crossent.functional", "crossent")


def link_names(app: Sphinx, doctree: nodes.document, document: str) -> None:
    """Inline code that names what is documented becomes a link."""
    known = app.env.domains.python_domain.objects
    within = scopes(document)
    parents = (nodes.reference, nodes.title, addnodes.desc_signature, addnodes.pending_xref)
    for literal in list(doctree.findall(nodes.literal)):
        text = literal.astext().removesuffix("()")
        if isinstance(literal.parent, parents) or not re.fullmatch(r"[A-Za-z_][\w.]*", text):
            continue
        # A word such as `entropy` may mean anything; `cross_entropy` and `BCELoss` may not.
        telling = "_" in text or text != text.lower() or "." in text
        candidates = [text, text.replace("F.", "crossent.functional.", 1)] if "." in text else []
        if telling:
            candidates += [f"{module}.{text}" for module in within]
        found = next((name for name in candidates if name in known), None)
        # An object does not link to itself.
        around = literal.parent
        while around is not None and not isinstance(around, addnodes.desc):
            around = around.parent
        ids = around[0]["ids"] if around is not None else []
        if found is None or known[found].node_id in ids:
            continue
        target = known[found]
        uri = app.builder.get_relative_uri(document, target.docname) + "#" + target.node_id
        literal.replace_self(nodes.reference("", "", literal.deepcopy(), refuri=uri, internal=True))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("api", Api)
    app.add_directive("help", Help)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
