"""History of the repository: activity, authors, churn and hot spots, from `git log`. Writes `history.json`.

A folder without git, and a repository without commits, are results too, not failures: `available` is false and
`reason` says why. A shallow clone is counted as far as it reaches, and says so. Merges count as commits, but what
they bring was counted where it was made.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Dict, List, Optional

import shared

#: Paths that are remembered; when there are more, those with the fewest commits are forgotten.
MOST_PATHS = 200_000
#: Authors that are remembered by name; the rest are counted together.
MOST_AUTHORS = 20_000
HOT_SPOTS = 15
AUTHORS = 15
MONTHS = 24

#: A record separator never starts a line of --numstat, and a unit separator is in no name that git accepts.
FORMAT = "%x1e%H%x1f%at%x1f%aN%x1f%P"


class Paths:
    """Commits and changed lines for each path."""

    def __init__(self) -> None:
        self.rows: Dict[bytes, List[int]] = {}
        self.forgotten = 0

    def count(self, path: bytes, added: int, removed: int) -> None:
        """Counts one change."""
        row = self.rows.setdefault(path, [0, 0, 0])
        row[0] += 1
        row[1] += added
        row[2] += removed
        if len(self.rows) > MOST_PATHS:
            kept = sorted(self.rows.items(), key=lambda item: item[1][0], reverse=True)[: MOST_PATHS // 2]
            self.forgotten += len(self.rows) - len(kept)
            self.rows = dict(kept)


class Log:
    """Reads the lines of `git log --numstat` one by one."""

    def __init__(self) -> None:
        self.commits = 0
        self.merges = 0
        self.added = 0
        self.removed = 0
        self.first: Optional[int] = None
        self.last: Optional[int] = None
        self.authors: Dict[str, Dict[str, int]] = {}
        self.months: Dict[str, int] = {}
        self.paths = Paths()
        self._author: Dict[str, int] = {}

    def line(self, line: bytes) -> bool:
        """Takes a line; true when a commit began with it."""
        if line.startswith(b"\x1e"):
            self._commit(line[1:].split(b"\x1f"))
            return True
        fields = line.split(b"\t", 2)
        if len(fields) == 3:
            # Git has "-" for both counts of a binary file.
            added, removed = (int(field) if field.isdigit() else 0 for field in fields[:2])
            self.added += added
            self.removed += removed
            self._author["added"] += added
            self._author["removed"] += removed
            self.paths.count(shared.unquote(fields[2]), added, removed)
        return False

    def _commit(self, fields: List[bytes]) -> None:
        when = int(fields[1]) if len(fields) > 1 and fields[1].lstrip(b"-").isdigit() else 0
        name = (shared.shown(fields[2]) if len(fields) > 2 else "") or "(no name)"
        self.commits += 1
        self.merges += len(fields) > 3 and b" " in fields[3]
        self.first = when if self.first is None else min(self.first, when)
        self.last = when if self.last is None else max(self.last, when)
        month = month_of(when)
        self.months[month] = self.months.get(month, 0) + 1
        if name not in self.authors and len(self.authors) >= MOST_AUTHORS:
            name = "(others)"
        self._author = self.authors.setdefault(name, {"commits": 0, "added": 0, "removed": 0, "last": when})
        self._author["commits"] += 1
        self._author["last"] = max(self._author["last"], when)


def month_of(when: int) -> str:
    """`2026-11`, in UTC; years that no calendar has become `unknown`."""
    try:
        return time.strftime("%Y-%m", time.gmtime(when))
    except (OverflowError, OSError, ValueError):
        return "unknown"


def day_of(when: Optional[int]) -> Optional[str]:
    """`2026-11-20`, in UTC."""
    try:
        return None if when is None else time.strftime("%Y-%m-%d", time.gmtime(when))
    except (OverflowError, OSError, ValueError):
        return None


def last_months(months: Dict[str, int], most: int) -> List[Dict[str, Any]]:
    """The last `most` months up to the newest commit, those without a commit included."""
    known = sorted(month for month in months if re.match(r"\d{4}-\d{2}$", month))
    if not known:
        return []
    year, month = (int(part) for part in known[-1].split("-"))
    rows: List[Dict[str, Any]] = []
    while len(rows) < most:
        name = "%04d-%02d" % (year, month)
        rows.append({"month": name, "commits": months.get(name, 0)})
        if name <= known[0]:
            break
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)
    return rows[::-1]


def few_who_did_half(authors: Dict[str, Dict[str, int]]) -> int:
    """The least number of authors who together made half of all commits."""
    counts = sorted((row["commits"] for row in authors.values()), reverse=True)
    half, sum_so_far = sum(counts) / 2, 0
    for place, count in enumerate(counts, 1):
        sum_so_far += count
        if sum_so_far >= half:
            return place
    return 0


def unavailable(reason: str) -> Dict[str, Any]:
    """The result when there is no history."""
    return {"available": False, "reason": reason}


def read_history() -> Dict[str, Any]:
    """Reads the history of the current folder's repository, as far as it touches that folder's branch."""
    reason = shared.why_no_git()
    if reason:
        return unavailable(reason)
    count = shared.git("rev-list", "--count", "HEAD")
    if count.returncode != 0:
        return unavailable("the repository has no commits yet")
    shallow = shared.git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
    branch = shared.git("rev-parse", "--abbrev-ref", "HEAD").stdout.strip()
    progress, log = shared.Progress(int(count.stdout)), Log()
    lines = shared.git_records(
        b"\n",
        "log",
        "--numstat",
        "--relative",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--format=" + FORMAT,
        "HEAD",
    )
    for line in lines:
        if log.line(line):
            progress.step("reading commit %d of %d" % (progress.done + 1, progress.total))
    return summary(log, shared.shown(branch), shallow)


def summary(log: Log, branch: str, shallow: bool) -> Dict[str, Any]:
    """What the report needs of a log."""
    hot = shared.top(log.paths.rows, HOT_SPOTS * 4, lambda row: row[0] * 1_000_000_000 + row[1] + row[2])
    hot_spots = [
        {"path": shared.shown(path), "commits": row[0], "added": row[1], "removed": row[2]}
        for path, row in hot
        if os.path.lexists(path)
    ]
    return {
        "available": True,
        "branch": branch,
        "shallow": shallow,
        "commits": log.commits,
        "merges": log.merges,
        "added": log.added,
        "removed": log.removed,
        "first_day": day_of(log.first),
        "last_day": day_of(log.last),
        "authors": len(log.authors),
        "half_of_commits_by": few_who_did_half(log.authors),
        "top_authors": [
            {"name": name, **row, "last": day_of(row["last"])}
            for name, row in shared.top(log.authors, AUTHORS, lambda row: row["commits"])
        ],
        "months": last_months(log.months, MONTHS),
        "hot_spots": hot_spots[:HOT_SPOTS],
        "paths": len(log.paths.rows) + log.paths.forgotten,
    }


def work() -> None:
    """The agent."""
    result = read_history()
    path = shared.write_json("history.json", result)
    if not result["available"]:
        print("no history: %s: %s" % (result["reason"], path))
        return
    shared.tell_metrics({"commits": result["commits"], "authors": result["authors"]})
    print(
        "%d commits by %d authors on %s: %s" % (result["commits"], result["authors"], result["branch"], path)
    )


if __name__ == "__main__":
    shared.main(work, "history.json")
