"""Runs the project's own check command, and keeps what it said. Writes `checks.json`.

- Cargo.toml: `cargo check --workspace --offline --locked --all-targets`; without `--all-targets` when the dependencies
  of the tests are not on this machine. Without a Cargo.lock, in a copy of the tree and without `--locked`, since cargo
  has to write the lock file.
- package.json with a `test` script: `npm test`.
- go.mod: `go vet ./...`, with the modules in `vendor`, since those of the user are not seen here.
- pytest.ini, or pytest in pyproject.toml, setup.cfg or tox.ini, or test files in Python: `python3 -m pytest`.
- None of these: `just check` or `just test`, or `make check` or `make test`, in a copy of the tree.

Where several fit, those of the languages that the project is written in are run, the main one first; one whose language
is less than a tenth of the source files is left out, and that is told.

The workspace is read-only here, so build output goes to HOME (kept for the next run) and TMPDIR. There is no network.

What a check says about the project, good or bad, is the result: the agent succeeds when the project does not compile.
It fails only when there is a check and none could be run at all (the program or the dependencies are not on this
machine), because then nobody knows anything about the project. A project without a known check is a result too.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional, Tuple

import shared

#: Shorter than the agent's own timeout, so that a check that hangs is still reported.
LONGEST = 25 * 60.0
GRACE = 10.0
TAIL = 40
MOST_DIAGNOSTICS = 20
MOST_REMEMBERED = 10_000
#: How deep manifests are looked for when there is none at the top.
DEPTH = 2
#: Largest tree that is copied for a project without a lock file.
LARGEST_COPY = 512 * 1024 * 1024
#: Most files that are looked at to find the main language.
MOST_FILES = 200_000
#: The share of the source files below which a language decides nothing, beside others.
SMALL_SHARE = 0.1


class Check(NamedTuple):
    """A check that fits the project."""

    kind: str
    folder: str
    recipe: str = ""


class Outcome:
    """What a command did."""

    def __init__(self, command: List[str]) -> None:
        self.command = command
        self.status: Optional[int] = None
        self.problem: Optional[str] = None
        self.seconds = 0.0
        self.tail: Deque[str] = deque(maxlen=TAIL)
        self.timed_out = False


# ------------------------------------------------------------------------------------------------------- what to run


def choose() -> Tuple[List[Check], List[str]]:
    """The checks to run, that of the main language first, and why others are left out."""
    found = detect()
    if not found:
        return detect_runners(), []
    files = count_sources()
    of_kinds = sum(files[check.kind] for check in found)
    chosen, left_out = [], []
    for check in sorted(found, key=lambda check: -files[check.kind]):
        if chosen and files[check.kind] < SMALL_SHARE * of_kinds:
            left_out.append(
                "%s: %d of %d source files are of its language" % (check.kind, files[check.kind], of_kinds)
            )
        else:
            chosen.append(check)
    return chosen, left_out


def count_sources() -> Dict[str, int]:
    """How many files of the project are in the language of each kind."""
    files = dict.fromkeys(KINDS, 0)
    kinds = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes.split()}
    for path in itertools.islice(shared.paths(), MOST_FILES):
        kind = kinds.get(os.path.splitext(os.fsdecode(path))[1].lstrip("."))
        if kind:
            files[kind] += 1
    return files


def detect_runners() -> List[Check]:
    """A recipe for a check or for tests at the top, of just or of make."""
    for kind, names in RUNNERS.items():
        for name in names:
            text = shared.read_text(os.fsencode(name), 4 * 1024 * 1024) if os.path.isfile(name) else None
            for recipe in ("check", "test"):
                if re.search(r"(?m)^@?%s\b[^:=\n]*:(?!=)" % recipe, text or ""):
                    return [Check(kind, ".", recipe)]
    return []


def detect() -> List[Check]:
    """One check of each kind, the one nearest to the top."""
    found: Dict[str, Check] = {}
    tests: Optional[str] = None
    for folder, folders, names in os.walk("."):
        depth = 0 if folder == "." else folder.count(os.sep)
        hidden = {
            name for name in folders if name.startswith(".") or os.fsencode(name) in shared.SKIPPED_FOLDERS
        }
        folders[:] = sorted(set(folders) - hidden) if depth < DEPTH else []
        for kind, fits in KINDS.items():
            better = kind not in found or depth < found[kind].folder.count(os.sep)
            if better and fits(folder, names):
                found[kind] = Check(kind, folder)
        if tests is None and any(re.match(r"test_.*\.py$|.*_test\.py$", name) for name in names):
            tests = folder
    if (
        "pytest" not in found
        and tests is not None
        and any(os.path.exists(name) for name in ("setup.py", "pyproject.toml", "setup.cfg"))
    ):
        found["pytest"] = Check("pytest", ".")
    return [found[kind] for kind in KINDS if kind in found]


def fits_cargo(_folder: str, names: List[str]) -> bool:
    """A Cargo.toml."""
    return "Cargo.toml" in names


def fits_go(_folder: str, names: List[str]) -> bool:
    """A go.mod."""
    return "go.mod" in names


def fits_npm(folder: str, names: List[str]) -> bool:
    """A package.json with a test script that somebody wrote."""
    if "package.json" not in names:
        return False
    text = shared.read_text(os.fsencode(os.path.join(folder, "package.json")), 4 * 1024 * 1024)
    try:
        script = json.loads(text or "{}").get("scripts", {}).get("test", "")
    except (ValueError, AttributeError):
        return False
    return isinstance(script, str) and bool(script.strip()) and "no test specified" not in script


def fits_pytest(folder: str, names: List[str]) -> bool:
    """A configuration of pytest."""
    markers = {
        "pytest.ini": "",
        "conftest.py": "",
        "pyproject.toml": "[tool.pytest",
        "setup.cfg": "[tool:pytest]",
        "tox.ini": "[pytest]",
    }
    for name, marker in markers.items():
        if name in names and marker in (
            shared.read_text(os.fsencode(os.path.join(folder, name)), 4 * 1024 * 1024) or ""
        ):
            return True
    return False


KINDS: Dict[str, Callable[[str, List[str]], bool]] = {
    "cargo": fits_cargo,
    "go": fits_go,
    "npm": fits_npm,
    "pytest": fits_pytest,
}

#: The files that the checks of each kind are about.
SUFFIXES = {
    "cargo": "rs",
    "go": "go",
    "npm": "cjs cts js jsx mjs mts svelte ts tsx vue",
    "pytest": "py",
}

#: Programs that run a recipe by its name, and the files that they read.
RUNNERS = {
    "just": ("justfile", "Justfile", ".justfile"),
    "make": ("GNUmakefile", "makefile", "Makefile"),
}


# ------------------------------------------------------------------------------------------------- running a command


def run(
    command: List[str],
    folder: str,
    environment: Dict[str, str],
    on_line: Callable[[bytes], bool],
    stdout_is: str = "output",
) -> Outcome:
    """Runs a command. `on_line` gets each line of standard output; what it does not take (false) is kept and shown, like
    every line of standard error."""
    outcome = Outcome(command)
    started = time.monotonic()
    print("$ %s" % " ".join(command), flush=True)
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if stdout_is == "data" else subprocess.STDOUT,
            start_new_session=True,  # a group of its own, to be ended with all its children
        )
    except OSError as error:
        outcome.problem = "%s cannot be started: %s" % (command[0], error.strerror or error)
        return outcome

    def keep(line: bytes) -> None:
        outcome.tail.append(shared.shown(line.decode("utf-8", "replace").rstrip("\r"))[:400])
        sys.stderr.buffer.write(line + b"\n")
        sys.stderr.flush()

    def drain_errors() -> None:
        assert process.stderr is not None
        for line in shared.records(process.stderr, b"\n", shared.LONGEST_LINE):
            keep(line)

    def expire() -> None:
        outcome.timed_out = True
        end(process)

    alarm = threading.Timer(LONGEST, expire)
    errors = threading.Thread(target=drain_errors, daemon=True)
    alarm.daemon = True
    alarm.start()
    with process:
        if process.stderr is not None:
            errors.start()
        assert process.stdout is not None
        for line in shared.records(process.stdout, b"\n", shared.LONGEST_LINE):
            if not on_line(line):
                keep(line)
        if process.stderr is not None:
            errors.join()
        outcome.status = process.wait()
    alarm.cancel()
    outcome.seconds = time.monotonic() - started
    return outcome


def end(process: "subprocess.Popen[bytes]") -> None:
    """Asks a process and its children to end, then makes them."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)


