// SPDX-License-Identifier: Apache-2.0
// Where time and frequency lie on the canvas, and how they are written.

/** A rectangle of the canvas, in CSS pixels, and the stretch of time (s) and frequency (Hz) that it shows. */
export class Frame {
  constructor(left, top, width, height, timeStart, timeEnd, lowEdge, highEdge) {
    Object.assign(this, { left, top, width, height, timeStart, timeEnd, lowEdge, highEdge });
  }

  get right() {
    return this.left + this.width;
  }

  get bottom() {
    return this.top + this.height;
  }

  x(frequency) {
    return this.left + ((frequency - this.lowEdge) / (this.highEdge - this.lowEdge)) * this.width;
  }

  /** The newest is on top. */
  y(time) {
    return this.top + ((this.timeEnd - time) / (this.timeEnd - this.timeStart)) * this.height;
  }

  frequency(x) {
    return this.lowEdge + ((x - this.left) / this.width) * (this.highEdge - this.lowEdge);
  }

  time(y) {
    return this.timeEnd - ((y - this.top) / this.height) * (this.timeEnd - this.timeStart);
  }

  contains(x, y) {
    return x >= this.left && x < this.right && y >= this.top && y < this.bottom;
  }
}

/**
 * Round numbers between two limits.
 *
 * @returns {object} values, and decimals that tell them apart
 */
export function ticks(low, high, most) {
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const values = [];
  // Counted, not added up, so that no rounding gathers.
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high + 1e-9 * step; number += 1) {
    values.push(number * step);
  }
  return { values, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** 12.5 → 12.5 s, 0.0125 → 12.5 ms; figures and units are never parted. */
export function seconds(value) {
  const size = Math.abs(value);
  if (size >= 100) return `${value.toFixed(0)}\u00a0s`;
  if (size >= 1) return `${figures(value)}\u00a0s`;
  if (size >= 1e-3 || size === 0) return `${figures(value * 1e3)}\u00a0ms`;
  return `${figures(value * 1e6)}\u00a0µs`;
}

/** 4515000 → 4.51 MHz. */
export function bandwidth(value) {
  return value >= 1e6 ? `${figures(value / 1e6)}\u00a0MHz` : `${figures(value / 1e3)}\u00a0kHz`;
}

export function percent(share) {
  if (share > 0 && share < 0.005) return "<1\u00a0%"; // there is some
  return `${Math.round(share * 100)}\u00a0%`;
}

/** How long ago something was, in few figures: it is read as it changes. */
export function ago(value) {
  if (value < 60) return `${value.toFixed(value < 10 ? 1 : 0)}\u00a0s\u00a0ago`;
  return `${(value / 60).toFixed(value < 600 ? 1 : 0)}\u00a0min\u00a0ago`;
}

function figures(value) {
  return String(Number(value.toPrecision(3)));
}
