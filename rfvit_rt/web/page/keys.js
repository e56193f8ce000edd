// SPDX-License-Identifier: Apache-2.0
// The keyboard: one table that both the page and its help go by.

import { element } from "./panels.js";

/** Keys as KeyboardEvent.key names them, what the help calls them, and what they do. "plot" ones act there alone. */
export const KEYS = [
  { keys: [" "], name: "Space", does: "pause, or go on", action: "pause" },
  { keys: ["PageDown"], name: "Page Down", does: "back in time", action: "older" },
  { keys: ["PageUp"], name: "Page Up", does: "forward in time", action: "newer" },
  { keys: ["Home"], name: "Home", does: "to the newest", action: "newest" },
  { keys: ["+", "="], name: "+", does: "show a shorter time", action: "zoomIn" },
  { keys: ["-"], name: "−", does: "show a longer time", action: "zoomOut" },
  { keys: ["[", "]"], name: "[ ]", does: "mask fainter, stronger", action: "opacity" },
  { keys: [..."123456789"], name: "1 … 9", does: "show or hide a label", action: "toggleLabel" },
  {
    keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"],
    name: "Arrows",
    does: "move the cursor by a pixel; with Shift by ten (on the waterfall)",
    action: "moveCursor",
    plot: true,
  },
  { keys: ["Enter"], name: "Enter", does: "select the box at the cursor; set a corner", action: "enter", plot: true },
  { keys: ["n", "p"], name: "N P", does: "next box, box before", action: "neighbour" },
  { keys: ["e"], name: "E", does: "edit the selected box", action: "edit" },
  { keys: ["d"], name: "D", does: "draw a new box: Enter sets its corners", action: "draw" },
  { keys: ["Delete"], name: "Delete", does: "delete the selected box (on the waterfall)", action: "delete", plot: true },
  { keys: ["Escape"], name: "Esc", does: "cancel, or deselect", action: "cancel" },
  { keys: ["s"], name: "S", does: "save the last seconds", action: "save" },
  { keys: ["t"], name: "T", does: "dark or light", action: "theme" },
  { keys: ["?"], name: "?", does: "this list", action: "help" },
];

/** The entry for a key event, or null where the key means something else there. */
export function entryFor(event, plot, singleKeys) {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const entry = KEYS.find(({ keys }) => keys.includes(key));
  if (!entry) return null;
  const onPlot = event.target === plot;
  if (onPlot) return entry;
  // Elsewhere people type, choose and press buttons.
  const isControl = event.target.closest("input, select, textarea, button, a, dialog, summary");
  if (entry.action === "cancel") return event.target.closest("dialog") ? null : entry;
  if (entry.plot || isControl || !singleKeys) return null;
  return entry;
}

/** Write the table into the help. */
export function fillHelp(list) {
  const parts = KEYS.flatMap(({ name, does }) => {
    const term = element("dt");
    term.append(element("kbd", name));
    return [term, element("dd", does)];
  });
  list.replaceChildren(...parts);
}
