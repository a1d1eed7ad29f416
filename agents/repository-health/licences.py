"""Licences of locked packages, as far as this machine knows them without a network.

Cargo packages: the unpacked sources or the downloaded archives in `$CARGO_HOME/registry`. npm packages: what the lock
file says, or `node_modules`. Python packages: the metadata in a `.venv` or `venv` of the project.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from pathlib import Path
from typing import Dict, List, Optional

import lockfiles
import shared

MOST = 1024 * 1024
UNKNOWN = "unknown here"
#: Words of licences that ask for more than attribution; for a person to look at, not a judgement.
RECIPROCAL = re.compile(r"\b(A?GPL|LGPL|MPL|EPL|EUPL|CDDL|OSL|SSPL|CC-BY-SA)\b|\bBUSL?\b", re.IGNORECASE)
#: Licences that may be chosen instead when they stand beside a reciprocal one.
PERMISSIVE = re.compile(r"\b(MIT|Apache|BSD|ISC|Zlib|0BSD|Unlicense|CC0|BSL-1\.0)\b", re.IGNORECASE)

_LICENCE = re.compile(r'^license\s*=\s*"([^"]+)"', re.MULTILINE)
_LICENCE_FILE = re.compile(r"^license-file\s*=", re.MULTILINE)


def needs_a_look(licence: str) -> bool:
    """Whether no permissive licence can be chosen."""
    choices = re.split(r"\bOR\b|/", licence)
    return bool(RECIPROCAL.search(licence)) and not any(
        PERMISSIVE.search(choice) and not RECIPROCAL.search(choice) for choice in choices
    )


def of_manifest(text: str) -> Optional[str]:
    """The licence of a Cargo.toml."""
    match = _LICENCE.search(text)
    if match:
        return match.group(1)
    return "a file of its own" if _LICENCE_FILE.search(text) else None


class CargoCache:
    """The local registry cache, or what there is of it."""

    def __init__(self, home: Optional[Path] = None) -> None:
        root = (home or Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")) / "registry"
        self.sources = self._folders(root / "src")
        self.archives = self._folders(root / "cache")

    @staticmethod
    def _folders(path: Path) -> List[Path]:
        try:
            return sorted(entry for entry in path.iterdir() if entry.is_dir())
        except OSError:
            return []

    def licence(self, name: str, version: str) -> Optional[str]:
        """The licence of a package, if the cache holds it."""
        stem = "%s-%s" % (name, version)
        if "/" in stem or stem.startswith("."):
            return None
        for folder in self.sources:
            text = shared.read_text(os.fsencode(folder / stem / "Cargo.toml"), MOST)
            if text is not None:
                return of_manifest(text)
        for folder in self.archives:
            text = self._from_archive(folder / (stem + ".crate"), stem)
            if text is not None:
                return of_manifest(text)
        return None

    @staticmethod
    def _from_archive(path: Path, stem: str) -> Optional[str]:
        stream = shared.open_regular(os.fsencode(path))
        if stream is None:
            return None
        try:
            with stream, tarfile.open(fileobj=stream, mode="r|gz") as archive:
                for member in archive:
                    if member.name == stem + "/Cargo.toml" and member.isfile():
                        content = archive.extractfile(member)
                        return content.read(MOST).decode("utf-8", "replace") if content else None
        except (OSError, EOFError, tarfile.TarError, ValueError):
            pass
        return None


def of_node_module(lock_folder: str, name: str) -> Optional[str]:
    """The licence that an installed npm package declares."""
    text = shared.read_text(
        os.fsencode(os.path.join(lock_folder, "node_modules", name, "package.json")), MOST
    )
    try:
        return lockfiles.npm_licence(json.loads(text).get("license")) if text else None
    except (ValueError, AttributeError):
        return None


def of_python_packages(lock_folder: str) -> Dict[str, str]:
    """Name → licence of what is installed in the project's virtual environment."""
    found: Dict[str, str] = {}
    for environment in (".venv", "venv"):
        for metadata in sorted(
            Path(lock_folder, environment).glob("lib/python3*/site-packages/*.dist-info/METADATA")
        ):
            text = shared.read_text(os.fsencode(metadata), MOST) or ""
            fields = dict(
                re.findall(
                    r"^(Name|License-Expression|License): *(.+)$", text.split("\n\n", 1)[0], re.MULTILINE
                )
            )
            licence = fields.get("License-Expression") or fields.get("License")
            if "Name" in fields and licence:
                found[fields["Name"].lower().replace("_", "-")] = licence.strip()[:80]
    return found
