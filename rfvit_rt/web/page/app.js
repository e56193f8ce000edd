// SPDX-License-Identifier: Apache-2.0
// The page: what comes from the server goes into the scene, what people do changes it, and each change is drawn once.

import { seconds } from "./axes.js";
import { Boxes, describe } from "./boxes.js";
import { channels, looksOf, powerColours } from "./colours.js";
import { Connection, streamAddress } from "./connection.js";
import { Editor } from "./editor.js";
import { History } from "./history.js";
import { entryFor, fillHelp } from "./keys.js";
import { drawScale, element, fillEmissions, fillHealth, fillLegend, fillShares } from "./panels.js";
import { hush, say, showConnection, showStream } from "./notices.js";
import { Plot } from "./plot.js";
import { Pointer } from "./pointer.js";
import { readout } from "./readout.js";
import { Strip } from "./strip.js";
import { Theme } from "./theme.js";
import { View } from "./view.js";

const ASK_SECONDS = 0.2; // that a view must stand still before tiles are asked for it
const MOST_SAVED = 10; // s
const OPACITY = 0.65; // of the mask
const FAINT = 0.25;
const LEVELS = [0.1, 0.75]; // share of the power's range from black to white, until somebody says otherwise

const $ = (id) => document.getElementById(id);

const view = new View();
const plot = new Plot($("plot"));
const scene = {
  hello: null,
  status: null,
  history: new History(),
  boxes: new Boxes(),
  strip: new Strip(),
  looks: new Map(),
  hidden: new Set(),
  opacity: OPACITY,
  palette: "grey",
  /** Power, 0 to 255, that is darkest and lightest. */
  levels: LEVELS.map((share) => 255 * share),
  newestBandOnly: false,
  isDrawing: false,
  /** Where the cursor is, as a share of the waterfall's width and height: it stays there while the stream goes on. */
  cursor: null,
  /** A first corner that was set by key, as time and frequency. */
  corner: null,
  /** The box that is selected, as it shall be. */
  draft: null,
};
/** Colours of power, and of each class: rgb and hatch, null where it is hidden. */
let paint = { power: powerColours("grey", true, [0, 255]), tints: [] };
let isPausedBySelection = false;
let pending = null; // what the server was asked to do with a box
let isEnded = false;

const theme = new Theme(() => queueMicrotask(repaint));
const editor = new Editor($("editor"), {
  onChange: () => {
    scene.draft = editor.draft;
    redraw();
  },
  onSubmit: submit,
  onDelete: remove,
  onClose: (hadFocus) => {
    scene.draft = null;
    pending = null;
    if (hadFocus) plot.element.focus(); // or one would have to begin at the top of the page
    if (isPausedBySelection) goLive();
    redraw();
  },
});

// ---- from the server ----

const take = {
  hello(hello) {
    if (hello.run !== scene.hello?.run) beginRun(hello);
    scene.hello = hello;
    scene.status = null;
    isEnded = false;
    pending = null; // no answer will come to what was asked before
    $("save").disabled = false;
    scene.looks = looksOf(hello.labels, hello.colours);
    editor.setLabels(hello.labels.slice(1));
    fillLegend($("legend"), scene.looks, scene.hidden, toggleLabel);
    describeRun(hello);
    showLink();
    repaint();
  },
  status(status) {
    const isFirst = scene.status === null;
    scene.status = status;
    if (isFirst) ask(true);
    if (status.ended !== isEnded) {
      isEnded = status.ended;
      showLink();
    }
    scene.isAbsolute = status.frequency !== null;
    showStream(scene.hello, status, scene.answer);
    fillHealth($("health").querySelector("dl"), scene.hello, status, drawing);
  },
  annotation(box) {
    const isKnown = JSON.stringify(scene.boxes.get(box.id)) === JSON.stringify(box); // sent again after a reconnection
    scene.boxes.add(box);
    if (pending?.kind === "correct" && isAnswer(box)) {
      const isLive = scene.status?.recorded === false && !isEnded;
      const fate = isLive ? " It is saved with its samples before they are gone, or now with S." : "";
      say(`Kept: ${describe(box)}.${fate}`);
      editor.close();
    } else if (scene.draft?.id === box.id && !isKnown) {
      if (editor.isTouched) editor.complain("Somebody else changed this box meanwhile.");
      else editor.open(box, scene.hello.can_correct);
    }
  },
  deleted({ id }) {
    scene.boxes.remove(id);
    if (scene.draft?.id !== id || id === null) return;
    say(pending ? "The box was deleted." : "Somebody else deleted this box.");
    editor.close();
  },
  emissions({ list, unlisted }) {
    fillEmissions($("emissions"), list, unlisted, scene.looks, scene.status?.seconds ?? 0);
  },
  occupancy: (point) => scene.strip.addOccupancy(point),
  activity: (interval) => scene.strip.addActivity(interval),
  answer(answer) {
    scene.answer = answer;
    showStream(scene.hello, scene.status, answer);
  },
  saved({ kind, path, count, message }) {
    const what = kind === "recording" ? "Saved" : "Corrections are in";
    say(`${what} ${path}, ${count} annotations${message ? `; ${message}` : ""}`);
    $("save").disabled = false;
  },
  error({ message }) {
    $("save").disabled = false;
    if (pending) {
      pending = null;
      editor.complain(message);
    } else {
      say(message, true);
    }
  },
  end({ reason }) {
    isEnded = true;
    showLink();
    const what = reason || "the run is over";
    say(`${what[0].toUpperCase()}${what.slice(1)}. What was received can still be looked at.`);
  },
};

