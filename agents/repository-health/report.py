"""Gathers what the other agents left in `$TOKA_INPUTS/<agent>/` into one `report.md`.

Whatever is missing is named as missing; nothing is made up for it. Names out of the repository are set as code, with
whatever could be read as markup taken from them.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Iterable, List, Optional, Sequence

import shared

BAR_WIDTH = 24
EIGHTHS = " ▏▎▍▌▋▊▉"
COLUMN_HEIGHTS = " ▁▂▃▄▅▆▇█"
ROWS = 12

Section = List[str]


def code(text: object) -> str:
    """Untrusted text as inline code, also inside a table."""
    words = shared.shown(text).replace("|", "\\|")
    fence = "``" if "`" in words else "`"
    space = " " if "`" in words else ""
    return fence + space + words + space + fence


def plain(text: object) -> str:
    """Untrusted text as prose: whatever Markdown or HTML could read in it is escaped."""
    return "".join("\\" + c if c in "\\`*_{}[]<>()#+!|~$&" else c for c in shared.shown(text))


def number(value: float) -> str:
    """12,345"""
    return "{:,}".format(int(value))


def count(value: float, one: str, many: Optional[str] = None) -> str:
    """1 file, 2 files."""
    return "%s %s" % (number(value), one if value == 1 else many or one + "s")


def bar(value: float, most: float) -> str:
    """A bar of block characters, exact to an eighth of a character; never empty for what is not zero."""
    eighths = round(BAR_WIDTH * 8 * value / most) if most > 0 else 0
    if value > 0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def columns(values: Sequence[float]) -> str:
    """One character for each value."""
    most = max(values, default=0)
    if most <= 0:
        return ""
    return "".join(COLUMN_HEIGHTS[max(round(8 * value / most), 1 if value > 0 else 0)] for value in values)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Section:
    """A Markdown table; a head that ends with `:` is set to the right."""
    lines = ["| " + " | ".join(head.rstrip(":") for head in heads) + " |"]
    lines.append("|" + "|".join("---:" if head.endswith(":") else "---" for head in heads) + "|")
    lines.extend("| " + " | ".join(row) + " |" for row in rows)
    return lines + [""]


def missing(agent: str) -> Section:
    """The section of an agent that left nothing."""
    return ["The agent `%s` left nothing in this run; its log says why." % agent, ""]


# --------------------------------------------------------------------------------------------------------- sections


def inventory_section(data: Optional[Dict[str, Any]]) -> Section:
    """The tree."""
    if data is None:
        return missing("inventory")
    totals = data["totals"]
    lines = [
        "%s, %s, %s."
        % (count(totals["files"], "file"), count(totals["lines"], "line"), shared.size(totals["bytes"]))
    ]
    asides = [
        ("links", "symbolic link", "symbolic links"),
        ("special", "other entry", "other entries"),
        ("missing", "tracked but deleted file", "tracked but deleted files"),
        ("empty", "empty file", "empty files"),
    ]
    extra = [count(totals[key], one, many) for key, one, many in asides if totals[key]]
    if extra:
        lines.append("Besides: %s." % ", ".join(extra))
    if data["listed_by"] != "git":
        lines.append(
            "Git could not list the tree, so folders such as `target` and `node_modules` were left out by name."
        )
    lines.append("")
    languages = shared.top(data["languages"], ROWS, lambda row: row["lines"] + row["bytes"] * 1e-15)
    most = max((row["lines"] for _, row in languages), default=0)
    all_lines = max(totals["lines"], 1)
    if languages:
        lines += ["### Languages", ""]
        lines += table(
            ["Language", "Files:", "Lines:", "Share:", "", "Size:"],
            (
                [
                    name,
                    number(row["files"]),
                    number(row["lines"]),
                    "%.1f %%" % (100 * row["lines"] / all_lines),
                    bar(row["lines"], most),
                    shared.size(row["bytes"]),
                ]
                for name, row in languages
            ),
        )
        lines += ["### Folders", ""]
        folders = shared.top(data["folders"], ROWS, lambda row: row["bytes"])
        most = max(row["bytes"] for _, row in folders)
        lines += table(
            ["Folder", "Files:", "Lines:", "Size:", ""],
            (
                [
                    code(name),
                    number(row["files"]),
                    number(row["lines"]),
                    shared.size(row["bytes"]),
                    bar(row["bytes"], most),
                ]
                for name, row in folders
            ),
        )
        lines += ["### Largest files", ""]
        lines += table(
            ["File", "Size:", "Lines:"],
            (
                [code(row["path"]), shared.size(row["bytes"]), number(row["lines"]) if row["lines"] else "–"]
                for row in data["largest"][:10]
            ),
        )
    return lines


def history_section(data: Optional[Dict[str, Any]]) -> Section:
    """The history."""
    if data is None:
        return missing("history")
    if not data["available"]:
        return ["No history: %s." % plain(data["reason"]).rstrip("."), ""]
    lines = [
        "%s (%s) by %s on %s, from %s to %s; %s lines added, %s removed."
        % (
            count(data["commits"], "commit"),
            count(data["merges"], "merge"),
            count(data["authors"], "author"),
            code(data["branch"]),
            data["first_day"],
            data["last_day"],
            number(data["added"]),
            number(data["removed"]),
        ),
        "Half of the commits were made by %s." % count(data["half_of_commits_by"], "person", "people"),
    ]
    if data["shallow"]:
        lines.append("The clone is shallow: this is only as far as it reaches.")
    lines.append("")
    if data["months"]:
        months = data["months"]
        lines += [
            "Commits by month, %s to %s: `%s`"
            % (months[0]["month"], months[-1]["month"], columns([row["commits"] for row in months])),
            "",
        ]
    most = max((row["commits"] for row in data["top_authors"]), default=0)
    lines += ["### Authors", ""]
    lines += table(
        ["Author", "Commits:", "", "Added:", "Removed:", "Last"],
        (
            [
                plain(row["name"]),
                number(row["commits"]),
                bar(row["commits"], most),
                number(row["added"]),
                number(row["removed"]),
                row["last"] or "–",
            ]
            for row in data["top_authors"][:10]
        ),
    )
    if data["hot_spots"]:
        most = max(row["commits"] for row in data["hot_spots"])
        lines += ["### Hot spots", "", "The files that change most often; a defect in them is met first.", ""]
        lines += table(
            ["File", "Commits:", "", "Added:", "Removed:"],
            (
                [
                    code(row["path"]),
                    number(row["commits"]),
                    bar(row["commits"], most),
                    number(row["added"]),
                    number(row["removed"]),
                ]
                for row in data["hot_spots"][:ROWS]
            ),
        )
    return lines


def dependencies_section(data: Optional[Dict[str, Any]]) -> Section:
    """Lock files and licences."""
    if data is None:
        return missing("dependencies")
    if not data["locks"]:
        lines = ["No lock files.", ""]
    else:
        lines = [
            "%s in %s; %s in more than one version; %s not known on this machine."
            % (
                count(data["packages"], "package"),
                count(len(data["locks"]), "lock file"),
                number(data["duplicate_count"]),
                count(data["licence_unknown"], "licence"),
            ),
            "",
        ]
        lines += table(
            ["Lock file", "Kind", "Packages:", "Own:", "Remark"],
            (
                [
                    code(row["path"]),
                    row["ecosystem"],
                    number(row["packages"]),
                    number(row["own"]),
                    plain(row["problem"] or ""),
                ]
                for row in data["locks"][:30]
            ),
        )
    if data["unpinned"]:
        lines += [
            "%s without a fixed version." % count(data["unpinned"], "requirement is", "requirements are"),
            "",
        ]
    if data["unlocked"]:
        lines += [
            "Manifests without a lock file: %s." % ", ".join(code(path) for path in data["unlocked"][:10]),
            "",
        ]
    if data["licences"]:
        most = max(data["licences"].values())
        lines += ["### Licences", ""]
        lines += table(
            ["Licence", "Packages:", ""],
            (
                [plain(name), number(packages), bar(packages, most)]
                for name, packages in shared.top(data["licences"], ROWS, lambda value: value)
            ),
        )
    if data["look_at"]:
        lines += ["Licences that ask for more than attribution, for a person to look at:", ""]
        lines += [
            "- %s %s: %s" % (code(row["name"]), plain(row["version"]), plain(row["licence"]))
            for row in data["look_at"][:20]
        ] + [""]
    if data["duplicates"]:
        lines += ["### In several versions", ""]
        lines += table(
            ["Package", "Kind", "Versions"],
            (
                [code(row["name"]), row["ecosystem"], plain(", ".join(row["versions"]))]
                for row in data["duplicates"][:ROWS]
            ),
        )
    return lines


def checks_section(data: Optional[Dict[str, Any]]) -> Section:
    """The project's own check."""
    if data is None:
        return missing("checks")
    if not data["checks"]:
        return ["No check command is known for this project (looked for cargo, go, npm, pytest, just and make).", ""]
    lines: Section = []
    for row in data["checks"]:
        lines += ["### %s: %s" % (row["kind"], row["outcome"]), ""]
        lines.append(
            "%s in %s took %.1f s and %s."
            % (code(row["command"]), code(row["folder"]), row["seconds"], said(row))
        )
        lines.extend("Note: %s." % plain(note) for note in row.get("notes", []))
        if row["problem"]:
            lines.append("Why: %s" % plain(row["problem"]))
        lines.append("")
        shown_lines = row.get("diagnostics") or (row["tail"] if row["outcome"] != "passed" else [])
        if shown_lines:
            # Four spaces make code of any text; there is no fence in it to break out of.
            lines += ["    " + line for line in shown_lines[-20:]] + [""]
    for reason in data.get("left_out", []):
        lines += ["Left out: %s." % plain(reason), ""]
    return lines


