"""The report and the chart, and what the agents tell their supervisor."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import unittest
import xml.etree.ElementTree as ElementTree

from scene import Scene

import report


class Whole(Scene):
    def look(self) -> str:
        for agent in ("inventory", "history", "dependencies", "checks"):
            self.run_agent(agent)
        # Both are tasks of one agent.
        os.makedirs(self.root / "inputs" / "report", exist_ok=True)
        for task in ("chart", "report"):
            self.run_agent(task)
        return self.result_path("report", "report.md").read_text(encoding="utf-8")

    def test_an_empty_folder(self) -> None:
        text = self.look()
        self.assertIn("0 files, 0 lines, 0 B.", text)
        self.assertIn("No history:", text)
        self.assertIn("No lock files.", text)
        self.assertIn("No check command is known", text)

    def test_a_repository_with_hostile_names(self) -> None:
        self.git("init", "-q")
        self.write("<script>alert(1)<|script>.py")
        self.write("`code` ![x](y).rs", "a\nb\n")
        self.write("line\n## Fake heading\n.md")
        self.commit()
        text = self.look()
        self.assertIn("1 commit (0 merges) by 1 author", text)
        self.assertNotIn("\n## Fake heading", text)
        self.assertIn('Zoë "Q" \\| Author', text)
        for line in text.splitlines():
            if line.startswith("| `") or line.startswith("| ``"):
                # A pipe of a name is escaped, so every row of a table has as many cells as its head.
                self.assertIn(len(re.findall(r"(?<!\\)\|", line)), (4, 5, 6, 7), line)
        drawing = self.result_path("chart", "chart.svg").read_text(encoding="utf-8")
        self.assertTrue(ElementTree.fromstring(drawing).tag.endswith("svg"))

    def test_what_is_missing_is_named(self) -> None:
        self.run_agent("inventory")
        self.write("x")
        self.run_agent("report")
        text = self.result_path("report", "report.md").read_text(encoding="utf-8")
        self.assertIn("The agent `checks` left nothing", text)

    def test_nothing_at_all_fails(self) -> None:
        self.assertIn("no agent left anything", self.run_agent("report", status=1).stderr)

    def test_an_earlier_result_is_not_told_as_a_new_one(self) -> None:
        self.run_agent("inventory")
        self.run_agent("report")
        self.result_path("inventory").unlink()
        self.run_agent("report", status=1)
        self.assertFalse(self.result_path("report", "report.md").exists())


class Pieces(unittest.TestCase):
    def test_bars(self) -> None:
        for value, most, bar in (
            (0, 10, ""),
            (10, 10, "█" * 24),
            (5, 10, "█" * 12),
            (1, 1_000_000, "▏"),
            (0, 0, ""),
        ):
            self.assertEqual(report.bar(value, most), bar)
        self.assertEqual(report.columns([0, 1, 8, 4]), " ▁█▄")
        self.assertEqual(report.columns([]), "")

    def test_code_and_plain(self) -> None:
        self.assertEqual(report.code("a|b"), "`a\\|b`")
        self.assertEqual(report.code("a`b"), "`` a`b ``")
        self.assertEqual(report.plain("<b>*x*"), "\\<b\\>\\*x\\*")


class Supervised(Scene):
    def test_progress_goes_to_the_supervisor_and_ends_at_one(self) -> None:
        for name in range(50):
            self.write("f%d.py" % name)
        path = str(self.root / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.bind(path)
            door.settimeout(10)
            self.run_agent("inventory", NOTIFY_SOCKET=path)
            messages = []
            while not messages or "X_TOKA_PROGRESS=1.0000" not in messages[-1]:
                messages.append(door.recv(65536).decode())
        fractions = [float(re.match(r"X_TOKA_PROGRESS=([0-9.]+)", message).group(1)) for message in messages]  # type: ignore[union-attr]
        self.assertEqual(fractions, sorted(fractions))
        self.assertEqual(fractions[0], 0.0)

    def test_metrics_are_json_rpc(self) -> None:
        self.write("a.py", "1\n2\n")
        path = str(self.root / "agent")
        asked = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.bind(path)
            door.listen()

            def serve() -> None:
                stream, _ = door.accept()
                with stream, stream.makefile("rb") as lines:
                    asked.append(json.loads(lines.readline()))
                    stream.sendall(
                        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no \\u001b[31m"}}\n'
                    )

            server = threading.Thread(target=serve)
            server.start()
            ran = self.run_agent("inventory", TOKA_SOCKET=path)
            server.join()
        self.assertEqual(asked[0]["method"], "metrics")
        self.assertEqual(asked[0]["params"]["values"], {"files": 1, "lines": 2, "bytes": 4})
        self.assertIn("refused: no \\x1b[31m", ran.stderr)

    def test_a_dead_supervisor_stops_nothing(self) -> None:
        self.run_agent(
            "inventory", TOKA_SOCKET=str(self.root / "none"), NOTIFY_SOCKET=str(self.root / "none")
        )


if __name__ == "__main__":
    unittest.main()