function takeTile(tile) {
  if (!tile.rows) {
    view.isBehind = false; // what was let go comes now
    scene.history.beginAgain(tile.timeStart);
  } else if (!view.isLive && (view.isBehind || scene.history.wouldForget(tile.rows, view.shown.start))) {
    view.isBehind = true; // a paused view keeps its rows
  } else {
    scene.history.add(tile, paint);
    view.newest = Math.max(view.newest, scene.history.extent?.end ?? 0);
  }
  redraw();
}

function beginRun(hello) {
  scene.history.clear();
  scene.boxes.clear();
  scene.strip.clear();
  scene.answer = null;
  setDrawing(false);
  editor.close();
  view.begin(hello.duration);
  showPause();
  fillSpans();
  // Amplitudes are what CSI is looked at for; the strip has the activities.
  setOpacity(hello.task === "activity" ? FAINT : OPACITY);
  scene.levels = LEVELS.map((share) => 255 * share);
}

function describeRun(hello) {
  const isCsi = hello.task === "activity";
  document.body.dataset.task = hello.task;
  document.title = `${hello.title} · rfvit`;
  $("title").textContent = hello.title;
  $("draw").hidden = !hello.can_correct;
  $("save").hidden = !hello.can_save;
  $("save").textContent = `Save last ${seconds(Math.min(MOST_SAVED, hello.save_seconds))}`;
  $("emissions").hidden = isCsi;
  $("newest-band-label").hidden = true;
  showLevels();
  $("labels-title").textContent = isCsi ? "Activities" : "Labels";
  $("mask-name").textContent = isCsi ? "Tint" : "Mask";
}

function isAnswer(box) {
  if (pending.id !== null) return box.id === pending.id;
  const isNear = Math.abs(box.freq_lower_edge - pending.freq_lower_edge) < 1;
  return box.origin === "drawn" && box.label === pending.label && isNear;
}

// ---- time ----

let asking = null;
let mustAsk = false; // whatever was asked for before: a server that was lost and found again does not know of it

/** Ask for the tiles that the view needs, once it has stood still; those that are there may do. */
function ask(isAnew = false) {
  mustAsk ||= isAnew; // until it is done, also where the view changes before that
  clearTimeout(asking);
  asking = setTimeout(askNow, mustAsk ? 0 : 1000 * ASK_SECONDS);
}

function askNow() {
  if (!scene.status || !connection.isOpen) return;
  const { hello, status, history } = scene;
  const now = Math.max(status.seconds, view.newest);
  const request = view.request(now, plot.pixels, history.capacity, hello.history_seconds);
  const suits = view.suits(request);
  if (suits && !mustAsk && !view.isBehind) return;
  if (suits && history.extent) request.since = history.extent.end; // the others are here already
  if (!connection.send({ type: "view", ...request })) return;
  view.asked = request;
  mustAsk = false;
}

function oldest() {
  return scene.history.extent?.start ?? 0;
}

function pause() {
  if (!view.isLive) return;
  view.showUntil(view.newest, oldest());
  showPause();
}

function goLive() {
  isPausedBySelection = false;
  view.end = null;
  ask(view.isBehind);
  showPause();
}

function showUntil(time) {
  isPausedBySelection = false;
  view.showUntil(time, oldest());
  if (view.end === view.newest && !view.isBehind && !isEnded) goLive();
  else showPause();
}

