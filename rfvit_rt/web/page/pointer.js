// SPDX-License-Identifier: Apache-2.0
// Mouse, pen and finger on the waterfall: point, select, drag edges, draw, scroll and zoom.

import { edgesAt } from "./boxes.js";

const CLICK = 4; // pixels that a click may move

export class Pointer {
  /**
   * @param {HTMLCanvasElement} element
   * @param {object} to - frame(), draft() (a box whose edges can be dragged, or null), isDrawing(); onPoint(x, y),
   *   onLeave(), onClick(x, y), onEdges(values), onDraw(from, to), onDrawn(from, to), onCancel(), onPan(time), onZoom(steps)
   */
  constructor(element, to) {
    this.element = element;
    this.to = to;
    /** What is being dragged: {kind, from, …}; null while nothing is. */
    this.drag = null;
    element.addEventListener("pointerdown", (event) => this.press(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    element.addEventListener("pointerup", (event) => this.release(event));
    element.addEventListener("pointercancel", () => this.cancel());
    element.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.to.onLeave(); // a finger leaves its mark
    });
    element.addEventListener("wheel", (event) => this.turn(event), { passive: false });
  }

  press(event) {
    const frame = this.to.frame();
    if (event.button !== 0 || !event.isPrimary || !frame) return;
    const { x, y } = place(event);
    const draft = this.to.draft();
    const edges = draft ? edgesAt(frame, draft, x, y) : [];
    const canPan = event.pointerType === "mouse"; // a finger scrolls the page
    if (!frame.contains(x, y) && !edges.length) return;
    if (this.to.isDrawing()) this.drag = { kind: "draw" };
    else if (edges.length) this.drag = { kind: "edges", edges, draft: { ...draft } };
    else this.drag = { kind: canPan ? "pan" : "none", timeEnd: frame.timeEnd };
    Object.assign(this.drag, { x, y, frame, hasMoved: false });
    if (this.drag.kind !== "none") this.element.setPointerCapture(event.pointerId);
  }

  move(event) {
    const { x, y } = place(event);
    this.to.onPoint(x, y);
    const { drag } = this;
    if (!drag) {
      this.showWhatCanBeDragged(x, y);
      return;
    }
    drag.hasMoved ||= Math.hypot(x - drag.x, y - drag.y) > CLICK;
    if (!drag.hasMoved) return;
    const { frame } = drag;
    if (drag.kind === "pan") this.to.onPan(drag.timeEnd + frame.time(drag.y) - frame.time(y));
    if (drag.kind === "draw" && this.to.isDrawing()) this.to.onDraw(at(frame, drag.x, drag.y), at(frame, x, y));
    if (drag.kind === "edges") this.to.onEdges(movedEdges(drag, at(frame, x, y)));
  }

  release(event) {
    const { drag } = this;
    this.drag = null;
    if (!drag || (drag.kind === "draw" && !this.to.isDrawing())) return; // or given up by key
    const { x, y } = place(event);
    if (!drag.hasMoved) this.to.onClick(x, y);
    else if (drag.kind === "draw") this.to.onDrawn(at(drag.frame, drag.x, drag.y), at(drag.frame, x, y));
  }

  cancel() {
    this.drag = null;
    this.to.onCancel();
  }

  turn(event) {
    const frame = this.to.frame();
    if (!frame || !event.deltaY) return;
    event.preventDefault();
    if (event.ctrlKey) this.to.onZoom(Math.sign(event.deltaY));
    else this.to.onPan(frame.timeEnd - Math.sign(event.deltaY) * 0.1 * (frame.timeEnd - frame.timeStart));
  }

  showWhatCanBeDragged(x, y) {
    const frame = this.to.frame();
    const draft = this.to.draft();
    const edges = frame && draft && !this.to.isDrawing() ? edgesAt(frame, draft, x, y) : [];
    this.element.dataset.grip = edges.map((name) => (name.startsWith("freq") ? "x" : "y")).join("");
  }
}

function place(event) {
  return { x: event.offsetX, y: event.offsetY };
}

/** The time and frequency at a place, not beyond the frame. */
function at(frame, x, y) {
  const inside = (value, least, most) => Math.max(least, Math.min(most, value));
  return {
    frequency: frame.frequency(inside(x, frame.left, frame.right)),
    time: Math.max(0, frame.time(inside(y, frame.top, frame.bottom))),
  };
}

/** A box's edges where a pointer has dragged them; they never cross. */
function movedEdges({ edges, draft, frame }, { time, frequency }) {
  const least = { freq: frame.frequency(1) - frame.frequency(0), time: frame.time(0) - frame.time(1) }; // a pixel
  const moved = {
    freq_lower_edge: Math.min(frequency, draft.freq_upper_edge - least.freq),
    freq_upper_edge: Math.max(frequency, draft.freq_lower_edge + least.freq),
    time_start: Math.min(time, draft.time_end - least.time),
    time_end: Math.max(time, draft.time_start + least.time),
  };
  return Object.fromEntries(edges.map((name) => [name, moved[name]]));
}
