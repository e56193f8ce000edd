// SPDX-License-Identifier: Apache-2.0
// Draws one picture of all there is to see: waterfall, mask, gaps, boxes, axes, strip, cursor.

import { Frame, seconds, ticks } from "./axes.js";
import { drawBoxes } from "./boxes.js";

const FONT = "12px system-ui, sans-serif";
const NARROW = 500; // pixels
const TOP = 20;
const BOTTOM = 40;
const WIDEST = 64; // times the newest band: beyond it, what lies between bands would be all there is to see

export class Plot {
  /** @param {HTMLCanvasElement} element */
  constructor(element) {
    this.element = element;
    this.context = element.getContext("2d");
    this.resize();
  }

  /** Follow the element's size; returns whether it changed. */
  resize() {
    const { width, height } = this.element.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    if (this.element.width === size[0] && this.element.height === size[1] && this.ratio === ratio) return false;
    [this.element.width, this.element.height] = size;
    Object.assign(this, { width, height, ratio });
    return true;
  }

  get stripWidth() {
    return this.width < NARROW ? 56 : 110;
  }

  /** Where the waterfall is, whatever it shows. */
  get area() {
    const left = this.width < NARROW ? 46 : 58;
    const width = Math.max(10, this.width - left - this.stripWidth - 16);
    return { left, width, height: Math.max(10, this.height - TOP - BOTTOM) };
  }

  /** Width and height of the waterfall in the screen's own pixels. */
  get pixels() {
    const { width, height } = this.area;
    return { width: width * this.ratio, height: height * this.ratio };
  }

  /** What the waterfall shows and where: a Frame; null before anything is known. */
  frame(scene) {
    const { left, width, height } = this.area;
    const { timeEnd } = scene;
    const timeStart = timeEnd - scene.span;
    const band = this.band(scene, timeStart, timeEnd);
    if (!band) return null;
    return new Frame(left, TOP, width, height, timeStart, timeEnd, band.lowEdge, band.highEdge);
  }

  band(scene, timeStart, timeEnd) {
    const all = scene.history.band(timeStart, timeEnd, scene.newestBandOnly);
    const newest = scene.history.band(timeStart, timeEnd, true);
    if (!all) return null;
    return all.highEdge - all.lowEdge > WIDEST * (newest.highEdge - newest.lowEdge) ? newest : all;
  }

  draw(scene) {
    const { context } = this;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.fillStyle = scene.theme.ground;
    context.fillRect(0, 0, this.width, this.height);
    const frame = this.frame(scene);
    if (!frame) {
      this.sayInTheMiddle(scene, "Waiting for the first samples");
      return;
    }
    context.fillStyle = scene.theme.panel;
    context.fillRect(frame.left, frame.top, frame.width, frame.height);
    context.save();
    context.beginPath();
    context.rect(frame.left, frame.top, frame.width, frame.height);
    context.clip();
    scene.history.draw(context, frame, scene.opacity);
    for (const gap of scene.history.gaps(frame)) this.drawGap(frame, scene, gap);
    const selected = scene.draft ?? null;
    const boxes = scene.boxes.in(frame, scene.hidden).filter((box) => box.id !== selected?.id);
    drawBoxes(context, frame, selected ? [...boxes, selected] : boxes, scene.looks, selected);
    this.drawCursor(frame, scene);
    context.restore();
    scene.strip.draw(context, frame, { left: frame.right + 8, width: this.stripWidth }, scene);
    this.drawAxes(frame, scene);
  }

  drawGap(frame, scene, [start, end]) {
    const { context } = this;
    const top = frame.y(end);
    const height = Math.max(2, frame.y(start) - top);
    context.save();
    context.beginPath();
    context.rect(frame.left, top, frame.width, height);
    context.clip();
    context.fillStyle = scene.theme.panel;
    context.fillRect(frame.left, top, frame.width, height);
    context.strokeStyle = scene.theme.warning;
    context.lineWidth = 1;
    context.beginPath();
    for (let x = frame.left - frame.height; x < frame.right; x += 10) {
      context.moveTo(x, frame.bottom);
      context.lineTo(x + frame.height, frame.top);
    }
    context.stroke();
    context.restore();
    if (height < 18) return;
    const text = `no data for ${seconds(end - start)}`;
    context.font = FONT;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const width = context.measureText(text).width + 12;
    context.fillStyle = scene.theme.panel;
    context.fillRect(frame.left + (frame.width - width) / 2, top + height / 2 - 9, width, 18);
    context.fillStyle = scene.theme.text;
    context.fillText(text, frame.left + frame.width / 2, top + height / 2);
  }

