"""The project's own check: what fits, what its outcome means, and when the agent itself fails."""

from __future__ import annotations

import json
import os
import shutil
import stat
import unittest
from typing import Any, Dict, List

from scene import Scene

import checks

#: Where rustup's programs look for their toolchain when HOME is another.
RUST_HOMES = {
    "CARGO_HOME": os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo"),
    "RUSTUP_HOME": os.environ.get("RUSTUP_HOME") or os.path.expanduser("~/.rustup"),
}
PACKAGE = '[package]\nname = "p"\nversion = "0.1.0"\nedition = "2021"\n[lib]\npath = "lib.rs"\n'


class Agent(Scene):
    def checks(self, **environment: str) -> List[Dict[str, Any]]:
        return self.result("checks", **environment)["checks"]

    def program(self, name: str, script: str) -> str:
        """A PATH on which `name` is `script`."""
        folder = self.root / "bin"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return "%s:%s" % (folder, os.environ["PATH"])

    def test_no_known_check_is_a_result(self) -> None:
        self.write("main.c")
        self.assertEqual(self.checks(), [])

    @unittest.skipUnless(shutil.which("cargo"), "needs cargo")
    def test_cargo_really_compiles(self) -> None:
        self.write("Cargo.toml", PACKAGE)
        self.write("Cargo.lock", 'version = 3\n[[package]]\nname = "p"\nversion = "0.1.0"\n')
        self.write("lib.rs", "pub fn f() { let unused = 1; }\n")
        (row,) = self.checks(**RUST_HOMES)
        self.assertEqual(
            (row["outcome"], row["errors"], row["warnings"], row["packages"]), ("passed", 0, 1, 1)
        )
        self.assertIn("lib.rs:1: warning: unused variable", row["diagnostics"][0])
        self.assertFalse((self.tree / "target").exists())

        self.write("lib.rs", 'pub fn f() -> u8 { "no" }\n')
        (row,) = self.checks(**RUST_HOMES)
        self.assertEqual((row["outcome"], row["errors"], row["status"]), ("failed", 1, 101))

    @unittest.skipUnless(shutil.which("cargo"), "needs cargo")
    def test_cargo_without_a_lock_file_works_in_a_copy(self) -> None:
        self.write("Cargo.toml", PACKAGE)
        self.write("lib.rs", "pub fn f() {}\n")
        (row,) = self.checks(**RUST_HOMES)
        self.assertEqual(row["outcome"], "passed")
        self.assertIn("no Cargo.lock", row["notes"][0])
        self.assertFalse((self.tree / "Cargo.lock").exists())

    @unittest.skipUnless(shutil.which("cargo"), "needs cargo")
    def test_dependencies_that_are_not_here_fail_the_agent(self) -> None:
        self.write("Cargo.toml", PACKAGE + '[dependencies]\nno-such-crate-anywhere = "1"\n')
        self.write("lib.rs", "")
        ran = self.run_agent("checks", status=1, **RUST_HOMES)
        self.assertIn("no check could be run", ran.stderr)
        (row,) = json.loads(self.result_path("checks").read_text())["checks"]
        self.assertEqual(row["outcome"], "could not run")
        self.assertIn("no-such-crate-anywhere", row["problem"])
        self.assertIn("run `cargo fetch` first", row["problem"])

    def test_the_main_language_decides(self) -> None:
        for number in range(30):
            self.write("pkg/f%d.go" % number, "package pkg\n")
        self.write("go.mod", "module m\n")
        self.write("tools/Cargo.toml", PACKAGE)
        self.write("tools/lib.rs")
        ran = self.run_agent("checks", PATH=self.program("go", 'echo "$@" "$GOFLAGS"; exit 1'))
        told = json.loads(self.result_path("checks").read_text())
        (row,) = told["checks"]
        self.assertEqual(
            (row["command"], row["outcome"], row["tail"]),
            ("go vet ./...", "failed", ["vet ./... -mod=readonly"]),
        )
        self.assertEqual(told["left_out"], ["cargo: 1 of 31 source files are of its language"])
        self.assertIn("left out: cargo", ran.stdout)

    def test_go_without_its_packages_says_what_to_run_first(self) -> None:
        self.write("go.mod", "module m\n")
        self.write("vendor/modules.txt")
        script = "echo 'a.go:3:8: x/y: module lookup disabled by GOPROXY=off' >&2; exit 1"
        ran = self.run_agent("checks", status=1, PATH=self.program("go", script))
        self.assertIn("run `go mod vendor` first", ran.stderr)

    def test_a_recipe_is_run_in_a_copy_where_no_language_fits(self) -> None:
        self.write("main.c")
        self.write("Makefile", "CHECK := 1\ntest: main.c\n\techo made > made && exit 1\n")
        (row,) = self.checks()
        self.assertEqual((row["command"], row["outcome"], row["status"]), ("make test", "failed", 2))
        self.assertFalse((self.tree / "made").exists())
        self.write("justfile", "check:\n  true\n")
        (row,) = self.checks(PATH=self.program("just", 'test "$1" = check'))
        self.assertEqual((row["command"], row["outcome"]), ("just check", "passed"))

    def test_npm(self) -> None:
        self.write("package.json", '{"scripts": {"test": "jest"}}')
        (row,) = self.checks(PATH=self.program("npm", "echo 1 failing; exit 3"))
        self.assertEqual((row["outcome"], row["status"], row["tail"]), ("failed", 3, ["1 failing"]))
        (row,) = self.checks(PATH=self.program("npm", "exit 0"))
        self.assertEqual(row["outcome"], "passed")

    def test_npm_without_its_packages_could_not_run(self) -> None:
        self.write("package.json", '{"scripts": {"test": "jest"}, "devDependencies": {"jest": "1"}}')
        ran = self.run_agent("checks", status=1)
        self.assertIn("its 1 dependencies are not installed", ran.stderr)

    def test_pytest(self) -> None:
        self.write("pytest.ini", "[pytest]\n")
        path = self.program("python3", "echo '.F  [100%]'; echo '1 failed, 3 passed in 0.01s'; exit 1")
        (row,) = self.checks(PATH=path)
        self.assertEqual((row["outcome"], row["tests"]), ("failed", {"failed": 1, "passed": 3}))
        ran = self.run_agent(
            "checks", status=1, PATH=self.program("python3", "echo 'No module named pytest' >&2; exit 1")
        )
        self.assertIn("No module named pytest", ran.stderr)

    def test_one_check_that_runs_is_enough(self) -> None:
        self.write("pytest.ini", "[pytest]\n")
        self.write("package.json", '{"scripts": {"test": "x"}, "dependencies": {"y": "1"}}')
        rows = self.checks(PATH=self.program("python3", "exit 0"))
        self.assertEqual([row["outcome"] for row in rows], ["could not run", "passed"])

    def test_binary_and_endless_output_is_bounded(self) -> None:
        self.write("package.json", '{"scripts": {"test": "x"}}')
        script = "head -c 5000000 /dev/zero; printf '\\n\\033[31mred\\377\\n'; exit 1"
        (row,) = self.checks(PATH=self.program("npm", script))
        self.assertEqual(row["tail"][-1], "\\x1b[31mred\ufffd")
        self.assertLess(len(self.result_path("checks").read_bytes()), 20_000)

    def test_a_command_out_of_time_is_ended(self) -> None:
        before, checks.LONGEST = checks.LONGEST, 0.2
        self.addCleanup(setattr, checks, "LONGEST", before)
        # The grandchild holds the pipe too: it has to go as well.
        outcome = checks.run(["sh", "-c", "sleep 1000 & sleep 1000"], ".", {}, lambda _line: False)
        self.assertTrue(outcome.timed_out)
        self.assertNotEqual(outcome.status, 0)

    def test_the_check_nearest_to_the_top_is_taken(self) -> None:
        self.write("a/Cargo.toml")
        self.write("Cargo.toml")
        self.write("node_modules/x/package.json", '{"scripts": {"test": "x"}}')
        self.write("web/package.json", '{"scripts": {"test": "x"}}')
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.tree)
        self.assertEqual(checks.detect(), [checks.Check("cargo", "."), checks.Check("npm", "./web")])


if __name__ == "__main__":
    unittest.main()
