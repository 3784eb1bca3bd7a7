"""The public names, parameters and defaults are those of tests/api.txt.

What is public is what `__all__` of a public module lists. A module that joins the package joins
this test. `make api-snapshot` accepts a change, which is then a line of the diff that is reviewed,
and one of CHANGELOG.md; docs/versioning.md says which changes are allowed in which release.
"""

import difflib
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import crossent

SNAPSHOT = Path(__file__).parent / "api.txt"


def public_modules():
    """The package and every module in it whose path has no leading underscore."""
    names = [module.name for module in pkgutil.walk_packages(crossent.__path__, "crossent.")]
    public = [name for name in names if not re.search(r"\._", name)]
    return [crossent, *(importlib.import_module(name) for name in sorted(public))]


def signature(thing):
    """Names, order, kinds and defaults. Annotations are mypy's to check."""
    found = inspect.signature(thing)
    parameters = [p.replace(annotation=p.empty) for p in found.parameters.values()]
    bare = found.replace(parameters=parameters, return_annotation=found.empty)
    return re.sub(r" at 0x[0-9a-f]+", "", str(bare))


def path(thing):
    return f"{thing.__module__}.{thing.__qualname__}"


def members(name, cls):
    """Public members of a class, and how it is called: its own and those of its bases here."""
    own = [base for base in cls.__mro__ if base.__module__.split(".")[0] == "crossent"]
    found = {key: value for base in reversed(own) for key, value in vars(base).items()}
    for key, value in sorted(found.items()):
        if key.startswith("_") and key != "__call__":
            continue
        if isinstance(value, (staticmethod, classmethod)):
            value = getattr(cls, key)
        if inspect.isfunction(value) or inspect.ismethod(value):
            yield f"{name}.{key}{signature(value)}"
        else:
            yield f"{name}.{key}: {'property' if isinstance(value, property) else 'attribute'}"


def described(module, modules):
    """One line for each public name of a module and each public member of its classes."""
    yield f"{module.__name__}: module"
    for key in sorted(module.__all__):
        name, thing = f"{module.__name__}.{key}", getattr(module, key)
        home = getattr(thing, "__module__", None)
        if inspect.ismodule(thing):
            assert thing in modules, f"{name} is a module that is not public"
        elif home in {it.__name__ for it in modules} and home != module.__name__:
            yield f"{name} = {path(thing)}"
        elif inspect.isclass(thing):
            bases = [path(base) for base in thing.__bases__ if base.__module__ != "builtins"]
            listed = ", ".join(base for base in bases if not re.search(r"crossent\..*\b_", base))
            yield f"{name}{signature(thing)}: class" + (f" of {listed}" if listed else "")
            yield from members(name, thing)
        elif callable(thing):
            yield f"{name}{signature(thing)}"
        else:
            yield f"{name}: {type(thing).__name__}"


def api():
    modules = public_modules()
    return [line for module in modules for line in described(module, modules)]


def test_the_public_api_is_the_snapshot():
    before, now = SNAPSHOT.read_text("utf-8").splitlines(), api()
    diff = difflib.unified_diff(before, now, "tests/api.txt", "this tree", lineterm="", n=0)
    assert before == now, (
        "the public API is not that of tests/api.txt; accept a change by `make api-snapshot`, and "
        "name it in CHANGELOG.md\n" + "\n".join(diff)
    )


def test_every_public_module_says_what_is_public():
    for module in public_modules():
        assert len(set(module.__all__)) == len(module.__all__), module.__name__
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert not missing, f"{module.__name__}.__all__ lists {missing}"


def test_a_change_shows():
    """A new default, a parameter that is gone and a new name are lines of a difference."""

    def before(input, target, *, axis=None): ...

    def after(input, target, *, axis=1): ...

    assert signature(before) == "(input, target, *, axis=None)"
    assert signature(before) != signature(after)
    assert any(line.startswith("crossent.functional.cross_entropy(input, target") for line in api())


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(api()) + "\n", "utf-8", newline="\n")
    print(f"{SNAPSHOT.name}: {len(api())} public names and members")
