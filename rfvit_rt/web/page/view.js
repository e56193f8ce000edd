// SPDX-License-Identifier: Apache-2.0
// Which stretch of time is shown, and what the server is asked for so that it can be.

import { MAX_COLUMNS } from "./protocol.js";

const SPANS = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600]; // s
const USUAL = 10; // s
const SPARE = 0.9; // share of the history's rows that a request may fill; the others are for what comes meanwhile
const TOLERANCE = 1.25; // factor by which rows may miss the pixels before they are asked for anew

export class View {
  constructor() {
    this.spans = SPANS;
    this.span = USUAL;
    /** Time in s up to which rows have come in this run; it stays where they are asked for anew. */
    this.newest = 0;
    /** Time in s that the view ends at; null where it follows the newest. */
    this.end = null;
    this.asked = null;
    /** Whether tiles were let go so that a paused view keeps its rows. */
    this.isBehind = false;
  }

  get isLive() {
    return this.end === null;
  }

  /** Beginning and end in s of what is shown. */
  get shown() {
    const end = this.end ?? this.newest;
    return { start: end - this.span, end };
  }

  /** Begin a run; a short recording is shown whole. */
  begin(duration) {
    const isShort = duration !== null && duration > 0 && duration <= SPANS.at(-1);
    this.spans = isShort ? [...SPANS.filter((span) => span < duration), duration] : SPANS;
    this.span = Math.min(USUAL, this.spans.at(-1));
    this.newest = 0;
    this.end = null;
    this.asked = null;
    this.isBehind = false;
  }

  /** The span so many steps shorter or longer than this one. */
  spanBeside(steps) {
    const here = this.spans.findIndex((span) => span >= this.span);
    return this.spans[Math.max(0, Math.min(this.spans.length - 1, here + steps))];
  }

  /** Show what ends at a time, as far as something is held there, which is from `oldest` on. */
  showUntil(time, oldest) {
    const earliest = Math.min(this.newest, oldest + this.span);
    this.end = Math.max(earliest, Math.min(this.newest, time));
  }

  /**
   * What to ask the server for.
   *
   * @param {number} now - newest time in s
   * @param {object} pixels - width and height of what is drawn
   * @param {number} capacity - rows that the history can hold
   * @param {number} heldSeconds - how far back the server can go
   * @returns {object} columns, rows_per_second, since
   */
  request(now, pixels, capacity, heldSeconds) {
    const most = SPARE * capacity;
    const reach = Math.max(this.span, now - (this.end ?? now) + this.span); // s from what is shown up to now
    const rowsPerSecond = Math.max(0.1, Math.min(pixels.height / this.span, most / reach));
    const since = Math.max(0, now - Math.min(heldSeconds, most / rowsPerSecond));
    const columns = Math.min(MAX_COLUMNS, Math.max(16, Math.round(pixels.width)));
    return { columns, rows_per_second: rowsPerSecond, since };
  }

  /** Whether what was asked for before does for a request too. */
  suits(request) {
    if (!this.asked) return false;
    return ["columns", "rows_per_second"].every((name) => {
      const factor = request[name] / this.asked[name];
      return factor < TOLERANCE && factor > 1 / TOLERANCE;
    });
  }
}