def result_of(check: Check, outcome: Outcome, ran: bool, **facts: Any) -> Dict[str, Any]:
    """What is kept of a check."""
    if outcome.problem is None and not ran:
        outcome.problem = next((line for line in outcome.tail if line.startswith("error")), None) or next(
            (line for line in reversed(outcome.tail) if line.strip()),
            "it ended with status %s" % outcome.status,
        )
    words = (
        "could not run"
        if not ran
        else "timed out"
        if outcome.timed_out
        else "passed"
        if outcome.status == 0
        else "failed"
    )
    return {
        "kind": check.kind,
        "folder": shared.shown(check.folder),
        "command": " ".join(outcome.command),
        "outcome": words,
        "status": outcome.status,
        "problem": None if ran else outcome.problem,
        "seconds": round(outcome.seconds, 1),
        "tail": list(outcome.tail) if words != "passed" else [],
        **facts,
    }


def missing_packages(outcome: Outcome, first: str) -> None:
    """Says that it could not run for want of packages, and what makes it run."""
    why = outcome.problem or next((line for line in outcome.tail if line.strip()), "it could not run")
    outcome.problem = (
        "%s (packages that are not on this machine cannot be fetched, since there is no network here; run `%s` first)"
        % (why, first)
    )


def scratch(name: str, variable: str) -> str:
    """A folder of our own below HOME or TMPDIR."""
    root = Path(os.environ.get(variable) or os.environ.get("TMPDIR") or "/tmp") / "repository-health"
    path = root / name
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


