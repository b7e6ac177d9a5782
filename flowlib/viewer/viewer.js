// The trajectory viewer in the browser: the whole of it, without a library and without a request to anywhere.
// `render({ model, el })` is what a notebook calls (anywidget); `openPage(el, state)` is what an exported page calls.
// Points and trails are drawn into pixels by hand (`Raster`): 20,000 of them take a few milliseconds on any machine,
// with or without a graphics card, which no path of the canvas API does.

const COLOURS = {
  position: "Start position", displacement: "Displacement", direction: "Direction", speed: "Speed",
  error: "Error", occlusion: "First occlusion",
};
const UNITS = { displacement: "px", direction: "px", speed: "px / frame", error: "px", occlusion: "frame" };
const COMPARISONS = {
  "side by side": "Side by side", overlay: "Overlay", errors: "Error vectors", truth: null, prediction: null,
};
const BACKGROUNDS = {
  video: "True frame", "first frame": "Frame 0", rebuilt: "Rebuilt frame", difference: "Difference ×4", none: "None",
};
const HIDDEN = { hollow: "Hollow", off: "Not shown" };
const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
const RESET = {
  colour: "position", compare: "side by side", background: "video", trail: 7, point_size: 0, density: 1,
  hidden: "hollow", selected: [], speed: 1,
};
const GOLDEN = 0.6180339887498949; // as in scene.py: the same density shows the same points
const SETTLE = 120; // ms without a further change before Python is told
const CACHE = 96e6; // bytes of decoded frames kept at once
const MOST_PIXELS = 2.5e6; // of one panel's canvas, whatever the screen's pixel ratio
const HIDDEN_TRAIL = 0.4; // opacity of the part of a trail where the point is hidden
const PASSIVE = 0.3; // opacity of points that are not selected, once some are
const ICONS = {
  first: "M6 5v14M19 5 9 12l10 7z", back: "M17 5 7 12l10 7z", play: "M7 4.5v15L19.5 12z",
  pause: "M8 5v14M16 5v14", next: "M7 5l10 7L7 19z", last: "M18 5v14M5 5l10 7-10 7z", plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  lasso: "M12 4c5 0 8.5 2.2 8.5 5.3S17 14.5 12 14.5s-8.5-2-8.5-5.2S7 4 12 4zM8 14.2c.6 2.6.2 4.6-2 5.8",
  reset: "M4.5 12a7.5 7.5 0 1 0 2.3-5.4L4.5 9M4.5 4v5h5",
};
const HELP = "Space plays, arrow keys step, Home and End jump, plus and minus zoom, 0 shows all, L draws a lasso, "
  + "C changes the colours, H hides hidden points, Escape clears the selection.";

// ---- Luggage ---------------------------------------------------------------------------------------------------