  drawCursor(frame, { cursor, corner, theme }) {
    if (!cursor) return;
    const { context } = this;
    const x = Math.round(frame.x(cursor.frequency)) + 0.5;
    const y = Math.round(frame.y(cursor.time)) + 0.5;
    for (const [colour, width] of [["rgba(0, 0, 0, 0.6)", 3], ["#ffffff", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(x, frame.top);
      context.lineTo(x, frame.bottom);
      context.moveTo(frame.left, y);
      context.lineTo(frame.right, y);
      context.stroke();
    }
    if (!corner) return;
    context.strokeStyle = theme.accent;
    context.lineWidth = 2;
    const from = [frame.x(corner.frequency), frame.y(corner.time)];
    context.strokeRect(...from, x - from[0], y - from[1]);
  }

  drawAxes(frame, scene) {
    const { context } = this;
    context.font = FONT;
    context.fillStyle = scene.theme.quiet;
    context.strokeStyle = scene.theme.line;
    context.lineWidth = 1;
    context.strokeRect(frame.left - 0.5, frame.top - 0.5, frame.width + 1, frame.height + 1);
    this.drawTimes(frame);
    this.drawFrequencies(frame, scene);
    context.textBaseline = "alphabetic";
    context.textAlign = "left";
    const strip = frame.right + 8;
    context.fillText(scene.task === "activity" ? "activity" : "occupancy", strip, frame.top - 6);
    if (!scene.strip.scale) return;
    context.textBaseline = "top";
    context.fillText("0", strip, frame.bottom + 6);
    context.textAlign = "right";
    context.fillText(scene.strip.scale, strip + this.stripWidth, frame.bottom + 6);
  }

  drawTimes(frame) {
    const { context } = this;
    const { values, decimals } = ticks(frame.timeStart, frame.timeEnd, frame.height / 55);
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const value of values.filter((time) => time >= 0)) {
      const y = Math.round(frame.y(value)) + 0.5;
      line(context, frame.left - 5, y, frame.left - 1, y);
      context.fillText(value.toFixed(decimals), frame.left - 8, y);
    }
    context.textBaseline = "alphabetic";
    context.fillText("s ↑", frame.left - 8, frame.top - 6);
  }

  drawFrequencies(frame, scene) {
    const { context } = this;
    const unit = scene.task === "activity" ? 1 : 1e6;
    const { values, decimals } = ticks(frame.lowEdge / unit, frame.highEdge / unit, frame.width / 75);
    context.textBaseline = "top";
    for (const value of values) {
      const x = Math.round(frame.x(value * unit)) + 0.5;
      line(context, x, frame.bottom + 1, x, frame.bottom + 5);
      const halfWidth = context.measureText(value.toFixed(decimals)).width / 2;
      // The outermost ones are moved inwards rather than cut off.
      const centre = Math.max(frame.left - 8 + halfWidth, Math.min(frame.right + 4 - halfWidth, x));
      context.textAlign = "center";
      context.fillText(value.toFixed(decimals), centre, frame.bottom + 7);
    }
    context.textAlign = "center";
    const axis = scene.task === "activity" ? "subcarrier" : scene.isAbsolute ? "MHz" : "MHz from the centre frequency";
    context.fillText(axis, frame.left + frame.width / 2, frame.bottom + 23);
  }

  sayInTheMiddle(scene, text) {
    const { context } = this;
    context.font = "15px system-ui, sans-serif";
    context.fillStyle = scene.theme.quiet;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(text, this.width / 2, this.height / 2);
  }
}

function line(context, fromX, fromY, toX, toY) {
  context.beginPath();
  context.moveTo(fromX, fromY);
  context.lineTo(toX, toY);
  context.stroke();
}
