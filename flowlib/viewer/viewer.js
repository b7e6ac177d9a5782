// The trajectory viewer in the browser: clips and their points, over the player (player.js) and the raster (raster.js),
// which are put in front of this file.

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
const RESET = {
  colour: "position", compare: "side by side", background: "video", trail: 7, point_size: 0, density: 1,
  hidden: "hollow", selected: [], speed: 1,
};
const GOLDEN = 0.6180339887498949; // as in scene.py: the same density shows the same points
const CACHE = 96e6; // bytes of decoded frames kept at once
const HIDDEN_TRAIL = 0.4; // opacity of the part of a trail where the point is hidden
const PASSIVE = 0.3; // opacity of points that are not selected, once some are

// ---- Luggage ---------------------------------------------------------------------------------------------------

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

/** One picture with points on it. Two canvases: the frame below, changed when the frame does; the points above. */
class Panel extends Surface {
  constructor(viewer, sets) {
    const [H, W] = viewer.header.size;
    super(viewer, W / H, "back", "front");
    [this.back, this.front] = this.canvases;
    this.sets = sets;
    this.raster = new Raster();
  }
  resized(width, height) { this.raster.resize(width, height); }
  /** Canvas pixels per pixel of the frame, and where the frame's top left corner lies. */
  transform() {
    const { zoom, x, y } = this.viewer.camera, scale = (this.front.width / this.viewer.header.size[1]) * zoom;
    return { scale, left: this.front.width / 2 - x * scale, top: this.front.height / 2 - y * scale };
  }
  toFrame(event) {
    const [x, y] = this.place(event), { scale, left, top } = this.transform();
    return [(x - left) / scale - 0.5, (y - top) / scale - 0.5];
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

class Viewer extends Player {
  defaults = RESET;
  camera = this.#wholeFrame();
  hover = null;
  lasso = null;
  lassoTool = false;
  onlySelected = false;
  coloursKept = new Map();

  async load() {
    const { model, header } = this, [H, W] = header.size, none = { buffer: new ArrayBuffer(0), byteOffset: 0 };
    const packed = ["_tracks", "_prediction"].map((name) => model.get(name)).filter((view) => view?.byteLength);
    this.palette = new Palette(model.get("_palette"));
    this.frames = new FrameStore(model.get("_frames"), header.frame_bytes, H * W);
    const rebuilt = header.rebuilt_bytes.length ? model.get("_rebuilt") : none;
    this.rebuilt = new FrameStore(rebuilt, header.rebuilt_bytes, H * W);
    this.sets = (await Promise.all(packed.map(inflate))).map((bytes) => new TrackSet(bytes, header));
    this.occlusions = this.sets.map((set) => Int32Array.from({ length: set.N }, (_, n) => set.firstOcclusion(n)));
    this.setColours = header.set_colours.map((rgb) => packColour(rgb));
    this.#choosePoints();
  }

  get comparison() { return this.sets.length < 2 ? "truth" : this.get("compare"); }
  shows(comparison) { return this.comparison === comparison; }

  // -- what is drawn

  plain() { return this.dark ? "#181818" : "#e9e9ec"; }
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
  ready(frame) {
    const name = this.get("background");
    if (name === "none") return Promise.resolve();
    const wanted = [];
    if (name !== "rebuilt") wanted.push(this.frames.load(name === "first frame" ? 0 : frame));
    if (name === "rebuilt" || name === "difference") wanted.push(this.rebuilt.load(frame));
    return Promise.all(wanted);
  }
  isReady(frame) {
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

  draw(all) {
    let drawn = false;
    for (const panel of this.panels) {
      if (!panel.resize()) continue;
      if (all || panel.unpainted !== false) panel.drawBack();
      panel.unpainted = false;
      panel.drawFront();
      drawn = true;
    }
    return drawn;
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

  build() {
    const { header } = this, [H, W] = header.size;
    this.legend = tag("div", { class: "tv-legend" });
    this.selection = tag("div", { class: "tv-selection" });
    this.lassoButton = button("lasso", "Lasso (L)", () => this.#setLasso(!this.lassoTool));
    this.lassoButton.setAttribute("aria-pressed", "false");
    const facts = [counted(header.num_points, "point"), counted(header.num_frames, "frame"), `${W} × ${H}`];
    this.layOut({
      kind: "Trajectories", facts: facts.join(" · "), tools: [this.lassoButton],
      foot: [this.legend, this.selection], settings: this.#settings(),
    });
    this.#errorCurve();
  }
  /** The mean error of the visible points, frame by frame, drawn above the slider. */
  #errorCurve() {
    if (this.sets.length < 2 || this.last < 1 || !this.header.num_points) return;
    const [truth, prediction] = this.sets, means = [];
    for (let s = 0; s <= this.last; s++) {
      let sum = 0, seen = 0;
      for (let n = 0; n < truth.N; n++) if (truth.visible(s, n)) { sum += truth.error(s, n, prediction); seen++; }
      means.push(seen ? sum / seen : 0);
    }
    this.meanErrors = means;
    const ends = [0, this.last].map((s) => `${means[s].toFixed(1)} px in frame ${s}`).join(", ");
    this.drawCurve(means, `Mean error of visible points: ${ends}`);
  }
  #settings() {
    const two = this.sets.length === 2, rebuilt = this.rebuilt.parts.length > 0, { names } = this.header;
    const compare = { ...COMPARISONS, truth: `Only ${names[0]}`, prediction: `Only ${names[1]}` };
    const colours = Object.entries(COLOURS).filter(([name]) => two || name !== "error");
    const backgrounds = Object.entries(BACKGROUNDS).filter(
      ([name]) => rebuilt || !["rebuilt", "difference"].includes(name));
    const most = Math.max(0, this.header.num_points - 1);
    const point = tag("input", { type: "number", min: 0, max: most, placeholder: "no." });
    point.addEventListener("change", () => {
      const n = Math.round(Number(point.value));
      if (point.value !== "" && n >= 0 && n < this.header.num_points) this.select([n]);
    });
    return [
      this.choice("colour", "Colour", colours),
      ...(two ? [this.choice("compare", "Compare", Object.entries(compare))] : []),
      this.choice("background", "Background", backgrounds),
      this.choice("hidden", "Hidden points", Object.entries(HIDDEN)),
      this.range("trail", "Trails", 0, Math.max(1, this.last), 1, (v) => `${v} fr`),
      this.range("point_size", "Point size", 0, 16, 0.5, (v) => (v ? `${v} px` : "auto")),
      this.range("density", "Density", 0.01, 1, 0.01, (v) => `${Math.round(v * 100)} %`),
      labelled("Point", point)];
  }

  /** One panel or two, as the comparison asks for. */
  arrange() {
    const all = { "side by side": [[0], [1]], truth: [[0]], prediction: [[1]] }[this.comparison] ?? [[0, 1]];
    this.showPanels(all.map((sets) => new Panel(this, sets)));
    for (const panel of this.panels) {
      const name = panel.sets.map((which) => this.header.names[which]).join(" and ");
      panel.chip.textContent = name;
      panel.chip.hidden = this.sets.length < 2;
      panel.el.setAttribute("aria-label", `${this.sets.length < 2 ? "Trajectories" : name} over the video`);
      this.#listenTo(panel);
    }
    const fixed = this.shows("overlay") || this.shows("errors");
    const select = this.el.querySelector("[data-trait=colour]");
    select.disabled = fixed;
    select.title = fixed ? "Overlay colours the sets, error vectors the error" : "";
    this.tellFrame();
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

  aboutFrame(frame) { return this.meanErrors ? `mean error ${this.meanErrors[frame].toFixed(2)} px` : ""; }
  frameShown() {
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
    this.onlySelected = false;
    this.#setLasso(false);
    super.reset();
  }

  // -- listening

  listen() {
    this.on("selected", () => {
      this.#choosePoints();
      this.#tellSelection();
      const selected = this.get("selected");
      this.say(selected.length === 1 ? this.#spoken(selected[0]) : `${selected.length} points selected`);
      this.redraw();
    });
    this.on("density", () => { this.#choosePoints(); this.redraw(); });
    this.on("colour", () => { this.#drawLegend(); this.redraw(); });
    this.on("compare", () => { this.hover = null; this.tip.hidden = true; this.arrange(); });
    this.on("background", () => this.showFrame(this.get("frame")));
    for (const name of ["trail", "point_size", "hidden"]) this.on(name, () => this.redraw());
  }
  #spoken(n) {
    return `Point ${n}: ${this.numbers(n).map(([name, values]) => `${name} ${values.join(" and ")}`).join("; ")}`;
  }
  #setLasso(on) {
    this.lassoTool = on;
    this.lassoButton.setAttribute("aria-pressed", String(on));
    this.el.classList.toggle("tv-lassoing", on);
  }

  keys() {
    const colours = () => [...this.el.querySelector("[data-trait=colour]").options].map((option) => option.value);
    return [
      ["L", "draw a lasso", { l: () => this.#setLasso(!this.lassoTool) }],
      ["C", "next colours", { c: () => this.cycle("colour", colours()) }],
      ["H", "show hidden points or not", { h: () => this.cycle("hidden", Object.keys(HIDDEN)) }],
      ["Esc", "select nothing", { Escape: () => { this.#setLasso(false); this.select([]); } }],
    ];
  }
  gestures() {
    return [
      ["Drag", "move the picture"], ["Wheel", "zoom, once the picture is clicked (or with Ctrl)"],
      ["Click", "select a point (with Shift: one more)"], ["Shift + drag", "lasso: select more points"],
      ["Double click", "show all"],
    ];
  }

  #listenTo(panel) {
    this.watch(panel, {
      press: (event) => {
        if (!event.shiftKey && !this.lassoTool) return null;
        const lasso = (this.lasso = { panel, path: [panel.toFrame(event)], add: event.shiftKey });
        return (move, done) => {
          if (move) { lasso.path.push(panel.toFrame(move)); this.redraw(); return; }
          this.lasso = null;
          if (done) this.#selectInside(lasso);
        };
      },
      drag: (event, dx, dy) => {
        const { scale } = panel.transform();
        this.moveBy((dx * panel.ratio) / scale, (dy * panel.ratio) / scale);
      },
      click: (event) => this.#pick(panel, event),
      hover: (event) => this.#hoverAt(panel, event),
      leave: () => this.#leave(),
    });
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
    this.placeTip(event);
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
    super.stop();
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


const render = mounting(Viewer);
export default { render };
