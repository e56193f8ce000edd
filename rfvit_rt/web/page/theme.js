// SPDX-License-Identifier: Apache-2.0
// Dark or light: as the system has it, until somebody says otherwise here.

const KEY = "rfvit-theme";
const NAMES = ["ground", "panel", "text", "quiet", "line", "accent", "warning", "halo"];

const system = window.matchMedia("(prefers-color-scheme: dark)");

export class Theme {
  /** @param {Function} onChange - called after a change */
  constructor(onChange) {
    this.chosen = stored();
    this.onChange = onChange;
    system.addEventListener("change", () => this.apply());
    this.apply();
  }

  get isDark() {
    return (this.chosen ?? (system.matches ? "dark" : "light")) === "dark";
  }

  toggle() {
    this.chosen = this.isDark ? "light" : "dark";
    try {
      localStorage.setItem(KEY, this.chosen);
    } catch {
      // Not kept then, as where a browser stores nothing.
    }
    this.apply();
  }

  apply() {
    const root = document.documentElement;
    root.dataset.theme = this.isDark ? "dark" : "light";
    const style = getComputedStyle(root);
    /** Colours of the style sheet, for the canvas. */
    this.colours = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.onChange();
  }
}

function stored() {
  try {
    const theme = localStorage.getItem(KEY);
    return theme === "dark" || theme === "light" ? theme : null;
  } catch {
    return null;
  }
}
