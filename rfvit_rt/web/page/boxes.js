// SPDX-License-Identifier: Apache-2.0
// Annotations: what is known of them, which lies where, and how they are drawn.

import { bandwidth, percent } from "./axes.js";
import { UNLABELLED } from "./colours.js";

const MOST_BOXES = 10000; // as many as the server keeps; the oldest go first
const GRIP = 6; // pixels from an edge that still take hold of it
const SMALL = 9; // pixels of height or width, below which a box is but a thin line
const END = 5; // pixels of a flat box's ends
const TAG_HEIGHT = 17;
const TAG_FONT = "600 12px system-ui, sans-serif";

export class Boxes {
  constructor() {
    this.byId = new Map();
  }

  clear() {
    this.byId.clear();
  }

  get(id) {
    return this.byId.get(id) ?? null;
  }

  add(box) {
    this.byId.set(box.id, box);
    if (this.byId.size > MOST_BOXES) this.byId.delete(this.byId.keys().next().value);
  }

  remove(id) {
    this.byId.delete(id);
  }

  /** Boxes of labels that are not hidden and that lie in a frame, at least in part. */
  in(frame, hidden) {
    return [...this.byId.values()].filter(
      (box) =>
        !hidden.has(box.label) &&
        box.time_end > frame.timeStart &&
        box.time_start < frame.timeEnd &&
        box.freq_upper_edge > frame.lowEdge &&
        box.freq_lower_edge < frame.highEdge,
    );
  }

  /** The smallest box about a place, since a larger one can be reached beside it. */
  at(frame, hidden, time, frequency) {
    const around = this.in(frame, hidden).filter(
      (box) =>
        box.time_start <= time &&
        time < box.time_end &&
        box.freq_lower_edge <= frequency &&
        frequency < box.freq_upper_edge,
    );
    return around.sort((one, other) => area(one) - area(other))[0] ?? null;
  }

  /** The box after another one, or before it, in the order of time and frequency. */
  neighbour(frame, hidden, id, step) {
    const order = this.in(frame, hidden).sort(
      (one, other) => one.time_start - other.time_start || one.freq_lower_edge - other.freq_lower_edge,
    );
    if (!order.length) return null;
    const here = order.findIndex((box) => box.id === id);
    const next = here < 0 ? (step > 0 ? 0 : order.length - 1) : (here + step + order.length) % order.length;
    return order[next];
  }
}

/**
 * Which edges of a box a pointer takes hold of.
 *
 * @returns {string[]} names of the box's fields; none away from its edges
 */
export function edgesAt(frame, box, x, y) {
  const [left, right] = [frame.x(box.freq_lower_edge), frame.x(box.freq_upper_edge)];
  const [top, bottom] = [frame.y(box.time_end), frame.y(box.time_start)];
  if (x < left - GRIP || x > right + GRIP || y < top - GRIP || y > bottom + GRIP) return [];
  // The nearer of two edges, so that a narrow box can be made wider.
  const nearer = (place, one, other, names) => {
    const [distance, name] = [Math.abs(place - one), Math.abs(place - other)].map((away, side) => [away, names[side]])
      .sort((a, b) => a[0] - b[0])[0];
    return distance <= GRIP ? [name] : [];
  };
  return [
    ...nearer(x, left, right, ["freq_lower_edge", "freq_upper_edge"]),
    ...nearer(y, top, bottom, ["time_end", "time_start"]),
  ];
}

/** What a box says of itself: label, bandwidth, confidence, and whether a person said so. */
export function describe(box) {
  const width = bandwidth(box.freq_upper_edge - box.freq_lower_edge);
  const sureness = box.origin === "model" ? percent(box.confidence) : box.origin;
  return `${box.label} ${width} ${sureness}`;
}

/**
 * Draw boxes, then their tags where there is room for them.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {object} frame
 * @param {object[]} boxes
 * @param {Map<string, object>} looks - as looksOf gives it
 * @param {object|null} selected - the box to draw last and thick
 */
