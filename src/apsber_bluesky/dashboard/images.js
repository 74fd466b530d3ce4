// An image that is asked for at most once at a time: a slow link shows the newest, never a queue.

import { picture } from "/feed.js";

const COARSE = 300;

export class Image {
  constructor(element) {
    this.element = element;
    this.shown = "";
    this.wanted = "";
    this.busy = false;
    element.addEventListener("load", () => {
      element.classList.toggle("coarse", Math.max(element.naturalWidth, element.naturalHeight) < COARSE);
    });
  }

  // `name` tells one picture from another; "" shows none.
  show(name, path, alt) {
    this.wanted = name;
    this.path = path;
    this.alt = alt;
    if (name === "") this.put("", "");
    else if (!this.busy && name !== this.shown) this.load();
  }

  async load() {
    this.busy = true;
    while (this.wanted !== this.shown && this.wanted !== "") {
      const [name, alt] = [this.wanted, this.alt];
      try {
        const url = await picture(this.path);
        if (this.wanted === "") { URL.revokeObjectURL(url); break; }
        this.put(url, alt);
      } catch {
        if (this.wanted === name) this.put("", "");
      }
      this.shown = name;
    }
    this.busy = false;
  }

  put(url, alt) {
    const old = this.element.src;
    this.element.hidden = url === "";
    this.element.alt = alt;
    if (url === "") { this.element.removeAttribute("src"); this.shown = ""; } else this.element.src = url;
    if (old.startsWith("blob:") && old !== url) URL.revokeObjectURL(old);
  }
}
