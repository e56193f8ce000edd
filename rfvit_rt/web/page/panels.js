// SPDX-License-Identifier: Apache-2.0
// Legend, emissions, and how the stream is doing. Names come from outside: they are only ever set as text.

import { ago, bandwidth, percent, seconds } from "./axes.js";
import { UNLABELLED, fillHatched } from "./colours.js";

const MOST_EMISSIONS = 100; // rows of the table

/** Make an element with text in it. */
export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function swatch(look) {
  const canvas = element("canvas", "", "swatch");
  [canvas.width, canvas.height] = [30, 16];
  canvas.setAttribute("aria-hidden", "true");
  fillHatched(canvas.getContext("2d"), look, [0, 0, canvas.width, canvas.height]);
  return canvas;
}

/**
 * Fill the legend: a switch for every label.
 *
 * @param {HTMLElement} list
 * @param {Map<string, object>} looks
 * @param {Set<string>} hidden
 * @param {Function} onToggle - called with a label
 */
export function fillLegend(list, looks, hidden, onToggle) {
  const rows = [...looks].map(([label, look], number) => {
    const box = element("input");
    box.type = "checkbox";
    box.checked = !hidden.has(label);
    box.addEventListener("change", () => onToggle(label));
    const name = element("span", label, "name");
    const key = number < 9 ? element("kbd", String(number + 1)) : "";
    const share = element("span", "", "figures share");
    const row = element("label");
    row.append(box, swatch(look), name, share, key);
    const item = element("li");
    item.append(row);
    return item;
  });
  list.replaceChildren(...rows);
}

/** Draw the colours of power, from the first to the last. */
export function drawScale(canvas, colours) {
  [canvas.width, canvas.height] = [colours.length, 1];
  const pixels = new Uint8ClampedArray(colours.buffer);
  canvas.getContext("2d").putImageData(new ImageData(pixels, colours.length), 0, 0);
}

/** Say of each label how much of the band it has now, or which one is the newest answer. */
export function fillShares(list, looks, shares) {
  [...looks.keys()].forEach((label, number) => {
    const place = list.children[number]?.querySelector(".share");
    const share = shares?.get(label);
    const text = share === undefined ? "" : percent(share);
    if (place && place.textContent !== text) place.textContent = text;
  });
}

/** Fill the table of emissions, those on the air first, and say how many it leaves out. */
export function fillEmissions(section, emissions, unlisted, looks, now) {
  const order = [...emissions].sort((one, other) => other.is_current - one.is_current || other.last_seen - one.last_seen);
  const rows = order.slice(0, MOST_EMISSIONS).map((emission) => {
    const [low, high] = [emission.freq_lower_edge, emission.freq_upper_edge];
    const label = cell("", `${percent(emission.confidence)} sure`);
    const name = element("span", emission.label, "name");
    name.title = emission.label;
    label.prepend(swatch(looks.get(emission.label) ?? UNLABELLED), name);
    const band = cell(`${(low / 1e6).toFixed(2)}–${(high / 1e6).toFixed(2)}`, bandwidth(high - low));
    const bursts = emission.burst_count === 1 ? "1 burst" : `${emission.burst_count} bursts`;
    const seen = emission.is_current ? "now" : ago(Math.max(0, now - emission.last_seen));
    const row = element("tr", "", emission.is_current ? "" : "past");
    row.append(label, band, cell(percent(emission.duty_cycle), bursts), cell(seen));
    return row;
  });
  section.querySelector("tbody").replaceChildren(...rows);
  section.querySelector("table").hidden = rows.length === 0;
  const more = unlisted + emissions.length - rows.length;
  const note = section.querySelector(".quiet");
  note.textContent = rows.length ? `And ${more.toLocaleString("en")} more, seen earlier.` : "None so far.";
  note.hidden = rows.length > 0 && more === 0;
}

function cell(text, below = "") {
  const made = element("td", text);
  if (below) made.append(element("small", below));
  return made;
}

const CAUSES = {
  transport: "on the way",
  radio: "in the radio",
  dropped: "too fast for this machine",
  unusable: "before a rate was known",
  lost: "on the way",
  foreign: "of other senders",
  malformed: "malformed",
};

/**
 * Say how the stream is doing.
 *
 * @param {HTMLElement} list - a dl
 * @param {object} hello
 * @param {object} status
 * @param {string} drawing - how this page is doing; "" where that is not known yet
 */
export function fillHealth(list, hello, status, drawing) {
  const facts = streamFacts(hello, status);
  facts.push(["Model", hello.model], ["Engine", hello.engine]);
  if (drawing) facts.push(["This page", drawing]);
  const parts = facts.flatMap(([name, value, isBad]) => {
    const description = element("dd", value, isBad ? "bad" : "");
    return [element("dt", name), description];
  });
  list.replaceChildren(...parts);
}

function streamFacts(hello, status) {
  const unit = hello.task === "activity" ? "frames" : "samples";
  const facts = [["Rate", rateText(hello, status)]];
  const lost = [...status.lost].filter(([, count]) => count > 0);
  const causes = lost.map(([cause, count]) => `${count.toLocaleString("en")} ${CAUSES[cause] ?? cause}`);
  facts.push(["Lost", lost.length ? `⚠ ${unit}: ${causes.join(", ")}` : `0 ${unit}`, lost.length > 0]);
  if (status.restarts) facts.push(["Restarts", `⚠ the sender began anew ${status.restarts} times`, true]);
  if (status.age) {
    const { p50, p95, p99 } = status.age;
    facts.push(["Sample age", `p50 ${seconds(p50)} · p95 ${seconds(p95)} · p99 ${seconds(p99)}`]);
  }
  facts.push(["Windows", `${status.windows.toLocaleString("en")}, ${status.windows_per_second.toFixed(1)} a second`]);
  const pages = status.clients === 1 ? "1 page" : `${status.clients} pages`;
  const dropped = status.frames_dropped + status.rows_dropped;
  facts.push(["Web", dropped ? `⚠ ${pages}; ${dropped} pieces were too many for it` : pages, dropped > 0]);
  return facts;
}

function rateText(hello, status) {
  if (status.achieved_rate === null) return "not known yet";
  if (hello.task === "activity") return `${status.achieved_rate.toFixed(1)} frames/s`;
  const rate = `${(status.achieved_rate / 1e6).toFixed(2)} MS/s`;
  return status.sample_rate ? `${rate}, ${(status.achieved_rate / status.sample_rate).toFixed(2)} × real time` : rate;
}
