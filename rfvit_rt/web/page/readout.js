// SPDX-License-Identifier: Apache-2.0
// What is at a place of the waterfall, in words.

import { percent } from "./axes.js";
import { describe } from "./boxes.js";

/**
 * Say what is at a place.
 *
 * @param {object} scene - history, strip, boxes, hidden, hello, isAbsolute
 * @param {object} frame
 * @param {object} place - time in s, frequency in Hz, or a subcarrier's index
 * @returns {string[]} what, one by one
 */
export function readout(scene, frame, { time, frequency }) {
  const { hello, history, boxes, hidden } = scene;
  const isCsi = hello.task === "activity";
  const cell = history.at(time, frequency);
  const facts = [isCsi ? `subcarrier ${Math.round(frequency)}` : megahertz(frequency, frame, scene.isAbsolute)];
  facts.push(`${time.toFixed(decimalsFor((frame.timeEnd - frame.timeStart) / frame.height))} s`);
  if (!cell) return [...facts, "no data"];
  facts.push(power(cell.power, hello));
  if (isCsi) {
    const activity = scene.strip.activityAt(time);
    return activity ? [...facts, `${activity.label} ${percent(activity.confidence)}`] : facts;
  }
  const label = hello.labels[cell.classNumber] ?? `class ${cell.classNumber}`;
  facts.push(`${label} ${percent(cell.confidence / 255)}`);
  const box = boxes.at(frame, hidden, time, frequency);
  return box ? [...facts, `box: ${describe(box).replaceAll(" ", "\u00a0")}`] : facts;
}

function megahertz(frequency, frame, isAbsolute) {
  const text = (frequency / 1e6).toFixed(decimalsFor((frame.highEdge - frame.lowEdge) / 1e6 / frame.width));
  return isAbsolute ? `${text} MHz` : `${frequency >= 0 ? "+" : ""}${text} MHz from the centre`;
}

function power(value, { db_min: least, db_max: most, power_unit: unit }) {
  const limit = value === 0 ? "≤ " : value === 255 ? "≥ " : "";
  return `${limit}${(least + (value / 255) * (most - least)).toFixed(1)} ${unit}`;
}

/** As many decimals as a pixel's size is worth. */
function decimalsFor(step) {
  return Math.max(0, Math.min(9, -Math.floor(Math.log10(step))));
}