async function inflate(view) {
  const stream = new Blob([view]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** One set of trajectories; the layout is told at `pack_tracks` in packing.py. */
class TrackSet {
  constructor(bytes, header) {
    const S = (this.S = header.num_frames), N = (this.N = header.num_points);
    const rows = 3 + 2 * S, count = rows * N;
    const fixed = (this.fixed = new Int16Array(count));
    for (let i = 0; i < count; i++) fixed[i] = bytes[i] | (bytes[count + i] << 8);
    for (let row = 0; row < rows; row++) {
      for (let k = row * N + 1; k < (row + 1) * N; k++) fixed[k] += fixed[k - 1]; // int16 wraps around, as it did there
    }
    for (let k = 3 * N; k < count; k++) fixed[k] += fixed[k - 2 * N];
    this.step = header.step;
    this.centre = [header.size[1] / 2, header.size[0] / 2];
    this.seen = new Uint8Array(S * N);
    for (let i = 0; i < S * N; i++) this.seen[i] = (bytes[2 * count + (i >> 3)] >> (i & 7)) & 1;
  }
  at(s, n) { return this.#point(3 + 2 * s, n); }
  start(n) { return this.#point(1, n); }
  #point(row, n) {
    const k = row * this.N + n;
    return [this.centre[0] + this.fixed[k] * this.step, this.centre[1] + this.fixed[k + this.N] * this.step];
  }
  visible(s, n) { return this.seen[s * this.N + n] === 1; }
  displacement(s, n) { return this.#distance(3 + 2 * s, this, 1, n); }
  speed(s, n) {
    const after = Math.min(Math.max(s, 1), this.S - 1);
    return this.#distance(3 + 2 * after, this, 3 + 2 * Math.max(after - 1, 0), n);
  }
  error(s, n, other) { return this.#distance(3 + 2 * s, other, 3 + 2 * s, n); }
  #distance(row, other, otherRow, n) {
    const k = row * this.N + n, j = otherRow * this.N + n;
    return Math.hypot(this.fixed[k] - other.fixed[j], this.fixed[k + this.N] - other.fixed[j + this.N]) * this.step;
  }
  vector(s, n) {
    const [x, y] = this.at(s, n), [x0, y0] = this.start(n);
    return [x - x0, y - y0];
  }
  /** The first frame after the query's in which the point is hidden; S where there is none. */
  firstOcclusion(n) {
    for (let s = this.fixed[n] + 1; s < this.S; s++) if (!this.seen[s * this.N + n]) return s;
    return this.S;
  }
}

/** JPEG frames, decoded when they are needed, and forgotten again. */
class FrameStore {
  constructor(view, sizes, pixels) {
    let offset = 0;
    this.parts = sizes.map((size) => new Uint8Array(view.buffer, view.byteOffset + (offset += size) - size, size));
    this.capacity = Math.max(8, Math.floor(CACHE / (pixels * 4)));
    this.decoded = new Map(); // oldest use first
    this.underway = new Map();
  }
  get(index) {
    const bitmap = this.decoded.get(index);
    if (bitmap) { this.decoded.delete(index); this.decoded.set(index, bitmap); }
    return bitmap;
  }
  load(index) {
    if (this.decoded.has(index)) return Promise.resolve();
    if (!this.underway.has(index)) this.underway.set(index, this.#decode(index));
    return this.underway.get(index);
  }
  async #decode(index) {
    const bitmap = await createImageBitmap(new Blob([this.parts[index]], { type: "image/jpeg" }));
    this.underway.delete(index);
    this.decoded.set(index, bitmap);
    if (this.decoded.size > this.capacity) {
      const [oldest, stale] = this.decoded.entries().next().value;
      this.decoded.delete(oldest);
      stale.close();
    }
  }
  close() { this.decoded.forEach((bitmap) => bitmap.close()); this.decoded.clear(); }
}

// ---- Drawing ---------------------------------------------------------------------------------------------------

const SHAPES = { // signed distance from the edge of a shape of radius 1 at (x, y), in units of r
  disc: (x, y, r) => Math.hypot(x, y) - r,
  ring: (x, y, r) => Math.abs(Math.hypot(x, y) - r + 0.5) - 0.6,
  diamond: (x, y, r) => (Math.abs(x) + Math.abs(y) - r * 1.25) * Math.SQRT1_2,
  frame: (x, y, r) => Math.abs((Math.abs(x) + Math.abs(y) - r * 1.25) * Math.SQRT1_2 + 0.5) - 0.6,
};
const HOLLOW = { disc: "ring", diamond: "frame" };

/** Lay a colour (r, g, b, alpha: 0 to 255) over pixel k; alpha is not premultiplied, as ImageData wants it. */
function blend(pixels, k, r, g, b, alpha) {
  const under = pixels[k];
  if (under === 0 || alpha === 255) {
    pixels[k] = (alpha << 24) | (b << 16) | (g << 8) | r;
    return;
  }
  const below = under >>> 24, out = below === 255 ? 255 : alpha + (((255 - alpha) * below * 257) >> 16);
  const share = ((alpha << 8) / out) | 0, r0 = under & 255, g0 = (under >> 8) & 255, b0 = (under >> 16) & 255;
  pixels[k] = (out << 24) | ((b0 + ((b - b0) * share >> 8)) << 16) | ((g0 + ((g - g0) * share >> 8)) << 8)
    | (r0 + ((r - r0) * share >> 8));
}

/** A transparent picture that antialiased dots and lines are blended into. Colours are 0xBBGGRR, opacity is 0 to 1. */
class Raster {
  constructor() { this.stamps = new Map(); }
  resize(width, height) {
    this.width = width;
    this.height = height;
    this.image = new ImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }
  clear() { this.pixels.fill(0); }

  /** A shape at (x, y), with a thin dark rim that keeps it apart from a bright frame. */
  dot(shape, radius, x, y, colour, opacity) {
    const left = Math.floor(x), top = Math.floor(y), W = this.width, H = this.height;
    const stamp = this.#stamp(shape, radius)[((y - top) * 4 << 2) | ((x - left) * 4)];
    const reach = stamp.reach, whole = left >= reach && top >= reach && left < W - reach && top < H - reach;
    if (left < -reach || top < -reach || left >= W + reach || top >= H + reach) return;
    const { dx, dy, alpha, shade } = stamp, r = colour & 255, g = (colour >> 8) & 255, b = (colour >> 16) & 255;
    const dim = (opacity * 256) | 0, { pixels } = this;
    for (let i = 0; i < dx.length; i++) {
      const px = left + dx[i], py = top + dy[i];
      if (!whole && (px < 0 || py < 0 || px >= W || py >= H)) continue;
      const light = shade[i], a = (alpha[i] * dim) >> 8;
      if (a) blend(pixels, py * W + px, (r * light) >> 8, (g * light) >> 8, (b * light) >> 8, a);
    }
  }

  /** Pixels of a shape for 4 × 4 places of its centre within a pixel. */
  #stamp(shape, radius) {
    const key = `${shape}${radius}`;
    if (!this.stamps.has(key)) {
      if (this.stamps.size > 32) this.stamps.clear();
      const phases = [];
      for (let phase = 0; phase < 16; phase++) {
        phases.push(shapePixels(SHAPES[shape], radius, ((phase & 3) + 0.5) / 4, ((phase >> 2) + 0.5) / 4));
      }
      this.stamps.set(key, phases);
    }
    return this.stamps.get(key);
  }

  /** Room for a batch of lines: x0, y0, x1, y1 of each, its colour and its opacity. */
  batch(most) {
    if (!(this.lines?.inks.length >= most)) {
      this.lines = { ends: new Float32Array(4 * most), inks: new Uint32Array(most), alphas: new Float32Array(most) };
    }
    return this.lines;
  }

  /**
   * Draw the first `count` lines of the batch; the far end of each belongs to the line that follows. Where lines
   * cross, the more opaque one is seen, and the later of two alike. They come in a batch, not one by one, because
   * 140,000 calls with five numbers each cost more than the pixels.
   */
  drawLines(count, half) {
    const { pixels, width, height, lines: { ends, inks, alphas } } = this;
    for (let i = 0; i < count; i++) {
      const x0 = ends[4 * i], y0 = ends[4 * i + 1], x1 = ends[4 * i + 2], y1 = ends[4 * i + 3];
      const steep = Math.abs(y1 - y0) > Math.abs(x1 - x0), turned = steep ? y0 > y1 : x0 > x1;
      const a0 = steep ? (turned ? y1 : y0) : turned ? x1 : x0, a1 = steep ? (turned ? y0 : y1) : turned ? x0 : x1;
      const b0 = steep ? (turned ? x1 : x0) : turned ? y1 : y0, b1 = steep ? (turned ? x0 : x1) : turned ? y0 : y1;
      const along = steep ? height : width, across = steep ? width : height;
      const strideA = steep ? width : 1, strideB = steep ? 1 : width, full = alphas[i] * 255, ink = inks[i];
      const slope = a1 > a0 ? (b1 - b0) / (a1 - a0) : 0, reach = half * Math.sqrt(1 + slope * slope);
      // "| 0" keeps the loops in integers
      const start = a0 > 0 ? Math.ceil(a0 - 0.5) | 0 : 0, stop = a1 < along ? Math.ceil(a1 - 0.5) | 0 : along;
      let low = b0 + (start + 0.5 - a0) * slope - reach;
      for (let a = start; a < stop; a++, low += slope) {
        const high = low + 2 * reach, end = high < across ? Math.floor(high) | 0 : across - 1;
        for (let b = low > 0 ? low | 0 : 0; b <= end; b++) {
          const alpha = (full * ((high < b + 1 ? high : b + 1) - (low > b ? low : b))) | 0;
          const k = a * strideA + b * strideB;
          if (alpha > 3 && alpha >= pixels[k] >>> 24) pixels[k] = (alpha << 24) | ink;
        }
      }
    }
  }
}

function shapePixels(distance, radius, x, y) {
  const rim = Math.min(1, radius / 3), reach = Math.ceil(radius * 1.3 + rim + 1);
  const found = { dx: [], dy: [], alpha: [], shade: [] };
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const d = distance(dx + 0.5 - x, dy + 0.5 - y, radius);
      const inner = Math.min(1, Math.max(0, 0.5 - d)), outer = Math.min(1, Math.max(0, 0.5 - d + rim)) * 0.45;
      const alpha = inner + (1 - inner) * outer;
      if (alpha < 0.02) continue;
      found.dx.push(dx); found.dy.push(dy);
      found.alpha.push(Math.round(alpha * 255)); found.shade.push(Math.round(255 * inner / alpha));
    }
  }
  return {
    reach, dx: Int8Array.from(found.dx), dy: Int8Array.from(found.dy),
    alpha: Uint8Array.from(found.alpha), shade: Uint8Array.from(found.shade),
  };
}

/** The three maps of colours.py, as tables of 0xBBGGRR. */
class Palette {
  constructor(view) {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    const table = (first, count) => Uint32Array.from({ length: count }, (_, i) => packColour(bytes, 3 * (first + i)));
    this.magnitudes = table(0, 256);
    this.positions = table(256, 64 * 64);
    this.directions = table(256 + 64 * 64, 33 * 33);
  }
  magnitude(share) { return this.magnitudes[Math.min(255, Math.max(0, Math.round(share * 255)))]; }
  position(across, down) {
    const cell = (share) => Math.min(63, Math.max(0, Math.floor(share * 64)));
    return this.positions[cell(down) * 64 + cell(across)];
  }
  direction(x, y) {
    const shrink = 16 / Math.max(1, Math.hypot(x, y));
    return this.directions[Math.round(y * shrink + 16) * 33 + Math.round(x * shrink + 16)];
  }
}

function packColour(bytes, at = 0) { return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16); }
function cssColour(colour) { return `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`; }

