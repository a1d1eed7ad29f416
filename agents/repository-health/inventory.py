"""Inventory of the tree: languages, files, lines, sizes, the largest files. Writes `inventory.json`.

Every regular file is read once, in pieces; what has a NUL in its first 8 KiB is binary (as git decides) and not read
further. The tree is listed twice, once to know how much there is to do, so that the progress is a true fraction.
"""

from __future__ import annotations

import heapq
import os
import stat
from typing import Any, Dict, List, Tuple

import shared

LARGEST = 15
#: git's own measure for what is binary.
HEAD = 8000

LANGUAGES = {
    "Assembly": "asm s",
    "Batch": "bat cmd",
    "C": "c h",
    "C#": "cs",
    "C++": "cc cpp cxx hh hpp hxx",
    "CSS": "css less sass scss",
    "Clojure": "clj cljs",
    "Configuration": "cfg conf ini toml",
    "Dart": "dart",
    "Elixir": "ex exs",
    "Erlang": "erl hrl",
    "Fortran": "f f90 for",
    "Go": "go",
    "GraphQL": "graphql gql",
    "Groovy": "groovy gradle",
    "HTML": "htm html xhtml",
    "Haskell": "hs",
    "JSON": "json json5 jsonc jsonl",
    "Java": "java",
    "JavaScript": "cjs js jsx mjs",
    "Julia": "jl",
    "Jupyter": "ipynb",
    "Kotlin": "kt kts",
    "Lua": "lua",
    "Markdown": "markdown md mdx",
    "Nix": "nix",
    "OCaml": "ml mli",
    "Objective-C": "m mm",
    "PHP": "php",
    "Pascal": "pas",
    "Perl": "pl pm",
    "PowerShell": "ps1 psm1",
    "Protocol Buffers": "proto",
    "Python": "py pyi pyx",
    "R": "r rmd",
    "Ruby": "rake rb",
    "Rust": "rs",
    "SQL": "sql",
    "SVG": "svg",
    "Scala": "scala",
    "Shell": "bash fish ksh sh zsh",
    "Snapshots": "snap",
    "Svelte": "svelte",
    "Swift": "swift",
    "TeX": "bib sty tex",
    "Terraform": "hcl tf",
    "Text": "adoc asc org rst txt",
    "TypeScript": "cts mts ts tsx",
    "Vim": "vim",
    "Vue": "vue",
    "XML": "xml xsd xsl",
    "YAML": "yaml yml",
    "Zig": "zig",
}
BY_SUFFIX = {suffix: language for language, suffixes in LANGUAGES.items() for suffix in suffixes.split()}
BY_NAME = {
    "cargo.lock": "Lock files",
    "cmakelists.txt": "CMake",
    "containerfile": "Docker",
    "dockerfile": "Docker",
    "gemfile": "Ruby",
    "gemfile.lock": "Lock files",
    "go.sum": "Lock files",
    "jenkinsfile": "Groovy",
    "justfile": "Just",
    "makefile": "Make",
    "package-lock.json": "Lock files",
    "pnpm-lock.yaml": "Lock files",
    "poetry.lock": "Lock files",
    "rakefile": "Ruby",
    "uv.lock": "Lock files",
    "yarn.lock": "Lock files",
}
INTERPRETERS = {
    b"python": "Python",
    b"bash": "Shell",
    b"sh": "Shell",
    b"node": "JavaScript",
    b"perl": "Perl",
    b"ruby": "Ruby",
}


def language_of(path: bytes, head: bytes) -> str:
    """The language by name, then by suffix, then by the interpreter that the first line names."""
    name = os.path.basename(path).decode("utf-8", "replace").lower()
    if name in BY_NAME:
        return BY_NAME[name]
    suffix = name.rpartition(".")[2] if "." in name[1:] else ""
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix]
    if head.startswith(b"#!"):
        words = head.split(b"\n", 1)[0][2:].split()
        program = (
            os.path.basename(words[1] if len(words) > 1 and words[0].endswith(b"/env") else words[0])
            if words
            else b""
        )
        return INTERPRETERS.get(
            program.rstrip(b"0123456789."), "Shell" if program.endswith(b"sh") else "Other text"
        )
    return "Other text"


def read_file(path: bytes) -> Tuple[str, int]:
    """The language and the number of lines; a last line without a newline counts."""
    stream = shared.open_regular(path)
    if stream is None:
        return ("Unreadable", 0)
    lines, last, head = 0, b"\n", b""
    with stream:
        try:
            while True:
                piece = stream.read(shared.PIECE)
                if not piece:
                    break
                if not head:
                    head = piece[:HEAD]
                    if b"\0" in head:
                        return ("Binary", 0)
                lines += piece.count(b"\n")
                last = piece[-1:]
        except OSError:
            return ("Unreadable", lines)
    return (language_of(path, head), lines + (last != b"\n"))


def take_inventory() -> Dict[str, Any]:
    """Reads the current folder's tree."""
    shared.tell_progress(0.0, "counting files")
    progress = shared.Progress(sum(1 for _ in shared.paths()))
    languages: Dict[str, Dict[str, int]] = {}
    folders: Dict[str, Dict[str, int]] = {}
    largest: List[Tuple[int, str, int]] = []
    totals = {"files": 0, "lines": 0, "bytes": 0, "links": 0, "special": 0, "missing": 0, "empty": 0}
    for path in shared.paths():
        progress.step("reading %s" % shared.shown(path))
        try:
            status = os.lstat(path)
        except (OSError, ValueError):
            totals["missing"] += 1  # tracked, but deleted in the work tree
            continue
        if not stat.S_ISREG(status.st_mode):
            # A submodule is listed as a folder; its files are another repository's.
            totals["links" if stat.S_ISLNK(status.st_mode) else "special"] += 1
            continue
        language, lines = read_file(path)
        totals["files"] += 1
        totals["lines"] += lines
        totals["bytes"] += status.st_size
        totals["empty"] += status.st_size == 0
        parent = shared.shown(path.split(b"/", 1)[0]) + "/" if b"/" in path else "(top)"
        for group, key in ((languages, language), (folders, parent)):
            row = group.setdefault(key, {"files": 0, "lines": 0, "bytes": 0})
            row["files"] += 1
            row["lines"] += lines
            row["bytes"] += status.st_size
        entry = (status.st_size, shared.shown(path), lines)
        (heapq.heappush if len(largest) < LARGEST else heapq.heappushpop)(largest, entry)
    return {
        "listed_by": "git" if shared.why_no_git() is None else "folders",
        "totals": totals,
        "languages": languages,
        "folders": dict(shared.top(folders, 20, lambda row: row["bytes"])),
        "largest": [
            {"path": path, "bytes": count, "lines": lines}
            for count, path, lines in sorted(largest, reverse=True)
        ],
    }


def work() -> None:
    """The agent."""
    result = take_inventory()
    totals = result["totals"]
    path = shared.write_json("inventory.json", result)
    shared.tell_metrics({"files": totals["files"], "lines": totals["lines"], "bytes": totals["bytes"]})
    print(
        "%d files, %d lines, %s: %s" % (totals["files"], totals["lines"], shared.size(totals["bytes"]), path)
    )


if __name__ == "__main__":
    shared.main(work, "inventory.json")
