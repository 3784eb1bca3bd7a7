"""Writes licenses/: what other people's code is in a wheel, and under what licence.

    python tools/third_party.py           # writes the files
    python tools/third_party.py --check   # fails, with a diff, where they are not up to date

`THIRD_PARTY.md` is for people and carries the notices that the licences ask for;
`crossent.cyclonedx.json` is the same list for tools. Both are put into every wheel. A crate whose
licence is not of those that deny.toml allows is an error, and so is one without a text.

Needs cargo, and the standard library alone.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "licenses"

TEXTS = re.compile(r"(licen[sc]e|copying|notice|unlicense)", re.IGNORECASE)

HEAD = """\
# Third-party notices

Written by `make licenses`. The compiled module of a wheel contains the crates below, which are
linked statically, and the parts of Rust's standard library that it uses. NumPy and torch are not
part of a wheel; crates that only build or test are not, either.
"""


@dataclass(frozen=True)
class Crate:
    """A crate that is linked into a wheel."""

    name: str
    version: str
    licence: str
    source: str
    checksum: str
    texts: tuple[str, ...]


def metadata() -> dict[str, Any]:
    """What cargo knows of the crates of a wheel, on every platform of a release."""
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    platforms = re.findall(r"^ +- target: (\S+)$", workflow, re.M)
    assert platforms, "release.yml names no platform"
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--features", "python"]
    for platform in platforms:
        command += ["--filter-platform", platform]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def linked(graph: dict[str, Any]) -> list[dict[str, Any]]:
    """The packages that are linked, not macros and what builds, which run before."""
    packages = {package["id"]: package for package in graph["packages"]}
    edges = {node["id"]: node["deps"] for node in graph["resolve"]["nodes"]}
    root = graph["resolve"]["root"]
    found: set[str] = set()
    ahead = [root]
    while ahead:
        for edge in edges[ahead.pop()]:
            identity = edge["pkg"]
            runs = any(kind["kind"] is None for kind in edge["dep_kinds"])
            macro = any("proc-macro" in target["kind"] for target in packages[identity]["targets"])
            if runs and not macro and identity not in found:
                found.add(identity)
                ahead.append(identity)
    return sorted(
        (packages[identity] for identity in found), key=lambda it: (it["name"], it["version"])
    )


def allowed() -> set[str]:
    """The licences of deny.toml, which has the list for `cargo deny` too."""
    listed = re.search(r"^allow = \[(.*?)\]", (ROOT / "deny.toml").read_text("utf-8"), re.M | re.S)
    assert listed, "deny.toml has no list `allow`"
    return set(re.findall(r'"([^"]+)"', listed[1]))


def permitted(expression: str, allow: set[str]) -> bool:
    """Whether an SPDX expression can be met with the allowed licences.

    It is read as an AND of ORs, as all of them are today; where one is not, that is too strict.
    """
    return all(
        any(name.strip(" ()") in allow for name in part.split(" OR "))
        for part in expression.replace("/", " OR ").split(" AND ")
    )


def crates() -> list[Crate]:
    """Every crate of a wheel, with the texts that lie in its package."""
    lock = (ROOT / "Cargo.lock").read_text("utf-8")
    locked = re.findall(
        r'^name = "(.+)"\nversion = "(.+)"\nsource = .+\nchecksum = "(.+)"$', lock, re.M
    )
    checksums = {(name, version): checksum for name, version, checksum in locked}
    allow = allowed()
    found = []
    for package in linked(metadata()):
        name, version, licence = package["name"], package["version"], package["license"] or ""
        if not permitted(licence, allow):
            sys.exit(f"{name} {version}: deny.toml does not allow the licence {licence!r}")
        folder = Path(package["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if TEXTS.match(path.name))
        texts = tuple(plain(path.read_text("utf-8")) for path in files if path.is_file())
        if not texts:
            sys.exit(f"{name} {version} comes without the text of its licence")
        source = package["repository"] or ""
        found.append(Crate(name, version, licence, source, checksums[name, version], texts))
    return found


def plain(text: str) -> str:
    """A text without what differs between copies of the same: line ends, spaces, margins."""
    lines = [line.rstrip() for line in text.replace("\f", "").splitlines()]
    margin = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return "\n".join(line[margin:] for line in lines).strip("\n") + "\n"


def notices(found: list[Crate]) -> str:
    """THIRD_PARTY.md: a table, then each text once, with the crates that it belongs to."""
    lines = [HEAD, "| crate | version | licence | source |", "|---|---|---|---|"]
    lines += [f"| {it.name} | {it.version} | {it.licence} | {it.source} |" for it in found]
    lines += ["", (ROOT / "tools" / "notices.md").read_text("utf-8")]
    owners: dict[str, tuple[str, list[str]]] = {}
    for it in found:
        for text in it.texts:
            owners.setdefault(" ".join(text.split()), (text, []))[1].append(it.name)
    lines.append("## Texts")
    for text, names in owners.values():
        lines += ["", f"### {', '.join(names)}", "", "```text", text + "```"]
    return "\n".join(lines) + "\n"


def bill(found: list[Crate]) -> str:
    """The list in the format of CycloneDX, without a time or a number that changes."""
    manifest = (ROOT / "Cargo.toml").read_text("utf-8")
    version = re.search(r'^version = "(.+)"$', manifest, re.M)
    assert version, "Cargo.toml has no version"
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:cargo/{it.name}@{it.version}",
            "name": it.name,
            "version": it.version,
            "purl": f"pkg:cargo/{it.name}@{it.version}",
            "licenses": [{"expression": it.licence.replace("/", " OR ")}],
            "hashes": [{"alg": "SHA-256", "content": it.checksum}],
        }
        for it in found
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": "crossent",
                "name": "crossent",
                "version": version[1],
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
            }
        },
        "components": components,
    }
    return json.dumps(document, indent=1) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    found = crates()
    stale = False
    for path, text in (
        (FOLDER / "THIRD_PARTY.md", notices(found)),
        (FOLDER / "crossent.cyclonedx.json", bill(found)),
    ):
        name = path.relative_to(ROOT).as_posix()
        if not check:
            path.write_text(text, "utf-8", newline="\n")
        elif (old := path.read_text("utf-8") if path.exists() else "") != text:
            stale = True
            lines = difflib.unified_diff(
                old.splitlines(), text.splitlines(), name, "as it should be", lineterm="", n=1
            )
            print("\n".join(lines))
    if stale:
        print("\nlicenses/ is not up to date: make licenses")
        return 1
    texts = {hashlib.sha256(text.encode()).digest() for it in found for text in it.texts}
    print(f"licenses/: {len(found)} crates in a wheel, {len(texts)} texts, all licences allowed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
