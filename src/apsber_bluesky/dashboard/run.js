// The page of one run: its volume to leaf through, its figures, and everything that is known.

import { Cards } from "/cards.js";
import { $, facts, fill, judged, make, say } from "/dom.js";
import { json, picture } from "/feed.js";
import { moment, number } from "/format.js";
import { Image } from "/images.js";
import { scanLine, showState } from "/overview.js";

const AXES = ["z", "y", "x"];
const NAMES = { volume: "Reconstruction", denoised: "Denoised", labels: "Labels", uncertainty: "Uncertainty" };
const SVG = "http://www.w3.org/2000/svg";

export class RunPage {
  constructor() {
    this.cards = new Cards($("run-side"), false);
    this.image = new Image($("volume-image"));
    this.labels = new Image($("volume-labels"));
    this.uid = "";
    $("volume-of").addEventListener("change", () => this.showSlice());
    $("overlay").addEventListener("change", () => this.showSlice());
    $("position").addEventListener("input", () => this.showSlice());
    for (const choice of document.getElementsByName("axis")) {
      choice.addEventListener("change", () => this.chooseAxis());
    }
  }

  open(uid) {
    this.uid = uid;
    this.run = null;
    for (const [id, text] of [["run-sample", "\u2026"], ["run-line", ""], ["run-reason", ""], ["run-state", ""]]) say($(id), text);
    return this.refresh();
  }

  // Asked for while an answer is awaited, it is asked once more: never a queue.
  async refresh() {
    this.isAsked = true;
    if (this.isBusy) return;
    this.isBusy = true;
    while (this.isAsked && this.uid) {
      this.isAsked = false;
      await this.ask(this.uid);
    }
    this.isBusy = false;
  }

  async ask(uid) {
    try {
      const run = await json(`/api/runs/${encodeURIComponent(uid)}`);
      if (uid === this.uid) this.show(run);
    } catch (error) {
      if (uid === this.uid) { say($("run-sample"), "This run cannot be shown"); say($("run-reason"), error.message); }
    }
  }

  show(run) {
    const isNew = this.run?.uid !== run.uid;
    this.run = run;
    showState($("run-state"), run.state);
    say($("run-line"), scanLine(run));
    say($("run-sample"), run.sample || "Unnamed sample");
    say($("run-reason"), run.reason);
    fill($("run-verdict"), run.quality.verdict ?? "", judged);
    document.title = `${run.sample || "Run"} \u00B7 ${run.uid.slice(0, 8)}`;
    const scan = run.scan;
    facts($("run-facts"), [
      ["Began", moment(run.start_time_s)],
      ["Frame", scan.rows ? `${number(scan.rows)} \u00D7 ${number(scan.columns)}` : "\u2013"],
      ["Exposure", scan.exposure_s ? `${number(scan.exposure_s * 1000)} ms` : "\u2013"],
      ["Pixel", scan.pixel_size_um ? `${number(scan.pixel_size_um)} \u00B5m` : "\u2013"],
      ["Detectors", run.detectors.join(", ") || "\u2013"],
      ["Run", run.uid, true],
      ["Folder", run.folder, true],
    ]);
    this.cards.show(run, null);
    this.showVolumes(isNew);
    this.showFigures();
  }

  showVolumes(isNew) {
    const names = Object.keys(this.run.volumes);
    const chosen = isNew ? "volume" : $("volume-of").value;
    fill($("volume-of"), names, () => names.map((name) => make("option", { value: name, text: NAMES[name] ?? name })));
    if (names.includes(chosen)) $("volume-of").value = chosen;
    $("volume-card").querySelectorAll("select, input").forEach((input) => { input.disabled = names.length === 0; });
    $("overlay-label").hidden = !names.includes("labels");
    const classes = this.run.volumes.labels?.classes ?? [];
    fill($("legend"), classes, () => classes.map(swatch));
    this.chooseAxis();
  }

  get axis() {
    return document.querySelector("input[name=axis]:checked").value;
  }

  get volume() {
    return this.run?.volumes[$("volume-of").value];
  }

  chooseAxis() {
    const size = this.volume?.shape[AXES.indexOf(this.axis)] ?? 1;
    const slider = $("position");
    const place = `${this.uid} ${this.axis} ${size}`;
    if (place !== this.place) {
      this.place = place;
      slider.max = size - 1;
      slider.value = Math.floor(size / 2);
    }
    this.showSlice();
  }

  showSlice() {
    const { axis, volume } = this;
    if (!volume) { this.image.show(""); this.labels.show(""); say($("position-text"), ""); say($("volume-facts"), ""); return; }
    const of = $("volume-of").value;
    const position = $("position").valueAsNumber;
    const path = (name) => `/api/runs/${this.uid}/slice?of=${name}&axis=${axis}&position=${position}`;
    this.image.show(path(of), path(of), `${NAMES[of]}, ${axis} = ${position}`);
    const over = $("overlay").checked && of !== "labels" && "labels" in this.run.volumes;
    this.labels.show(over ? path("labels") : "", path("labels"), "Labels");
    const size = volume.shape[AXES.indexOf(axis)];
    const text = `${axis} = ${position} of ${size}`;
    say($("position-text"), text);
    $("position").setAttribute("aria-valuetext", text);
    $("legend").hidden = !(over || of === "labels");
    const voxel = volume.voxel_size_um ? `, voxels of ${number(volume.voxel_size_um)} \u00B5m` : "";
    const range = of === "labels" ? "" : `; black ${number(volume.low)}, white ${number(volume.high)} ${volume.unit}`;
    say($("volume-facts"), `${volume.shape.map((n) => number(n)).join(" \u00D7 ")}${voxel}${range}`);
  }

  showFigures() {
    $("figures-card").hidden = this.run.figures.length === 0;
    fill($("figures"), [this.uid, ...this.run.figures], () => this.run.figures.map((name) => {
      const image = make("img", { alt: `Figure ${name}` });
      picture(`/api/runs/${this.uid}/figures/${name}`).then((url) => {
        image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
        image.src = url;
      }, () => { image.alt = `Figure ${name} cannot be shown`; });
      return make("figure", {}, image, make("figcaption", { text: name }));
    }));
  }
}

// A colour from a file is drawn, not written into a style.
function swatch(one) {
  const box = document.createElementNS(SVG, "svg");
  const fillOf = document.createElementNS(SVG, "rect");
  const [red, green, blue] = one.rgba;
  for (const [key, value] of [["width", "100%"], ["height", "100%"], ["rx", "2"], ["fill", `rgb(${red},${green},${blue})`]]) fillOf.setAttribute(key, value);
  box.setAttribute("aria-hidden", "true");
  box.append(fillOf);
  return make("li", {}, box, one.name);
}
