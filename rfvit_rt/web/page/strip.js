// SPDX-License-Identifier: Apache-2.0
// The strip beside the waterfall, on the same time axis: occupancy of the band by label, or what a person did.

import { percent } from "./axes.js";
import { UNLABELLED, fillHatched } from "./colours.js";

const MOST_POINTS = 20000; // as many as the server keeps
const BAR = 12; // pixels
const LINE = 15;
const STEP = 4; // pixels that one mean stands for
const BREAK = 0.25; // s without a point, beyond which the line is interrupted

export class Strip {
  constructor() {
    this.clear();
  }

  clear() {
    /** Occupancy, in order of time: {time, shares}. */
    this.points = [];
    /** Activities: {label, time_start, time_end, confidence}. */
    this.intervals = [];
  }

  addOccupancy({ time, shares }) {
    // Only in order: what comes again after a reconnection is known already.
    if (this.points.length && time <= this.points.at(-1).time) return;
    this.points.push({ time, shares });
    if (this.points.length > 2 * MOST_POINTS) this.points.splice(0, MOST_POINTS);
  }

  addActivity(interval) {
    if (this.intervals.some((known) => known.time_start === interval.time_start)) return;
    this.intervals.push(interval);
    if (this.intervals.length > 2 * MOST_POINTS) this.intervals.splice(0, MOST_POINTS);
  }

  /** Share of each label in the newest point, or null. */
  get newest() {
    return this.points.at(-1)?.shares ?? null;
  }

  activityAt(time) {
    return this.intervals.findLast((interval) => interval.time_start <= time && time < interval.time_end) ?? null;
  }

  /**
   * Draw what belongs to a frame, right of it.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {object} frame - of the waterfall
   * @param {object} place - left and width in pixels
   * @param {object} scene - looks, hidden, theme, task
   */
  draw(context, frame, place, scene) {
    context.fillStyle = scene.theme.panel;
    context.fillRect(place.left, frame.top, place.width, frame.height);
    context.save();
    context.beginPath();
    context.rect(place.left, frame.top, place.width, frame.height);
    context.clip();
    if (scene.task === "activity") this.drawActivities(context, frame, place, scene);
    else this.drawOccupancy(context, frame, place, scene);
    context.restore();
  }

  drawOccupancy(context, frame, place, { looks, hidden, theme }) {
    const labels = [...looks.keys()].filter((label) => !hidden.has(label));
    const lines = labels.map((label) => [looks.get(label), this.means(frame, label)]);
    const highest = lines.reduce((most, [, means]) => means.reduce((top, { share }) => Math.max(top, share), most), 0);
    const full = [0.1, 0.25, 0.5, 1].find((level) => highest <= level) ?? 1;
    for (const [look, means] of lines) {
      // Dark below and colour above, as boxes have it.
      for (const [colour, width, dash] of [[theme.halo, 3.5, []], [look.colour, 2, look.dash]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.setLineDash(dash);
        context.beginPath();
        for (const { y, share, isFirst } of means) {
          const x = place.left + 2 + (share / full) * (place.width - 4);
          if (isFirst) context.moveTo(x, y);
          else context.lineTo(x, y);
        }
        context.stroke();
      }
    }
    context.setLineDash([]);
    this.scale = percent(full);
    context.strokeStyle = theme.line;
    context.lineWidth = 1;
    context.strokeRect(place.left + 0.5, frame.top + 0.5, place.width - 1, frame.height - 1);
  }

  /** Mean share of a label in each few pixels of a frame, from the oldest: y, share, and whether a line begins there. */
  means(frame, label) {
    const duration = ((frame.timeEnd - frame.timeStart) * STEP) / frame.height;
    const means = [];
    let before = null;
    for (const { time, shares } of this.points) {
      if (time < frame.timeStart - duration || time > frame.timeEnd + duration) continue;
      const step = Math.floor(time / duration);
      const share = shares.get(label) ?? 0;
      const last = means.at(-1);
      if (last?.step === step) {
        last.sum += share;
        last.count += 1;
      } else {
        means.push({ step, sum: share, count: 1, isFirst: before === null || time - before > Math.max(BREAK, 2 * duration) });
      }
      before = time;
    }
    for (const mean of means) {
      mean.y = frame.y((mean.step + 0.5) * duration);
      mean.share = mean.sum / mean.count;
    }
    return means;
  }

  drawActivities(context, frame, place, { looks, hidden, theme }) {
    const room = place.width - BAR - 8;
    for (const interval of this.intervals) {
      if (interval.time_end <= frame.timeStart || interval.time_start >= frame.timeEnd) continue;
      if (hidden.has(interval.label)) continue;
      // What can be seen of it.
      const top = Math.max(frame.top, frame.y(interval.time_end));
      const bottom = Math.min(frame.bottom, frame.y(interval.time_start));
      const height = Math.max(2, bottom - top - 1);
      fillHatched(context, looks.get(interval.label) ?? UNLABELLED, [place.left, top, BAR, height]);
      if (height < LINE) continue;
      context.font = "600 12px system-ui, sans-serif";
      context.textBaseline = "middle";
      context.textAlign = "left";
      context.fillStyle = theme.text;
      const lines = [interval.label, percent(interval.confidence)].slice(0, Math.floor(height / LINE));
      lines.forEach((line, number) => {
        const y = (top + bottom) / 2 + (number - (lines.length - 1) / 2) * LINE;
        context.fillText(line, place.left + BAR + 5, y, room);
      });
    }
    this.scale = "";
  }
}
