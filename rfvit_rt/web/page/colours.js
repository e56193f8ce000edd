// SPDX-License-Identifier: Apache-2.0
// What a label looks like: colour, hatching and dashes, so that colour is never the only cue; and scales for power.

// Okabe and Ito's colours, which colour-blind people can tell apart (jfly.uni-koeln.de/color).
const OKABE_ITO = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2"];
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [12, 4], [4, 2], [2, 6]];

const CELL = 2; // pixels, in legend and strip; on the waterfall a cell is one of the model's
const GROUND = "#22272e"; // dark, or one would not see the pattern of the lighter colours
const PERIOD = 6; // cells
const WEAK = 0.55; // opacity of a hatching's gaps
const HATCHES = [
  () => true,
  (row, column) => (row + column) % PERIOD < 3,
  (row, column) => row % PERIOD < 3 || column % PERIOD < 3,
  (row, column) => (PERIOD * 1e6 + row - column) % PERIOD < 3,
  (row) => row % PERIOD < 3,
  (row, column) => column % PERIOD < 3,
  (row, column) => row % PERIOD < 3 === column % PERIOD < 3,
];
export const UNLABELLED = { colour: "#888888", dash: [], hatch: HATCHES[0] };

/** Opacity that a hatching has at a cell. */
export function hatchAlpha(hatch, row, column) {
  return hatch(row, column) ? 1 : WEAK;
}

/** Fill a rectangle, left, top, width and height, with a label's colour and hatching, as in the legend. */
export function fillHatched(context, look, place) {
  const [left, top, width, height] = place.map(Math.round); // or seams would show between the cells
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.fillStyle = GROUND;
  context.fillRect(left, top, width, height);
  context.fillStyle = look.colour;
  for (let row = 0; row * CELL < height; row += 1) {
    for (let column = 0; column * CELL < width; column += 1) {
      context.globalAlpha = hatchAlpha(look.hatch, row, column);
      context.fillRect(left + column * CELL, top + row * CELL, CELL, CELL);
    }
  }
  context.restore();
}

/**
 * Give every label but the first, which is background, its looks.
 *
 * @param {string[]} labels
 * @param {Map<string, string>} colours - what the server would have; anything but #rrggbb is not taken
 * @returns {Map<string, object>} colour, dash, hatch
 */
export function looksOf(labels, colours) {
  const looks = labels.slice(1).map((label, number) => {
    const own = colours.get(label) ?? "";
    const colour = /^#[0-9a-f]{6}$/i.test(own) ? own : OKABE_ITO[number % OKABE_ITO.length];
    // Where colours begin again, patterns are coarser and go with other colours: no two of 14 labels look alike.
    const round = Math.floor(number / OKABE_ITO.length);
    const dash = DASHES[(number + round) % DASHES.length];
    const fine = HATCHES[(number + round) % HATCHES.length];
    const hatch = round % 2 ? (row, column) => fine(row >> 1, column >> 1) : fine;
    return [label, { colour, dash, hatch }];
  });
  return new Map(looks);
}

/** Split #rrggbb into three numbers from 0 to 255. */
export function channels(colour) {
  return [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
}

// Cividis after Nuñez, Anderton and Renslow (doi:10.1371/journal.pone.0199239), at nine even steps.
const CIVIDIS = ["#00224e", "#213b6e", "#4c556c", "#6c6e72", "#7d7c78", "#948e77", "#b8a76b", "#dfc451", "#fee838"];
const SCALES = {
  // Not quite to white: coloured labels shall stand out from strong signals too.
  dark: ["#05070a", "#30363d", "#7d848c", "#e6e6e6"],
  light: ["#ffffff", "#c9ced4", "#7a8088", "#1a1d21"],
  cividis: CIVIDIS,
};

/**
 * Colours for power 0 to 255.
 *
 * @param {string} palette - grey or cividis
 * @param {boolean} isDark - whether the page is; grey follows it, so that noise is what the ground is
 * @param {number[]} levels - power that has the first colour, and power that has the last
 * @returns {Uint32Array} as ImageData has them on little-endian machines, which are all that browsers run on
 */
export function powerColours(palette, isDark, [low, high]) {
  const anchors = SCALES[palette === "cividis" ? palette : isDark ? "dark" : "light"].map(channels);
  return Uint32Array.from({ length: 256 }, (_, power) => {
    const place = Math.max(0, Math.min(1, (power - low) / (high - low))) * (anchors.length - 1);
    const below = Math.min(anchors.length - 2, Math.floor(place));
    const mix = anchors[below].map((low, channel) => low + (anchors[below + 1][channel] - low) * (place - below));
    return packed(mix.map(Math.round), 255);
  });
}

/** A pixel as ImageData's 32 bits. */
export function packed([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
