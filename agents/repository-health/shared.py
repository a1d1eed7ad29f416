"""What the agents of this workstream have in common: telling progress, leaving results, reading a repository safely.

A repository is somebody else's: names may hold any byte but NUL and `/`, lines may have any length, files may be
pipes or links that lead outside. So everything here streams in pieces of bounded size, opens regular files only, and
turns names into text that is safe to print before they go anywhere. Outside Toka the reporting does nothing.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, BinaryIO, Dict, Iterator, List, Optional

PIECE = 64 * 1024
LONGEST_LINE = 1024 * 1024

#: Folders that are never the project's own work, for trees that git cannot list.
SKIPPED_FOLDERS = {
    b".git",
    b".hg",
    b".svn",
    b".tox",
    b".venv",
    b"__pycache__",
    b"node_modules",
    b"target",
    b"venv",
}

#: Never ask, never fetch, never write, never run a program that the repository names.
GIT_ENVIRONMENT = {
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
GIT_OPTIONS = [
    "-c",
    "safe.directory=*",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.quotePath=true",
    "-c",
    "log.showSignature=false",
]


class CannotWork(Exception):
    """The agent cannot do what it is there for; the message says why, for people."""


# ---------------------------------------------------------------------------------------------- progress and metrics


class Progress:
    """Tells the supervisor how far the work is, ten times a second at most (sd_notify(3), `X_TOKA_PROGRESS`)."""

    INTERVAL = 0.1

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._told = 0.0

    def step(self, status: str = "", count: int = 1) -> None:
        """Counts `count` more pieces of work as done."""
        self.done += count
        now = time.monotonic()
        if now - self._told >= self.INTERVAL or self.done >= self.total:
            self._told = now
            tell_progress(self.done / self.total if self.total else 1.0, status)


def tell_progress(fraction: float, status: str = "") -> None:
    """Tells a fraction from 0 to 1, and what is being done."""
    lines = ["X_TOKA_PROGRESS=%.4f" % min(max(fraction, 0.0), 1.0)]
    if status:
        lines.append("STATUS=" + shown(status)[:200])
    notify("\n".join(lines))


def tell_status(status: str) -> None:
    """Tells what is being done, where nobody knows how far it is."""
    notify("STATUS=" + shown(status)[:200])


def notify(message: str) -> None:
    """Sends one datagram to `NOTIFY_SOCKET`; without it, nothing. Progress that is lost costs nothing either."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.settimeout(1)
            door.sendto(message.encode(), address)
    except OSError:
        pass


def tell_metrics(values: Dict[str, float]) -> None:
    """Reports numbers over `TOKA_SOCKET` (JSON-RPC 2.0, one message a line); without it, nothing."""
    path = os.environ.get("TOKA_SOCKET", "")
    if not path:
        return
    request = {"jsonrpc": "2.0", "id": 1, "method": "metrics", "params": {"values": values}}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.settimeout(10)
            door.connect(path)
            door.sendall(json.dumps(request).encode() + b"\n")
            with door.makefile("rb") as answers:
                answer = json.loads(answers.readline(LONGEST_LINE) or b"{}")
            if "error" in answer:
                warn("the metrics were refused: %s" % answer["error"].get("message"))
    except (OSError, ValueError) as error:
        warn("the metrics could not be reported: %s" % error)


