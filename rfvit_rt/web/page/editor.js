// SPDX-License-Identifier: Apache-2.0
// The panel in which a box is corrected, drawn anew or deleted. What it holds is a draft until the server has it.

import { describe } from "./boxes.js";
import { MAX_LABEL } from "./protocol.js";

const OTHER = "another label …";
const EDGES = {
  low: ["freq_lower_edge", 1e6],
  high: ["freq_upper_edge", 1e6],
  start: ["time_start", 1],
  end: ["time_end", 1],
};

export class Editor {
  /**
   * @param {HTMLElement} section
   * @param {object} to - onChange(), onSubmit(draft), onDelete(id), onClose(had the focus)
   */
  constructor(section, to) {
    this.section = section;
    this.form = section.querySelector("form");
    this.fields = this.form.elements;
    this.to = to;
    /** The box as it shall be; null while none is selected. */
    this.draft = null;
    this.isTouched = false;
    this.form.addEventListener("input", () => this.read());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.fields.delete.addEventListener("click", () => this.to.onDelete(this.draft.id));
    this.fields.cancel.addEventListener("click", () => this.close());
  }

  /** Offer these labels. */
  setLabels(labels) {
    this.labels = labels;
  }

  /**
   * Show a box.
   *
   * @param {object} box - one of the server's, or a new one with id null
   * @param {boolean} canCorrect
   */
  open(box, canCorrect) {
    this.draft = { ...box };
    this.isTouched = false;
    this.section.hidden = false;
    const isNew = box.id === null;
    this.section.querySelector("h2").textContent = isNew ? "New box" : "Box";
    const was = box.was ? `The model said ${box.was.label}.` : "";
    this.section.querySelector(".was").textContent = isNew ? "" : `${describe(box)}. ${was}`;
    this.offer(box.label);
    this.write();
    this.complain("");
    for (const field of this.fields) field.disabled = !canCorrect && field.name !== "cancel";
    this.fields.delete.hidden = isNew;
    this.form.querySelector("[type=submit]").textContent = isNew ? "Keep box" : "Keep correction";
    this.to.onChange();
  }

  close() {
    if (!this.draft) return;
    const hadFocus = this.section.contains(document.activeElement);
    this.draft = null;
    this.section.hidden = true;
    this.to.onClose(hadFocus);
  }

  focus() {
    this.fields.label.focus();
  }

  /** Move edges, as by a pointer. */
  move(values) {
    Object.assign(this.draft, values);
    this.isTouched = true;
    this.write();
    this.to.onChange();
  }

  submit() {
    const problem = this.problem();
    this.complain(problem);
    if (!problem) this.to.onSubmit({ ...this.draft, label: this.draft.label.trim() });
  }

  problem() {
    const { label, time_start, time_end, freq_lower_edge, freq_upper_edge } = this.draft;
    if (!label.trim() || label.length > MAX_LABEL) return `A label has 1 to ${MAX_LABEL} characters.`;
    const edges = [time_start, time_end, freq_lower_edge, freq_upper_edge];
    if (!edges.every(Number.isFinite)) return "Every edge needs a number.";
    if (time_start < 0) return "Time begins at 0 s.";
    if (time_start >= time_end) return "The start is not before the end.";
    if (freq_lower_edge >= freq_upper_edge) return "The lower edge is not below the upper.";
    return "";
  }

  complain(problem) {
    const place = this.section.querySelector(".problem");
    place.textContent = problem;
    place.hidden = !problem;
  }

  offer(label) {
    const labels = this.labels.includes(label) ? this.labels : [...this.labels, label];
    const options = [...labels, OTHER].map((text) => {
      const option = document.createElement("option");
      option.textContent = text;
      option.value = text;
      return option;
    });
    this.fields.label.replaceChildren(...options);
    this.fields.label.value = label;
    this.fields.other.value = "";
    this.showOther();
  }

  showOther() {
    const isOther = this.fields.label.value === OTHER;
    this.fields.other.closest("label").hidden = !isOther;
    return isOther;
  }

  write() {
    for (const [name, [field, unit]] of Object.entries(EDGES)) {
      // As many digits as a sample or a hertz needs, and no trace of binary fractions.
      this.fields[name].value = String(Number((this.draft[field] / unit).toFixed(9)));
    }
  }

  read() {
    const isOther = this.showOther();
    this.draft.label = isOther ? this.fields.other.value : this.fields.label.value;
    for (const [name, [field, unit]] of Object.entries(EDGES)) {
      this.draft[field] = this.fields[name].value === "" ? NaN : this.fields[name].valueAsNumber * unit;
    }
    this.isTouched = true;
    this.complain("");
    this.to.onChange();
  }
}