def said(row: Dict[str, Any]) -> str:
    """The end of a check in words."""
    facts = []
    if "errors" in row:
        facts += [
            count(row["errors"], "error"),
            count(row["warnings"], "warning"),
            "%s looked at" % count(row["packages"], "package"),
        ]
    facts += ["%d %s" % (value, word) for word, value in sorted(row.get("tests", {}).items())]
    status = "" if row["status"] is None else " with status %d" % row["status"]
    return "%s%s%s" % (row["outcome"], status, " (%s)" % ", ".join(facts) if facts else "")


# ------------------------------------------------------------------------------------------------------------ report


def summary(inputs: Dict[str, Optional[Dict[str, Any]]]) -> Section:
    """The few figures at the top."""
    rows: List[Sequence[str]] = []
    inventory, history, dependencies, checks = (
        inputs[name] for name in ("inventory", "history", "dependencies", "checks")
    )
    if inventory:
        rows.append(
            [
                "Files, lines, size",
                "%s, %s, %s"
                % (
                    number(inventory["totals"]["files"]),
                    number(inventory["totals"]["lines"]),
                    shared.size(inventory["totals"]["bytes"]),
                ),
            ]
        )
        languages = shared.top(inventory["languages"], 3, lambda row: row["lines"])
        rows.append(["Main languages", ", ".join(name for name, row in languages if row["lines"]) or "–"])
    if history and history["available"]:
        rows.append(["Commits, authors", "%s, %s" % (number(history["commits"]), number(history["authors"]))])
        rows.append(["Last commit", history["last_day"] or "–"])
    if dependencies:
        rows.append(["Locked packages", number(dependencies["packages"])])
    if checks:
        rows.append(
            [
                "Checks",
                ", ".join("%s %s" % (row["kind"], row["outcome"]) for row in checks["checks"])
                or "none known",
            ]
        )
    return table(["Figure", "Value"], rows) if rows else []