function showPause() {
  $("pause").textContent = view.isLive ? "Pause" : "Resume";
  document.body.dataset.view = view.isLive ? "live" : "paused";
  showLink();
  redraw();
}

function zoomTo(span) {
  view.span = span;
  $("span").value = String(span);
  if (!view.isLive) view.showUntil(view.end, oldest());
  ask();
  redraw();
}

function fillSpans() {
  const options = view.spans.map((span) => {
    const option = element("option", seconds(span));
    option.value = String(span);
    return option;
  });
  $("span").replaceChildren(...options);
  $("span").value = String(view.span);
}

// ---- boxes ----

function select(box) {
  if (view.isLive && !isEnded) {
    pause();
    isPausedBySelection = true;
  }
  editor.open(box, scene.hello.can_correct);
}

function submit(draft) {
  if (pending) return; // the answer is on its way
  const { id, label, time_start, time_end, freq_lower_edge, freq_upper_edge } = draft;
  const request = { id, label, time_start, time_end, freq_lower_edge, freq_upper_edge };
  scene.lastLabel = label;
  if (connection.send({ type: "correct", ...request })) pending = { kind: "correct", ...request };
  else editor.complain("There is no connection; try again when it is back.");
}

function remove(id) {
  if (pending) return;
  if (connection.send({ type: "delete", id })) pending = { kind: "delete", id };
  else editor.complain("There is no connection; try again when it is back.");
}

function setDrawing(isDrawing) {
  if (isDrawing && (!scene.hello?.can_correct || !plot.frame(sceneNow()))) return;
  scene.isDrawing = isDrawing;
  scene.corner = null;
  scene.draft = editor.draft; // half a box is none
  if (isDrawing) {
    editor.close();
    if (!isEnded) pause();
    say("Drag over the waterfall, or move the cursor with the arrow keys and press Enter at two corners.");
  }
  $("draw").setAttribute("aria-pressed", String(isDrawing));
  plot.element.dataset.drawing = String(isDrawing);
  redraw();
}

/** Two corners → a new box, not yet the server's. */
function boxBetween(one, other) {
  return {
    id: null,
    label: scene.lastLabel ?? scene.hello.labels[1] ?? "",
    confidence: 1,
    origin: "drawn",
    time_start: Math.min(one.time, other.time),
    time_end: Math.max(one.time, other.time),
    freq_lower_edge: Math.min(one.frequency, other.frequency),
    freq_upper_edge: Math.max(one.frequency, other.frequency),
  };
}

function finishDrawing(one, other) {
  const box = boxBetween(one, other);
  setDrawing(false);
  hush();
  if (box.time_start === box.time_end || box.freq_lower_edge === box.freq_upper_edge) return;
  editor.open(box, true);
  editor.focus();
}

// ---- looks ----

function repaint() {
  const tints = (scene.hello?.labels ?? []).map((label, number) => {
    const look = number > 0 && !scene.hidden.has(label) ? scene.looks.get(label) : null;
    return look ? { rgb: channels(look.colour), hatch: look.hatch } : null;
  });
  paint = { power: powerColours(scene.palette, theme.isDark, scene.levels), tints };
  drawScale($("scale"), powerColours(scene.palette, theme.isDark, [0, 255]));
  scene.history.repaint(paint);
  redraw();
}

function toggleLabel(label) {
  if (!scene.hidden.delete(label)) scene.hidden.add(label);
  const box = $("legend").querySelectorAll("input")[[...scene.looks.keys()].indexOf(label)];
  if (box) box.checked = !scene.hidden.has(label);
  repaint();
}

/** Take what was typed for the darkest and the lightest power; nonsense changes nothing. */
function setLevels() {
  const { db_min: least, db_max: most } = scene.hello;
  const [low, high] = [$("least"), $("most")].map((field) => ((field.valueAsNumber - least) / (most - least)) * 255);
  if (!(low < high)) return;
  scene.levels = [low, high];
  repaint();
}

function showLevels() {
  const { db_min: least, db_max: most } = scene.hello;
  const [low, high] = scene.levels.map((level) => least + (level / 255) * (most - least));
  $("least").value = String(Number(low.toPrecision(2)));
  $("most").value = String(Number(high.toPrecision(2)));
  $("unit").textContent = scene.hello.power_unit;
}

function setOpacity(share) {
  scene.opacity = Math.max(0, Math.min(1, share));
  $("opacity").value = String(Math.round(100 * scene.opacity));
  redraw();
}

// ---- what is written ----

/** How the connection stands, and s until the next attempt. */
const link = { state: "connecting", wait: 0 };