# -------------------------------------------------------------------------------------------------------- the checks


def check_cargo(check: Check) -> Dict[str, Any]:
    """cargo check, with true counts of units, warnings and errors from its JSON messages."""
    folder, notes, lock = check.folder, [], ["--locked"]
    if not os.path.exists(os.path.join(folder, "Cargo.lock")):
        if not belongs_to_a_workspace_above(folder):
            copy = copy_tree(folder)
            if copy is None:
                return result_of(
                    check,
                    failed_start("cargo", "there is no Cargo.lock, and the tree is too large to copy"),
                    False,
                )
            folder, lock = copy, []
            notes.append(
                "there is no Cargo.lock: checked in a copy, with the newest versions that this machine has"
            )
    environment = {
        "CARGO_TARGET_DIR": scratch("target", "HOME"),
        "CARGO_TERM_COLOR": "never",
        "CARGO_TERM_PROGRESS_WHEN": "never",
    }
    result = run_cargo(check, folder, environment, [*lock, "--all-targets"])
    if result["outcome"] == "could not run":
        shared.tell_status("cargo check: packages of tests are missing; checking without tests")
        without_tests = run_cargo(check, folder, environment, lock)
        if without_tests["outcome"] != "could not run":
            notes.append("tests and examples were left out: %s" % result["problem"])
            result = without_tests
    return {**result, "notes": notes}


def run_cargo(check: Check, folder: str, environment: Dict[str, str], options: List[str]) -> Dict[str, Any]:
    """One cargo check with these options."""
    lock = [option for option in options if option == "--locked"]
    kinds = ["normal,build,dev", "normal,build"] if "--all-targets" in options else ["normal,build"]
    # What only tests need may never have been downloaded; a total without it is better than none.
    total = next((count for count in (count_units(folder, environment, lock, kind) for kind in kinds) if count), 0)
    diagnostics: Dict[str, Dict[str, None]] = {"error": {}, "warning": {}}
    seen = set()

    def on_line(line: bytes) -> bool:
        try:
            message = json.loads(line)
            reason = message["reason"]
        except (ValueError, KeyError, TypeError):
            return False
        if reason in ("compiler-artifact", "build-script-executed"):
            seen.add(message.get("package_id"))
            if total:
                shared.tell_progress(
                    min(len(seen) / total, 1.0), "cargo check: %d of %d packages" % (len(seen), total)
                )
            else:
                shared.tell_status("cargo check: %d packages" % len(seen))
        elif reason == "compiler-message":
            note_diagnostic(message.get("message") or {}, diagnostics)
        return True

    command = ["cargo", "check", "--workspace", "--offline", *options, "--message-format=json"]
    outcome = run(command, folder, environment, on_line, stdout_is="data")
    ran = (
        outcome.status == 0
        or bool(seen)
        or bool(diagnostics["error"])
        or any("could not compile" in line for line in outcome.tail)
    )
    if not ran and any(re.search(r"--offline|no matching package|failed to download", line) for line in outcome.tail):
        outcome.problem = next((line for line in outcome.tail if line.startswith("error")), None)
        missing_packages(outcome, "cargo fetch")
    errors, warnings = list(diagnostics["error"]), list(diagnostics["warning"])
    return result_of(
        check,
        outcome,
        ran,
        errors=len(errors),
        warnings=len(warnings),
        packages=len(seen),
        diagnostics=(errors + warnings)[:MOST_DIAGNOSTICS],
    )