/** One picture with points on it. Two canvases: the frame below, changed when the frame does; the points above. */
class Panel {
  constructor(viewer, sets) {
    this.viewer = viewer;
    this.sets = sets;
    this.back = tag("canvas", { class: "tv-back", "aria-hidden": "true" });
    this.front = tag("canvas", { class: "tv-front", "aria-hidden": "true" });
    this.chip = tag("div", { class: "tv-chip" });
    const hint = { role: "application", tabindex: "0", "aria-describedby": viewer.helpId };
    this.el = tag("div", { class: "tv-panel", ...hint }, this.back, this.front, this.chip);
    this.raster = new Raster();
    const [H, W] = viewer.header.size;
    this.el.style.aspectRatio = `${W} / ${H}`;
    this.el.style.setProperty("--aspect", W / H);
  }
  resize() {
    const box = this.el.getBoundingClientRect();
    if (!box.width || !box.height) return false;
    const ratio = Math.min(window.devicePixelRatio || 1, Math.sqrt(MOST_PIXELS / (box.width * box.height)));
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    this.ratio = width / box.width;
    if (this.front.width === width && this.front.height === height && this.raster.image) return true;
    for (const canvas of [this.back, this.front]) { canvas.width = width; canvas.height = height; }
    this.raster.resize(width, height);
    return true;
  }
  /** Canvas pixels per pixel of the frame, and where the frame's top left corner lies. */
  transform() {
    const { zoom, x, y } = this.viewer.camera, scale = (this.front.width / this.viewer.header.size[1]) * zoom;
    return { scale, left: this.front.width / 2 - x * scale, top: this.front.height / 2 - y * scale };
  }
  toFrame(event) {
    const box = this.el.getBoundingClientRect(), { scale, left, top } = this.transform();
    return [((event.clientX - box.left) * this.ratio - left) / scale - 0.5,
            ((event.clientY - box.top) * this.ratio - top) / scale - 0.5];
  }
  toCanvas([x, y]) {
    const { scale, left, top } = this.transform();
    return [(x + 0.5) * scale + left, (y + 0.5) * scale + top];
  }
  drawBack() {
    const context = this.back.getContext("2d"), { scale, left, top } = this.transform(), { viewer } = this;
    const [H, W] = viewer.header.size, box = [left, top, W * scale, H * scale], picture = viewer.picture();
    context.globalCompositeOperation = "source-over";
    context.fillStyle = viewer.plain();
    context.fillRect(0, 0, this.back.width, this.back.height);
    if (!picture) return;
    context.imageSmoothingEnabled = scale < 4; // closer than that, pixels are what one came to see
    context.drawImage(picture.first, ...box);
    if (!picture.second) return;
    context.globalCompositeOperation = "difference";
    context.drawImage(picture.second, ...box);
    context.globalCompositeOperation = "lighter";
    for (let i = 0; i < 2; i++) context.drawImage(this.back, 0, 0); // twice twice as bright
  }
  drawFront() {
    const { viewer, raster } = this, errors = viewer.shows("errors");
    raster.clear();
    if (!errors) for (const which of this.sets) this.#drawTrails(which);
    if (errors) this.#drawErrors();
    else this.sets.forEach((which, order) => this.#drawPoints(which, order ? "diamond" : "disc"));
    const context = this.front.getContext("2d");
    context.putImageData(raster.image, 0, 0);
    this.#drawMarks(context);
  }
  /** Screen coordinates are fixed · gain + offset. */
  #screen(set) {
    const { scale, left, top } = this.transform();
    return [set.step * scale, (set.centre[0] + 0.5) * scale + left, (set.centre[1] + 0.5) * scale + top];
  }
  #drawTrails(which) {
    const { viewer, raster } = this, set = viewer.sets[which], { fixed, seen, N } = set;
    const frame = viewer.get("frame"), first = Math.max(0, frame - viewer.get("trail"));
    const off = viewer.get("hidden") === "off";
    const colours = viewer.colours(which, this.sets), points = viewer.shown, opacity = viewer.opacity;
    const [gain, x0, y0] = this.#screen(set), half = this.radius() * 0.32;
    const count = points.length, lastX = new Float32Array(count), lastY = new Float32Array(count);
    const { ends, inks, alphas } = raster.batch(count);
    for (let s = first; s <= frame; s++) {
      const row = (3 + 2 * s) * N, age = 0.15 + 0.7 * (s - first) / Math.max(1, frame - first);
      let found = 0;
      for (let i = 0; i < count; i++) {
        const n = points[i], x = fixed[row + n] * gain + x0, y = fixed[row + N + n] * gain + y0;
        if (s > first) {
          if (Math.abs(x - lastX[i]) + Math.abs(y - lastY[i]) < 1.2 && s < frame) continue; // too short to be seen yet
          const clear = seen[s * N + n] && seen[(s - 1) * N + n];
          if (clear || !off) {
            ends[4 * found] = lastX[i]; ends[4 * found + 1] = lastY[i];
            ends[4 * found + 2] = x; ends[4 * found + 3] = y;
            inks[found] = colours[n];
            alphas[found++] = age * opacity[n] * (clear ? 1 : HIDDEN_TRAIL);
          }
        }
        lastX[i] = x;
        lastY[i] = y;
      }
      raster.drawLines(found, half);
    }
  }
  #drawPoints(which, shape) {
    const { viewer, raster } = this, set = viewer.sets[which], { fixed, seen, N } = set, frame = viewer.get("frame");
    const colours = viewer.colours(which, this.sets), row = (3 + 2 * frame) * N, off = viewer.get("hidden") === "off";
    const [gain, x0, y0] = this.#screen(set), radius = this.radius(), white = 0xffffff, { opacity, chosen } = viewer;
    for (const n of viewer.shown) {
      const visible = seen[frame * N + n];
      if (!visible && off) continue;
      const x = fixed[row + n] * gain + x0, y = fixed[row + N + n] * gain + y0;
      if (chosen[n]) raster.dot("ring", radius * 1.6 + 2, x, y, white, 1);
      raster.dot(visible ? shape : HOLLOW[shape], chosen[n] ? radius * 1.3 : radius, x, y, colours[n], opacity[n]);
    }
  }
  #drawErrors() {
    const { viewer, raster } = this, [truth, prediction] = viewer.sets, N = truth.N, frame = viewer.get("frame");
    const colours = viewer.colours(0, this.sets), row = (3 + 2 * frame) * N, off = viewer.get("hidden") === "off";
    const [gain, x0, y0] = this.#screen(truth), radius = this.radius(), { opacity } = viewer;
    const { ends, inks, alphas } = raster.batch(viewer.shown.length);
    const shown = viewer.shown.filter((n) => !off || truth.seen[frame * N + n]);
    shown.forEach((n, i) => {
      const x = truth.fixed[row + n] * gain + x0, y = truth.fixed[row + N + n] * gain + y0;
      const x1 = prediction.fixed[row + n] * gain + x0, y1 = prediction.fixed[row + N + n] * gain + y0;
      ends.set([x, y, x1, y1], 4 * i);
      inks[i] = colours[n];
      alphas[i] = opacity[n];
    });
    raster.drawLines(shown.length, radius * 0.4);
    shown.forEach((n, i) => raster.dot("disc", radius * 0.6, ends[4 * i], ends[4 * i + 1], colours[n], opacity[n]));
  }
  /** Of a point, in canvas pixels; by itself (0) it takes half the room between neighbours. */
  radius() {
    const { width, height } = this.front, { zoom } = this.viewer.camera;
    const room = Math.sqrt((width * height) / Math.max(1, this.viewer.shown.length)) * zoom / this.ratio;
    const diameter = this.viewer.get("point_size") || Math.min(7, Math.max(1.6, room / 2));
    return Math.max(0.75, Math.round((diameter / 2) * this.ratio * 4) / 4);
  }
  /** What moves with the pointer: the point below it, and the lasso. */
  #drawMarks(context) {
    const { hover, lasso } = this.viewer;
    context.lineWidth = 1.5 * this.ratio;
    if (hover !== null) {
      for (const which of this.sets) {
        const [x, y] = this.toCanvas(this.viewer.sets[which].at(this.viewer.get("frame"), hover));
        context.beginPath();
        context.arc(x, y, this.radius() + 4 * this.ratio, 0, 2 * Math.PI);
        context.strokeStyle = "rgb(0 0 0 / 60%)"; context.lineWidth = 3.5 * this.ratio; context.stroke();
        context.strokeStyle = "white"; context.lineWidth = 1.5 * this.ratio; context.stroke();
      }
    }
    if (lasso?.panel !== this || lasso.path.length < 2) return;
    context.beginPath();
    lasso.path.forEach((point) => context.lineTo(...this.toCanvas(point)));
    context.closePath();
    context.fillStyle = "rgb(255 255 255 / 14%)"; context.fill();
    context.setLineDash([5 * this.ratio, 4 * this.ratio]);
    context.strokeStyle = "white"; context.stroke();
    context.setLineDash([]);
  }
}