def warn(message: str) -> None:
    """A line for the log."""
    print(shown(message), file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ results and inputs


def artifacts() -> Path:
    """The folder to leave results in."""
    folder = os.environ.get("TOKA_ARTIFACTS", "")
    if not folder:
        raise CannotWork("TOKA_ARTIFACTS is not set: name a folder for the results")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_result(name: str, text: str) -> Path:
    """Writes a result whole or not at all."""
    path = artifacts() / name
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def write_json(name: str, value: Dict[str, Any]) -> Path:
    """Writes a result as JSON."""
    return write_result(name, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_input(agent: str, name: str) -> Optional[Dict[str, Any]]:
    """What a dependency left, or None when it left nothing that can be read."""
    folder = os.environ.get("TOKA_INPUTS", "")
    if not folder:
        return None
    try:
        value = json.loads((Path(folder) / agent / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        warn("%s left no usable %s: %s" % (agent, name, error))
        return None
    return value if isinstance(value, dict) else None


def main(work: Any, *results: str) -> None:
    """Runs an agent: 0 when it did its work, 1 with the reason when it could not. What an earlier run left under the
    names of the results goes first: it would be told as this run's."""
    try:
        for name in results:
            old = artifacts() / name
            if old.exists():
                old.unlink()
        work()
    except CannotWork as error:
        warn("error: %s" % error)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


# ------------------------------------------------------------------------------------------------------ safe to show


def shown(text: object) -> str:
    """Text or bytes as one line that can be printed, kept as JSON and read back: what is not printable is escaped."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    else:
        text = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return "%d B" % count if unit == "B" else "%.1f %s" % (count, unit)


# --------------------------------------------------------------------------------------------------- reading a tree


def records(stream: IO[bytes], end: bytes, longest: int) -> Iterator[bytes]:
    """Splits a stream at `end` without it; of a record longer than `longest` the rest is left out."""
    kept = b""
    while True:
        # What a pipe has now, not a whole piece: the other end may be waiting for us to show it.
        piece = stream.read1(PIECE) if isinstance(stream, io.BufferedIOBase) else stream.read(PIECE)
        if not piece:
            break
        parts = piece.split(end)
        for part in parts[:-1]:
            yield (kept + part)[:longest]
            kept = b""
        kept = (kept + parts[-1])[:longest]
    if kept:
        yield kept


def git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Runs a git command whose output is small."""
    try:
        return subprocess.run(
            ["git", "--no-pager", *GIT_OPTIONS, *arguments],
            env={**os.environ, **GIT_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(arguments, 127, b"", str(error).encode())


def git_records(end: bytes, *arguments: str) -> Iterator[bytes]:
    """Streams the output of a git command. Raises CannotWork when git fails, after what it gave."""
    with subprocess.Popen(
        ["git", "--no-pager", *GIT_OPTIONS, *arguments],
        env={**os.environ, **GIT_ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        yield from records(process.stdout, end, LONGEST_LINE)
    if process.returncode != 0:
        raise CannotWork("git %s ended with status %d" % (arguments[0], process.returncode))


def why_no_git() -> Optional[str]:
    """None when the current folder is inside a work tree that git can read; otherwise why it is not."""
    answer = git("rev-parse", "--is-inside-work-tree")
    if answer.returncode == 0 and answer.stdout.strip() == b"true":
        return None
    if answer.returncode == 127:
        return "git cannot be started: %s" % shown(answer.stderr.strip())
    lines = answer.stderr.decode("utf-8", "replace").strip().splitlines()
    return shown(lines[0]) if lines else "not a work tree"


def paths() -> Iterator[bytes]:
    """The files of the project, relative to the current folder: tracked and new ones that are not ignored where git
    can tell, otherwise all but well-known build folders."""
    if why_no_git() is None:
        # A path with a merge conflict is listed once for each side, one after the other.
        last = None
        for path in git_records(b"\0", "ls-files", "-z", "--cached", "--others", "--exclude-standard"):
            if path != last:
                yield path
            last = path
    else:
        yield from walk(b".")


def walk(root: bytes) -> Iterator[bytes]:
    """Every entry that is no folder below `root`, links not followed, in the order of their names."""
    for folder, folders, names in os.walk(root):
        for name in list(folders):
            if os.path.islink(os.path.join(folder, name)):
                folders.remove(name)
                names.append(name)
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        for name in sorted(names):
            yield os.path.relpath(os.path.join(folder, name), root)


def open_regular(path: bytes) -> Optional[BinaryIO]:
    """Opens a regular file for reading; None for anything else, and for what is gone or not permitted. Never follows
    a link in the last component, never hangs at a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb", buffering=PIECE)


def read_text(path: bytes, most: int) -> Optional[str]:
    """A whole text file of at most `most` bytes, for parsers that need it whole; None when it is not to be had."""
    stream = open_regular(path)
    if stream is None:
        return None
    with stream:
        data = stream.read(most + 1)
    return None if len(data) > most else data.decode("utf-8", "replace")


_ESCAPE = re.compile(rb"\\([abtnvfr\"\\]|[0-7]{3})")
_LETTERS = {
    b"a": b"\a",
    b"b": b"\b",
    b"t": b"\t",
    b"n": b"\n",
    b"v": b"\v",
    b"f": b"\f",
    b"r": b"\r",
    b'"': b'"',
    b"\\": b"\\",
}


def unquote(path: bytes) -> bytes:
    """A path as git prints it (`core.quotePath`), as it is on disk."""
    if len(path) < 2 or not (path.startswith(b'"') and path.endswith(b'"')):
        return path

    def letter(match: "re.Match[bytes]") -> bytes:
        code = match.group(1)
        return _LETTERS.get(code) or bytes([int(code, 8) & 0xFF])

    return _ESCAPE.sub(letter, path[1:-1])


def top(counts: Dict[Any, Any], most: int, key: Any) -> List[Any]:
    """The `most` largest items of a dictionary, ties by name."""
    return sorted(counts.items(), key=lambda item: (-key(item[1]), str(item[0])))[:most]
