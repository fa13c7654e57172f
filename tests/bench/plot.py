"""Line plots as plain SVG, readable on light and on dark ground: colours are the page's own scheme's.

Both axes are logarithmic. A line's name stands at its end; names that would lie on each other are
moved apart.
"""

import math
from xml.sax.saxutils import escape

from systems import LABELS

WIDTH, HEIGHT = 820, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 240, 44, 52
LINE_HEIGHT = 16
TTFT_ORDER = ("sluice", "asyncio", "jobqueue", "calls", "hops")
STYLE = """
  text { font: 13px sans-serif; fill: #24292f }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .title { font-weight: bold }
  .line { fill: none; stroke-width: 2.2 }
  .c0 { stroke: #0969da } .c1 { stroke: #bc4c00 } .c2 { stroke: #1a7f37 }
  .c3 { stroke: #6e7781 } .c4 { stroke: #8250df }
  .dash { stroke-dasharray: 5 4 }
  .dot { fill: #ffffff; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .grid { stroke: #3d444d }
    .c0 { stroke: #58a6ff } .c1 { stroke: #f0883e } .c2 { stroke: #56d364 }
    .c3 { stroke: #9198a1 } .c4 { stroke: #d2a8ff }
    .dot { fill: #0d1117 }
  }
"""


class Axis:
    """A logarithmic axis from a power of ten's 1, 2 or 5 to another."""

    def __init__(self, values, begin, end):
        self.low = self._step(min(values), math.floor)
        self.high = max(self._step(max(values), math.ceil), self.low * 2)
        self._begin, self._end = begin, end

    @staticmethod
    def _step(value, towards):
        power = 10 ** math.floor(math.log10(value))
        steps = [power * step for step in (1, 2, 5, 10)]
        if towards is math.floor:
            return max(step for step in steps if step <= value * 1.0001)
        return min(step for step in steps if step >= value * 0.9999)

    def at(self, value):
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self._begin + part * (self._end - self._begin)

    def ticks(self):
        """1, 2 and 5 of each power; 1 alone where that would be many."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if len(powers) <= 5 else (1,)
        ticks = (step * 10.0 ** power for power in powers for step in steps)
        return [tick for tick in ticks if self.low * 0.999 <= tick <= self.high * 1.001]


def lines(title, x_title, series):
    """An SVG of `series`: (name, class, [(x, y)]). Points that are not above 0 are left out."""
    series = [(name, css, [p for p in points if p[0] > 0 and p[1] > 0])
              for name, css, points in series]
    series = [s for s in series if s[2]]
    if not series:
        return ""
    x_axis = Axis([x for s in series for x, _ in s[2]], LEFT, WIDTH - RIGHT)
    y_axis = Axis([y for s in series for _, y in s[2]], HEIGHT - BOTTOM, TOP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
           f'aria-label="{escape(title)}">', f"<style>{STYLE}</style>",
           f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
           f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">'
           f"{escape(x_title)}</text>"]
    out += grid_of(x_axis, y_axis)
    for name, css, points in series:
        path = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}" for x, y in points)
        out.append(f'<polyline class="line {css}" points="{path}"><title>{escape(name)}</title>'
                   "</polyline>")
        colour = css.split()[0]
        out += [f'<circle class="dot {colour}" cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}" r="3">'
                f"<title>{escape(name)}: {x:g}, {y:.3g}</title></circle>" for x, y in points]
    out += names_of(x_axis, y_axis, series)
    return "\n".join([*out, "</svg>", ""])


def grid_of(x_axis, y_axis):
    for tick in x_axis.ticks():
        x = x_axis.at(tick)
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>'
    for tick in y_axis.ticks():
        y = y_axis.at(tick)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'


def names_of(x_axis, y_axis, series):
    """Each name beside its line's end, none on another."""
    placed = sorted((y_axis.at(points[-1][1]), name, css.split()[0], x_axis.at(points[-1][0]))
                    for name, css, points in series)
    last = -math.inf
    for y, name, css, x in placed:
        last = max(y, last + LINE_HEIGHT)
        column = WIDTH - RIGHT + 26
        yield (f'<path class="line {css}" style="stroke-width:1" '
               f'd="M{x + 6:.1f},{y:.1f} L{column - 4},{last:.1f}"/>')
        yield f'<text x="{column}" y="{last + 4:.1f}">{escape(name)}</text>'


def ttft(result):
    """TTFT above ideal, p50, against streams."""
    series = []
    for nth, name in enumerate(TTFT_ORDER):
        rows = [row for row in result["rows"] if row["system"] == name and row["streams"]
                and not row.get("skipped")]
        key = "chain_ms" if name == "hops" else "overhead_ms"
        points = sorted((row["streams"], row[key]["p50"]) for row in rows)
        series.append((LABELS[name], f"c{nth}" + " dash" * (name in ("calls", "hops")), points))
    return lines("TTFT above the ideal, p50, ms", "concurrent streams", series)


def cpu(result):
    """Processors in use against the rate, own and with broker and Redis; rates that were held."""
    series = []
    for nth, name in enumerate(TTFT_ORDER[:3]):
        runs = [run for run in result["systems"].get(name, {}).get("runs", ()) if run["held"]]
        for key, css, words in (("own", "", ""), ("all", " dash", " + servers")):
            points = sorted((run["rate"], run["cores"][key]) for run in runs)
            if key == "own" or name != "asyncio":
                series.append((LABELS[name].split(",")[0] + words, f"c{nth}{css}", points))
    return lines("processors in use, latencies 0, 16 tokens", "requests a second", series)