// ---- The viewer ------------------------------------------------------------------------------------------------

class Viewer {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.header = model.get("_header");
    this.helpId = `tv-help-${Math.random().toString(36).slice(2)}`;
    this.camera = this.#wholeFrame();
    this.hover = this.lasso = this.saving = this.drawing = null;
    this.lassoTool = this.onlySelected = false;
    this.coloursKept = new Map();
    this.listeners = [];
    this.timings = []; // ms of the last redraws, for benchmarks
  }

  async start() {
    const { model, header } = this, [H, W] = header.size, none = { buffer: new ArrayBuffer(0), byteOffset: 0 };
    const packed = ["_tracks", "_prediction"].map((name) => model.get(name)).filter((view) => view?.byteLength);
    this.palette = new Palette(model.get("_palette"));
    this.frames = new FrameStore(model.get("_frames"), header.frame_bytes, H * W);
    const rebuilt = header.rebuilt_bytes.length ? model.get("_rebuilt") : none;
    this.rebuilt = new FrameStore(rebuilt, header.rebuilt_bytes, H * W);
    this.sets = (await Promise.all(packed.map(inflate))).map((bytes) => new TrackSet(bytes, header));
    this.occlusions = this.sets.map((set) => Int32Array.from({ length: set.N }, (_, n) => set.firstOcclusion(n)));
    this.setColours = header.set_colours.map((rgb) => packColour(rgb));
    this.#build();
    this.#choosePoints();
    this.#listen();
    this.#applyTheme();
    this.#arrange();
    await this.#ready(this.get("frame"));
    this.redraw(true);
    this.el.dataset.ready = "true";
    if (this.get("playing")) this.#play();
  }

  get(name) { return this.model.get(name); }
  /** Change a trait here at once, and tell Python when things have settled. */
  set(name, value, now = false) {
    this.model.set(name, value);
    clearTimeout(this.saving);
    if (now) this.model.save_changes();
    else this.saving = setTimeout(() => this.model.save_changes(), SETTLE);
  }
  get comparison() { return this.sets.length < 2 ? "truth" : this.get("compare"); }
  shows(comparison) { return this.comparison === comparison; }
  get last() { return this.header.num_frames - 1; }

  // -- what is drawn

  plain() { return this.el.dataset.theme === "dark" ? "#181818" : "#e9e9ec"; }
  picture() {
    const frame = this.get("frame"), name = this.get("background");
    if (name === "none") return null;
    if (name === "rebuilt" || name === "difference") {
      const first = this.rebuilt.get(frame), second = name === "difference" ? this.frames.get(frame) : null;
      return first && (name === "rebuilt" || second) ? { first, second } : null;
    }
    const first = this.frames.get(name === "first frame" ? 0 : frame);
    return first ? { first } : null;
  }
  /** The pictures that showing `frame` takes. */
  #ready(frame) {
    const name = this.get("background");
    if (name === "none") return Promise.resolve();
    const wanted = [];
    if (name !== "rebuilt") wanted.push(this.frames.load(name === "first frame" ? 0 : frame));
    if (name === "rebuilt" || name === "difference") wanted.push(this.rebuilt.load(frame));
    return Promise.all(wanted);
  }
  #isReady(frame) {
    const name = this.get("background");
    const rebuilt = !["rebuilt", "difference"].includes(name) || this.rebuilt.decoded.has(frame);
    const own = name === "rebuilt" || this.frames.decoded.has(name === "first frame" ? 0 : frame);
    return name === "none" || (rebuilt && own);
  }

  /** Which points are shown, the selected ones last and so on top. */
  #choosePoints() {
    const N = this.header.num_points, density = this.get("density"), selected = this.get("selected");
    this.chosen = new Uint8Array(N);
    for (const n of selected) this.chosen[n] = 1;
    this.opacity = new Float32Array(N).fill(selected.length ? PASSIVE : 1);
    for (const n of selected) this.opacity[n] = 1;
    const rest = [], only = this.onlySelected && selected.length;
    if (!only) for (let n = 0; n < N; n++) if (!this.chosen[n] && (n * GOLDEN) % 1 < density) rest.push(n);
    this.shown = Int32Array.from([...rest, ...selected]);
  }

  /** The colour of every point of a set in the current frame, as 0xBBGGRR. */
  colours(which, sets) {
    const name = this.#colourName();
    if (sets.length === 2 && this.shows("overlay")) return this.#kept(`set${which}`, () => this.setColours[which]);
    const frame = this.get("frame"), still = name === "position" || name === "occlusion";
    return this.#kept(`${name} ${which} ${still ? "" : frame}`, this.#colourer(name, which, frame));
  }
  #colourName() { return this.shows("errors") ? "error" : this.get("colour"); }
  #kept(key, colourOf) {
    if (!this.coloursKept.has(key)) {
      if (this.coloursKept.size > 16) this.coloursKept.clear();
      this.coloursKept.set(key, Uint32Array.from({ length: this.header.num_points }, (_, n) => colourOf(n)));
    }
    return this.coloursKept.get(key);
  }
  #colourer(name, which, frame) {
    const set = this.sets[which], other = this.sets[1 - which], { palette } = this, [H, W] = this.header.size;
    const limit = this.header.limits[name === "direction" ? "displacement" : name];
    return {
      position: (n) => { const [x, y] = set.start(n); return palette.position((x + 0.5) / W, (y + 0.5) / H); },
      direction: (n) => { const [x, y] = set.vector(frame, n); return palette.direction(x / limit, y / limit); },
      displacement: (n) => palette.magnitude(set.displacement(frame, n) / limit),
      speed: (n) => palette.magnitude(set.speed(frame, n) / limit),
      error: (n) => palette.magnitude(other ? set.error(frame, n, other) / limit : 0),
      occlusion: (n) => {
        const first = this.occlusions[which][n];
        return first === set.S ? this.setColours[2] : palette.magnitude(first / Math.max(1, this.last));
      },
    }[name];
  }

  /** Draw before the next repaint; however many ask, once. */
  redraw(back = false) {
    this.backStale ||= back;
    this.drawing ??= requestAnimationFrame(() => { this.drawing = null; this.drawNow(); });
  }
  drawNow() {
    const began = performance.now();
    let drawn = false;
    for (const panel of this.panels) {
      if (!panel.resize()) continue;
      if (this.backStale || panel.unpainted !== false) panel.drawBack();
      panel.unpainted = false;
      panel.drawFront();
      drawn = true;
    }
    if (drawn) this.backStale = false;
    this.timings.push(performance.now() - began);
    if (this.timings.length > 1000) this.timings.shift();
  }

  // -- time

  async #show(frame) {
    this.#tellFrame();
    await this.#ready(frame);
    if (this.get("frame") === frame) this.redraw(true);
  }
  goTo(frame) { this.set("frame", Math.min(this.last, Math.max(0, frame))); }
  toggle() { this.set("playing", !this.get("playing"), true); }

  /** Frames follow the clock; one that is not decoded yet is waited for. Python hears of it only when this stops. */
  #play() {
    let due = performance.now();
    const run = (this.run = {}); // a second start, or the end of the view, ends this one
    const tick = (now) => {
      if (!this.get("playing") || this.run !== run || this.last === 0) return;
      requestAnimationFrame(tick);
      if (!this.el.isConnected) return; // a notebook takes out what is scrolled away, and puts it back
      const pause = 1000 / (this.header.fps * this.get("speed")), frame = this.get("frame");
      if (now - due < (frame === this.last ? Math.max(pause, 500) : pause)) return;
      const next = (frame + 1) % (this.last + 1);
      this.#ready((next + 1) % (this.last + 1));
      if (!this.#isReady(next)) { this.#ready(next); return; }
      due = now - due > 2 * pause ? now : due + pause;
      if (frame === this.last) due = now;
      this.model.set("frame", next); // not saved: no trip to the kernel while playing
    };
    requestAnimationFrame(tick);
  }

  // -- space

  #wholeFrame() { return { zoom: 1, x: this.header.size[1] / 2, y: this.header.size[0] / 2 }; }
  zoomBy(factor, panel = this.panels[0], event = null) {
    const { camera } = this, zoom = Math.min(64, Math.max(0.5, camera.zoom * factor)), change = camera.zoom / zoom;
    if (event) {
      const [x, y] = panel.toFrame(event).map((value) => value + 0.5);
      camera.x = x + (camera.x - x) * change;
      camera.y = y + (camera.y - y) * change;
    }
    camera.zoom = zoom;
    this.#moved();
  }
  moveBy(dx, dy) {
    const { camera } = this, [H, W] = this.header.size;
    camera.x = Math.min(W * 1.5, Math.max(-W / 2, camera.x - dx));
    camera.y = Math.min(H * 1.5, Math.max(-H / 2, camera.y - dy));
    this.#moved();
  }
  showAll() { this.camera = this.#wholeFrame(); this.#moved(); }
  #moved() {
    const whole = this.#wholeFrame(), { zoom, x, y } = this.camera;
    this.el.classList.toggle("tv-moved", zoom !== 1 || x !== whole.x || y !== whole.y);
    this.zoomText.textContent = `${Math.round(zoom * 100)} %`;
    this.redraw(true);
  }

  // -- picking

  /** The shown point nearest to a pointer event, within a finger's width. */
  nearest(panel, event, reach = 14) {
    const [x, y] = panel.toFrame(event), frame = this.get("frame"), off = this.get("hidden") === "off";
    let best = null, least = (reach * panel.ratio / panel.transform().scale) ** 2;
    for (const which of panel.sets) {
      const set = this.sets[which];
      for (const n of this.shown) {
        if (off && !set.visible(frame, n)) continue;
        const [px, py] = set.at(frame, n), distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least) { best = n; least = distance; }
      }
    }
    return best;
  }
  select(points, add = false) {
    const all = add ? [...this.get("selected"), ...points] : points;
    this.set("selected", [...new Set(all)].sort((a, b) => a - b), true);
  }
  togglePoint(point) {
    const selected = this.get("selected");
    if (selected.includes(point)) this.select(selected.filter((n) => n !== point));
    else this.select([point], true);
  }
  #selectInside({ panel, path, add }) {
    const frame = this.get("frame"), off = this.get("hidden") === "off", inside = new Set();
    for (const which of panel.sets) {
      const set = this.sets[which];
      for (const n of this.shown) {
        if ((!off || set.visible(frame, n)) && insidePolygon(set.at(frame, n), path)) inside.add(n);
      }
    }
    this.select([...inside], add);
  }
  /** A point's numbers, as rows of [name, value per set]. */
  numbers(n) {
    const frame = this.get("frame"), fixed = (value, digits = 1) => value.toFixed(digits), sets = this.sets;
    const occlusion = (first) => (first > this.last ? "never" : `frame ${first}`);
    const rows = [
      ["start", [sets[0].start(n).map((v) => fixed(v)).join(", ")]],
      ["position", sets.map((set) => set.at(frame, n).map((v) => fixed(v)).join(", "))],
      ["displacement", sets.map((set) => `${fixed(set.displacement(frame, n))} px`)],
      ["speed", sets.map((set) => `${fixed(set.speed(frame, n), 2)} px / frame`)],
      ["visible", sets.map((set) => (set.visible(frame, n) ? "yes" : "no"))],
      ["first hidden", this.occlusions.map((first) => occlusion(first[n]))],
    ];
    if (sets.length === 2) rows.push(["error", [`${fixed(sets[0].error(frame, n, sets[1]), 2)} px`]]);
    return rows;
  }

  // -- building

  #build() {
    const { header } = this, [H, W] = header.size;
    const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
    this.stage = tag("div", { class: "tv-stage" });
    this.tip = tag("div", { class: "tv-tip", role: "tooltip", hidden: "" });
    this.live = tag("div", { class: "tv-quiet", "aria-live": "polite" });
    const facts = [count(header.num_points, "point"), count(header.num_frames, "frame"), `${W} × ${H}`].join(" · ");
    const title = tag("div", { class: "tv-title", role: "heading", "aria-level": "3" }, header.title || "Trajectories");
    this.info = tag("div", { class: "tv-info" }, facts);
    this.zoomText = tag("span", { class: "tv-zoom" }, "100 %");
    this.legend = tag("div", { class: "tv-legend" });
    this.selection = tag("div", { class: "tv-selection" });
    this.el.append(
      tag("div", { class: "tv-head" }, title, this.info, this.#buildTools()), this.stage, this.#buildTransport(),
      tag("div", { class: "tv-foot" }, this.legend, this.selection), this.#buildSettings(),
      tag("div", { id: this.helpId, class: "tv-quiet" }, HELP), this.live, this.tip,
    );
    this.el.setAttribute("role", "group");
    this.el.setAttribute("aria-label", `Trajectory viewer: ${header.title || "trajectories"}`);
    // JupyterLab keeps its one-letter commands to itself while the keys go here
    this.el.dataset.lmSuppressShortcuts = this.el.dataset.pSuppressShortcuts = "true";
  }
  #buildTools() {
    this.lassoButton = button("lasso", "Lasso (L)", () => this.#setLasso(!this.lassoTool));
    this.lassoButton.setAttribute("aria-pressed", "false");
    return tag("div", { class: "tv-tools", role: "toolbar", "aria-label": "View" },
      this.lassoButton, button("minus", "Zoom out", () => this.zoomBy(1 / 1.5)), this.zoomText,
      button("plus", "Zoom in", () => this.zoomBy(1.5)), button("reset", "Reset everything", () => this.reset()));
  }
  #buildTransport() {
    const jump = (icon, label, to) => button(icon, label, () => this.goTo(to()));
    this.playButton = button("play", "Play", () => this.toggle());
    const frames = { min: 0, max: this.last, step: 1 };
    this.slider = tag("input", { type: "range", class: "tv-scrub", "aria-label": "Frame", ...frames });
    this.slider.addEventListener("input", () => this.goTo(Number(this.slider.value)));
    this.counter = tag("output", { class: "tv-counter" });
    const speeds = Object.fromEntries(SPEEDS.map((speed) => [speed, `${speed}×`]));
    const curve = this.#errorCurve();
    const still = this.last === 0;
    const bar = tag("div", { class: "tv-transport" },
      jump("first", "First frame", () => 0), jump("back", "Step back", () => this.get("frame") - 1), this.playButton,
      jump("next", "Step on", () => this.get("frame") + 1), jump("last", "Last frame", () => this.last),
      tag("div", { class: "tv-time" }, ...(curve ? [curve] : []), this.slider), this.counter,
      this.#choice("speed", "Speed", speeds, Number));
    if (still) for (const control of bar.querySelectorAll("button, input, select")) control.disabled = true;
    return bar;
  }
  /** The mean error of the visible points, frame by frame, drawn above the slider. */
  #errorCurve() {
    if (this.sets.length < 2 || this.last < 1 || !this.header.num_points) return null;
    const [truth, prediction] = this.sets, means = [];
    for (let s = 0; s <= this.last; s++) {
      let sum = 0, seen = 0;
      for (let n = 0; n < truth.N; n++) if (truth.visible(s, n)) { sum += truth.error(s, n, prediction); seen++; }
      means.push(seen ? sum / seen : 0);
    }
    this.meanErrors = means;
    const top = Math.max(...means) || 1;
    const points = means.map((mean, s) => `${(100 * s) / this.last},${20 - (18 * mean) / top}`).join(" ");
    const ends = [0, this.last].map((s) => `${means[s].toFixed(1)} px in frame ${s}`).join(", ");
    const label = `Mean error of visible points: ${ends}`;
    const box = { viewBox: "0 0 100 20", preserveAspectRatio: "none" };
    return shape("svg", { class: "tv-curve", role: "img", "aria-label": label, ...box },
      shape("polygon", { points: `0,20 ${points} 100,20` }), shape("polyline", { points }));
  }
  #buildSettings() {
    const two = this.sets.length === 2, rebuilt = this.rebuilt.parts.length > 0, { names } = this.header;
    const compare = { ...COMPARISONS, truth: `Only ${names[0]}`, prediction: `Only ${names[1]}` };
    const colours = Object.fromEntries(Object.entries(COLOURS).filter(([name]) => two || name !== "error"));
    const backgrounds = Object.fromEntries(
      Object.entries(BACKGROUNDS).filter(([name]) => rebuilt || !["rebuilt", "difference"].includes(name)));
    const most = Math.max(0, this.header.num_points - 1);
    const point = tag("input", { type: "number", min: 0, max: most, placeholder: "no." });
    point.addEventListener("change", () => {
      const n = Math.round(Number(point.value));
      if (point.value !== "" && n >= 0 && n < this.header.num_points) this.select([n]);
    });
    const trailEnd = Math.max(1, this.last);
    const grid = tag("div", { class: "tv-grid" },
      this.#choice("colour", "Colour", colours),
      ...(two ? [this.#choice("compare", "Compare", compare)] : []),
      this.#choice("background", "Background", backgrounds),
      this.#choice("hidden", "Hidden points", HIDDEN),
      this.#range("trail", "Trails", 0, trailEnd, 1, (v) => `${v} fr`),
      this.#range("point_size", "Point size", 0, 16, 0.5, (v) => (v ? `${v} px` : "auto")),
      this.#range("density", "Density", 0.01, 1, 0.01, (v) => `${Math.round(v * 100)} %`),
      labelled("Point", point),
      this.#choice("theme", "Theme", THEMES));
    return tag("details", { class: "tv-settings", open: "" }, tag("summary", {}, "Settings"), grid);
  }
  #choice(name, label, options, parse = String) {
    const select = tag("select", { "data-trait": name });
    for (const [value, text] of Object.entries(options)) select.append(tag("option", { value }, text));
    const show = () => {
      const value = String(this.get(name));
      const known = [...select.options].some((option) => option.value === value);
      if (!known) select.append(tag("option", { value }, `${value}×`)); // a speed that Python set
      select.value = value;
    };
    select.addEventListener("change", () => this.set(name, parse(select.value), true));
    this.#on(name, show);
    show();
    return labelled(label, select);
  }
  #range(name, label, min, max, step, text) {
    const input = tag("input", { type: "range", min, max, step, "data-trait": name }), value = tag("output");
    const show = () => {
      input.value = this.get(name);
      value.textContent = text(Number(input.value));
      input.setAttribute("aria-valuetext", value.textContent);
    };
    input.addEventListener("input", () => this.set(name, Number(input.value)));
    this.#on(name, show);
    show();
    return labelled(label, input, value);
  }

  /** One panel or two, as the comparison asks for. */
  #arrange() {
    const all = { "side by side": [[0], [1]], truth: [[0]], prediction: [[1]] }[this.comparison] ?? [[0, 1]];
    this.panels = all.map((sets) => new Panel(this, sets));
    this.stage.replaceChildren(...this.panels.map((panel) => panel.el));
    this.stage.classList.toggle("tv-two", all.length === 2);
    for (const panel of this.panels) {
      const name = panel.sets.map((which) => this.header.names[which]).join(" and ");
      panel.chip.textContent = name;
      panel.chip.hidden = this.sets.length < 2;
      panel.el.setAttribute("aria-label", `${this.sets.length < 2 ? "Trajectories" : name} over the video`);
      this.#listenTo(panel);
      this.sizes?.observe(panel.el);
    }
    const fixed = this.shows("overlay") || this.shows("errors");
    const select = this.el.querySelector("[data-trait=colour]");
    select.disabled = fixed;
    select.title = fixed ? "Overlay colours the sets, error vectors the error" : "";
    this.#tellFrame();
    this.#drawLegend();
    this.redraw(true);
  }

  #drawLegend() {
    const name = this.#colourName(), { palette, header } = this;
    if (this.shows("overlay")) {
      const key = (which, mark) => this.#key(this.setColours[which], mark, header.names[which]);
      this.legend.replaceChildren(key(0, "tv-disc"), key(1, "tv-diamond"), unit("hollow = hidden"));
      return;
    }
    const text = (value) => tag("span", { class: "tv-number" }, value), title = unit(COLOURS[name]);
    if (name === "position") {
      this.legend.replaceChildren(swatch(palette.positions, 64, "tv-square"), title, unit("in the frame"));
    } else if (name === "direction") {
      this.legend.replaceChildren(swatch(palette.directions, 33, "tv-wheel"), title,
        text(`rim = ${header.limits.displacement} px`), unit("grey = still"));
    } else if (name === "occlusion") {
      const last = Math.max(1, this.last), never = this.#key(this.setColours[2], "tv-disc", "never");
      this.legend.replaceChildren(title, text("frame 1"), this.#bar(1 / last), text(`${last}`), never);
    } else {
      const limit = header.limits[name];
      this.legend.replaceChildren(title, text("0"), this.#bar(), text(`≥ ${limit} ${UNITS[name]}`));
    }
  }
  #key(colour, mark, name) {
    const dot = tag("i", { class: mark, style: `background:${cssColour(colour)}` });
    return tag("span", { class: "tv-key" }, dot, name);
  }
  #bar(from = 0) {
    const stops = Array.from({ length: 17 }, (_, i) => cssColour(this.palette.magnitude(from + (1 - from) * (i / 16))));
    return tag("i", { class: "tv-bar", style: `background:linear-gradient(to right, ${stops.join(", ")})` });
  }

  #tellFrame() {
    const frame = this.get("frame");
    this.slider.value = frame;
    this.slider.style.setProperty("--done", this.last ? frame / this.last : 0);
    const error = this.meanErrors ? `, mean error ${this.meanErrors[frame].toFixed(2)} px` : "";
    this.slider.setAttribute("aria-valuetext", `frame ${frame} of ${this.last}${error}`);
    this.counter.textContent = `${frame} / ${this.last}`;
    this.counter.title = error ? `frame ${frame}${error}` : "";
    this.#tellSelection();
    if (this.hover !== null) this.#fillTip();
  }
  #tellSelection() {
    const selected = this.get("selected"), frame = this.get("frame"), [first, second] = this.sets;
    if (!selected.length) {
      this.selection.replaceChildren(unit("Click a point or draw a lasso to select"));
      return;
    }
    const mean = (of) => selected.reduce((sum, n) => sum + of(n), 0) / selected.length;
    const parts = [selected.length === 1 ? `point ${selected[0]}` : `${selected.length} selected`];
    parts.push(`moved ${mean((n) => first.displacement(frame, n)).toFixed(1)} px`);
    if (second) parts.push(`error ${mean((n) => first.error(frame, n, second)).toFixed(2)} px`);
    const only = tag("input", { type: "checkbox" });
    only.checked = this.onlySelected;
    only.addEventListener("change", () => { this.onlySelected = only.checked; this.#choosePoints(); this.redraw(); });
    this.selection.replaceChildren(tag("strong", {}, parts.join(" · ")), tag("label", {}, only, "only these"),
      tag("button", { type: "button", class: "tv-link", onclick: () => this.select([]) }, "clear"));
  }

  reset() {
    for (const [name, value] of Object.entries(RESET)) this.model.set(name, value);
    this.onlySelected = false;
    this.#setLasso(false);
    this.goTo(0);
    this.showAll();
  }

  // -- listening

  #on(name, listener) {
    this.model.on(`change:${name}`, listener);
    this.listeners.push([`change:${name}`, listener]);
  }
  #listen() {
    this.#on("frame", () => this.#show(this.get("frame")));
    this.#on("playing", () => {
      const playing = this.get("playing");
      this.#tellPlaying();
      if (playing) this.#play();
      else this.model.save_changes(); // where it stopped
    });
    this.#tellPlaying();
    this.#on("selected", () => {
      this.#choosePoints();
      this.#tellSelection();
      const selected = this.get("selected");
      this.#say(selected.length === 1 ? this.#spoken(selected[0]) : `${selected.length} points selected`);
      this.redraw();
    });
    this.#on("density", () => { this.#choosePoints(); this.redraw(); });
    this.#on("colour", () => { this.#drawLegend(); this.redraw(); });
    this.#on("compare", () => { this.hover = null; this.tip.hidden = true; this.#arrange(); });
    this.#on("background", () => this.#show(this.get("frame")));
    this.#on("theme", () => this.#applyTheme());
    for (const name of ["trail", "point_size", "hidden"]) this.#on(name, () => this.redraw());
    this.el.addEventListener("keydown", (event) => this.#press(event));
    this.sizes = new ResizeObserver(() => this.redraw(true));
    this.surroundings = new MutationObserver(() => this.#applyTheme());
    for (const node of [document.body, document.documentElement]) this.surroundings.observe(node, { attributes: true });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.themeChanged = () => this.#applyTheme();
    this.scheme.addEventListener("change", this.themeChanged);
  }
  #tellPlaying() {
    const playing = this.get("playing");
    this.playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.playButton.title = playing ? "Pause" : "Play";
    this.playButton.classList.toggle("tv-on", playing);
    this.playButton.querySelector("path").setAttribute("d", ICONS[playing ? "pause" : "play"]);
  }
  #say(text) { this.live.textContent = text; }
  #spoken(n) {
    return `Point ${n}: ${this.numbers(n).map(([name, values]) => `${name} ${values.join(" and ")}`).join("; ")}`;
  }
  #applyTheme() {
    const theme = this.get("theme") === "auto" ? (darkAround() ? "dark" : "light") : this.get("theme");
    if (this.el.dataset.theme === theme) return;
    this.el.dataset.theme = theme;
    if (this.panels) this.redraw(true);
  }
  #setLasso(on) {
    this.lassoTool = on;
    this.lassoButton.setAttribute("aria-pressed", String(on));
    this.el.classList.toggle("tv-lassoing", on);
  }

  #press(event) {
    const typing = event.target.matches("input, select, textarea");
    const pushes = event.target.matches("button, summary") && [" ", "Enter"].includes(event.key);
    if (event.ctrlKey || event.metaKey || event.altKey || typing || pushes) return;
    const cycle = (name, values) => this.set(name, values[(values.indexOf(this.get(name)) + 1) % values.length], true);
    const actions = {
      " ": () => this.last && this.toggle(), ArrowLeft: () => this.goTo(this.get("frame") - 1),
      ArrowRight: () => this.goTo(this.get("frame") + 1), Home: () => this.goTo(0), End: () => this.goTo(this.last),
      "+": () => this.zoomBy(1.5), "=": () => this.zoomBy(1.5), "-": () => this.zoomBy(1 / 1.5),
      0: () => this.showAll(),
      l: () => this.#setLasso(!this.lassoTool), h: () => cycle("hidden", Object.keys(HIDDEN)),
      c: () => cycle("colour", [...this.el.querySelector("[data-trait=colour]").options].map((option) => option.value)),
      Escape: () => { this.#setLasso(false); this.select([]); },
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  /** Drag moves, shift-drag or the lasso tool selects, a click picks, two fingers or the wheel zoom. */
  #listenTo(panel) {
    const pointers = new Map();
    let moved = 0, span = 0;
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    };
    panel.el.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      panel.el.focus({ preventScroll: true });
      panel.el.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, event);
      moved = 0;
      span = pointers.size === 2 ? spread() : 0;
      const draws = (event.shiftKey || this.lassoTool) && pointers.size === 1;
      this.lasso = draws ? { panel, path: [panel.toFrame(event)], add: event.shiftKey } : null;
    });
    panel.el.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) { this.#hoverAt(panel, event); return; }
      pointers.set(event.pointerId, event);
      const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
      moved += Math.abs(dx) + Math.abs(dy);
      if (pointers.size === 2) { const now = spread(); this.zoomBy(now / span, panel, event); span = now; return; }
      if (this.lasso) { this.lasso.path.push(panel.toFrame(event)); this.redraw(); return; }
      if (moved < 4) return;
      this.#leave();
      const { scale } = panel.transform();
      this.moveBy((dx * panel.ratio) / scale, (dy * panel.ratio) / scale);
    });
    const end = (event) => {
      if (!pointers.delete(event.pointerId)) return;
      const { lasso } = this;
      this.lasso = null;
      if (event.type === "pointercancel") { this.redraw(); return; }
      if (lasso && moved >= 4) this.#selectInside(lasso);
      else if (moved < 4) this.#pick(panel, event);
      this.redraw();
    };
    panel.el.addEventListener("pointerup", end);
    panel.el.addEventListener("pointercancel", end);
    panel.el.addEventListener("pointerleave", () => this.#leave());
    panel.el.addEventListener("dblclick", () => this.showAll());
    panel.el.addEventListener("wheel", (event) => {
      // the wheel belongs to the notebook until one has clicked into the picture
      if (!event.ctrlKey && !event.metaKey && !this.stage.contains(document.activeElement ?? null)
          && !this.stage.contains(this.el.getRootNode().activeElement ?? null)) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), panel, event);
    }, { passive: false });
  }
  #pick(panel, event) {
    const point = this.nearest(panel, event);
    if (point === null) { if (!event.shiftKey && this.get("selected").length) this.select([]); return; }
    if (event.shiftKey) this.togglePoint(point);
    else this.select([point]);
  }
  #hoverAt(panel, event) {
    const point = this.nearest(panel, event);
    if (point === null) { this.#leave(); return; }
    if (point !== this.hover) { this.hover = point; this.#fillTip(); this.redraw(); }
    const box = this.el.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    this.tip.hidden = false;
    this.tip.style.left = `${Math.max(4, Math.min(x + 16, box.width - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${y + 18}px`;
  }
  #leave() {
    if (this.hover === null) return;
    this.hover = null;
    this.tip.hidden = true;
    this.redraw();
  }
  #fillTip() {
    const names = this.sets.length > 1 ? this.header.names.map((name) => tag("th", {}, name)) : [];
    const head = tag("tr", {}, tag("th", {}, `point ${this.hover}`), ...names);
    const rows = this.numbers(this.hover).map(([name, values]) => tag("tr", {}, tag("td", {}, name),
      ...values.map((value) => tag("td", values.length < this.sets.length ? { colspan: 2 } : {}, value))));
    this.tip.replaceChildren(tag("table", {}, head, ...rows));
  }

  stop() {
    this.run = null;
    clearTimeout(this.saving);
    cancelAnimationFrame(this.drawing);
    this.listeners.forEach(([name, listener]) => this.model.off(name, listener));
    this.sizes?.disconnect();
    this.surroundings?.disconnect();
    this.scheme?.removeEventListener("change", this.themeChanged);
    this.frames?.close();
    this.rebuilt?.close();
  }
}

