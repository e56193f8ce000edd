// SPDX-License-Identifier: Apache-2.0
// The WebSocket: comes back by itself, ever more patiently, and says how it stands.

import { ProtocolError, decodeMessage, decodeTile } from "./protocol.js";

const FIRST_WAIT = 0.5; // s
const LONGEST_WAIT = 8;
const SILENCE = 10; // s without a word, not even a status, until a connection counts as dead

/** Where the server is: beside this page, with the token that the page was opened with. */
export function streamAddress(location) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/stream${location.search}`;
}

export class Connection {
  /**
   * @param {string} address
   * @param {object} to - onMessage(fields), onTile(tile), onState(state, seconds to wait), onProblem(text)
   */
  constructor(address, to) {
    this.address = address;
    this.to = to;
    this.wait = FIRST_WAIT;
    this.timer = null;
    this.socket = null;
    window.addEventListener("online", () => this.retryNow());
    this.open();
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  send(fields) {
    if (!this.isOpen) return false;
    this.socket.send(JSON.stringify(fields));
    return true;
  }

  /** Do not wait for the next attempt. */
  retryNow() {
    if (this.timer !== null || this.socket?.readyState === WebSocket.CONNECTING) {
      this.forget();
      this.open();
    }
  }

  /** Let go of a socket; closing it waits for an answer that may never come. */
  forget() {
    if (!this.socket) return;
    this.socket.onclose = null;
    this.socket.close();
  }

  open() {
    clearTimeout(this.timer);
    this.timer = null;
    this.to.onState("connecting");
    const socket = new WebSocket(this.address);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    this.listenForLife(socket); // from now on: an attempt may hang too
    socket.onmessage = ({ data }) => this.take(data);
    // A refused connection closes too, so errors need no answer of their own.
    socket.onclose = () => this.retryLater(socket);
  }

  take(data) {
    this.heard = performance.now();
    try {
      if (data instanceof ArrayBuffer) {
        this.to.onTile(decodeTile(data));
        return;
      }
      const fields = decodeMessage(data);
      if (fields === null) return;
      if (fields.type === "hello") {
        this.wait = FIRST_WAIT; // only now: a server that hangs up at once is no reason to hurry
        this.to.onState("open");
      }
      this.to.onMessage(fields);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.to.onProblem(error.message);
    }
  }

  /** A server that is gone without a goodbye, as when a laptop slept, is noticed by its silence. */
  listenForLife(socket) {
    this.heard = performance.now();
    const watch = setInterval(() => {
      if (socket !== this.socket || socket.readyState > WebSocket.OPEN) {
        clearInterval(watch);
      } else if (performance.now() - this.heard > SILENCE * 1000) {
        clearInterval(watch);
        this.forget();
        this.retryLater(socket);
      }
    }, 1000);
  }

  retryLater(socket) {
    if (socket !== this.socket) return;
    // Some randomness, or all pages of a server that restarts would come at once.
    const seconds = this.wait * (0.8 + 0.4 * Math.random());
    this.wait = Math.min(LONGEST_WAIT, this.wait * 2);
    this.to.onState("waiting", seconds);
    this.timer = setTimeout(() => this.open(), seconds * 1000);
  }
}