function showLink() {
  showConnection(link, { isKnown: scene.hello !== null, isEnded }, view.isLive);
  $("pause").disabled = isEnded && view.isLive;
}

let drawing = "";
let drawn = { pictures: 0, milliseconds: 0, since: performance.now() };

/** Say once a second how fast this page draws. */
function countDrawing(milliseconds) {
  drawn.pictures += 1;
  drawn.milliseconds += milliseconds;
  const passed = (performance.now() - drawn.since) / 1000;
  if (passed < 1) return;
  const each = (drawn.milliseconds / drawn.pictures).toFixed(1);
  drawing = `${(drawn.pictures / passed).toFixed(0)} pictures/s, ${each} ms each`;
  drawn = { pictures: 0, milliseconds: 0, since: performance.now() };
}

function showShares() {
  const { answer } = scene;
  fillShares($("legend"), scene.looks, answer ? new Map([[answer.label, answer.confidence]]) : scene.strip.newest);
}

function showScroll() {
  const most = Math.max(0, view.newest - oldest() - view.span);
  const scroll = $("scroll");
  scroll.disabled = most === 0;
  scroll.max = String(most || 1);
  scroll.value = String(view.newest - view.shown.end);
  scroll.setAttribute("aria-valuetext", `${seconds(Number(scroll.value))} back`);
  $("back").textContent = view.isLive ? "newest" : `${seconds(Number(scroll.value))} back`;
  const { start, end } = view.shown;
  const band = scene.history.band(start, end, false);
  $("newest-band-label").hidden = !band || (band.isOne && !scene.newestBandOnly);
}

/** What the cursor is at: time and frequency; null where there is no cursor, or nothing yet. */
function cursorPlace(frame) {
  if (!frame || !scene.cursor) return null;
  const { across, down } = scene.cursor;
  return {
    frequency: frame.frequency(frame.left + across * frame.width),
    time: frame.time(frame.top + down * frame.height),
  };
}

function showReadout(frame) {
  const place = cursorPlace(frame);
  if (!place) return;
  const text = readout(scene, frame, place).join(" · ");
  if ($("readout").textContent !== text) $("readout").textContent = text;
}

/** For those who hear the page: only what they asked for, not what passes by. */
function announce() {
  const frame = plot.frame(sceneNow());
  const place = cursorPlace(frame);
  if (place) $("announcement").textContent = readout(scene, frame, place).join(", ");
}

// ---- drawing ----

let isDue = false;

function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(drawNow);
}

/** The scene as the plot wants it. */
function sceneNow() {
  const frameless = { ...scene, task: scene.hello?.task, theme: theme.colours, timeEnd: view.shown.end, span: view.span };
  const frame = plot.frame(frameless);
  return { ...frameless, cursor: cursorPlace(frame) };
}

function drawNow() {
  isDue = false;
  const began = performance.now();
  const now = sceneNow();
  plot.draw(now);
  showReadout(plot.frame(now));
  showScroll();
  showShares();
  countDrawing(performance.now() - began);
}

new ResizeObserver(() => {
  if (!plot.resize()) return;
  ask();
  redraw();
}).observe(plot.element);

// ---- from people ----

new Pointer(plot.element, {
  frame: () => plot.frame(sceneNow()),
  draft: () => (scene.hello?.can_correct ? scene.draft : null),
  isDrawing: () => scene.isDrawing,
  onPoint(x, y) {
    const frame = plot.frame(sceneNow());
    if (!frame) return;
    if (frame.contains(x, y)) scene.cursor = cursorAt(frame, x, y);
    redraw();
  },
  onLeave() {
    if (document.activeElement !== plot.element) scene.cursor = null;
    redraw();
  },
  onClick(x, y) {
    const frame = plot.frame(sceneNow());
    if (!frame?.contains(x, y)) return;
    scene.cursor = cursorAt(frame, x, y);
    if (!scene.isDrawing) selectAtCursor();
  },
  onEdges: (values) => editor.move(values),
  onDraw(from, to) {
    scene.draft = boxBetween(from, to);
    redraw();
  },
  onDrawn: finishDrawing,
  onCancel() {
    scene.draft = editor.draft;
    redraw();
  },
  onPan: showUntil,
  onZoom: (steps) => zoomTo(view.spanBeside(steps)),
});

function cursorAt(frame, x, y) {
  return { across: (x - frame.left) / frame.width, down: (y - frame.top) / frame.height };
}