def note_diagnostic(message: Dict[str, Any], kept: Dict[str, Dict[str, None]]) -> None:
    """Keeps a diagnostic of the compiler once, though a library and its tests both give it. The compiler's own summary
    lines have neither a code nor a span."""
    level = message.get("level")
    if (
        level not in kept
        or not (message.get("spans") or message.get("code"))
        or len(kept[level]) >= MOST_REMEMBERED
    ):
        return
    spans = [span for span in message.get("spans") or [] if span.get("is_primary")]
    place = "%s:%s: " % (spans[0].get("file_name"), spans[0].get("line_start")) if spans else ""
    kept[level][shared.shown("%s%s: %s" % (place, level, message.get("message", "")))[:300]] = None


def belongs_to_a_workspace_above(folder: str) -> bool:
    """Whether a Cargo.lock lies above, up to the workspace's top."""
    while folder not in (".", ""):
        folder = os.path.dirname(folder)
        if os.path.exists(os.path.join(folder, "Cargo.lock")):
            return True
    return False


def copy_tree(folder: str) -> Optional[str]:
    """A copy of the project's files in TMPDIR; None when it is too large."""
    target, copied = scratch("copy", "TMPDIR"), 0
    for path in shared.paths():
        source = os.fsdecode(path)
        if not os.path.isfile(source) or os.path.islink(source):
            continue
        copied += os.path.getsize(source)
        if copied > LARGEST_COPY:
            return None
        place = os.path.join(target, source)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        shutil.copyfile(source, place)
    return os.path.join(target, folder)


def count_units(folder: str, environment: Dict[str, str], lock: List[str], edges: str) -> int:
    """How many packages a check of these kinds of dependencies looks at on this platform; 0 when cargo cannot tell."""
    command = [
        "cargo",
        "tree",
        "--workspace",
        "--offline",
        *lock,
        "--edges",
        edges,
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]
    try:
        with subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            packages = {
                line.replace(b" (*)", b"").strip() for line in shared.records(process.stdout, b"\n", 4096)
            }
        return len(packages - {b""}) if process.returncode == 0 else 0
    except OSError:
        return 0


def failed_start(command: str, problem: str) -> Outcome:
    """The outcome of a command that was not started."""
    outcome = Outcome([command])
    outcome.problem = problem
    return outcome


def check_go(check: Check) -> Dict[str, Any]:
    """go vet, which compiles all packages and their tests."""
    environment = {
        "GOCACHE": scratch("go", "HOME"),
        "GOPATH": scratch("gopath", "TMPDIR"),
        "GOFLAGS": "-mod=vendor" if os.path.isdir(os.path.join(check.folder, "vendor")) else "-mod=readonly",
        "GOPROXY": "off",
        "GOSUMDB": "off",
        "GOTOOLCHAIN": "local",
    }
    outcome = run(["go", "vet", "./..."], check.folder, environment, lambda _line: False)
    lacking = r"GOPROXY=off|no required module provides package|missing go.sum entry|inconsistent vendoring"
    if outcome.status not in (None, 0) and any(re.search(lacking, line) for line in outcome.tail):
        outcome.problem = next(line for line in outcome.tail if re.search(lacking, line))
        missing_packages(outcome, "go mod vendor")
        return result_of(check, outcome, False)
    return result_of(check, outcome, outcome.status is not None)


