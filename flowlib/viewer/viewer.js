// The trajectory viewer in the browser: clips and their points, over the player (player.js), the raster (raster.js) and
// the ways out (export.js), which are put in front of this file.

const COLOURS = {
  position: "Start position", displacement: "Displacement", direction: "Direction", speed: "Speed",
  error: "Error", occlusion: "First occlusion", confidence: "Confidence",
  region: "Left its region",
};
const UNITS = { displacement: "px", direction: "px", speed: "px / frame", error: "px", occlusion: "frame" };
const COMPARISONS = {
  "side by side": "Side by side", overlay: "Overlay", errors: "Error vectors", truth: null, prediction: null,
};
const FUTURES = { off: "Not shown", one: "One sample", all: "All samples", weighted: "Weighted" };
const OPACITIES = { equal: "Equal", confidence: "Confidence" };
const PATHS = [[true, "Whole path"], [false, "Trail alone"]];
const BACKGROUNDS = {
  video: "True frame", "first frame": "Frame 0", rebuilt: "Rebuilt frame", difference: "Difference ×4", none: "None",
};
const HIDDEN = { hollow: "Hollow", off: "Not shown" };
const RESET = {
  colour: "position", compare: "side by side", background: "video", trail: 7, path: true, point_size: 0, density: 1,
  hidden: "hollow", opacity: "equal", future: "off", sample: 0, selected: [], speed: 1,
};
const GOLDEN = 0.6180339887498949; // as in scene.py: the same density shows the same points
const CACHE = 96e6; // bytes of decoded frames kept at once
const MANY_TRAILS = 4000; // so dense that nobody sees bends of less than 6 canvas pixels
const BUSY = 10, LIGHT = 4; // ms of a redraw from which on fewer trails are drawn, and below which more are again
const FEWEST = 4; // then, of many trails, one in so many
const STILL = 150; // ms without a redraw after which all trails are drawn
const HIDDEN_TRAIL = 0.4; // opacity of the part of a trail where the point is hidden
const PASSIVE = 0.3; // opacity of points that are not selected, once some are
const UNSEEN = 0.3; // opacity of the error vectors of hidden points
const LEAST = 0.1; // opacity of a point of confidence 0
const MOVES = 1; // pixels from which on something counts as moving, as evaluations have it
const MOST_FUTURES = 20_000; // as in scene.py
const MOST_REGIONS = 100; // as in scene.py
const MOST_PATHS = 300; // selected points whose whole path is drawn
const SIGNS = ["disc", "diamond", "square"]; // of overlaid sets, in a circle

// ---- Luggage ---------------------------------------------------------------------------------------------------

/** One clip: its frames, and the sets of its points, unpacked when it is shown for the first time. */
class Clip {
  constructor(header, frames, rebuilt, tracks) {
    const [H, W] = header.size;
    Object.assign(this, header);
    this.frames = new FrameStore(frames, header.frame_bytes, H * W);
    this.rebuilt = header.sets.map((set, i) => (
      set.rebuilt_bytes.length ? new FrameStore(rebuilt[i], set.rebuilt_bytes, H * W) : null));
    this.packed = tracks; // for every set: its tracks and sampled futures, then confidence and radii (may be empty)
  }
  get last() { return this.num_frames - 1; }
  load() {
    this.underway ??= this.#unpack();
    return this.underway;
  }
  async #unpack() {
    this.tracks = await Promise.all(this.packed.map(async (blobs, i) => {
      const [own, ...rest] = await Promise.all(blobs.map((bytes) => (bytes.length ? inflate(bytes) : null)));
      const radii = rest.pop(), confidence = rest.pop(), set = new TrackSet(own, this, confidence);
      set.radii = radii;
      set.futures = rest.map((bytes) => new TrackSet(bytes, this, confidence));
      set.weights = this.sets[i].weights;
      return set;
    }));
    this.packed = null;
  }
  close() { for (const store of [this.frames, ...this.rebuilt]) store?.close(); }
}