function selectAtCursor() {
  const frame = plot.frame(sceneNow());
  const place = cursorPlace(frame);
  const box = place && scene.boxes.at(frame, scene.hidden, place.time, place.frequency);
  if (box) select(box);
  else editor.close();
}

const actions = {
  pause() {
    if (!view.isLive) goLive();
    else if (!isEnded) pause();
  },
  older: () => showUntil(view.shown.end - 0.8 * view.span),
  newer: () => showUntil(view.shown.end + 0.8 * view.span),
  newest: goLive,
  zoomIn: () => zoomTo(view.spanBeside(-1)),
  zoomOut: () => zoomTo(view.spanBeside(1)),
  opacity: (event) => setOpacity(scene.opacity + (event.key === "]" ? 0.1 : -0.1)),
  toggleLabel(event) {
    const label = [...scene.looks.keys()][Number(event.key) - 1];
    if (label !== undefined) toggleLabel(label);
  },
  moveCursor(event) {
    const frame = plot.frame(sceneNow());
    if (!frame) return;
    const { across, down } = scene.cursor ?? { across: 0.5, down: 0.5 };
    const step = event.shiftKey ? 10 : 1;
    const [right, lower] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const inside = (share) => Math.max(0, Math.min(1 - 1e-6, share));
    scene.cursor = {
      across: inside(across + (right * step) / frame.width),
      down: inside(down + (lower * step) / frame.height),
    };
    announce();
  },
  enter() {
    if (!scene.isDrawing) {
      selectAtCursor();
      return;
    }
    const place = cursorPlace(plot.frame(sceneNow()));
    if (!place) return;
    place.time = Math.max(0, place.time);
    if (scene.corner) finishDrawing(scene.corner, place);
    else scene.corner = place;
  },
  neighbour(event) {
    const frame = plot.frame(sceneNow());
    const step = event.key.toLowerCase() === "n" ? 1 : -1;
    const box = frame && scene.boxes.neighbour(frame, scene.hidden, scene.draft?.id, step);
    if (!box) return;
    select(box);
    $("announcement").textContent = `${describe(box)}, ${seconds(box.time_start)} to ${seconds(box.time_end)}`;
  },
  edit: () => scene.draft && editor.focus(),
  draw() {
    setDrawing(!scene.isDrawing);
    if (!scene.isDrawing) return;
    scene.cursor ??= { across: 0.5, down: 0.5 };
    plot.element.focus();
  },
  delete: () => typeof scene.draft?.id === "number" && scene.hello.can_correct && remove(scene.draft.id),
  cancel() {
    if (scene.isDrawing) setDrawing(false);
    else if (scene.draft) editor.close();
    else hush();
    plot.element.focus();
  },
  save() {
    if (!scene.hello?.can_save || $("save").disabled) return;
    const most = Math.min(MOST_SAVED, scene.hello.save_seconds);
    if (!connection.send({ type: "save", seconds: most })) {
      say("There is no connection; nothing was saved.", true);
      return;
    }
    $("save").disabled = true;
    say("Saving …");
  },
  theme: () => theme.toggle(),
  help: () => $("shortcuts").showModal(),
};

document.addEventListener("keydown", (event) => {
  const entry = entryFor(event, plot.element, $("single-keys").checked);
  if (!entry) return;
  event.preventDefault();
  actions[entry.action](event);
  redraw();
});

for (const name of ["pause", "draw", "save", "theme", "help"]) {
  $(name).addEventListener("click", (event) => actions[name](event));
}
$("retry").addEventListener("click", () => connection.retryNow());
$("span").addEventListener("change", () => zoomTo(Number($("span").value)));
$("opacity").addEventListener("input", () => setOpacity(Number($("opacity").value) / 100));
$("palette").addEventListener("change", () => {
  scene.palette = $("palette").value;
  repaint();
});
for (const name of ["least", "most"]) $(name).addEventListener("input", () => scene.hello && setLevels());
$("newest-band").addEventListener("change", () => {
  scene.newestBandOnly = $("newest-band").checked;
  redraw();
});
$("scroll").addEventListener("input", () => showUntil(view.newest - Number($("scroll").value)));
$("message").querySelector("button").addEventListener("click", hush);
fillHelp($("shortcuts").querySelector("dl"));
fillSpans();
redraw();

const connection = new Connection(streamAddress(location), {
  onMessage(fields) {
    take[fields.type](fields);
    redraw();
  },
  onTile: takeTile,
  onState(state, wait = 0) {
    Object.assign(link, { state, wait });
    showLink();
  },
  onProblem: (problem) => say(`The server said what this page does not understand: ${problem}`, true),
});
