"""Checks a built wheel, fact by fact; fails where one does not hold.

    python tools/check_wheel.py dist/*.whl

What holds on every platform is checked of every wheel, what a format has of wheels in it (ELF:
exported symbols, hardening, what has to be installed). `auditwheel` and `abi3audit` are the judges
of the manylinux tag and of the stable ABI. Needs requirements/release.txt.
"""

from __future__ import annotations

import argparse
import email
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 3_000_000  # bytes
# What every Linux of the tag has: the C library and the unwinder.
SYSTEM = re.compile(r"lib(c|m|gcc_s|pthread|dl)\.so(\.\d+)?|ld-linux[\w-]*\.so\.\d")
# What musl's systems do not all have: the wheel brings it, as tools/notices.md says.
UNWINDER = re.compile(r"libgcc_s-[0-9a-f]+\.so\.1")
LICENCES = {"LICENSE", "LICENSE-MIT", "LICENSE-APACHE", "licenses/THIRD_PARTY.md"}


class Facts:
    """Prints facts, and remembers whether one did not hold."""

    def __init__(self) -> None:
        self.broken = 0

    def check(self, holds: bool, fact: str) -> None:
        self.broken += not holds
        print(f"{'ok  ' if holds else 'FAIL'}  {fact}")


def sources() -> set[str]:
    """The files of the package that are in the repository's tree."""
    package = ROOT / "python"
    files = (path for path in package.rglob("*") if path.suffix in {".py", ".pyi", ".typed"})
    return {path.relative_to(package).as_posix() for path in files} | {"crossent/py.typed"}


def check_contents(wheel: zipfile.ZipFile, path: Path, facts: Facts) -> str:
    """Names, licences and metadata. Returns the name of the compiled module."""
    size = path.stat().st_size
    facts.check(size <= LARGEST, f"{size:,} bytes, at most {LARGEST:,}")

    names = set(wheel.namelist())
    (info,) = {name.split("/")[0] for name in names if name.split("/")[0].endswith(".dist-info")}
    compiled = [name for name in names if re.fullmatch(r"crossent/_core\.[\w.-]*(so|pyd)", name)]
    facts.check(len(compiled) == 1, f"one compiled module: {', '.join(compiled)}")
    package = {name for name in names if not name.startswith(f"{info}/")} - set(compiled)
    bundled = {name for name in package if name.startswith("crossent.libs/")}
    unwinder = "musllinux" in path.name and all(UNWINDER.fullmatch(Path(it).name) for it in bundled)
    facts.check(not bundled or unwinder, f"libraries that it brings {sorted(bundled)}")
    unlike = (package - bundled) ^ sources()
    facts.check(not unlike, f"{len(package)} files of the package, as in the tree {sorted(unlike)}")
    licences = {name.removeprefix(f"{info}/licenses/") for name in names if "/licenses/" in name}
    facts.check(licences == LICENCES, f"licences: {', '.join(sorted(licences))}")

    bill = f"{info}/sboms/crossent.cyclonedx.json"
    facts.check(bill in names, "a bill of materials")
    if bill in names:
        same = wheel.read(bill) == (ROOT / "licenses/crossent.cyclonedx.json").read_bytes()
        facts.check(same, "the bill of materials is that of the tree")

    metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    needs = [it for it in metadata.get_all("Requires-Dist", []) if "extra ==" not in it]
    facts.check(
        [re.split(r"[^\w-]", it)[0] for it in needs] == ["numpy"], f"requires {', '.join(needs)}"
    )
    facts.check(metadata["Requires-Python"] == ">=3.10", f"Python {metadata['Requires-Python']}")
    expression = metadata["License-Expression"]
    facts.check(expression == "MIT OR Apache-2.0", f"licence expression {expression}")
    return compiled[0]


def check_paths(binary: bytes, facts: Facts) -> None:
    """A path of the machine that built it tells about that machine, and differs on the next."""
    places = {str(ROOT), str(Path.home()), "/.cargo/registry", "\\.cargo\\registry"}
    found = sorted(place for place in places if len(place) > 1 and place.encode() in binary)
    facts.check(not found, f"no path of the building machine {found}")