def check_recipe(check: Check) -> Dict[str, Any]:
    """A recipe of the project's own, in a copy, since it may write anywhere in the tree."""
    command = [check.kind, check.recipe]
    copy = copy_tree(check.folder)
    if copy is None:
        return result_of(check, failed_start(" ".join(command), "the tree is too large to copy"), False)
    outcome = run(command, copy, {}, lambda _line: False)
    result = result_of(check, outcome, outcome.status is not None)
    return {**result, "notes": ["it ran in a copy of the tree, without network"]}


def check_npm(check: Check) -> Dict[str, Any]:
    """npm test."""
    manifest = json.loads(
        shared.read_text(os.fsencode(os.path.join(check.folder, "package.json")), 4 * 1024 * 1024) or "{}"
    )
    needs = {**(manifest.get("dependencies") or {}), **(manifest.get("devDependencies") or {})}
    if needs and not os.path.isdir(os.path.join(check.folder, "node_modules")):
        problem = (
            "its %d dependencies are not installed (no node_modules), and there is no network here; run `npm ci` first"
            % len(needs)
        )
        return result_of(check, failed_start("npm test", problem), False)
    environment = {
        "CI": "true",
        "NO_COLOR": "1",
        "npm_config_cache": scratch("npm", "TMPDIR"),
        "npm_config_update_notifier": "false",
        "npm_config_fund": "false",
        "npm_config_audit": "false",
    }
    outcome = run(["npm", "test"], check.folder, environment, lambda _line: False)
    missing = any(re.search(r": not found|command not found", line) for line in outcome.tail)
    return result_of(check, outcome, outcome.status is not None and not (outcome.status == 127 and missing))


_PERCENT = re.compile(rb"\[\s*(\d{1,3})%\]\s*$")
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)\b")
#: pytest's own statuses that say that tests were looked for: passed, failed, interrupted by errors, none found.
_PYTEST_RAN = {0, 1, 2, 5}


def check_pytest(check: Check) -> Dict[str, Any]:
    """pytest, with its percentages as progress."""
    tests: Dict[str, int] = {}

    def on_line(line: bytes) -> bool:
        match = _PERCENT.search(line)
        if match:
            shared.tell_progress(int(match.group(1)) / 100, "pytest")
        counts = _COUNT.findall(line.decode("utf-8", "replace"))
        if counts and b" in " in line:
            tests.update(
                {word.rstrip("s") if word == "errors" else word: int(count) for count, word in counts}
            )
        return False

    environment = {"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", "PY_COLORS": "0"}
    command = [python_of(check.folder), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    outcome = run(command, check.folder, environment, on_line)
    missing = any("No module named pytest" in line for line in outcome.tail)
    if missing:
        outcome.problem = next(line for line in outcome.tail if "No module named pytest" in line)
        missing_packages(outcome, "python3 -m venv .venv && .venv/bin/pip install pytest")
    return result_of(check, outcome, outcome.status in _PYTEST_RAN and not missing, tests=tests)


def python_of(folder: str) -> str:
    """The project's own interpreter, if it has a virtual environment."""
    for environment in (".venv", "venv"):
        program = os.path.join(folder, environment, "bin", "python")
        if os.access(program, os.X_OK):
            return os.path.abspath(program)
    return "python3"


RUN: Dict[str, Callable[[Check], Dict[str, Any]]] = {
    "cargo": check_cargo,
    "go": check_go,
    "just": check_recipe,
    "make": check_recipe,
    "npm": check_npm,
    "pytest": check_pytest,
}


def work() -> None:
    """The agent."""
    chosen, left_out = choose()
    results = [RUN[check.kind](check) for check in chosen]
    shared.write_json("checks.json", {"checks": results, "left_out": left_out})
    shared.tell_metrics(
        {
            "checks_passed": sum(1 for row in results if row["outcome"] == "passed"),
            "checks_failed": sum(1 for row in results if row["outcome"] in ("failed", "timed out")),
        }
    )
    for row in results:
        print("%s: %s%s" % (row["command"], row["outcome"], ": " + row["problem"] if row["problem"] else ""))
    for reason in left_out:
        print("left out: %s" % reason)
    if not results:
        print("no check command is known for this project")
    elif all(row["outcome"] == "could not run" for row in results):
        raise shared.CannotWork(
            "no check could be run: %s" % "; ".join(row["problem"] or row["command"] for row in results)
        )


if __name__ == "__main__":
    shared.main(work, "checks.json")