def compose(inputs: Dict[str, Optional[Dict[str, Any]]], name: str, when: str, has_chart: bool) -> str:
    """The whole report."""
    lines = ["# Repository health: %s" % plain(name), "", "Made on %s." % when, ""]
    lines += summary(inputs)
    if has_chart:
        lines += ["![Lines by language and commits by month](chart.svg)", ""]
    for title, section in (
        ("Inventory", inventory_section(inputs["inventory"])),
        ("History", history_section(inputs["history"])),
        ("Dependencies", dependencies_section(inputs["dependencies"])),
        ("Checks", checks_section(inputs["checks"])),
    ):
        lines += ["## " + title, "", *section]
    return "\n".join(lines).rstrip("\n") + "\n"


def work() -> None:
    """The task."""
    agents = ("inventory", "history", "dependencies", "checks")
    inputs = {agent: shared.read_input(agent, agent + ".json") for agent in agents}
    if all(value is None for value in inputs.values()):
        raise shared.CannotWork(
            "no agent left anything to report (TOKA_INPUTS is %s)"
            % (os.environ.get("TOKA_INPUTS") or "not set")
        )
    name = os.environ.get("TOKA_PROJECT") or os.path.basename(os.getcwd())
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    has_chart = (shared.artifacts() / "chart.svg").exists()
    path = shared.write_result("report.md", compose(inputs, name, when, has_chart))
    print("report: %s" % path)


if __name__ == "__main__":
    shared.main(work, "report.md")
