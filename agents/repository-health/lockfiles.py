"""Readers of lock files: text in, (name, version, licence, origin) out.

None of them is a full parser of its format; each reads the few regular lines that the tool itself writes, and ignores
what it does not know, so that a newer version of a format gives fewer facts instead of an error.
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple


class Package(NamedTuple):
    """One locked package."""

    name: str
    version: str
    licence: Optional[str] = None
    #: False for what the project itself holds (a workspace member, a linked folder).
    foreign: bool = True


Reader = Callable[[str], Iterator[Package]]

_TOML_STRING = re.compile(r'^(name|version|source|licen[sc]e)\s*=\s*"((?:[^"\\]|\\.)*)"')


def toml_packages(text: str) -> Iterator[Dict[str, str]]:
    """The `[[package]]` tables of Cargo.lock, poetry.lock, uv.lock: their plain strings, and the `source` line as is."""
    table: Optional[Dict[str, str]] = None
    for line in text.splitlines():
        if line.startswith("["):
            if table:
                yield table
            table = {} if line.strip() == "[[package]]" else None
        elif table is not None:
            match = _TOML_STRING.match(line)
            if match:
                table[match.group(1)] = match.group(2)
            elif line.startswith("source ="):
                table["source"] = line.partition("=")[2].strip()
    if table:
        yield table


def cargo_lock(text: str) -> Iterator[Package]:
    """Cargo.lock; a package without a source is the project's own."""
    for table in toml_packages(text):
        if "name" in table and "version" in table:
            yield Package(table["name"], table["version"], foreign="source" in table)


def python_lock(text: str) -> Iterator[Package]:
    """poetry.lock and uv.lock; a virtual, editable or folder source is the project's own."""
    for table in toml_packages(text):
        own = re.search(r"\b(virtual|editable|directory)\s*=", table.get("source", ""))
        if "name" in table and "version" in table:
            yield Package(table["name"], table["version"], foreign=not own)


def npm_licence(value: Any) -> Optional[str]:
    """The licence of a package.json in its old and new shapes."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("type")
    return value if isinstance(value, str) and value else None


def package_lock(text: str) -> Iterator[Package]:
    """package-lock.json, versions 1 to 3."""
    lock = json.loads(text)
    if not isinstance(lock, dict):
        return
    packages = lock.get("packages")
    if isinstance(packages, dict):
        for path, entry in packages.items():
            if path and isinstance(entry, dict) and not entry.get("link"):
                name = entry.get("name") or path.rpartition("node_modules/")[2]
                foreign = "node_modules/" in path
                yield Package(
                    str(name), str(entry.get("version", "?")), npm_licence(entry.get("license")), foreign
                )
        return
    pending: List[Tuple[str, Any]] = list((lock.get("dependencies") or {}).items())
    while pending:
        name, entry = pending.pop()
        if isinstance(entry, dict):
            yield Package(str(name), str(entry.get("version", "?")))
            pending.extend((entry.get("dependencies") or {}).items())


_YARN_HEAD = re.compile(r'^"?(@?[^@"\s,]+)@[^:]*.*:$')
_YARN_VERSION = re.compile(r'^\s+version:?\s+"?([^"\s]+)"?')


def yarn_lock(text: str) -> Iterator[Package]:
    """yarn.lock, classic and berry."""
    name: Optional[str] = None
    for line in text.splitlines():
        if line and not line[0].isspace():
            match = _YARN_HEAD.match(line)
            name = match.group(1) if match else None
        elif name:
            match = _YARN_VERSION.match(line)
            if match:
                yield Package(name, match.group(1), foreign=match.group(1) != "0.0.0-use.local")
                name = None


_PNPM_KEY = re.compile(r"^  ['\"]?/?((?:@[^/@'\"]+/)?[^/@'\"]+)[@/]([^():'\"_/]+)[^'\"]*['\"]?:\s*$")


def pnpm_lock(text: str) -> Iterator[Package]:
    """pnpm-lock.yaml: the keys of its `packages` section."""
    inside = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            inside = line.startswith("packages:")
        elif inside:
            match = _PNPM_KEY.match(line)
            if match:
                yield Package(match.group(1), match.group(2))


_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(===?\s*([^\s;#\\]+))?")


def requirements(text: str) -> Iterator[Package]:
    """requirements*.txt; the version of what is not pinned is `not pinned`."""
    for line in text.splitlines():
        match = _REQUIREMENT.match(line)
        if match:
            yield Package(match.group(1).lower().replace("_", "-"), match.group(3) or "not pinned")


def go_sum(text: str) -> Iterator[Package]:
    """go.sum: the modules whose contents are locked, not those of which only the go.mod file was read."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3 and not fields[1].endswith("/go.mod"):
            yield Package(fields[0], fields[1])


#: File name (requirements files apart) → ecosystem and reader.
READERS: Dict[str, Tuple[str, Reader]] = {
    "Cargo.lock": ("cargo", cargo_lock),
    "package-lock.json": ("npm", package_lock),
    "npm-shrinkwrap.json": ("npm", package_lock),
    "yarn.lock": ("npm", yarn_lock),
    "pnpm-lock.yaml": ("npm", pnpm_lock),
    "poetry.lock": ("python", python_lock),
    "uv.lock": ("python", python_lock),
    "go.sum": ("go", go_sum),
}
_REQUIREMENTS_FILE = re.compile(r"^requirements([-_.].*)?\.txt$")

#: Manifest → the ecosystem, whose lock file should be beside it or above.
MANIFESTS = {"Cargo.toml": "cargo", "package.json": "npm", "go.mod": "go"}


def reader_of(name: str) -> Optional[Tuple[str, Reader]]:
    """The ecosystem and reader for a file of this name."""
    if _REQUIREMENTS_FILE.match(name):
        return ("python", requirements)
    return READERS.get(name)
