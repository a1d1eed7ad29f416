"""Draws `chart.svg` from what the inventory and the history left: lines by language, commits by month.

Plain SVG without scripts, fonts or links, so that any viewer and any code host shows it.
"""

from __future__ import annotations

from html import escape
from typing import Any, Dict, List, Optional, Tuple

import shared

WIDTH = 860
MARGIN = 28
LABEL = 150
BAR = 22
COLUMNS = 170
LANGUAGES = 10
INK, FAINT, PAPER = "#1f2933", "#7b8794", "#ffffff"
COLOURS = [
    "#3b6fb6",
    "#d9822b",
    "#4c9f70",
    "#b5485d",
    "#7d5ba6",
    "#2f9aa0",
    "#a3873b",
    "#c06fa8",
    "#5f7f3f",
    "#6b7a90",
]


def text(x: float, y: float, words: str, size: int = 13, colour: str = INK, anchor: str = "start") -> str:
    """A line of text."""
    return '<text x="%.1f" y="%.1f" font-size="%d" fill="%s" text-anchor="%s">%s</text>' % (
        x,
        y,
        size,
        colour,
        anchor,
        escape(words),
    )


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A filled rectangle."""
    return '<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" fill="%s"/>' % (
        x,
        y,
        max(width, 1.0),
        height,
        colour,
    )


def languages_panel(rows: List[Tuple[str, int]], top: float) -> Tuple[List[str], float]:
    """Horizontal bars; returns the shapes and where they end."""
    shapes, y = [text(MARGIN, top + 16, "Lines by language", 16)], top + 30
    most, room = max((lines for _, lines in rows), default=0), WIDTH - 2 * MARGIN - LABEL - 90
    for place, (name, lines) in enumerate(rows):
        width = room * lines / most if most else 0
        shapes.append(text(MARGIN + LABEL - 10, y + 15, name, anchor="end"))
        shapes.append(bar(MARGIN + LABEL, y + 2, width, BAR - 6, COLOURS[place % len(COLOURS)]))
        shapes.append(text(MARGIN + LABEL + width + 8, y + 15, "{:,}".format(lines), 12, FAINT))
        y += BAR
    return shapes, y


def months_panel(rows: List[Dict[str, Any]], top: float) -> Tuple[List[str], float]:
    """One column for each month."""
    shapes, base = [text(MARGIN, top + 16, "Commits by month", 16)], top + 30 + COLUMNS
    most, room = max((row["commits"] for row in rows), default=0), WIDTH - 2 * MARGIN
    step = min(room / max(len(rows), 1), 80.0)
    every = max(1, -(-len(rows) // 12))
    for place, row in enumerate(rows):
        x = MARGIN + place * step
        height = (COLUMNS - 30) * row["commits"] / most if most else 0
        if row["commits"]:
            shapes.append(bar(x + step * 0.12, base - height, step * 0.76, height, COLOURS[0]))
            shapes.append(text(x + step / 2, base - height - 5, str(row["commits"]), 11, FAINT, "middle"))
        if place % every == 0:
            shapes.append(text(x + step / 2, base + 16, row["month"], 11, FAINT, "middle"))
    shapes.append(
        '<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/>'
        % (MARGIN, base, WIDTH - MARGIN, base, FAINT)
    )
    return shapes, base + 24


def draw(inventory: Optional[Dict[str, Any]], history: Optional[Dict[str, Any]]) -> Optional[str]:
    """The drawing, or None when there is nothing to draw."""
    shapes: List[str] = []
    end = 20.0
    languages = (inventory or {}).get("languages", {})
    rows = [
        (name, row["lines"])
        for name, row in shared.top(languages, LANGUAGES, lambda row: row["lines"])
        if row["lines"]
    ]
    if rows:
        shapes, end = languages_panel(rows, end)
    if history and history.get("available") and history.get("months"):
        more, end = months_panel(history["months"], end + (24 if shapes else 0))
        shapes += more
    if not shapes:
        return None
    height = int(end + 16)
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" '
        'aria-label="Lines by language and commits by month" font-family="system-ui, sans-serif">'
        % (WIDTH, height, WIDTH, height)
    )
    paper = '<rect width="%d" height="%d" fill="%s"/>' % (WIDTH, height, PAPER)
    return "\n".join([head, paper, *shapes, "</svg>"]) + "\n"


def work() -> None:
    """The task."""
    drawing = draw(
        shared.read_input("inventory", "inventory.json"), shared.read_input("history", "history.json")
    )
    if drawing is None:
        print("nothing to draw: no lines and no commits")
    else:
        print("chart: %s" % shared.write_result("chart.svg", drawing))


if __name__ == "__main__":
    shared.main(work, "chart.svg")
