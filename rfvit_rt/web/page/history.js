// SPDX-License-Identifier: Apache-2.0
// What the waterfall shows. Where most of it comes anew, as after a change of its span, what was there is shown until then.

import { Rows } from "./rows.js";

const MOST = 0.5; // share of the rows' time

export class History {
  constructor() {
    this.rows = new Rows();
    /** What `rows` is about to replace; null where it replaces nothing. */
    this.before = null;
    this.spare = null;
  }

  clear() {
    this.rows.clear();
    this.forgetBefore();
  }

  /** Rows that can be held. */
  get capacity() {
    return this.rows.capacity;
  }

  /** Times of the oldest row's beginning and the newest row's end in s, or null where there is nothing. */
  get extent() {
    return (this.before ?? this.rows).extent;
  }

  /** Take up a tile, as Rows does. */
  add(tile, paint) {
    this.rows.add(tile, paint);
    if (this.before && this.rows.extent.end >= this.before.extent.end) this.forgetBefore();
  }

  /** What lies behind a time comes anew. */
  beginAgain(time) {
    const { extent } = this.rows;
    const share = extent ? (extent.end - time) / (extent.end - extent.start) : 0;
    if (share < MOST) {
      this.rows.dropFrom(time);
    } else if (this.before) {
      this.rows.clear(); // there was little yet
    } else {
      this.before = this.rows;
      this.rows = this.spare ?? new Rows();
      this.rows.resize(this.before.width);
      this.spare = null;
    }
  }

  forgetBefore() {
    this.spare = this.before ?? this.spare;
    this.before = null;
  }

  /** Whether so many more rows would take the place of one that is not older than a time in s. */
  wouldForget(rows, time) {
    return this.rows.wouldForget(rows, time);
  }

  repaint(paint) {
    this.before?.repaint(paint);
    this.rows.repaint(paint);
  }

  draw(context, frame, opacity) {
    this.before?.draw(context, frame, opacity);
    this.rows.draw(context, frame, opacity);
  }

  gaps(frame) {
    return (this.before ?? this.rows).gaps(frame);
  }

  at(time, frequency) {
    return this.rows.at(time, frequency) ?? this.before?.at(time, frequency) ?? null;
  }

  band(timeStart, timeEnd, newestOnly) {
    return (this.before ?? this.rows).band(timeStart, timeEnd, newestOnly);
  }
}
