#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn every .grc here into Python, with GNU Radio's own compiler, and draw it as SVG.

    /usr/bin/python3 flowgraphs/build.py [--output FOLDER] [NAME ...]

To be run in GNU Radio's Python; needs neither a display nor GTK, which GNU Radio Companion's own drawing does.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BLOCK_PATHS = [FOLDER.parent / "gr_blocks" / "grc", FOLDER / "grc"]
PYTHON_PATHS = [FOLDER, FOLDER.parent / "gr_blocks" / "python", FOLDER.parent]

# The drawing, in pixels.
LINE, MARGIN, CHARACTER, LONGEST_VALUE, MOST_LINES, BACKWARD_DIP = 16, 10, 6.4, 34, 7, 100
BORING = {"alias", "affinity", "minoutbuf", "maxoutbuf", "comment", "short_id", "type", "vlen", "id", "hide"}
STYLE = (
    "text{font:11px sans-serif;fill:#222}.title{font-weight:bold}.block{fill:#f4f6fa;stroke:#445}"
    ".value{fill:#fff8e6;stroke:#a98}.port{fill:#445}.message{stroke-dasharray:5 4}path{fill:none;stroke:#445}"
)


def main() -> None:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="flowgraphs, without .grc; all by default")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to")
    arguments = parser.parse_args()
    files = [FOLDER / f"{name}.grc" for name in arguments.names] or sorted(FOLDER.glob("*.grc"))
    set_environment()
    compile_all(files, arguments.output)
    pictures = arguments.output / "pictures"
    pictures.mkdir(exist_ok=True)
    platform = load_platform()
    for file in files:
        (pictures / f"{file.stem}.svg").write_text(draw(platform, file), encoding="utf-8")


def set_environment() -> None:
    """Let GNU Radio find the blocks of this checkout, before anything of it is imported."""
    for name, paths in (("GRC_BLOCKS_PATH", BLOCK_PATHS), ("PYTHONPATH", PYTHON_PATHS)):
        os.environ[name] = os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get(name)])])
    sys.path[:0] = map(str, PYTHON_PATHS)


def compile_all(files: list[Path], output: Path) -> None:
    """Run grcc; it says what is wrong and exits with 0, so its words count."""
    command = ["grcc", "-o", str(output), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    written = done.stdout.count("Generating:")
    if done.returncode or written != len(files) or "Error" in done.stdout:
        sys.exit(f"grcc compiled {written} of {len(files)} flowgraphs:\n{done.stdout}{done.stderr}")


def load_platform():
    """GNU Radio Companion without its windows."""
    from gnuradio import gr
    from gnuradio.grc.core.platform import Platform

    parts = (gr.major_version(), gr.api_version(), gr.minor_version())
    platform = Platform(name="rfvit", prefs=gr.prefs(), version=gr.version(), version_parts=parts)
    platform.build_library()
    return platform


def draw(platform, file: Path) -> str:
    """One flowgraph as SVG: its blocks where GNU Radio Companion has them."""
    flowgraph = platform.make_flow_graph(str(file))
    flowgraph.rewrite()
    boxes = {block.name: Box(block) for block in flowgraph.blocks if block.enabled}
    lines = [connection_path(connection, boxes) for connection in flowgraph.connections]
    width = max(box.x + box.width for box in boxes.values()) + MARGIN
    height = max(box.y + box.height for box in boxes.values()) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<!-- SPDX-License-Identifier: GPL-3.0-or-later; drawn by build.py from {file.name} -->",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        *sorted(lines),
        *(boxes[name].svg() for name in sorted(boxes)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class Box:
    """A block as it is drawn: title, what is set, ports."""

    def __init__(self, block) -> None:
        self.x, self.y = (float(value) for value in block.states["coordinate"])
        self.is_value = not (block.sources or block.sinks)
        self.title = block.label if block.key != "options" else block.params["title"].get_value()
        self.lines = [] if block.key == "options" else list(settings(block))
        self.ports = {id(port): (0.0, 0.0) for port in [*block.sinks, *block.sources]}
        longest = max(len(line) for line in [self.title + "  ", *self.lines])
        self.width = longest * CHARACTER + 2 * MARGIN
        ports = max(len(block.sinks), len(block.sources))
        self.height = max(LINE * (len(self.lines) + 1), 20 * ports) + MARGIN
        for side, offset in ((block.sinks, 0.0), (block.sources, self.width)):
            for number, port in enumerate(side):
                self.ports[id(port)] = (self.x + offset, self.y + self.height * (number + 1) / (len(side) + 1))

    def svg(self) -> str:
        """The box."""
        kind = "value" if self.is_value else "block"
        parts = [
            f'<rect class="{kind}" x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" height="{self.height:g}"/>'
        ]
        for number, line in enumerate([self.title, *self.lines]):
            style = ' class="title"' if number == 0 else ""
            place = f'x="{self.x + MARGIN:g}" y="{self.y + LINE * (number + 1):g}"'
            parts.append(f"<text{style} {place}>{escape(line)}</text>")
        parts += [f'<circle class="port" cx="{x:g}" cy="{y:g}" r="3"/>' for x, y in self.ports.values()]
        return "".join(parts)


def settings(block):
    """Lines that say what is set in a block: its name, then what GNU Radio Companion shows of it."""
    if block.key in ("parameter", "variable"):
        value = block.params["value"].get_value()
        yield shorten(f"{block.name} = {value or '(empty)'}")
        return
    if block.key == "import":
        yield shorten(block.params["imports"].get_value())
        return
    yield block.name
    if block.key == "snippet":
        return
    shown = [
        f"{param.name}: {param.get_value()}"
        for key, param in block.params.items()
        if key not in BORING and param.hide == "none" and param.get_value() not in ("", '""')
    ]
    yield from map(shorten, shown[:MOST_LINES])


def shorten(text: str) -> str:
    """One line, not too long."""
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def connection_path(connection, boxes: dict[str, Box]) -> str:
    """A curve from port to port; dashed where messages flow."""
    x1, y1 = boxes[connection.source_block.name].ports[id(connection.source_port)]
    x2, y2 = boxes[connection.sink_block.name].ports[id(connection.sink_port)]
    bend = max(40.0, abs(x2 - x1) / 2) if x2 > x1 else 60.0
    dip = 0.0 if x2 > x1 else BACKWARD_DIP
    style = ' class="message"' if connection.source_port.domain == "message" else ""
    curve = f"C{x1 + bend:g} {y1 + dip:g} {x2 - bend:g} {y2 + dip:g} {x2:g} {y2:g}"
    return f'<path{style} d="M{x1:g} {y1:g}{curve}"/>'


if __name__ == "__main__":
    main()
