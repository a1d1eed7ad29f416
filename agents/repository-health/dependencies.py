"""Dependencies and their licences, from the lock files in the tree. Writes `dependencies.json`.

Reads Cargo.lock, package-lock.json, yarn.lock, pnpm-lock.yaml, poetry.lock, uv.lock, requirements*.txt and go.sum
wherever they are. No network: a licence that neither the lock file nor this machine's caches tell is unknown here.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Set, Tuple

import licences
import lockfiles
import shared

#: A lock file beyond this is reported, not read: it is parsed as a whole.
LARGEST_LOCK = 24 * 1024 * 1024
MOST_LOCKS = 500


def find() -> Tuple[List[bytes], List[bytes]]:
    """The lock files and the manifests of the tree."""
    locks: List[bytes] = []
    manifests: List[bytes] = []
    for path in shared.paths():
        name = os.path.basename(path).decode("utf-8", "replace")
        if lockfiles.reader_of(name) and len(locks) < MOST_LOCKS:
            locks.append(path)
        elif name in lockfiles.MANIFESTS and len(manifests) < MOST_LOCKS * 20:
            manifests.append(path)
    return locks, manifests


def read_lock(path: bytes) -> Dict[str, Any]:
    """The packages of one lock file, or why it could not be read."""
    found = lockfiles.reader_of(os.path.basename(path).decode("utf-8", "replace"))
    assert found is not None
    ecosystem, reader = found
    row: Dict[str, Any] = {"path": shared.shown(path), "ecosystem": ecosystem, "packages": []}
    text = shared.read_text(path, LARGEST_LOCK)
    if text is None:
        row["problem"] = "it cannot be read, or is larger than %s" % shared.size(LARGEST_LOCK)
        return row
    try:
        row["packages"] = sorted(
            set(reader(text)), key=lambda package: (package.name, package.version, str(package.licence))
        )
    except (ValueError, RecursionError, AttributeError) as error:
        row["problem"] = "it is not what its name says: %s" % shared.shown(error)
    return row


def unlocked(locks: List[bytes], manifests: List[bytes]) -> List[str]:
    """Manifests for which no lock file lies beside them or in a folder above."""
    locked: Dict[str, Set[bytes]] = {}
    for path in locks:
        found = lockfiles.reader_of(os.path.basename(path).decode("utf-8", "replace"))
        if found:
            locked.setdefault(found[0], set()).add(os.path.dirname(path))
    missing = []
    for path in manifests:
        folder = os.path.dirname(path)
        above = {folder}
        while folder:
            folder = os.path.dirname(folder)
            above.add(folder)
        ecosystem = lockfiles.MANIFESTS[os.path.basename(path).decode()]
        # A Go module without dependencies has no go.sum.
        if ecosystem != "go" and not above & locked.get(ecosystem, set()):
            missing.append(shared.shown(path))
    return missing


class Licences:
    """Looks licences up, each package once."""

    def __init__(self) -> None:
        self.cargo = licences.CargoCache()
        self.python: Dict[str, Dict[str, str]] = {}

    def of(self, ecosystem: str, folder: str, package: lockfiles.Package) -> str:
        """The licence, or that it is not known here."""
        if package.licence:
            return shared.shown(package.licence)[:80]
        found = None
        if ecosystem == "cargo":
            found = self.cargo.licence(package.name, package.version)
        elif ecosystem == "npm":
            found = licences.of_node_module(folder, package.name)
        elif ecosystem == "python":
            if folder not in self.python:
                self.python[folder] = licences.of_python_packages(folder)
            found = self.python[folder].get(package.name.lower().replace("_", "-"))
        return shared.shown(found)[:80] if found else licences.UNKNOWN


def study(locks: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Counts, duplicates and licences over all lock files."""
    progress = shared.Progress(sum(len(lock["packages"]) for lock in locks))
    lookup, look_at = Licences(), []
    versions: Dict[Tuple[str, str], List[str]] = {}
    by_licence: Dict[str, int] = {}
    packages: Dict[Tuple[str, str, str], str] = {}
    for lock in locks:
        folder = os.path.dirname(lock["path"])
        for package in lock["packages"]:
            progress.step("looking up %s" % package.name)
            key = (lock["ecosystem"], shared.shown(package.name), shared.shown(package.version))
            if not package.foreign or key in packages:
                continue
            packages[key] = licence = lookup.of(lock["ecosystem"], folder, package)
            versions.setdefault(key[:2], []).append(key[2])
            by_licence[licence] = by_licence.get(licence, 0) + 1
            if licences.needs_a_look(licence):
                look_at.append({"ecosystem": key[0], "name": key[1], "version": key[2], "licence": licence})
    duplicates = [
        {"ecosystem": key[0], "name": key[1], "versions": found}
        for key, found in sorted(versions.items())
        if len(found) > 1
    ]
    return {
        "packages": len(packages),
        "unpinned": sum(1 for key in packages if key[2] == "not pinned"),
        "licences": dict(shared.top(by_licence, 40, lambda count: count)),
        "licence_unknown": by_licence.get(licences.UNKNOWN, 0),
        "look_at": look_at[:50],
        "duplicates": sorted(duplicates, key=lambda row: (-len(row["versions"]), row["name"]))[:50],
        "duplicate_count": len(duplicates),
    }


def work() -> None:
    """The agent."""
    shared.tell_progress(0.0, "looking for lock files")
    lock_paths, manifests = find()
    locks = [read_lock(path) for path in lock_paths]
    result = study(locks)
    result["locks"] = [
        {
            "path": lock["path"],
            "ecosystem": lock["ecosystem"],
            "packages": sum(1 for package in lock["packages"] if package.foreign),
            "own": sum(1 for package in lock["packages"] if not package.foreign),
            "problem": lock.get("problem"),
        }
        for lock in locks
    ]
    result["unlocked"] = unlocked(lock_paths, manifests)[:50]
    path = shared.write_json("dependencies.json", result)
    shared.tell_metrics({"packages": result["packages"], "duplicates": result["duplicate_count"]})
    print(
        "%d packages in %d lock files, %d in several versions: %s"
        % (result["packages"], len(locks), result["duplicate_count"], path)
    )


if __name__ == "__main__":
    shared.main(work, "dependencies.json")
