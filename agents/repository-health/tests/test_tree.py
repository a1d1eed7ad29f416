"""The inventory and the history, on ordinary and on strange trees."""

from __future__ import annotations

import os
import subprocess
import unittest

from scene import Scene

import history
import inventory
import shared


class Inventory(Scene):
    def test_an_empty_folder(self) -> None:
        result = self.result("inventory")
        self.assertEqual(result["totals"]["files"], 0)
        self.assertEqual(result["listed_by"], "folders")

    def test_a_repository_counts_what_git_does_not_ignore(self) -> None:
        self.git("init", "-q")
        self.write(".gitignore", "ignored/\n")
        self.write("ignored/huge.py", "x\n" * 100)
        self.write("src/main.rs", "fn main() {}\n// no newline at the end")
        self.write("new.py", "print()\n")
        self.git("add", "src")
        result = self.result("inventory")
        self.assertEqual(result["listed_by"], "git")
        self.assertEqual(result["totals"]["files"], 3)
        self.assertEqual(result["languages"]["Rust"]["lines"], 2)
        self.assertEqual(result["languages"]["Python"]["lines"], 1)

    def test_strange_names_are_kept_apart_and_safe(self) -> None:
        self.git("init", "-q")
        for name in ("a\nb.py", 'quote"d.py', "tab\there.py", "naïve — ☃.py", "-rf", "|pipe`tick`.py"):
            self.write(name)
        (self.tree / os.fsdecode(b"not-\xff-utf8.py")).write_bytes(b"1\n2\n")
        result = self.result("inventory")
        self.assertEqual(result["totals"]["files"], 7)
        self.assertEqual(result["languages"]["Python"]["files"], 6)
        names = {row["path"] for row in result["largest"]}
        self.assertIn("a\\nb.py", names)
        self.assertIn("not-\\xff-utf8.py", names)

    def test_links_pipes_and_deleted_files(self) -> None:
        self.git("init", "-q")
        self.write("gone.txt")
        self.write("kept.txt")
        os.symlink("/etc/passwd", self.tree / "outside")
        os.symlink("loop", self.tree / "loop")
        self.commit()
        (self.tree / "gone.txt").unlink()
        result = self.result("inventory")
        self.assertEqual(
            {key: result["totals"][key] for key in ("files", "links", "missing")},
            {"files": 1, "links": 2, "missing": 1},
        )

    def test_a_pipe_does_not_hang_it(self) -> None:
        os.mkfifo(self.tree / "pipe")
        self.assertEqual(self.result("inventory")["totals"]["special"], 1)

    def test_binary_and_endless_lines(self) -> None:
        with open(self.tree / "huge.bin", "wb") as stream:
            stream.truncate(3 << 30)
        self.write("line.json", b"1" * (3 << 20))
        result = self.result("inventory")
        self.assertEqual(result["languages"]["Binary"]["bytes"], 3 << 30)
        self.assertEqual(result["languages"]["JSON"]["lines"], 1)

    def test_languages(self) -> None:
        for path, head, language in (
            (b"a/B.RS", b"", "Rust"),
            (b"Dockerfile", b"", "Docker"),
            (b"Cargo.lock", b"", "Lock files"),
            (b"run", b"#!/usr/bin/env python3\n", "Python"),
            (b"run", b"#!/bin/dash -e\n", "Shell"),
            (b"run", b"#!\n", "Other text"),
            (b".bashrc", b"", "Other text"),
            (b"x.unknown", b"", "Other text"),
        ):
            self.assertEqual(inventory.language_of(path, head), language, path)


class History(Scene):
    def test_no_git_and_no_commits_are_results(self) -> None:
        self.assertFalse(self.result("history")["available"])
        self.git("init", "-q")
        result = self.result("history")
        self.assertEqual(
            (result["available"], result["reason"]), (False, "the repository has no commits yet")
        )

    def test_one_commit(self) -> None:
        self.git("init", "-q", "-b", "main")
        self.write("a", "1\n2\n")
        self.commit()
        result = self.result("history")
        self.assertEqual(
            (result["commits"], result["authors"], result["added"], result["branch"]), (1, 1, 2, "main")
        )
        self.assertEqual(result["months"], [{"month": "2026-01", "commits": 1}])

    def test_hot_spots_authors_and_strange_names(self) -> None:
        self.git("init", "-q")
        for turn in range(3):
            self.write('strange "\n\t☃.txt', "x\n" * (turn + 1))
            self.write("binary", bytes([0, turn]))
            self.write("once-%d" % turn)
            self.commit(when="2026-%02d-01T00:00:00Z" % (3 * turn + 1))
        result = self.result("history")
        self.assertEqual([row["commits"] for row in result["months"]], [1, 0, 0, 1, 0, 0, 1])
        first = result["hot_spots"][0]
        self.assertEqual((first["path"], first["commits"], first["added"]), ('strange "\\n\\t☃.txt', 3, 3))
        self.assertEqual(result["top_authors"][0]["name"], 'Zoë "Q" | Author')

    def test_a_shallow_clone_says_so(self) -> None:
        self.git("init", "-q")
        for turn in range(3):
            self.write("a", str(turn))
            self.commit()
        clone = self.root / "clone"
        subprocess.run(
            ["git", "clone", "-q", "--depth", "1", self.tree.as_uri(), str(clone)],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        self.tree = clone
        result = self.result("history")
        self.assertEqual((result["shallow"], result["commits"]), (True, 1))

    def test_programs_that_the_repository_names_are_not_run(self) -> None:
        self.git("init", "-q")
        self.write("a.txt")
        self.write(".gitattributes", "*.txt diff=evil\n")
        self.commit()
        for key in ("diff.evil.textconv", "diff.external", "core.fsmonitor"):
            self.git("config", key, "touch %s" % (self.root / "ran"))
        self.assertEqual(self.result("history")["commits"], 1)
        self.result("inventory")
        self.assertFalse((self.root / "ran").exists())

    def test_bus_factor(self) -> None:
        authors = {name: {"commits": count} for name, count in (("a", 5), ("b", 3), ("c", 2))}
        self.assertEqual(history.few_who_did_half(authors), 1)
        self.assertEqual(history.few_who_did_half({}), 0)

    def test_times_that_no_calendar_has(self) -> None:
        log = history.Log()
        log.line(b"\x1ehash\x1f99999999999999999\x1fx\x1f")
        self.assertEqual(history.summary(log, "b", False)["months"], [])


class Shared(unittest.TestCase):
    def test_unquote(self) -> None:
        for quoted, path in (
            (b"plain", b"plain"),
            (b'"a\\nb"', b"a\nb"),
            (b'"\\342\\230\\203 \\\\ \\""', '☃ \\ "'.encode()),
        ):
            self.assertEqual(shared.unquote(quoted), path)

    def test_records_are_bounded(self) -> None:
        import io

        stream = io.BytesIO(b"a" * 200_000 + b"\nb\n\nc")
        self.assertEqual(
            [len(record) for record in shared.records(stream, b"\n", 100_000)], [100_000, 1, 0, 1]
        )

    def test_shown(self) -> None:
        for text, safe in (
            (b"\xff\x1b[31m", "\\xff\\x1b[31m"),
            ("a\u202eb", "a\\u202eb"),
            ("\udcff", "\\udcff"),
            ("é ☃", "é ☃"),
        ):
            self.assertEqual(shared.shown(text), safe)


if __name__ == "__main__":
    unittest.main()