def check_elf(binary: bytes, facts: Facts) -> None:
    """Linux: what is exported, needed and hardened."""
    elf = ELFFile(io.BytesIO(binary))
    symbols = elf.get_section_by_name(".dynsym")
    assert isinstance(symbols, SymbolTableSection)
    exported = [
        symbol.name
        for symbol in symbols.iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
    ]
    facts.check(exported == ["PyInit__core"], f"exports {', '.join(exported)}")

    dynamic = elf.get_section_by_name(".dynamic")
    assert isinstance(dynamic, DynamicSection)
    tags = {tag.entry.d_tag: tag for tag in dynamic.iter_tags()}
    needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
    brought = any(UNWINDER.fullmatch(it) for it in needed)
    known = all(SYSTEM.fullmatch(it) or UNWINDER.fullmatch(it) for it in needed)
    facts.check(known, f"needs {', '.join(needed)}")
    searched = tags.keys() & {"DT_RPATH", "DT_RUNPATH"}
    facts.check(not searched or brought, "no search path but for a library that it brings")
    facts.check("DT_TEXTREL" not in tags, "no relocation in code")

    segments = {segment["p_type"]: segment for segment in elf.iter_segments()}
    facts.check(not segments["PT_GNU_STACK"]["p_flags"] & 1, "the stack is not executable")
    now = "DT_BIND_NOW" in tags or ("DT_FLAGS" in tags and tags["DT_FLAGS"].entry.d_val & 8)
    facts.check("PT_GNU_RELRO" in segments and bool(now), "relocations are read-only (full RELRO)")
    kept = [section.name for section in elf.iter_sections()]
    facts.check(
        not any(name == ".symtab" or name.startswith(".debug") for name in kept), "stripped"
    )


def check_manylinux(path: Path, facts: Facts) -> None:
    """auditwheel finds the oldest tag that the module's symbols allow."""
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", str(path)], capture_output=True, text=True
    )
    text = " ".join((shown.stdout + shown.stderr).split())
    found = re.search(r'platform tag: "(\w+)"', text)
    own = path.stem.split("-")[-1]
    kind, *oldest = library(found[1] if found else "")
    promised = [library(tag) for tag in own.split(".")]
    facts.check(
        any(tag[0] == kind != "" and oldest <= list(tag[1:]) for tag in promised),
        f"auditwheel: {found[1] if found else text}, and the tag is {own}",
    )


def library(tag: str) -> tuple[str, int, int]:
    """The C library of a tag, and its version: what a system has to have at least."""
    found = re.match(r"(many|musl)linux_(\d+)_(\d+)_", tag)
    return (found[1], int(found[2]), int(found[3])) if found else ("", 0, 0)


def check_abi3(path: Path, facts: Facts) -> None:
    """abi3audit looks up each symbol of Python in the stable ABI of the version of the tag."""
    audit = subprocess.run(
        [sys.executable, "-m", "abi3audit", "--strict", "--report", str(path)],
        capture_output=True,
        text=True,
    )
    try:
        (spec,) = json.loads(audit.stdout)["specs"].values()
        (result,) = (it["result"] for it in spec["wheel"])
    except (ValueError, KeyError):
        facts.check(False, f"abi3audit: {audit.stdout}{audit.stderr}")
        return
    facts.check(
        audit.returncode == 0 and result["is_abi3"] and result["is_abi3_baseline_compatible"],
        f"abi3audit: tag {result['baseline']}, computed {result['computed']}, "
        f"outside the stable ABI: {result['non_abi3_symbols']}",
    )


def check(path: Path) -> int:
    """The number of facts that do not hold."""
    print(path.name)
    facts = Facts()
    with zipfile.ZipFile(path) as wheel:
        binary = wheel.read(check_contents(wheel, path, facts))
    check_paths(binary, facts)
    python, abi, _platform = path.stem.split("-")[-3:]
    stable = (python, abi) == ("cp310", "abi3")
    free = re.fullmatch(r"cp3\d+t", abi) is not None
    facts.check(stable or free, f"for {python}-{abi}: the stable ABI, or a free-threaded Python")
    if binary[:4] == b"\x7fELF":
        check_elf(binary, facts)
        check_manylinux(path, facts)
    if stable:
        check_abi3(path, facts)
    return facts.broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheels", type=Path, nargs="+")
    return 1 if sum(check(path) for path in parser.parse_args().wheels) else 0


if __name__ == "__main__":
    sys.exit(main())
