// Plays an episode: all cameras in step, with plots of state and action below.

import { $, colour, make, paper } from "./page.js";

const LINES = ["#3b82d6", "#e08a2e", "#3aa577", "#b65fcf", "#d3545c", "#8a8f98", "#b8a12c", "#35a7bd"];

/** The pictures of a stream of lengths and JPEGs, each handed to `onPicture` as it comes. */
async function readPictures(response, signal, onPicture) {
  let rest = new Uint8Array();
  for (const reader = response.body.getReader(); !signal.aborted; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const all = new Uint8Array(rest.length + value.length);
    all.set(rest);
    all.set(value, rest.length);
    let start = 0;
    while (all.length >= start + 4) {
      const length = new DataView(all.buffer, start, 4).getUint32(0, true);
      if (all.length < start + 4 + length) break;
      onPicture(new Blob([all.subarray(start + 4, start + 4 + length)], { type: "image/jpeg" }));
      start += 4 + length;
    }
    rest = all.subarray(start);
  }
}

export class Player {
  constructor(get) {
    Object.assign(this, { get, playing: false, frame: 0, length: 0, pictures: [], features: [] });
    $("play").addEventListener("click", () => this.toggle());
    $("frame").addEventListener("input", () => this.seek(Number($("frame").value)));
    addEventListener("resize", () => this.draw());
    addEventListener("keydown", (event) => this.onKey(event));
  }

  async open(episode, cameras, fps) {
    this.stopping?.abort();
    this.stopping = new AbortController();
    const { signal } = this.stopping;
    Object.assign(this, { fps, length: episode.length, frame: 0, features: [], pictures: cameras.map(() => []) });
    $("player").hidden = false;
    $("title").textContent = `Episode ${episode.index}`;
    $("frame").max = episode.length - 1;
    this.canvases = cameras.map(() => make("canvas"));
    const figures = cameras.map((name, k) => {
      const frame = make("div", { className: "picture" }, this.canvases[k]);
      return make("figure", {}, frame, make("figcaption", {}, make("span", { textContent: name })));
    });
    $("cameras").replaceChildren(...figures);
    this.stop();
    const base = `/api/episodes/${episode.index}`;
    await Promise.all([
      this.get(base, signal).then((response) => response.json()).then((series) => signal.aborted || this.plot(series)),
      ...cameras.map(async (_, k) => {
        const response = await this.get(`${base}/frames/${k}`, signal);
        await readPictures(response, signal, (blob) => {
          this.pictures[k].push(blob);
          if (this.pictures[k].length - 1 === this.frame) this.draw();
        });
      }),
    ]);
  }

  plot(series) {
    this.features = series.features;
    const plots = this.features.map((feature) => {
      const canvas = make("canvas", { className: "plot" });
      const seek = (event) => {
        const box = canvas.getBoundingClientRect();
        this.seek(Math.round(((event.clientX - box.left) / box.width) * (this.length - 1)));
      };
      canvas.addEventListener("pointerdown", (event) => (canvas.setPointerCapture(event.pointerId), seek(event)));
      canvas.addEventListener("pointermove", (event) => event.buttons && seek(event));
      const names = feature.channels.map((name, k) => {
        const line = make("i");
        line.style.background = LINES[k % LINES.length];
        const unit = feature.units[k] && feature.units[k] !== "1" ? ` [${feature.units[k]}]` : "";
        return make("span", {}, line, name + unit);
      });
      feature.canvas = canvas;
      const legend = make("div", { className: "legend" }, make("b", { textContent: feature.name }), ...names);
      return [canvas, legend];
    });
    $("plots").replaceChildren(...plots.flat());
    this.draw();
  }

  /** How many frames of every camera are here. */
  get loaded() {
    return Math.min(this.length, ...this.pictures.map((pictures) => pictures.length));
  }

  seek(frame) {
    this.frame = Math.max(0, Math.min(this.length - 1, frame));
    this.draw();
  }

  toggle() {
    if (this.playing) return this.stop();
    if (this.frame >= this.length - 1) this.frame = 0;
    this.playing = true;
    $("play").textContent = "Pause";
    let due = performance.now();
    const step = (now) => {
      if (!this.playing) return;
      while (now >= due && this.frame + 1 < this.loaded) {
        this.frame += 1;
        due += 1000 / this.fps;
      }
      if (now > due) due = now; // waiting for pictures
      this.draw();
      if (this.frame >= this.length - 1) this.stop();
      else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  stop() {
    this.playing = false;
    $("play").textContent = "Play";
  }

  onKey(event) {
    if ($("player").hidden || event.target.matches?.("input[type=text], select, button")) return;
    const ways = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key === " ") this.toggle();
    else if (event.key in ways) this.seek(this.frame + ways[event.key]);
    else return;
    event.preventDefault();
  }

  async draw() {
    const frame = this.frame;
    $("frame").value = frame;
    $("time").textContent = `frame ${frame} of ${this.length}, ${(frame / this.fps).toFixed(1)} s`;
    this.features.forEach((feature) => this.drawPlot(feature, frame));
    const blobs = this.pictures.map((pictures) => pictures[frame]);
    if (!blobs.length || blobs.some((blob) => !blob)) return;
    const pictures = await Promise.all(blobs.map((blob) => createImageBitmap(blob)));
    if (frame === this.frame) {
      pictures.forEach((picture, k) => {
        const canvas = this.canvases[k];
        if (!canvas) return;
        if (canvas.width !== picture.width) [canvas.width, canvas.height] = [picture.width, picture.height];
        canvas.parentElement.style.aspectRatio = `${picture.width} / ${picture.height}`;
        canvas.getContext("2d").drawImage(picture, 0, 0);
      });
      document.body.dataset.frame = frame;
    }
    pictures.forEach((picture) => picture.close());
  }

  drawPlot({ canvas, values }, frame) {
    const { context, width, height } = paper(canvas);
    const all = values.flat().filter(Number.isFinite);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const x = (t) => (t / Math.max(1, this.length - 1)) * width;
    const y = (value) => height - 6 - ((value - low) / (high - low || 1)) * (height - 12);
    values.forEach((series, k) => {
      context.strokeStyle = LINES[k % LINES.length];
      context.lineWidth = 1.6;
      context.beginPath();
      series.forEach((value, t) => context.lineTo(x(t), y(value)));
      context.stroke();
    });
    context.strokeStyle = colour("ink");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x(frame), 0);
    context.lineTo(x(frame), height);
    context.stroke();
  }
}
