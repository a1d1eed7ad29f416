"""A temporary repository to look at, and the agents run in it as programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict, Optional

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

IDENTITY = {
    "GIT_AUTHOR_NAME": 'Zoë "Q" | Author',
    "GIT_AUTHOR_EMAIL": "z@example.org",
    "GIT_COMMITTER_NAME": "C",
    "GIT_COMMITTER_EMAIL": "c@example.org",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


class Scene(unittest.TestCase):
    """A test with a folder for the tree and one for each agent's results."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.tree = self.root / "tree"
        self.tree.mkdir()

    def write(self, name: str, content: "str | bytes" = "x\n") -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def git(self, *arguments: str, when: str = "2026-01-15T12:00:00Z") -> None:
        environment = {**os.environ, **IDENTITY, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        subprocess.run(
            ["git", *arguments],
            cwd=self.tree,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def commit(self, message: str = "m", when: str = "2026-01-15T12:00:00Z") -> None:
        self.git("add", "-A", when=when)
        self.git("commit", "-qm", message, when=when)

    def run_agent(self, name: str, status: int = 0, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Runs a script in the tree; its results go to `inputs/NAME`, as they would for the report."""
        base = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("TOKA_") and key != "NOTIFY_SOCKET"
        }
        # Not a repository around the temporary folder, should there be one.
        base.update(
            GIT_CEILING_DIRECTORIES=str(self.root),
            HOME=str(self.root / "home"),
            TMPDIR=str(self.root),
            PYTHONDONTWRITEBYTECODE="1",
        )
        base.update(
            TOKA_ARTIFACTS=str(self.root / "inputs" / name),
            TOKA_INPUTS=str(self.root / "inputs"),
            **environment,
        )
        (self.root / "home").mkdir(exist_ok=True)
        ran = subprocess.run(
            [sys.executable, str(HERE / (name + ".py"))],
            cwd=self.tree,
            env=base,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )
        self.assertEqual(ran.returncode, status, ran.stderr)
        return ran

    def result(self, name: str, **environment: str) -> Dict[str, Any]:
        """Runs an agent that writes JSON and returns it."""
        self.run_agent(name, **environment)
        return json.loads(self.result_path(name).read_text(encoding="utf-8"))

    def result_path(self, name: str, file: Optional[str] = None) -> Path:
        return self.root / "inputs" / name / (file or name + ".json")
