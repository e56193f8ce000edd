// SPDX-License-Identifier: Apache-2.0
// Rows of the waterfall, in bounded memory: their cells, and two offscreen canvases with their pixels.
//
// Rows are numbered as they come; row n lies in slot n % capacity. A tile is painted once, when it comes; drawing is then
// a few drawImage calls, however much is shown. Slots run upwards on the canvases, because the newest row is on top.

import { hatchAlpha, packed } from "./colours.js";
import { MAX_COLUMNS } from "./protocol.js";

const MOST_CELLS = 4 * 2 ** 20; // 44 MiB with their pixels
const MOST_ROWS = 16384; // that a canvas can be high everywhere
const SLACK = 0.5; // rows by which a tile may miss its place and still continue a run

export class Rows {
  constructor() {
    this.resize(256);
  }

  /** Begin anew, with room for rows of so many columns. */
  resize(columns) {
    this.width = Math.min(MAX_COLUMNS, Math.max(16, columns));
    this.capacity = Math.min(MOST_ROWS, Math.floor(MOST_CELLS / this.width));
    const cells = this.width * this.capacity;
    this.power = new Uint8Array(cells);
    this.classes = new Uint8Array(cells);
    this.confidence = new Uint8Array(cells);
    this.powerCanvas = canvas(this.width, this.capacity);
    this.maskCanvas = canvas(this.width, this.capacity);
    this.clear();
  }

  clear() {
    /** Uninterrupted stretches with the same grid, oldest first: firstRow, rows, timeStart, rowSeconds, lowEdge, … */
    this.runs = [];
    this.nextRow = 0;
  }

  /** Times of the oldest row's beginning and the newest row's end in s, or null where there is nothing. */
  get extent() {
    if (!this.runs.length) return null;
    return { start: this.runs[0].timeStart, end: endOf(this.runs.at(-1)) };
  }

  /**
   * Take up a tile.
   *
   * @param {object} tile - as decodeTile gives it
   * @param {object} paint - power: colours as powerColours gives them; tints: rgb and hatch for each class, null where hidden
   */
  add(tile, paint) {
    this.dropFrom(tile.timeStart);
    if (!tile.rows || !tile.columns) return;
    if (tile.columns > this.width) this.resize(tile.columns);
    const last = this.runs.at(-1);
    if (last && continues(last, tile)) {
      last.rows += tile.rows;
    } else {
      const { kind, columns, timeStart, rowSeconds, lowEdge, columnWidth, rows } = tile;
      this.runs.push({ kind, columns, timeStart, rowSeconds, lowEdge, columnWidth, rows, firstRow: this.nextRow });
    }
    for (let row = 0; row < tile.rows; row += 1) {
      const from = row * tile.columns;
      const to = ((this.nextRow + row) % this.capacity) * this.width;
      this.power.set(tile.power.subarray(from, from + tile.columns), to);
      this.classes.set(tile.classes.subarray(from, from + tile.columns), to);
      this.confidence.set(tile.confidence.subarray(from, from + tile.columns), to);
    }
    this.paintRows(this.nextRow, tile.rows, paint);
    this.nextRow += tile.rows;
    this.forget(this.nextRow - this.capacity);
  }

  /** Whether so many more rows would take the place of one that is not older than a time in s. */
  wouldForget(rows, time) {
    const run = this.runs.find((candidate) => endOf(candidate) > time);
    if (!run) return false;
    const first = run.firstRow + Math.max(0, Math.floor((time - run.timeStart) / run.rowSeconds));
    return this.nextRow + rows - this.capacity > first;
  }

  /** Drop what lies behind a time: it comes anew. */
  dropFrom(time) {
    const begins = (run) => run.timeStart + SLACK * run.rowSeconds > time;
    while (this.runs.length && begins(this.runs.at(-1))) this.runs.pop();
    const last = this.runs.at(-1);
    if (!last) return;
    if (endOf(last) > time + SLACK * last.rowSeconds) last.rows = Math.round((time - last.timeStart) / last.rowSeconds);
    this.nextRow = last.firstRow + last.rows;
  }

  /** Forget rows below a number. */
  forget(row) {
    while (this.runs.length && this.runs[0].firstRow + this.runs[0].rows <= row) this.runs.shift();
    const oldest = this.runs[0];
    if (oldest && oldest.firstRow < row) {
      const gone = row - oldest.firstRow;
      oldest.firstRow = row;
      oldest.rows -= gone;
      oldest.timeStart += gone * oldest.rowSeconds;
    }
  }

  /** Paint everything anew, as when a label is hidden. */
  repaint(paint) {
    for (const run of this.runs) this.paintRows(run.firstRow, run.rows, paint);
  }

