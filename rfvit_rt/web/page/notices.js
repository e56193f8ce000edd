// SPDX-License-Identifier: Apache-2.0
// What the page says of itself: connection, what kind of stream this is, and a line about what just happened.

import { percent } from "./axes.js";

const MESSAGE_SECONDS = 15;

const $ = (id) => document.getElementById(id);
let hushing = null;

/** Tell people something; problems stay until they are put away. */
export function say(text, isProblem = false) {
  clearTimeout(hushing);
  $("message").querySelector("span").textContent = text;
  $("message").dataset.kind = isProblem ? "problem" : "note";
  $("message").hidden = false;
  if (!isProblem) hushing = setTimeout(hush, 1000 * MESSAGE_SECONDS);
}

export function hush() {
  $("message").hidden = true;
}

/**
 * Say how the connection stands.
 *
 * @param {object} link - state: "connecting", "open" or "waiting"; wait: s until the next attempt
 * @param {object} run - isKnown: whether there ever was a connection; isEnded
 * @param {boolean} isLive - whether the view follows the newest
 */
export function showConnection({ state, wait }, { isKnown, isEnded }, isLive) {
  const isOpen = state === "open";
  const name = isOpen ? (isEnded ? "ended" : "open") : isKnown ? "lost" : "connecting";
  const words = { ended: "run over", open: isLive ? "live" : "paused", lost: "connection lost", connecting: "connecting" };
  document.body.dataset.connection = name;
  $("connection").textContent = words[name];
  const isWaiting = state === "waiting";
  $("lost").hidden = isOpen || !(isKnown || isWaiting);
  if ($("lost").hidden) return;
  const known = isEnded ? "The run is over, and the server is gone." : "Connection lost.";
  const what = isKnown ? `${known} What is shown is from before.` : "The server does not answer.";
  const next = isWaiting ? `Trying again in ${Math.max(1, Math.round(wait))} s.` : "Trying again …";
  $("lost").querySelector("span").textContent = `${what} ${next}`;
}

/** Say what is received: frequency and rate, or the newest answer; and whether it is recorded or simulated. */
export function showStream(hello, status, answer) {
  const { sample_rate: rate, recorded, simulated } = { ...hello, ...known(status) };
  const { frequency } = status ?? hello; // which may have become unknown
  const facts = [];
  if (frequency !== null) facts.push(`${Number((frequency / 1e6).toFixed(6))} MHz`);
  if (hello.task === "activity") {
    if (answer) facts.push(`now: ${answer.label}, ${percent(answer.confidence)}`);
  } else if (rate !== null) {
    facts.push(`${Number((rate / 1e6).toFixed(6))} MS/s`);
  }
  write($("tuning"), facts.join(" · "));
  const banner = bannerFor(recorded, simulated);
  write($("banner"), banner);
  $("banner").hidden = !banner;
}

/** The fields that a status knows. */
function known(status) {
  return Object.fromEntries(Object.entries(status ?? {}).filter(([, value]) => value !== null));
}

/** Only where it changes: it may be read out. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function bannerFor(recorded, simulated) {
  if (simulated && recorded) return "Simulated and recorded: no radio received this, and it is not live.";
  if (simulated) return "Simulated: no radio received this.";
  return recorded ? "A recording: this is not live." : "";
}