function insidePolygon([x, y], path) {
  let inside = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [xi, yi] = path[i], [xj, yj] = path[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

/** Whether the place the viewer is shown in is dark: JupyterLab, VS Code and Colab each say it their own way. */
function darkAround() {
  const { body, documentElement: root } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (/\bvscode-(dark|high-contrast)\b/.test(body.className)) return true;
  if (body.classList.contains("vscode-light")) return false;
  if (root.hasAttribute("theme")) return root.getAttribute("theme") === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// ---- Elements (text is only ever set as text, so that no name or title can become markup) ------------------------

function tag(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") element.addEventListener("click", value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}
function unit(text) { return tag("span", { class: "tv-unit" }, text); }
function shape(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
function button(icon, label, onclick) {
  const picture = shape("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, shape("path", { d: ICONS[icon] }));
  const named = { class: `tv-button tv-${icon}`, title: label, "aria-label": label };
  return tag("button", { type: "button", ...named, onclick }, picture);
}
function labelled(text, control, ...more) {
  return tag("label", { class: "tv-field" }, tag("span", {}, text, ...more), control);
}
function swatch(table, side, kind) {
  const canvas = tag("canvas", { width: side, height: side, class: `tv-swatch ${kind}`, "aria-hidden": "true" });
  const image = new ImageData(side, side), pixels = new Uint32Array(image.data.buffer);
  table.forEach((colour, k) => { pixels[k] = 0xff000000 | colour; });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// ---- Where it lives --------------------------------------------------------------------------------------------

/** What a notebook calls. */
async function render({ model, el }) {
  const root = tag("div", { class: "tv" });
  el.append(root);
  hideSnapshot(model.get("_header").snapshot);
  const viewer = (root.viewer = new Viewer(model, root));
  try {
    await viewer.start();
  } catch (error) {
    const fault = `The viewer could not start: ${error.message}`;
    root.replaceChildren(tag("p", { class: "tv-fault", role: "alert" }, fault));
    throw error;
  }
  return () => viewer.stop();
}

/** The picture that stands for the viewer in a saved notebook is not needed beside the live one. */
function hideSnapshot(name) {
  for (const picture of document.getElementsByClassName(name)) {
    (picture.closest(".jp-OutputArea-child, .output_area, .output-area > *") ?? picture).style.display = "none";
  }
}

/** What an exported page calls: the same viewer, with a model that has no kernel behind it. */
function openPage(el, state) {
  const unpacked = (value) => (value?.base64 === undefined ? value : fromBase64(value.base64));
  const values = new Map(Object.entries(state).map(([name, value]) => [name, unpacked(value)]));
  const listeners = new Map();
  const model = {
    get: (name) => values.get(name),
    set(name, value) {
      if (values.get(name) === value) return;
      values.set(name, value);
      [...(listeners.get(`change:${name}`) ?? [])].forEach((listener) => listener());
    },
    save_changes() {},
    on(name, listener) { listeners.set(name, (listeners.get(name) ?? new Set()).add(listener)); },
    off(name, listener) { listeners.get(name)?.delete(listener); },
  };
  return render({ model, el });
}
function fromBase64(text) {
  return new DataView(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

export default { render };