  paintRows(firstRow, count, paint) {
    for (const [slot, rows] of this.slots(firstRow, count)) {
      const power = new ImageData(this.width, rows);
      const mask = new ImageData(this.width, rows);
      const powerPixels = new Uint32Array(power.data.buffer);
      const maskPixels = new Uint32Array(mask.data.buffer);
      for (let row = 0; row < rows; row += 1) {
        const from = (slot + row) * this.width;
        const to = (rows - 1 - row) * this.width;
        for (let column = 0; column < this.width; column += 1) {
          powerPixels[to + column] = paint.power[this.power[from + column]];
          const tint = paint.tints[this.classes[from + column]];
          if (!tint) continue;
          const alpha = this.confidence[from + column] * hatchAlpha(tint.hatch, slot + row, column);
          maskPixels[to + column] = packed(tint.rgb, Math.round(alpha));
        }
      }
      const top = this.capacity - slot - rows;
      this.powerCanvas.putImageData(power, 0, top);
      this.maskCanvas.putImageData(mask, 0, top);
    }
  }

  /** Where rows lie: [first slot, number of slots], in two parts where they reach over the ring's end. */
  slots(firstRow, count) {
    const slot = firstRow % this.capacity;
    const before = Math.min(count, this.capacity - slot);
    return before < count ? [[slot, before], [0, count - before]] : [[slot, count]];
  }

  /**
   * Draw what lies in a frame.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {object} frame - as Frame of axes.js
   * @param {number} opacity - of the mask, 0 to 1
   */
  draw(context, frame, opacity) {
    context.imageSmoothingEnabled = false; // a pixel of the model is a pixel, not a gradient
    for (const run of this.runs) {
      if (endOf(run) <= frame.timeStart || run.timeStart >= frame.timeEnd) continue;
      const first = clamp(Math.floor((frame.timeStart - run.timeStart) / run.rowSeconds), 0, run.rows - 1);
      const last = clamp(Math.ceil((frame.timeEnd - run.timeStart) / run.rowSeconds), first + 1, run.rows);
      const left = frame.x(run.lowEdge);
      const width = frame.x(run.lowEdge + run.columns * run.columnWidth) - left;
      let row = first;
      for (const [slot, rows] of this.slots(run.firstRow + first, last - first)) {
        const top = frame.y(run.timeStart + (row + rows) * run.rowSeconds);
        const height = frame.y(run.timeStart + row * run.rowSeconds) - top;
        const source = [0, this.capacity - slot - rows, run.columns, rows];
        context.drawImage(this.powerCanvas.canvas, ...source, left, top, width, height);
        context.globalAlpha = opacity;
        context.drawImage(this.maskCanvas.canvas, ...source, left, top, width, height);
        context.globalAlpha = 1;
        row += rows;
      }
    }
  }

  /** Stretches of a frame's time, between the oldest and the newest row, that no row covers: [start, end] in s. */
  gaps(frame) {
    const gaps = [];
    for (let number = 1; number < this.runs.length; number += 1) {
      const start = endOf(this.runs[number - 1]);
      const end = this.runs[number].timeStart;
      const isVisible = start < frame.timeEnd && end > frame.timeStart;
      if (isVisible && end - start > this.runs[number].rowSeconds * SLACK) gaps.push([start, end]);
    }
    return gaps;
  }

  /**
   * The cell at a place, or null where there is none.
   *
   * @returns {object|null} power, classNumber, confidence (0 to 255), rowSeconds, columnWidth
   */
  at(time, frequency) {
    const run = this.runs.findLast((candidate) => candidate.timeStart <= time && time < endOf(candidate));
    if (!run) return null;
    const column = Math.floor((frequency - run.lowEdge) / run.columnWidth);
    if (column < 0 || column >= run.columns) return null;
    const row = run.firstRow + Math.min(run.rows - 1, Math.floor((time - run.timeStart) / run.rowSeconds));
    const cell = (row % this.capacity) * this.width + column;
    const { rowSeconds, columnWidth } = run;
    return {
      power: this.power[cell],
      classNumber: this.classes[cell],
      confidence: this.confidence[cell],
      rowSeconds,
      columnWidth,
    };
  }

  /** Lower and upper edge of all that lies between two times, or of the newest run; null where nothing came yet. */
  band(timeStart, timeEnd, newestOnly) {
    const shown = this.runs.filter((run) => endOf(run) > timeStart && run.timeStart < timeEnd);
    const runs = newestOnly || !shown.length ? this.runs.slice(-1) : shown;
    if (!runs.length) return null;
    const highEdge = (run) => run.lowEdge + run.columns * run.columnWidth;
    return {
      lowEdge: runs.reduce((least, run) => Math.min(least, run.lowEdge), Infinity),
      highEdge: runs.reduce((most, run) => Math.max(most, highEdge(run)), -Infinity),
      isOne: runs.every((run) => run.lowEdge === runs[0].lowEdge && run.columnWidth === runs[0].columnWidth),
    };
  }
}

function continues(run, tile) {
  const sameGrid = ["kind", "columns", "lowEdge", "columnWidth"].every((name) => run[name] === tile[name]);
  const sameRate = Math.abs(run.rowSeconds / tile.rowSeconds - 1) < 0.01;
  return sameGrid && sameRate && Math.abs(tile.timeStart - endOf(run)) <= SLACK * tile.rowSeconds;
}

function endOf(run) {
  return run.timeStart + run.rows * run.rowSeconds;
}

function canvas(width, height) {
  const element = document.createElement("canvas");
  element.width = width;
  element.height = height;
  return element.getContext("2d", { willReadFrequently: false });
}

function clamp(value, least, most) {
  return Math.max(least, Math.min(most, value));
}