export function drawBoxes(context, frame, boxes, looks, selected) {
  const order = boxes.filter((box) => box !== selected).sort((one, other) => area(other) - area(one));
  for (const box of order) outline(context, frame, box, looks, false);
  if (selected) outline(context, frame, selected, looks, true);
  const taken = [];
  context.font = TAG_FONT;
  context.textBaseline = "middle";
  context.textAlign = "left";
  if (selected) drawTag(context, frame, selected, looks, taken, true);
  for (const box of order) drawTag(context, frame, box, looks, taken, false);
}

function outline(context, frame, box, looks, isSelected) {
  const look = looks.get(box.label) ?? UNLABELLED;
  const [x, y, width, height] = rectangle(frame, box);
  context.setLineDash([]);
  if (!isSelected && Math.min(width, height) < SMALL) {
    context.strokeStyle = look.colour;
    context.lineWidth = 1;
    const [left, top, right] = [x, y, x + width].map(Math.round);
    // Flat ones have ends alone: bursts one above the other would hide all that lies below them.
    const isFlat = height < SMALL && width > 3 * END;
    for (const [from, to] of isFlat ? [[left, left + END], [right - END, right]] : [[left, right]]) {
      context.strokeRect(from + 0.5, top + 0.5, to - from - 1, Math.round(height) - 1);
    }
    return;
  }
  // Dark below and colour above: to be seen on noise and on strong signals.
  context.strokeStyle = isSelected ? "#ffffff" : "rgba(0, 0, 0, 0.75)";
  context.lineWidth = isSelected ? 6 : 4;
  context.strokeRect(x, y, width, height);
  context.setLineDash(isSelected ? [] : look.dash);
  context.strokeStyle = isSelected ? "#000000" : look.colour;
  context.lineWidth = 2;
  context.strokeRect(x, y, width, height);
  context.setLineDash([]);
}

function drawTag(context, frame, box, looks, taken, isSelected) {
  const [x, y, width, height] = rectangle(frame, box);
  const text = describe(box);
  const tagWidth = Math.ceil(context.measureText(text).width) + 10;
  const fits = isSelected || (width >= 24 && height >= TAG_HEIGHT);
  const left = Math.max(frame.left, Math.min(x, frame.right - tagWidth));
  const tag = [left, Math.max(frame.top, y), tagWidth, TAG_HEIGHT];
  if (!fits || taken.some((other) => overlap(tag, other))) return;
  taken.push(tag);
  context.fillStyle = isSelected ? "#ffffff" : "rgba(0, 0, 0, 0.82)";
  context.fillRect(...tag);
  context.fillStyle = isSelected ? "#000000" : (looks.get(box.label) ?? UNLABELLED).colour;
  context.fillRect(tag[0], tag[1], 4, TAG_HEIGHT);
  context.fillStyle = isSelected ? "#000000" : "#ffffff";
  context.fillText(text, tag[0] + 7, tag[1] + TAG_HEIGHT / 2 + 0.5);
}

/** Left, top, width and height in pixels, cut to a little more than the frame, where canvases draw reliably. */
function rectangle(frame, box) {
  const cut = (value, least, most) => Math.max(least - 8, Math.min(most + 8, value));
  const left = cut(frame.x(box.freq_lower_edge), frame.left, frame.right);
  const right = cut(frame.x(box.freq_upper_edge), frame.left, frame.right);
  const top = cut(frame.y(box.time_end), frame.top, frame.bottom);
  const bottom = cut(frame.y(box.time_start), frame.top, frame.bottom);
  return [left, top, Math.max(2, right - left), Math.max(2, bottom - top)];
}

function area(box) {
  return (box.time_end - box.time_start) * (box.freq_upper_edge - box.freq_lower_edge);
}

function overlap([x, y, width, height], [otherX, otherY, otherWidth, otherHeight]) {
  return x < otherX + otherWidth && otherX < x + width && y < otherY + otherHeight && otherY < y + height;
}
