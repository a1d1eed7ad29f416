"""The lock files and licences."""

from __future__ import annotations

import io
import json
import tarfile
import unittest

from scene import Scene

import licences
import lockfiles

CARGO = """version = 4

[[package]]
name = "own"
version = "0.1.0"
dependencies = ["dep"]

[[package]]
name = "dep"
version = "1.0.0"
source = "registry+https://example.org"

[[package]]
name = "dep"
version = "2.0.0"
source = "registry+https://example.org"
"""


def names(packages: object) -> list:
    return [(package.name, package.version) for package in packages]  # type: ignore[attr-defined]


class Readers(unittest.TestCase):
    def test_cargo(self) -> None:
        self.assertEqual([package.foreign for package in lockfiles.cargo_lock(CARGO)], [False, True, True])

    def test_npm(self) -> None:
        lock = {
            "packages": {
                "": {"name": "own"},
                "node_modules/a": {"version": "1.0.0", "license": "MIT"},
                "node_modules/a/node_modules/@s/b": {"version": "2.0.0", "license": {"type": "ISC"}},
                "packages/own": {"version": "0.0.1"},
                "node_modules/own": {"link": True},
            }
        }
        packages = list(lockfiles.package_lock(json.dumps(lock)))
        self.assertEqual(names(packages), [("a", "1.0.0"), ("@s/b", "2.0.0"), ("packages/own", "0.0.1")])
        self.assertEqual([package.licence for package in packages], ["MIT", "ISC", None])
        self.assertFalse(packages[2].foreign)
        old = {"dependencies": {"a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0"}}}}}
        self.assertEqual(names(lockfiles.package_lock(json.dumps(old))), [("a", "1.0.0"), ("b", "2.0.0")])

    def test_yarn(self) -> None:
        text = '# c\n\n"@b/c@^7.0.0", "@b/c@^7.8":\n  version "7.8.3"\n\nabbrev@1:\n  version "1.1.1"\n\n"own@workspace:.":\n  version: 0.0.0-use.local\n'
        packages = list(lockfiles.yarn_lock(text))
        self.assertEqual(names(packages)[:2], [("@b/c", "7.8.3"), ("abbrev", "1.1.1")])
        self.assertFalse(packages[2].foreign)

    def test_pnpm(self) -> None:
        text = "packages:\n\n  /@b/core/7.1.0:\n    x: 1\n  /foo/1.0.0_react@17:\n  '@t/node@20.1.0':\n  bar@1.2.3(react@18.0.0):\nsnapshots:\n  a@1.0.0:\n"
        self.assertEqual(
            names(lockfiles.pnpm_lock(text)),
            [("@b/core", "7.1.0"), ("foo", "1.0.0"), ("@t/node", "20.1.0"), ("bar", "1.2.3")],
        )

    def test_python(self) -> None:
        text = '[[package]]\nname = "own"\nversion = "0"\nsource = { editable = "." }\n\n[[package]]\nname = "dep"\nversion = "1"\nsource = { registry = "x" }\n[metadata]\nname = "no"\n'
        self.assertEqual(
            [(package.name, package.foreign) for package in lockfiles.python_lock(text)],
            [("own", False), ("dep", True)],
        )
        text = "# c\n-r other.txt\nFoo_Bar[x]==1.0 ; python_version > '3'\nbaz>=2\nqux === 3 \\\n    --hash=sha256:0\n"
        self.assertEqual(
            names(lockfiles.requirements(text)), [("foo-bar", "1.0"), ("baz", "not pinned"), ("qux", "3")]
        )

    def test_go(self) -> None:
        text = "example.org/a v1.0.0 h1:x=\nexample.org/a v1.0.0/go.mod h1:x=\nexample.org/b v2.0.0/go.mod h1:x=\n"
        self.assertEqual(names(lockfiles.go_sum(text)), [("example.org/a", "v1.0.0")])

    def test_licences_for_a_person_to_look_at(self) -> None:
        for licence, look in (
            ("MIT", False),
            ("GPL-3.0-only", True),
            ("MIT OR GPL-3.0-only", False),
            ("MIT AND GPL-2.0", True),
            ("MPL-2.0", True),
            ("BSL-1.0", False),
        ):
            self.assertEqual(licences.needs_a_look(licence), look, licence)


class Agent(Scene):
    def test_nothing_to_read(self) -> None:
        result = self.result("dependencies")
        self.assertEqual((result["packages"], result["locks"]), (0, []))

    def test_cargo_with_a_cache(self) -> None:
        self.write("Cargo.lock", CARGO)
        registry = self.root / "cargo" / "registry"
        sources = registry / "src" / "index" / "dep-1.0.0"
        sources.mkdir(parents=True)
        (sources / "Cargo.toml").write_text('[package]\nlicense = "MIT"\n')
        (registry / "cache" / "index").mkdir(parents=True)
        with tarfile.open(registry / "cache" / "index" / "dep-2.0.0.crate", "w:gz") as archive:
            manifest = b'[package]\nlicense = "GPL-3.0-only"\n'
            entry = tarfile.TarInfo("dep-2.0.0/Cargo.toml")
            entry.size = len(manifest)
            archive.addfile(entry, io.BytesIO(manifest))
        result = self.result("dependencies", CARGO_HOME=str(self.root / "cargo"))
        self.assertEqual(result["licences"], {"MIT": 1, "GPL-3.0-only": 1})
        self.assertEqual(
            result["duplicates"], [{"ecosystem": "cargo", "name": "dep", "versions": ["1.0.0", "2.0.0"]}]
        )
        self.assertEqual([row["version"] for row in result["look_at"]], ["2.0.0"])
        self.assertEqual((result["locks"][0]["packages"], result["locks"][0]["own"]), (2, 1))

    def test_broken_locks_are_told_and_the_rest_is_read(self) -> None:
        self.write("package-lock.json", "{")
        self.write("a/package-lock.json", "[" * 100_000)
        self.write("b/package-lock.json", '{"packages": {"node_modules/x": 3}, "dependencies": null}')
        self.write("yarn.lock", b"\xff\xfe\0")
        self.write("Cargo.lock", CARGO)
        result = self.result("dependencies")
        self.assertEqual(result["packages"], 2)
        self.assertEqual(sum(1 for row in result["locks"] if row["problem"]), 2)

    def test_manifests_without_a_lock(self) -> None:
        self.write("Cargo.lock", CARGO)
        self.write("crates/a/Cargo.toml")
        self.write("web/package.json", "{}")
        self.assertEqual(self.result("dependencies")["unlocked"], ["web/package.json"])


if __name__ == "__main__":
    unittest.main()