/** One set of trajectories; the layout is told at `pack_tracks` in packing.py. */
class TrackSet {
  constructor(bytes, header, confidence = null) {
    const S = (this.S = header.num_frames), N = (this.N = header.num_points);
    const rows = 3 + 2 * S, count = rows * N;
    const fixed = (this.fixed = new Int16Array(count));
    for (let i = 0; i < count; i++) fixed[i] = bytes[i] | (bytes[count + i] << 8);
    for (let row = 0; row < rows; row++) {
      for (let k = row * N + 1; k < (row + 1) * N; k++) fixed[k] += fixed[k - 1]; // int16 wraps around, as it did there
    }
    for (let k = 3 * N; k < count; k++) fixed[k] += fixed[k - 2 * N];
    this.step = header.step;
    this.confidence = confidence; // [S N], 0 to 255
    this.centre = [header.size[1] / 2, header.size[0] / 2];
    this.seen = new Uint8Array(S * N);
    for (let i = 0; i < S * N; i++) this.seen[i] = (bytes[2 * count + (i >> 3)] >> (i & 7)) & 1;
  }
  get occlusions() {
    this.firsts ??= Int32Array.from({ length: this.N }, (_, n) => this.firstOcclusion(n));
    return this.firsts;
  }
  /** Pixels around a point within which the truth is to lie; null where nothing is promised. */
  radius(s, n) {
    const k = 2 * (s * this.N + n);
    return this.radii ? (this.radii[k] | (this.radii[k + 1] << 8)) / 16 : null;
  }
  sure(s, n) { return this.confidence ? this.confidence[s * this.N + n] / 255 : 1; }
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
  /** How far a point ever gets from its start. */
  farthest(n) {
    let most = 0;
    for (let s = 0; s < this.S; s++) most = Math.max(most, this.displacement(s, n));
    return most;
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
    const [H, W] = viewer.clip.size;
    super(viewer, W / H, "back", "front");
    [this.back, this.front] = this.canvases;
    this.sets = sets;
    this.raster = new Raster();
  }
  resized(width, height) { this.raster.resize(width, height); }
  /** Canvas pixels per pixel of the frame, and where the frame's top left corner lies. */
  transform() {
    const { zoom, x, y } = this.viewer.camera, scale = (this.front.width / this.viewer.clip.size[1]) * zoom;
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
    const [H, W] = viewer.clip.size, box = [left, top, W * scale, H * scale], picture = viewer.picture(this.sets);
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
    const { viewer, raster } = this, errors = viewer.shows("errors") && this.sets.length === 2;
    raster.clear();
    if (errors) this.#drawErrors(this.sets[1]);
    else {
      for (const which of this.sets) { this.#drawFutures(which); this.#drawTrails(which); }
      this.sets.forEach((which, order) => this.#drawPoints(which, SIGNS[order % SIGNS.length]));
    }
    const context = this.front.getContext("2d");
    context.putImageData(raster.image, 0, 0);
    if (viewer.get("path")) this.#drawPaths(context);
    if (!errors) for (const which of this.sets) this.#drawRegions(context, which);
    this.#drawMarks(context);
  }
  /** Screen coordinates are fixed · gain + offset, in units of 1/`fine` of a canvas pixel. */
  #screen(set, fine = 1) {
    const { scale, left, top } = this.transform();
    return [set.step * scale, (set.centre[0] + 0.5) * scale + left, (set.centre[1] + 0.5) * scale + top].map((v) => v * fine);
  }
  #drawTrails(which) {
    const { viewer, raster } = this, set = viewer.sets[which], { fixed, seen, N } = set;
    const frame = viewer.get("frame"), first = Math.max(0, frame - viewer.get("trail"));
    const off = viewer.get("hidden") === "off";
    const colours = viewer.colours(which, this.sets), points = viewer.shown, opacity = viewer.opacities(which);
    const [gain, x0, y0] = this.#screen(set, FINE), half = Math.round(this.radius() * 0.32 * FINE);
    const many = points.length > MANY_TRAILS, least = (many ? 6 : 1.2) * FINE;
    const share = many ? viewer.trailed * viewer.get("density") : 1, span = Math.max(1, frame - first);
    const ages = Float64Array.from({ length: frame + 1 }, (_, s) => 255 * (0.15 + 0.7 * (s - first) / span));
    for (let i = 0; i < points.length; i++) {
      const n = points[i], ink = colours[n];
      if (share < 1 && !viewer.chosen[n] && (n * GOLDEN) % 1 >= share) continue;
      let k = (3 + 2 * first) * N + n, lastX = Math.round(fixed[k] * gain + x0), lastY = Math.round(fixed[k + N] * gain + y0);
      for (let s = first + 1; s <= frame; s++) {
        k += 2 * N;
        const x = Math.round(fixed[k] * gain + x0), y = Math.round(fixed[k + N] * gain + y0);
        if (Math.abs(x - lastX) + Math.abs(y - lastY) < least && s < frame) continue; // too short to be seen yet
        const clear = seen[s * N + n] && seen[(s - 1) * N + n];
        if (clear || !off) raster.line(lastX, lastY, x, y, ink, Math.round(ages[s] * opacity[n] * (clear ? 1 : HIDDEN_TRAIL)), half);
        lastX = x;
        lastY = y;
      }
    }
  }
  #drawPoints(which, shape) {
    const { viewer, raster } = this, set = viewer.sets[which], { fixed, seen, N } = set, frame = viewer.get("frame");
    const colours = viewer.colours(which, this.sets), row = (3 + 2 * frame) * N, off = viewer.get("hidden") === "off";
    const [gain, x0, y0] = this.#screen(set), radius = this.radius(), white = 0xffffff, { chosen } = viewer;
    const opacity = viewer.opacities(which);
    const stamps = (r) => [HOLLOW[shape], shape].map((name) => raster.stampsOf(name, r));
    const plain = stamps(radius), large = stamps(radius * 1.3), halo = raster.stampsOf("ring", radius * 1.6 + 2);
    for (const n of viewer.shown) {
      const visible = seen[frame * N + n];
      if (!visible && off) continue;
      const x = fixed[row + n] * gain + x0, y = fixed[row + N + n] * gain + y0;
      if (chosen[n]) raster.dot(halo, x, y, white, 1);
      raster.dot((chosen[n] ? large : plain)[visible ? 1 : 0], x, y, colours[n], opacity[n]);
    }
  }
  /** Lines from the truth, where a dot is, to a prediction; faint, and the dot hollow, where the truth is hidden. */
  #drawErrors(which) {
    const { viewer, raster } = this, [truth] = viewer.sets, prediction = viewer.sets[which], N = truth.N;
    const frame = viewer.get("frame"), colours = viewer.colours(which, this.sets), off = viewer.get("hidden") === "off";
    const row = (3 + 2 * frame) * N, opacity = viewer.opacities(which), radius = this.radius();
    const [gain, x0, y0] = this.#screen(truth, FINE), half = Math.round(radius * 0.4 * FINE);
    const shown = viewer.shown.filter((n) => !off || truth.seen[frame * N + n]);
    const alpha = (n) => opacity[n] * (truth.seen[frame * N + n] ? 1 : UNSEEN);
    const place = (set, n) => [Math.round(set.fixed[row + n] * gain + x0), Math.round(set.fixed[row + N + n] * gain + y0)];
    for (const n of shown) raster.line(...place(truth, n), ...place(prediction, n), colours[n], Math.round(255 * alpha(n)), half);
    const [disc, ring] = ["disc", "ring"].map((name) => raster.stampsOf(name, radius * 0.6));
    for (const n of shown) {
      const [x, y] = place(truth, n);
      raster.dot(truth.seen[frame * N + n] ? disc : ring, x / FINE, y / FINE, colours[n], alpha(n));
    }
  }
  /** The sampled paths so far of the selected points, or of all that are shown, fainter where less likely. */
  #drawFutures(which) {
    const { viewer, raster } = this, how = viewer.get("future"), { futures, weights } = viewer.clip.tracks[which];
    const frame = viewer.get("frame"), selected = viewer.get("selected"), K = futures.length;
    if (!["all", "weighted"].includes(how) || !K || !frame) return;
    const all = selected.length ? selected : viewer.shown;
    const stride = Math.max(1, Math.ceil((all.length * K) / MOST_FUTURES));
    const points = all.filter((_, i) => i % stride === 0), colours = viewer.colours(which, this.sets);
    const likeliest = Math.max(...weights), half = Math.round(Math.max(0.5, this.radius() * 0.2) * FINE);
    futures.forEach((future, k) => {
      const [gain, x0, y0] = this.#screen(future, FINE), { fixed, N } = future;
      const alpha = how === "all" ? Math.max(0.15, K ** -0.5) : 0.05 + (0.95 * weights[k]) / likeliest;
      const x = (at) => Math.round(fixed[at] * gain + x0), y = (at) => Math.round(fixed[at + N] * gain + y0);
      for (let s = 1; s <= frame; s++) {
        for (const n of points) {
          const to = (3 + 2 * s) * N + n, from = to - 2 * N;
          raster.line(x(from), y(from), x(to), y(to), colours[n], Math.round(255 * alpha), half);
        }
      }
    });
  }
  /** Where selected points go in all frames: a line so far, a dashed one from now on. */
  #drawPaths(context) {
    const { viewer } = this, frame = viewer.get("frame"), selected = viewer.get("selected").slice(0, MOST_PATHS);
    context.lineJoin = "round";
    for (const which of this.sets) {
      const set = viewer.sets[which], colours = viewer.colours(which, this.sets);
      for (const n of selected) {
        for (const [from, to, dash] of [[0, frame, []], [frame, set.S - 1, [4 * this.ratio, 3 * this.ratio]]]) {
          context.beginPath();
          for (let s = from; s <= to; s++) context.lineTo(...this.toCanvas(set.at(s, n)));
          context.setLineDash([]);
          context.lineWidth = 3 * this.ratio; context.strokeStyle = "rgb(0 0 0 / 30%)"; context.stroke();
          context.setLineDash(dash);
          context.lineWidth = 1.5 * this.ratio; context.strokeStyle = cssColour(colours[n]); context.stroke();
        }
      }
    }
    context.setLineDash([]);
  }
  /** A circle around each selected point of a prediction, in which the truth is to lie. */
  #drawRegions(context, which) {
    const { viewer } = this, set = viewer.sets[which], frame = viewer.get("frame"), { scale } = this.transform();
    if (!set.radii) return;
    for (const n of viewer.get("selected").slice(0, MOST_REGIONS)) {
      const colour = viewer.leaves(which, frame, n) ? cssColour(viewer.outside) : "rgb(255 255 255)";
      context.beginPath();
      context.arc(...this.toCanvas(set.at(frame, n)), set.radius(frame, n) * scale, 0, 2 * Math.PI);
      context.lineWidth = 3 * this.ratio; context.strokeStyle = "rgb(0 0 0 / 30%)"; context.stroke();
      context.lineWidth = 1.5 * this.ratio; context.strokeStyle = colour; context.stroke();
    }
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
  hover = null;
  lasso = null;
  tool = null; // "lasso", "box" or none
  onlySelected = false;
  coloursKept = new Map();
  opacitiesKept = new Map();
  afforded = 1; // share of many trails that a redraw has time for
  trailed = 1; // and that this one draws

  async load() {
    const { model, header } = this;
    const slicer = (name) => {
      const bytes = bytesFrom(model, name);
      let at = 0;
      return (size) => bytes.subarray(at, (at += size));
    };
    const frames = slicer("_frames"), rebuilt = slicer("_rebuilt"), tracks = slicer("_tracks");
    const total = (sizes) => sizes.reduce((sum, size) => sum + size, 0);
    this.clips = header.clips.map((clip) => new Clip(clip, frames(total(clip.frame_bytes)),
      clip.sets.map((set) => rebuilt(total(set.rebuilt_bytes))),
      clip.sets.map((set) => [...set.bytes.map(tracks), tracks(set.confidence_bytes), tracks(set.radii_bytes)])));
    this.palette = new Palette(model.get("_palette"));
    this.setColours = header.set_colours.map((rgb) => packColour(rgb));
    this.never = packColour(header.never);
    this.outside = packColour(header.outside);
    await this.clips[this.get("clip")].load();
    this.#take(this.clips[this.get("clip")]);
  }
  /** Show a clip that is unpacked. */
  #take(clip) {
    if (this.clip !== clip) this.clip?.close();
    this.clip = clip;
    this.camera = this.#wholeFrame();
    this.hover = this.lasso = null;
    this.#chooseSets();
    this.#choosePoints();
  }
  async #changeClip() {
    const clip = this.clips[this.get("clip")];
    await clip.load();
    if (clip !== this.clips[this.get("clip")] || clip === this.clip) return; // another was asked for meanwhile
    this.#take(clip);
    const selected = this.get("selected").filter((n) => n < clip.num_points);
    if (selected.length < this.get("selected").length) this.model.set("selected", selected);
    if (this.get("frame") > this.last) this.model.set("frame", this.last);
    this.tip.hidden = true;
    this.#tellClip();
    this.arrange();
    this.#moved();
    await this.showFrame(this.get("frame"));
  }
  set(name, value, now = false) {
    if (name === "clip") this.model.set("selected", []); // points of another clip are other points
    super.set(name, value, now);
  }
  get last() { return this.clip.last; }
  get frames() { return this.clip.frames; }
  get defaults() { return { ...RESET, shown: this.sets.length > 1 ? [0, 1] : [0] }; }
  /** The sets as they go: the way of a sampled future where that is asked for. */
  #chooseSets() {
    const one = this.get("future") === "one", sample = this.get("sample");
    this.sets = this.clip.tracks.map(
      (set) => (one && set.futures.length ? set.futures[sample % set.futures.length] : set));
    this.coloursKept.clear();
  }
  get occlusions() { return this.sets.map((set) => set.occlusions); }
  /** Which sets each panel shows, as in scene.py. */
  layout() {
    const shown = this.get("shown").filter((which) => which < this.sets.length), predicted = shown.filter((w) => w > 0);
    const compare = this.get("compare");
    if (!predicted.length || compare === "truth") return [[0]];
    if (compare === "errors") return predicted.map((which) => [0, which]);
    return { overlay: [shown], prediction: [[predicted[0]]] }[compare] ?? shown.map((which) => [which]);
  }
  /** The prediction that the truth is compared with. */
  get against() { return this.get("shown").find((which) => which > 0) ?? Math.min(1, this.sets.length - 1); }
  /** Whether the truth, where it can be seen, left the region of a prediction (of the one compared with, for 0). */
  leaves(which, s, n) {
    const [truth] = this.clip.tracks, set = this.sets[which || this.against], radius = set.radius(s, n);
    return radius !== null && truth.visible(s, n) && truth.error(s, n, set) > radius;
  }
  shows(comparison) { return this.get("compare") === comparison && this.panels.some((panel) => panel.sets.length > 1); }

  // -- what is drawn

  plain() { return this.dark ? "#181818" : "#e9e9ec"; }
  /** The picture behind a panel: a rebuilt frame only where the predictor is shown that rebuilt it. */
  picture(sets) {
    const [[first, at], second] = this.#stores(sets, this.get("frame"));
    if (!first) return null;
    const bitmaps = [first.get(at), second?.[0].get(second[1])];
    return bitmaps[0] && (!second || bitmaps[1]) ? { first: bitmaps[0], second: bitmaps[1] } : null;
  }
  /** [store, frame] of the pictures that a panel of these sets takes: the one below, and what it differs from. */
  #stores(sets, frame) {
    const name = this.get("background"), own = [this.frames, name === "first frame" ? 0 : frame];
    if (name === "none") return [[null, 0]];
    const rebuilt = this.rebuiltBy(sets);
    if (rebuilt === undefined) return [own];
    return name === "rebuilt" ? [[this.clip.rebuilt[rebuilt], frame]] : [[this.clip.rebuilt[rebuilt], frame], own];
  }
  /** The predictor among these sets whose rebuilt frames are to be shown. */
  rebuiltBy(sets) {
    if (!["rebuilt", "difference"].includes(this.get("background"))) return undefined;
    return sets.find((which) => this.clip.rebuilt[which]);
  }
  #pictures(frame) {
    return this.layout().flatMap((sets) => this.#stores(sets, frame)).filter(([store]) => store);
  }
  ready(frame) { return Promise.all(this.#pictures(frame).map(([store, at]) => store.load(at))); }
  isReady(frame) { return this.#pictures(frame).every(([store, at]) => store.decoded.has(at)); }

  /** Which points are shown, the selected ones last and so on top. */
  #choosePoints() {
    const N = this.clip.num_points, density = this.get("density"), selected = this.get("selected");
    this.chosen = new Uint8Array(N);
    for (const n of selected) this.chosen[n] = 1;
    this.opacity = new Float32Array(N).fill(selected.length ? PASSIVE : 1);
    for (const n of selected) this.opacity[n] = 1;
    const rest = [], only = this.onlySelected && selected.length;
    if (!only) for (let n = 0; n < N; n++) if (!this.chosen[n] && (n * GOLDEN) % 1 < density) rest.push(n);
    this.shown = Int32Array.from([...rest, ...selected]);
    this.opacitiesKept.clear();
  }
  /** The opacity of every point of a set in the current frame: what is not selected, or not sure, steps back. */
  opacities(which) {
    const set = this.sets[which], frame = this.get("frame");
    if (this.get("opacity") !== "confidence" || !set.confidence) return this.opacity;
    const key = `${which} ${frame}`;
    if (!this.opacitiesKept.has(key)) {
      if (this.opacitiesKept.size > 16) this.opacitiesKept.clear();
      const faded = this.opacity.map((opacity, n) => opacity * (LEAST + (1 - LEAST) * set.sure(frame, n)));
      this.opacitiesKept.set(key, faded);
    }
    return this.opacitiesKept.get(key);
  }

  /** The colour of every point of a set in the current frame, as 0xBBGGRR. */
  colours(which, sets) {
    const name = this.#colourName();
    if (sets.length > 1 && this.shows("overlay")) return this.#kept(`set${which}`, () => this.setColours[which]);
    const frame = this.get("frame"), still = name === "position" || name === "occlusion";
    return this.#kept(`${name} ${which} ${this.against} ${still ? "" : frame}`, this.#colourer(name, which, frame));
  }
  #colourName() { return this.shows("errors") ? "error" : this.get("colour"); }
  #kept(key, colourOf) {
    if (!this.coloursKept.has(key)) {
      if (this.coloursKept.size > 16) this.coloursKept.clear();
      this.coloursKept.set(key, Uint32Array.from({ length: this.clip.num_points }, (_, n) => colourOf(n)));
    }
    return this.coloursKept.get(key);
  }
  #colourer(name, which, frame) {
    const set = this.sets[which], other = this.sets[which ? 0 : this.against];
    const { palette, clip } = this, [H, W] = clip.size;
    const limit = clip.limits[name === "direction" ? "displacement" : name];
    return {
      position: (n) => { const [x, y] = set.start(n); return palette.position((x + 0.5) / W, (y + 0.5) / H); },
      direction: (n) => { const [x, y] = set.vector(frame, n); return palette.direction(x / limit, y / limit); },
      displacement: (n) => palette.magnitude(set.displacement(frame, n) / limit),
      speed: (n) => palette.magnitude(set.speed(frame, n) / limit),
      error: (n) => palette.magnitude(set.error(frame, n, other) / limit),
      confidence: (n) => palette.magnitude(set.sure(frame, n)),
      region: (n) => (this.leaves(which, frame, n) ? this.outside : this.never),
      occlusion: (n) => {
        const first = set.occlusions[n];
        return first === set.S ? this.never : palette.magnitude(first / Math.max(1, this.last));
      },
    }[name];
  }

  draw(all, whole) {
    let drawn = false;
    const { zoom, x, y } = this.camera, view = [this.get("frame"), zoom, x, y].join();
    this.trailed = whole || view === this.view ? 1 : this.afforded; // the pointer alone changes no trails
    this.view = view;
    for (const panel of this.panels) {
      if (!panel.resize()) continue;
      if (all || panel.unpainted !== false) panel.drawBack();
      panel.unpainted = false;
      panel.drawFront();
      drawn = true;
    }
    return drawn;
  }
  /** Playing goes on smoothly on a slow machine, too: a share of many trails until the picture stands still. */
  drawn(took) {
    if (took > BUSY) this.afforded = Math.max(this.afforded / 2, 1 / FEWEST);
    else if (took < LIGHT) this.afforded = Math.min(this.afforded * 2, 1);
    clearTimeout(this.standing);
    if (this.trailed < 1) this.standing = setTimeout(() => { if (this.el.isConnected) this.drawNow(); }, STILL);
  }

  // -- space

  #wholeFrame() { return { zoom: 1, x: this.clip.size[1] / 2, y: this.clip.size[0] / 2 }; }
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
    const { camera } = this, [H, W] = this.clip.size;
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
  /** Select every point that moves at all, in the truth. */
  selectMoving() {
    const [truth] = this.sets, moving = [];
    for (let n = 0; n < truth.N; n++) if (truth.farthest(n) > MOVES) moving.push(n);
    this.select(moving);
    this.say(`${counted(moving.length, "point")} move${moving.length === 1 ? "s" : ""} by more than ${MOVES} pixel`);
  }
  /** A point's numbers, as rows of [name, value per set that is shown]. */
  numbers(n) {
    const frame = this.get("frame"), fixed = (value, digits = 1) => value.toFixed(digits), [truth] = this.sets;
    const shown = this.get("shown").filter((which) => which < this.sets.length);
    const sets = shown.map((which) => this.sets[which]);
    const occlusion = (first) => (first > this.last ? "never" : `frame ${first}`);
    const errors = shown.map((which) => (which ? `${fixed(truth.error(frame, n, this.sets[which]), 2)} px` : ""));
    const rows = [
      ["start", [truth.start(n).map((v) => fixed(v)).join(", ")]],
      ["position", sets.map((set) => set.at(frame, n).map((v) => fixed(v)).join(", "))],
      ["displacement", sets.map((set) => `${fixed(set.displacement(frame, n))} px`)],
      ["speed", sets.map((set) => `${fixed(set.speed(frame, n), 2)} px / frame`)],
      ["visible", sets.map((set) => (set.visible(frame, n) ? "yes" : "no"))],
      ["first hidden", sets.map((set) => occlusion(set.firstOcclusion(n)))],
    ];
    if (sets.some((set) => set.confidence)) {
      rows.push(["confidence", sets.map((set) => (set.confidence ? fixed(set.sure(frame, n), 2) : ""))]);
    }
    if (sets.some((set) => set.radii)) {
      rows.push(["region", sets.map((set) => (set.radii ? `${fixed(set.radius(frame, n))} px` : ""))]);
    }
    if (sets.length === 2) rows.push(["error", errors.filter(Boolean)]);
    else if (sets.length > 2) rows.push(["error", errors]);
    return rows;
  }

  // -- building

  build() {
    this.legend = tag("div", { class: "tv-legend" });
    this.selection = tag("div", { class: "tv-selection" });
    this.plot = tag("div", { class: "tv-plot", hidden: "" });
    const tool = (icon, label, name) => {
      const made = button(icon, label, () => this.#setTool(this.tool === name ? null : name));
      made.setAttribute("aria-pressed", "false");
      return made;
    };
    this.toolButtons = { lasso: tool("lasso", "Lasso (L)", "lasso"), box: tool("box", "Box (B)", "box") };
    const moving = button("moving", "Select everything that moves (M)", () => this.selectMoving());
    this.layOut({
      kind: "Trajectories", facts: "", tools: [...Object.values(this.toolButtons), moving],
      foot: [this.legend, this.selection], settings: this.#settings(),
    });
    this.transport.after(this.plot);
    this.plot.addEventListener("click", (event) => {
      const box = this.plot.getBoundingClientRect();
      this.goTo(Math.round(((event.clientX - box.left) / box.width) * this.last));
    });
    this.#tellClip();
  }
  #tellClip() {
    const { clip } = this, [H, W] = clip.size, title = this.clips.length > 1 ? clip.title : "";
    this.info.textContent = [title, counted(clip.num_points, "point"), counted(clip.num_frames, "frame"),
      `${W} × ${H}`].filter(Boolean).join(" · ");
    this.el.querySelector("[data-trait=trail]").max = Math.max(1, this.last);
    this.el.querySelector(".tv-number-of").max = Math.max(0, clip.num_points - 1);
    this.fitTime();
  }
  /** The mean error of the visible points, frame by frame, drawn above the slider. */
  #errorCurve() {
    const [truth] = this.sets, which = this.against;
    this.meanErrors = null;
    if (which && truth.N) {
      this.meanErrors = Array.from({ length: this.last + 1 }, (_, s) => {
        let sum = 0, seen = 0;
        for (let n = 0; n < truth.N; n++) {
          if (truth.visible(s, n)) { sum += truth.error(s, n, this.sets[which]); seen++; }
        }
        return seen ? sum / seen : null;
      });
    }
    const spoken = (s) => `${this.meanErrors?.[s]?.toFixed(1) ?? "no"} px in frame ${s}`;
    this.drawCurve(this.meanErrors, `Mean error of visible points: ${[0, this.last].map(spoken).join(", ")}`);
  }
  /** Of the selected points: the error of every prediction over time, or how far they went where there is none. */
  #drawPlot() {
    const selected = this.get("selected"), [truth] = this.sets, { names } = this.header;
    this.plot.hidden = !selected.length || this.last < 1 || !this.get("path");
    if (this.plot.hidden) return;
    const shown = this.get("shown").filter((which) => which > 0 && which < this.sets.length);
    const mean = (of) => Array.from({ length: this.last + 1 }, (_, s) => (
      selected.reduce((sum, n) => sum + of(s, n), 0) / selected.length));
    const lines = shown.length
      ? shown.map((which) => [which, names[which], mean((s, n) => truth.error(s, n, this.sets[which]))])
      : [[0, names[0], mean((s, n) => truth.displacement(s, n))]];
    const top = Math.max(...lines.flatMap(([, , values]) => values)) || 1, x = (s) => (100 * s) / this.last;
    const unseen = mean((s, n) => (truth.visible(s, n) ? 0 : 1)).flatMap((share, s) => (share > 0.5
      ? [shape("rect", { x: Math.max(0, x(s - 0.5)), width: x(Math.min(1, this.last)), y: 0, height: 40 })] : []));
    this.now = shape("line", { y1: 0, y2: 40, class: "tv-now" });
    const drawn = lines.map(([which, , values]) => shape("polyline", {
      points: values.map((value, s) => `${x(s)},${39 - (37 * value) / top}`).join(" "),
      style: `stroke:${cssColour(this.setColours[which])}`,
    }));
    const who = selected.length === 1 ? `point ${selected[0]}` : `${selected.length} points, mean`;
    const what = shown.length ? "Error" : "Displacement";
    const label = `${what} of ${who} over time, up to ${top.toFixed(1)} px`;
    const picture = { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": label };
    const keys = lines.map(([which, name]) => this.#key(this.setColours[which], "tv-disc", name));
    this.plot.replaceChildren(shape("svg", picture, ...unseen, ...drawn, this.now),
      tag("div", { class: "tv-plot-head" }, tag("span", {}, `${what} of ${who}, px`), ...(shown.length ? keys : []),
        ...(unseen.length ? [unit("grey = hidden")] : []), tag("span", { class: "tv-plot-top" }, top.toFixed(1))));
    this.#markNow();
  }
  #markNow() {
    const at = this.last ? (100 * this.get("frame")) / this.last : 0;
    this.now?.setAttribute("x1", at);
    this.now?.setAttribute("x2", at);
  }
  #settings() {
    const { names } = this.header, two = names.length > 1, sets = this.clips.flatMap((clip) => clip.sets);
    const has = { rebuilt: sets.some((set) => set.rebuilt_bytes.length), sure: sets.some((set) => set.confidence_bytes),
      regions: sets.some((set) => set.radii_bytes),
      futures: Math.max(...sets.map((set) => set.bytes.length - 1)) };
    const only = names.length > 2 ? "Only one prediction" : `Only ${names[1]}`;
    const compare = { ...COMPARISONS, truth: `Only ${names[0]}`, prediction: only };
    const colours = Object.entries(COLOURS).filter(
      ([name]) => (two || name !== "error") && (has.sure || name !== "confidence")
        && (has.regions || name !== "region"));
    const backgrounds = Object.entries(BACKGROUNDS).filter(
      ([name]) => has.rebuilt || !["rebuilt", "difference"].includes(name));
    const point = tag("input", { type: "number", min: 0, placeholder: "no.", class: "tv-number-of" });
    point.addEventListener("change", () => {
      const n = Math.round(Number(point.value));
      if (point.value !== "" && n >= 0 && n < this.clip.num_points) this.select([n]);
    });
    const clips = this.clips.map((clip, i) => [i, clip.title || `clip ${i}`]);
    return [
      ...(clips.length > 1 ? [this.choice("clip", "Clip", clips, Number)] : []),
      ...(names.length > 2 ? [this.ticks("shown", "Shown", names)] : []),
      this.choice("colour", "Colour", colours),
      ...(two ? [this.choice("compare", "Compare", Object.entries(compare))] : []),
      this.choice("background", "Background", backgrounds),
      this.choice("hidden", "Hidden points", Object.entries(HIDDEN)),
      ...(has.sure ? [this.choice("opacity", "Opacity", Object.entries(OPACITIES))] : []),
      ...(has.futures > 0 ? [this.choice("future", "Sampled futures", Object.entries(FUTURES)),
        this.range("sample", "Sample", 0, has.futures - 1, 1, (v) => `${v}`)] : []),
      this.range("trail", "Trails", 0, 1e5, 1, (v) => `${v} fr`),
      this.range("point_size", "Point size", 0, 16, 0.5, (v) => (v ? `${v} px` : "auto")),
      this.range("density", "Density", 0.01, 1, 0.01, (v) => `${Math.round(v * 100)} %`),
      this.choice("path", "Selected points", PATHS, (value) => value === "true"),
      labelled("Point", point)];
  }

  /** The panels that the comparison asks for. */
  arrange() {
    const { names } = this.header;
    this.showPanels(this.layout().map((sets) => new Panel(this, sets)));
    for (const panel of this.panels) {
      const name = panel.sets.map((which) => names[which]).join(" and ");
      panel.chip.hidden = names.length < 2;
      panel.el.setAttribute("aria-label", `${names.length < 2 ? "Trajectories" : name} over the video`);
      this.#listenTo(panel);
    }
    const fixed = this.shows("overlay") || this.shows("errors");
    const select = this.el.querySelector("[data-trait=colour]");
    select.disabled = fixed;
    select.title = fixed ? "Overlay colours the sets, error vectors the error" : "";
    this.#namePanels();
    this.#errorCurve();
    this.#drawPlot();
    this.tellFrame();
    this.#drawLegend();
    this.redraw(true);
  }
  /** Whose points are shown, and whose picture is behind them where that could be mistaken. */
  #namePanels() {
    const { names } = this.header, asked = ["rebuilt", "difference"].includes(this.get("background"));
    for (const { sets, chip } of this.panels) {
      const by = this.rebuiltBy(sets), name = sets.map((which) => names[which]).join(" and ");
      const behind = by === undefined ? "true frame" : BACKGROUNDS[this.get("background")].toLowerCase();
      chip.textContent = asked ? `${name} · ${behind}` : name;
    }
  }

  #drawLegend() {
    const name = this.#colourName(), { palette, header, clip } = this;
    if (this.shows("overlay")) {
      const keys = this.panels[0].sets.map((which, order) => (
        this.#key(this.setColours[which], `tv-${SIGNS[order % SIGNS.length]}`, header.names[which])));
      this.legend.replaceChildren(...keys, unit("hollow = hidden"));
      return;
    }
    const text = (value) => tag("span", { class: "tv-number" }, value), title = unit(COLOURS[name]);
    if (name === "position") {
      this.legend.replaceChildren(swatch(palette.positions, 64, "tv-places"), title, unit("in the frame"));
    } else if (name === "direction") {
      this.legend.replaceChildren(swatch(palette.directions, 33, "tv-wheel"), title,
        text(`rim = ${clip.limits.displacement} px`), unit("grey = still"));
    } else if (name === "occlusion") {
      const last = Math.max(1, this.last), never = this.#key(this.never, "tv-disc", "never");
      this.legend.replaceChildren(title, text("frame 1"), this.#bar(1 / last), text(`${last}`), never);
    } else if (name === "region") {
      if (this.sets[this.against].radii) {
        this.legend.replaceChildren(title, this.#key(this.never, "tv-disc", "inside, or hidden"),
          this.#key(this.outside, "tv-disc", "outside"));
      } else { // one of its futures, or a prediction without
        this.legend.replaceChildren(title, this.#key(this.never, "tv-disc", "no regions are known of what is shown"));
      }
    } else if (name === "confidence") {
      this.legend.replaceChildren(title, text("0"), this.#bar(), text("1"));
    } else {
      const limit = clip.limits[name];
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

  aboutFrame(frame) {
    const mean = this.meanErrors?.[frame] ?? null, many = this.header.names.length > 2;
    const whose = many ? ` of ${this.header.names[this.against]}` : "";
    return mean === null ? "" : `mean error${whose} ${mean.toFixed(2)} px`;
  }
  frameShown() {
    this.#tellSelection();
    this.#markNow();
    if (this.hover !== null) this.#fillTip();
  }
  #tellSelection() {
    const selected = this.get("selected"), frame = this.get("frame"), [first] = this.sets;
    if (!selected.length) {
      this.selection.replaceChildren(unit("Click a point, draw a lasso or a box to select"));
      return;
    }
    const mean = (of) => selected.reduce((sum, n) => sum + of(n), 0) / selected.length;
    const parts = [selected.length === 1 ? `point ${selected[0]}` : `${selected.length} selected`];
    parts.push(`moved ${mean((n) => first.displacement(frame, n)).toFixed(1)} px`);
    const shown = this.get("shown").filter((which) => which > 0 && which < this.sets.length);
    for (const which of shown) {
      const name = shown.length > 1 ? `${this.header.names[which]} ` : "error ";
      parts.push(`${name}${mean((n) => first.error(frame, n, this.sets[which])).toFixed(2)} px`);
    }
    const only = tag("input", { type: "checkbox" });
    only.checked = this.onlySelected;
    only.addEventListener("change", () => { this.onlySelected = only.checked; this.#choosePoints(); this.redraw(); });
    this.selection.replaceChildren(tag("strong", {}, parts.join(" · ")), tag("label", {}, only, "only these"),
      tag("button", { type: "button", class: "tv-link", onclick: () => this.select([]) }, "clear"));
  }

  reset() {
    this.onlySelected = false;
    this.#setTool(null);
    super.reset();
  }

  // -- listening

  listen() {
    this.on("selected", () => {
      this.#choosePoints();
      this.#tellSelection();
      this.#drawPlot();
      const selected = this.get("selected");
      this.say(selected.length === 1 ? this.#spoken(selected[0]) : `${selected.length} points selected`);
      this.redraw();
    });
    this.on("density", () => { this.#choosePoints(); this.redraw(); });
    this.on("colour", () => { this.#drawLegend(); this.redraw(); });
    for (const name of ["compare", "shown"]) {
      this.on(name, () => {
        this.hover = null;
        this.tip.hidden = true;
        this.arrange();
        this.showFrame(this.get("frame"));
      });
    }
    this.on("background", () => { this.#namePanels(); this.showFrame(this.get("frame")); });
    this.on("clip", () => this.#changeClip());
    for (const name of ["future", "sample"]) this.on(name, () => { this.#chooseSets(); this.arrange(); });
    this.on("path", () => { this.#drawPlot(); this.redraw(); });
    for (const name of ["trail", "point_size", "hidden", "opacity"]) this.on(name, () => this.redraw());
  }
  #spoken(n) {
    return `Point ${n}: ${this.numbers(n).map(([name, values]) => `${name} ${values.join(" and ")}`).join("; ")}`;
  }
  #setTool(tool) {
    this.tool = tool;
    for (const name of ["lasso", "box"]) this.toolButtons[name].setAttribute("aria-pressed", String(name === tool));
    this.el.classList.toggle("tv-lassoing", tool !== null);
  }

  keys() {
    const colours = () => [...this.el.querySelector("[data-trait=colour]").options].map((option) => option.value);
    return [
      ["L", "draw a lasso", { l: () => this.#setTool(this.tool === "lasso" ? null : "lasso") }],
      ["B", "draw a box", { b: () => this.#setTool(this.tool === "box" ? null : "box") }],
      ["M", "select everything that moves", { m: () => this.selectMoving() }],
      ["C", "next colours", { c: () => this.cycle("colour", colours()) }],
      ["H", "show hidden points or not", { h: () => this.cycle("hidden", Object.keys(HIDDEN)) }],
      ["Esc", "select nothing", { Escape: () => { this.#setTool(null); this.select([]); } }],
      ...(this.clips.length > 1 ? [["N", "next clip", { n: () => this.cycle("clip", [...this.clips.keys()]) }]] : []),
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
        if (!event.shiftKey && !this.tool) return null;
        const start = panel.toFrame(event), lasso = (this.lasso = { panel, path: [start], add: event.shiftKey });
        const boxed = ([x, y]) => [start, [x, start[1]], [x, y], [start[0], y]];
        return (move, done) => {
          if (move) {
            const here = panel.toFrame(move);
            if (this.tool === "box") lasso.path = boxed(here);
            else lasso.path.push(here);
            this.redraw();
            return;
          }
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
    const shown = this.get("shown").filter((which) => which < this.sets.length), wide = { colspan: shown.length };
    const names = this.sets.length > 1 ? shown.map((which) => tag("th", {}, this.header.names[which])) : [];
    const head = tag("tr", {}, tag("th", {}, `point ${this.hover}`), ...names);
    const rows = this.numbers(this.hover).map(([name, values]) => tag("tr", {}, tag("td", {}, name),
      ...values.map((value) => tag("td", values.length < shown.length ? wide : {}, value))));
    this.tip.replaceChildren(tag("table", {}, head, ...rows));
  }

  stop() {
    super.stop();
    this.clips?.forEach((clip) => clip.close());
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
