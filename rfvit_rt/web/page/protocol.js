// SPDX-License-Identifier: Apache-2.0
// What the server says, checked before anything else of the page sees it; rfvit_rt/web/protocol.py describes it all.

const CSI = 1; // the highest kind of tile; 0 is spectrum
export const MAX_LABEL = 64; // of labels that the server takes
export const MAX_COLUMNS = 1024; // that the page asks for: more than it has pixels in nearly all cases
export const MAX_ROWS = 1024;

const VERSION = 1;
const MAGIC = 0x52465654; // "RFVT", read as big-endian
const HEADER_BYTES = 52;
const MAX_TEXT = 4096;
const MAX_LABELS = 256; // classes are bytes in tiles
const MAX_LIST = 1000;

/** What came is not what the protocol says; the connection goes on without it. */
export class ProtocolError extends Error {}

/**
 * Read a tile of the waterfall.
 *
 * @param {ArrayBuffer} buffer - as it came
 * @returns {object} kind, rows, columns, position (samples or frames), timeStart, rowSeconds (s), lowEdge, columnWidth
 *   (Hz, or subcarrier indices); power, classes, confidence: Uint8Array, row after row
 * @throws {ProtocolError}
 */
export function decodeTile(buffer) {
  if (buffer.byteLength < HEADER_BYTES) throw new ProtocolError(`a tile of ${buffer.byteLength} bytes has no header`);
  const header = new DataView(buffer);
  if (header.getUint32(0) !== MAGIC || header.getUint8(4) !== VERSION) {
    throw new ProtocolError("a binary message is not a tile of this version");
  }
  const kind = header.getUint8(5);
  const rows = header.getUint16(6, true);
  const columns = header.getUint16(8, true);
  const cells = rows * columns;
  if (kind > CSI || rows > MAX_ROWS || columns > MAX_COLUMNS) {
    throw new ProtocolError(`a tile of kind ${kind} with ${rows} rows and ${columns} columns is none that was asked for`);
  }
  if (buffer.byteLength !== HEADER_BYTES + 3 * cells) {
    throw new ProtocolError(`a tile of ${rows} times ${columns} cells has ${buffer.byteLength} bytes; it was cut off`);
  }
  const [timeStart, rowSeconds, lowEdge, columnWidth] = [20, 28, 36, 44].map((at) => header.getFloat64(at, true));
  const isPlaced = [timeStart, rowSeconds, lowEdge, columnWidth].every(Number.isFinite);
  if (!isPlaced || (cells > 0 && (rowSeconds <= 0 || columnWidth <= 0))) {
    throw new ProtocolError("a tile does not say where it is in time and frequency");
  }
  const plane = (number) => new Uint8Array(buffer, HEADER_BYTES + number * cells, cells);
  return {
    kind,
    rows,
    columns,
    position: Number(header.getBigInt64(12, true)),
    timeStart,
    rowSeconds,
    lowEdge,
    columnWidth,
    power: plane(0),
    classes: plane(1),
    confidence: plane(2),
  };
}

// ---- text messages: a check for each field ----

const number = (value) => {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new ProtocolError("a number is missing");
  return value;
};
const flag = (value) => {
  if (typeof value !== "boolean") throw new ProtocolError("a yes or no is missing");
  return value;
};
const text = (value) => {
  if (typeof value !== "string") throw new ProtocolError("a text is missing");
  return value.slice(0, MAX_TEXT);
};
const optional = (check) => (value) => (value === null || value === undefined ? null : check(value));
const list = (check, most) => (value) => {
  if (!Array.isArray(value) || value.length > most) throw new ProtocolError(`a list of at most ${most} is missing`);
  return value.map(check);
};
const record = (fields) => (value) => {
  if (typeof value !== "object" || value === null) throw new ProtocolError("an object is missing");
  return Object.fromEntries(Object.entries(fields).map(([name, check]) => [name, checked(name, check, value[name])]));
};
// A Map, so that a label called "constructor" or "__proto__" is a key like any other.
const mapping = (check) => (value) => {
  if (typeof value !== "object" || value === null) throw new ProtocolError("an object is missing");
  return new Map(Object.entries(value).slice(0, MAX_LABELS).map(([name, item]) => [name.slice(0, MAX_TEXT), check(item)]));
};

function checked(name, check, value) {
  try {
    return check(value);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    throw new ProtocolError(`${name}: ${error.message}`);
  }
}

const band = { freq_lower_edge: number, freq_upper_edge: number };
const stretch = { time_start: number, time_end: number };
const was = record({ label: text, confidence: optional(number) });

const MESSAGES = {
  hello: {
    version: number,
    task: text,
    title: text,
    run: text,
    labels: list(text, MAX_LABELS),
    colours: mapping(text),
    model: text,
    engine: text,
    sample_rate: optional(number),
    frequency: optional(number),
    recorded: optional(flag),
    simulated: flag,
    step_seconds: number,
    n_bins: number,
    db_min: number,
    db_max: number,
    power_unit: text,
    history_seconds: number,
    duration: optional(number),
    can_save: flag,
    can_correct: flag,
    save_seconds: number,
  },
  status: {
    position: number,
    seconds: number,
    sample_rate: optional(number),
    frequency: optional(number),
    achieved_rate: optional(number),
    lost: mapping(number),
    restarts: number,
    age: optional(record({ p50: number, p95: number, p99: number })),
    windows: number,
    windows_per_second: number,
    clients: number,
    frames_dropped: number,
    rows_dropped: number,
    recorded: optional(flag),
    simulated: flag,
    ended: flag,
  },
  annotation: {
    id: number,
    label: text,
    confidence: number,
    ...stretch,
    ...band,
    frequency: optional(number),
    origin: text,
    was: optional(was),
  },
  deleted: { id: number },
  emissions: {
    list: list(
      record({
        label: text,
        ...band,
        first_seen: number,
        last_seen: number,
        burst_count: number,
        duty_cycle: number,
        confidence: number,
        is_current: flag,
      }),
      MAX_LIST,
    ),
    unlisted: number,
  },
  occupancy: { time: number, shares: mapping(number) },
  activity: { label: text, ...stretch, confidence: number, frame_rate: number, lost: number },
  answer: { label: text, confidence: number, time: number },
  saved: { kind: text, path: text, count: number, message: text },
  error: { message: text },
  end: { reason: text },
};

/**
 * Read a text message.
 *
 * @param {string} data - as it came
 * @returns {object|null} its fields, each of the right kind, with its type; null where the type is none this page knows
 * @throws {ProtocolError}
 */
export function decodeMessage(data) {
  let value;
  try {
    value = JSON.parse(data);
  } catch {
    throw new ProtocolError("a text message is not JSON");
  }
  const type = value?.type;
  if (typeof type !== "string" || !Object.hasOwn(MESSAGES, type)) return null;
  const fields = checked(type, record(MESSAGES[type]), value);
  if (type === "hello" && fields.version !== VERSION) {
    throw new ProtocolError(`the server speaks version ${fields.version}, this page ${VERSION}; reload the page`);
  }
  return { type, ...fields };
}
