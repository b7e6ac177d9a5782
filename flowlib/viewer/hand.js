// The hand viewer in the browser: depth points and skeletons in 3D, over the player (player.js) and the raster
// (raster.js), which are put in front of this file. Turning, projecting and colouring are defined in hand_scene.py.
// Depth points are put into pixels by hand, far ones first: 4,000 of them take a millisecond or two on any machine.

const COLOURS = { finger: "Finger", error: "Error", set: "Set" };
const COMPARISONS = { "side by side": "Side by side", overlay: "Overlay", errors: "Error lines" };
const HIDDEN = { hollow: "Hollow", off: "Not shown" };
const CLOUDS = { shaded: "Shaded", faint: "Faint", off: "Not shown" };
const FOLLOW = [[true, "Hand centred"], [false, "As filmed"]];
const ASPECT = 4 / 3;
const FILL = 0.4; // as in hand_scene.py
const EYE = 5;
const LIGHT = [-0.3, -0.55, -0.78];
const STEEP = 20; // mm
const CLAY = [148, 152, 166];
const TURN = 0.5; // degrees per pixel of the page
const KEPT = 24; // frames whose points are kept
const BAR = 50; // mm
const ROWS = 4; // actions shown at once

/** The takes: what came packed, made ready when it is asked for. The layout is told at `pack_depth` in hands.py. */
class Take {
  constructor(header, step, depth, joints, seen, likely) {
    Object.assign(this, header, { step, packed: depth, sets: joints, seen, likely });
    this.J = header.joints.length;
    this.clouds = new Map(); // oldest use first
    this.children = header.parents.map((_, j) => j).filter((j) => header.parents[j] >= 0);
    this.#measure();
  }
  /** The middle of the hand in every frame and in all, and the farthest joint from either. */
  #measure() {
    const { J, num_frames: S } = this, [truth] = this.sets, all = [0, 0, 0];
    this.middles = Array.from({ length: S }, (_, s) => {
      const sum = [0, 0, 0];
      for (let k = 0; k < 3 * J; k++) sum[k % 3] += truth[3 * J * s + k];
      sum.forEach((value, axis) => { all[axis] += value / (J * S); });
      return sum.map((value) => value / J);
    });
    this.middle = all;
    const farthest = (middleOf) => {
      let most = 1;
      for (let s = 0; s < S; s++) {
        const middle = middleOf(s);
        for (let j = 0; j < J; j++) {
          const k = 3 * (J * s + j);
          most = Math.max(most, Math.hypot(truth[k] - middle[0], truth[k + 1] - middle[1], truth[k + 2] - middle[2]));
        }
      }
      return most;
    };
    this.reach = { true: farthest((s) => this.middles[s]), false: farthest(() => all) };
  }
  joint(which, s, j) {
    const k = 3 * (s * this.J + j), joints = this.sets[which];
    return [joints[k], joints[k + 1], joints[k + 2]];
  }
  visible(s, j) { return this.seen[s * this.J + j] === 1; }
  error(which, s, j) {
    const k = 3 * (s * this.J + j), a = this.sets[which], [b] = this.sets;
    return Math.hypot(a[k] - b[k], a[k + 1] - b[k + 1], a[k + 2] - b[k + 2]);
  }
  meanError(which, s) {
    let sum = 0;
    for (let j = 0; j < this.J; j++) sum += this.error(which, s, j);
    return sum / this.J;
  }

  get isReady() { return this.bytes !== undefined; }
  load() {
    this.underway ??= inflate(this.packed).then((bytes) => { this.bytes = bytes; this.packed = null; });
    return this.underway;
  }
  /** The points of a frame: {xyz, light, count, spread (mm from one to the next)}. */
  cloud(s) {
    let cloud = this.clouds.get(s);
    if (cloud) this.clouds.delete(s);
    else cloud = this.#unpack(s);
    this.clouds.set(s, cloud);
    if (this.clouds.size > KEPT) this.clouds.delete(this.clouds.keys().next().value);
    return cloud;
  }
  #starts() { // of each frame's mask and depths
    let mask = 0, depth = 0;
    const rows = this.grids.map(([, , , rows, columns, count]) => {
      const start = [mask, depth];
      mask += (rows * columns + 7) >> 3;
      depth += count;
      return start;
    });
    return { rows, masks: mask, depths: depth };
  }
  #unpack(s) {
    this.starts ??= this.#starts();
    const [left, top, stride, rows, columns, count] = this.grids[s], [maskAt, depthAt] = this.starts.rows[s];
    const { bytes, camera: [fx, fy, ux, uy], starts: { masks, depths } } = this;
    const low = masks + depthAt, high = low + depths;
    const grid = new Int32Array(rows * columns).fill(-1), xyz = new Float32Array(3 * count);
    let told = 0, found = 0;
    for (let cell = 0; cell < rows * columns; cell++) {
      if (!((bytes[maskAt + (cell >> 3)] >> (cell & 7)) & 1)) continue;
      told = (told + (bytes[low + found] | (bytes[high + found] << 8))) & 0xffff; // wraps around, as uint16 did there
      const z = told * this.step, x = left + stride * (cell % columns), y = top + stride * Math.floor(cell / columns);
      xyz[3 * found] = (x - ux) * (z / fx);
      xyz[3 * found + 1] = (y - uy) * (z / fy);
      xyz[3 * found + 2] = z;
      grid[cell] = found++;
    }
    return { xyz, count, light: this.#light(grid, xyz, columns, count), spread: stride / fx };
  }
  /** How bright the light makes each point, 0 to 1; two cells to each side count (see `_beside` in hand_scene.py). */
  #light(grid, xyz, columns, count) {
    const light = new Float32Array(count).fill(0.5), [lx, ly, lz] = LIGHT, rows = grid.length / columns;
    const beside = (p, row, column, down, across) => {
      for (const step of [2, 1]) {
        const r = row + step * down, c = column + step * across;
        const q = r < 0 || c < 0 || r >= rows || c >= columns ? -1 : grid[r * columns + c];
        if (q >= 0 && Math.abs(xyz[3 * q + 2] - xyz[3 * p + 2]) < STEEP) return 3 * q;
      }
      return 3 * p;
    };
    for (let cell = 0; cell < grid.length; cell++) {
      const p = grid[cell], row = Math.floor(cell / columns), column = cell % columns;
      if (p < 0) continue;
      const r = beside(p, row, column, 0, 1), l = beside(p, row, column, 0, -1);
      const b = beside(p, row, column, 1, 0), t = beside(p, row, column, -1, 0);
      const ax = xyz[b] - xyz[t], ay = xyz[b + 1] - xyz[t + 1], az = xyz[b + 2] - xyz[t + 2];
      const bx = xyz[r] - xyz[l], by = xyz[r + 1] - xyz[l + 1], bz = xyz[r + 2] - xyz[l + 2];
      const nx = ay * bz - az * by, ny = az * bx - ax * bz, nz = ax * by - ay * bx, length = Math.hypot(nx, ny, nz);
      if (length > 0) light[p] = Math.min(1, Math.max(0, (nx * lx + ny * ly + nz * lz) / length));
    }
    return light;
  }
}

/** One picture of a hand. Two canvases: the depth points below, the skeletons above. */
class HandPanel extends Surface {
  constructor(viewer, sets) {
    super(viewer, ASPECT, "back", "front");
    [this.back, this.front] = this.canvases;
    this.sets = sets;
  }
  drawBack(image) {
    const context = this.back.getContext("2d");
    context.fillStyle = this.viewer.ground();
    context.fillRect(0, 0, this.width, this.height);
    if (image) context.drawImage(image, 0, 0);
  }
  drawFront() {
    const { viewer } = this, context = this.front.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    context.lineCap = "round";
    this.sets.forEach((which, order) => this.#drawSkeleton(context, which, order > 0));
    if (viewer.get("compare") === "errors") this.#drawErrors(context);
    this.#drawScale(context);
  }
  #drawSkeleton(context, which, dashed) {
    const { viewer } = this, { take, frame } = viewer, places = viewer.places(which, this);
    const colours = viewer.jointColours(which), thick = Math.min(this.width, this.height) / 90;
    const off = viewer.get("hidden") === "off", depth = (j) => places[j][2] + places[take.parents[j]][2];
    for (const child of [...take.children].sort((a, b) => depth(b) - depth(a))) {
      const parent = take.parents[child], clear = take.visible(frame, child) && take.visible(frame, parent);
      if (off && !clear) continue;
      context.setLineDash(dashed ? [thick * 2.2, thick * 1.9] : []);
      context.globalAlpha = clear ? 1 : 0.5;
      context.beginPath();
      context.moveTo(places[parent][0], places[parent][1]);
      context.lineTo(places[child][0], places[child][1]);
      if (!dashed) { context.lineWidth = thick * 1.6; context.strokeStyle = "rgb(0 0 0 / 35%)"; context.stroke(); }
      context.lineWidth = thick;
      context.strokeStyle = colours[child];
      context.stroke();
    }
    context.setLineDash([]);
    context.globalAlpha = 1;
    const nearLast = [...places.keys()].sort((a, b) => places[b][2] - places[a][2]);
    for (const j of nearLast) {
      const seen = take.visible(frame, j), radius = thick * (viewer.hover === j ? 1.9 : 1.15), [x, y] = places[j];
      if (off && !seen) continue;
      context.beginPath();
      if (dashed) {
        const r = radius * 1.2;
        context.moveTo(x, y - r); context.lineTo(x + r, y); context.lineTo(x, y + r); context.lineTo(x - r, y);
        context.closePath();
      } else context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fillStyle = seen ? colours[j] : viewer.ground();
      context.fill();
      context.lineWidth = seen ? this.ratio : 0.45 * thick;
      context.strokeStyle = seen ? "rgb(0 0 0 / 55%)" : colours[j];
      context.stroke();
    }
  }
  /** A line from every joint of the truth to the same joint of each prediction. */
  #drawErrors(context) {
    const { viewer } = this, { take, frame, palette, header } = viewer, truth = viewer.places(0, this);
    context.lineWidth = Math.min(this.width, this.height) / 130;
    for (const which of this.sets.filter((one) => one > 0)) {
      viewer.places(which, this).forEach(([x, y], j) => {
        if (viewer.get("hidden") === "off" && !take.visible(frame, j)) return;
        context.globalAlpha = take.visible(frame, j) ? 1 : 0.4;
        context.strokeStyle = cssColour(palette.magnitude(take.error(which, frame, j) / header.limit));
        context.beginPath();
        context.moveTo(truth[j][0], truth[j][1]);
        context.lineTo(x, y);
        context.stroke();
      });
    }
    context.globalAlpha = 1;
  }
  #drawScale(context) {
    const { viewer, ratio } = this, length = BAR * viewer.scaleOf(this), y = this.height - 12 * ratio;
    context.lineWidth = 2 * ratio;
    context.strokeStyle = context.fillStyle = viewer.dark ? "#a4a7b1" : "#60646c";
    context.beginPath();
    context.moveTo(12 * ratio, y);
    context.lineTo(12 * ratio + length, y);
    context.stroke();
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.fillText(`${BAR} mm`, 12 * ratio, y - 6 * ratio);
  }
}

class HandViewer extends Player {
  defaults = {
    colour: "finger", compare: "side by side", hidden: "hollow", cloud: "shaded", follow: true, yaw: 0, pitch: 0,
    zoom: 1, speed: 1,
  };
  hover = null;
  points = new Raster();

  async load() {
    const { model, header } = this, joints = new Float32Array((await inflate(model.get("_joints"))).buffer);
    const [depth, seen, likely] = ["_depth", "_visible", "_actions"].map((name) => bytesFrom(model, name));
    const K = header.actions.length;
    let atDepth = 0, atJoint = 0, atSeen = 0, atLikely = 0;
    this.palette = new Palette(model.get("_palette"));
    this.takes = header.sequences.map((one) => {
      const S = one.num_frames, count = S * one.joints.length;
      const sets = header.names.map(() => joints.subarray(atJoint, (atJoint += 3 * count)));
      return new Take(one, header.depth_step, depth.subarray(atDepth, (atDepth += one.depth_bytes)), sets,
        seen.subarray(atSeen, (atSeen += count)), K ? likely.subarray(atLikely, (atLikely += S * K)) : null);
    });
    this.fingerColours = header.fingers;
    this.setColours = header.set_colours.map((rgb) => `rgb(${rgb.join(" ")})`);
  }
  get take() { return this.takes[this.get("sequence")]; }
  get frame() { return Math.min(this.get("frame"), this.last); }
  get last() { return this.take.num_frames - 1; }
  ready() { return this.take.load(); }
  isReady() { return this.take.isReady; }
  ground() { return this.dark ? "#1d1f25" : "#eff0f4"; }

  // -- where things are seen

  /** What turns mm into canvas pixels and the distance behind the middle, for a panel. */
  #projection(panel) {
    const { take, frame } = this, follow = this.get("follow"), reach = take.reach[follow], eye = EYE * reach;
    const middle = follow ? take.middles[frame] : take.middle, radians = Math.PI / 180;
    const cy = Math.cos(this.get("yaw") * radians), sy = Math.sin(this.get("yaw") * radians);
    const cp = Math.cos(this.get("pitch") * radians), sp = Math.sin(this.get("pitch") * radians);
    const scale = this.scaleOf(panel), { width, height } = panel;
    return (x, y, z, out) => {
      x -= middle[0]; y -= middle[1]; z -= middle[2];
      const right = x * cy - z * sy, behind = z * cy + x * sy, down = y * cp - behind * sp, far = behind * cp + y * sp;
      const gain = (scale * eye) / Math.max(eye + far, eye / 10);
      out[0] = width / 2 + right * gain; out[1] = height / 2 + down * gain; out[2] = far;
      return gain;
    };
  }
  /** Canvas pixels per mm in the middle of the hand. */
  scaleOf(panel) {
    return (FILL * Math.min(panel.width, panel.height) * this.get("zoom")) / this.take.reach[this.get("follow")];
  }
  /** Every joint of a set on a panel: [x, y, mm behind the middle]. */
  places(which, panel) {
    const { take, frame } = this, project = this.#projection(panel);
    return take.joints.map((_, j) => {
      const out = [0, 0, 0];
      project(...take.joint(which, frame, j), out);
      return out;
    });
  }
  jointColours(which) {
    const { take, frame, header } = this, colour = this.get("colour");
    if (colour === "set") return take.joints.map(() => this.setColours[which]);
    if (colour === "error" && which) {
      return take.joints.map((_, j) => cssColour(this.palette.magnitude(take.error(which, frame, j) / header.limit)));
    }
    const ofFinger = (finger) => `rgb(${this.fingerColours[finger].join(" ")})`;
    return take.fingers.map((finger) => ofFinger(colour === "error" ? "palm" : finger)); // the truth has no error
  }

  // -- drawing

  draw() {
    let drawn = false, image;
    for (const panel of this.panels) {
      if (!panel.resize()) continue;
      if (image === undefined || image?.width !== panel.width || image?.height !== panel.height) {
        image = this.#drawCloud(panel); // all panels show the same depth
      }
      panel.drawBack(image);
      panel.drawFront();
      drawn = true;
    }
    return drawn;
  }
  #drawCloud(panel) {
    const shown = this.get("cloud"), { take, points } = this;
    if (shown === "off" || !take.isReady) return null;
    const { width, height } = panel;
    if (points.width !== width || points.height !== height) {
      points.resize(width, height);
      this.canvas = new OffscreenCanvas(width, height);
    }
    points.clear();
    const { xyz, light, count, spread } = take.cloud(this.frame), project = this.#projection(panel), out = [0, 0, 0];
    const xs = new Float32Array(count), ys = new Float32Array(count), sides = new Float32Array(count);
    const bins = new Uint16Array(count), starts = new Uint32Array(513), reach = 4 * take.reach[this.get("follow")];
    for (let i = 0; i < count; i++) {
      const gain = project(xyz[3 * i], xyz[3 * i + 1], xyz[3 * i + 2], out);
      xs[i] = out[0]; ys[i] = out[1];
      sides[i] = 1.25 * gain * spread * xyz[3 * i + 2];
      bins[i] = Math.min(511, Math.max(0, Math.floor(256 - (256 * out[2]) / reach))); // far ones first
      starts[bins[i] + 1]++;
    }
    for (let b = 0; b < 512; b++) starts[b + 1] += starts[b];
    const order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[starts[bins[i]]++] = i;
    const { pixels } = points, alpha = (shown === "faint" ? 64 : 255) << 24;
    for (const i of order) {
      const shade = 0.45 + 0.55 * light[i], side = Math.max(1.5 * panel.ratio, sides[i]);
      const colour = alpha | ((CLAY[2] * shade) << 16) | ((CLAY[1] * shade) << 8) | (CLAY[0] * shade);
      const x0 = Math.max(0, Math.round(xs[i] - side / 2)), x1 = Math.min(width, Math.round(xs[i] + side / 2));
      const y0 = Math.max(0, Math.round(ys[i] - side / 2)), y1 = Math.min(height, Math.round(ys[i] + side / 2));
      for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) pixels[y * width + x] = colour;
    }
    this.canvas.getContext("2d").putImageData(points.image, 0, 0);
    return this.canvas;
  }

  // -- space

  zoomBy(factor) { this.set("zoom", Math.min(40, Math.max(0.1, this.get("zoom") * factor))); }
  turnBy(right, down) {
    const yaw = this.get("yaw") + right, pitch = this.get("pitch") + down;
    this.set("yaw", ((((yaw + 180) % 360) + 360) % 360) - 180);
    this.set("pitch", Math.min(90, Math.max(-90, pitch)));
  }
  showAll() { this.look(0, 0); this.set("zoom", 1); }
  look(yaw, pitch) { this.set("yaw", yaw); this.set("pitch", pitch); }

  // -- building

  build() {
    const { header } = this, many = this.takes.length > 1, two = header.names.length > 1;
    this.legend = tag("div", { class: "tv-legend" });
    this.about = tag("div", { class: "tv-selection" });
    this.actions = tag("div", { class: "tv-actions" });
    const keys = header.sequences.map((one, i) => [i, one.key]);
    const entries = (options, needs) => Object.entries(options).filter(([name]) => two || !needs.includes(name));
    this.layOut({
      kind: "Hands", facts: "", tools: [], foot: [this.legend, this.about],
      settings: [
        ...(many ? [this.choice("sequence", "Sequence", keys, Number)] : []),
        ...(two ? [this.choice("compare", "Compare", Object.entries(COMPARISONS)),
          this.ticks("shown", "Shown", header.names)] : []),
        this.choice("colour", "Colour", entries(COLOURS, ["error", "set"])),
        this.choice("cloud", "Depth points", Object.entries(CLOUDS)),
        this.choice("hidden", "Hidden joints", Object.entries(HIDDEN)),
        this.choice("follow", "Motion", FOLLOW, (value) => value === "true"),
      ],
    });
    this.el.classList.add("tv-hand");
    this.transport.after(this.actions);
  }
  listen() {
    this.on("sequence", () => {
      this.hover = null;
      this.tip.hidden = true;
      if (this.get("frame") > this.last) this.model.set("frame", this.last);
      this.#tellTake();
      this.showFrame(this.frame);
    });
    for (const name of ["shown", "compare"]) this.on(name, () => this.arrange());
    this.on("colour", () => { this.#drawLegend(); this.redraw(true); });
    for (const name of ["hidden", "cloud", "follow", "yaw", "pitch", "zoom"]) this.on(name, () => this.redraw(true));
    this.on("zoom", () => this.#tellZoom());
    this.#tellZoom();
    this.#tellTake();
  }
  #tellZoom() { this.zoomText.textContent = `${Math.round(this.get("zoom") * 100)} %`; }
  #tellTake() {
    const { take } = this, who = take.subject && `subject ${take.subject}`;
    this.info.textContent = [take.key, who, take.action, counted(take.num_frames, "frame"),
      counted(take.J, "joint")].filter(Boolean).join(" · ");
    this.fitTime();
    this.#drawCurve();
    this.#drawActions();
  }
  get predicted() { return this.get("shown").find((which) => which > 0); }
  #drawCurve() {
    const which = this.predicted;
    this.meanErrors = which === undefined ? null
      : Array.from({ length: this.take.num_frames }, (_, s) => this.take.meanError(which, s));
    this.drawCurve(this.meanErrors, `Mean error of ${this.header.names[which]} over time`);
  }
  aboutFrame(frame) {
    const mean = this.meanErrors?.[frame];
    return mean === undefined ? "" : `mean error of ${this.header.names[this.predicted]} ${mean.toFixed(1)} mm`;
  }
  frameShown() {
    const { take, frame, header } = this, hidden = take.joints.filter((_, j) => !take.visible(frame, j)).length;
    const errors = this.get("shown").filter((which) => which > 0).map(
      (which) => `${header.names[which]} ${take.meanError(which, frame).toFixed(1)} mm`);
    if (hidden) errors.push(`${counted(hidden, "joint")} hidden`);
    this.about.textContent = errors.join(" · ");
    this.actionTime?.forEach((mark) => mark(frame));
    if (this.hover !== null) this.#fillTip();
  }
  /** The likeliest actions over time, and the true one, as strips below the time bar. */
  #drawActions() {
    const { take, header } = this, K = header.actions.length, S = take.num_frames;
    this.actions.replaceChildren();
    this.actionTime = [];
    if (!take.likely) return;
    const sums = new Float64Array(K);
    take.likely.forEach((likely, i) => { sums[i % K] += likely; });
    const order = [...sums.keys()].sort((a, b) => sums[b] - sums[a]), truth = header.actions.indexOf(take.action);
    const rows = order.slice(0, Math.min(K, ROWS));
    if (truth >= 0 && !rows.includes(truth)) rows[rows.length - 1] = truth;
    for (const k of rows) {
      const strip = tag("canvas", { width: S, height: 1, role: "img", "aria-label": `${header.actions[k]} over time` });
      const image = new ImageData(S, 1), pixels = new Uint32Array(image.data.buffer), share = tag("span");
      for (let s = 0; s < S; s++) pixels[s] = (take.likely[s * K + k] << 24) | (k === truth ? 0x4f9a2e : 0xc4563e);
      strip.getContext("2d").putImageData(image, 0, 0);
      const name = tag("span", k === truth ? { class: "tv-true", title: "the true action" } : {}, header.actions[k]);
      this.actions.append(name, strip, share);
      this.actionTime.push((s) => { share.textContent = `${Math.round((100 * take.likely[s * K + k]) / 255)} %`; });
    }
    this.actionTime.forEach((mark) => mark(this.frame));
  }
  arrange() {
    const shown = this.get("shown"), { names } = this.header;
    const all = this.get("compare") === "side by side" ? shown.map((which) => [which]) : [shown];
    this.showPanels(all.map((sets) => new HandPanel(this, sets)));
    for (const panel of this.panels) {
      const name = panel.sets.map((which) => names[which]).join(" and ");
      panel.chip.textContent = name;
      panel.chip.hidden = names.length < 2;
      panel.el.setAttribute("aria-label", `Hand, ${name}`);
      this.#listenTo(panel);
    }
    this.#drawCurve();
    this.tellFrame();
    this.#drawLegend();
    this.redraw(true);
  }
  #drawLegend() {
    const { header } = this, colour = this.get("colour");
    if (colour === "error" || this.get("compare") === "errors") {
      const stops = Array.from({ length: 17 }, (_, i) => cssColour(this.palette.magnitude(i / 16))).join(", ");
      const bar = tag("i", { class: "tv-bar", style: `background:linear-gradient(to right, ${stops})` });
      this.legend.replaceChildren(unit("Error"), "0", bar, `≥ ${header.limit} mm`);
      return;
    }
    const disc = (rgb) => tag("i", { class: "tv-disc", style: `background:${rgb}` });
    const key = (rgb, name) => tag("span", { class: "tv-key" }, disc(rgb), name);
    const keys = colour === "set" ? this.get("shown").map((which) => key(this.setColours[which], header.names[which]))
      : Object.entries(this.fingerColours).map(([finger, rgb]) => key(`rgb(${rgb.join(" ")})`, finger));
    this.legend.replaceChildren(...keys, unit("hollow = hidden"));
  }

  // -- keys and pointers

  keys() {
    const two = this.header.names.length > 1;
    const colours = Object.keys(COLOURS).filter((name) => two || name === "finger");
    const comparison = () => this.cycle("compare", Object.keys(COMPARISONS));
    const sequence = () => this.cycle("sequence", [...this.takes.keys()]);
    return [
      ["1 2 3", "from the front, the side, above",
        { 1: () => this.look(0, 0), 2: () => this.look(90, 0), 3: () => this.look(0, 90) }],
      ["C", "next colours", { c: () => this.cycle("colour", colours) }],
      ...(two ? [["A", "side by side, overlay, error lines", { a: comparison }]] : []),
      ["P", "depth points", { p: () => this.cycle("cloud", Object.keys(CLOUDS)) }],
      ["H", "show hidden joints or not", { h: () => this.cycle("hidden", Object.keys(HIDDEN)) }],
      ...(this.takes.length > 1 ? [["N", "next sequence", { n: sequence }]] : []),
    ];
  }
  gestures() {
    return [["Drag", "turn the hand"], ["Wheel", "zoom, once the picture is clicked (or with Ctrl)"],
      ["Point at a joint", "its numbers"], ["Double click", "back to the camera's view"]];
  }
  #listenTo(panel) {
    this.watch(panel, {
      drag: (event, dx, dy) => this.turnBy(dx * TURN, dy * TURN),
      hover: (event) => {
        const joint = this.nearest(panel, event);
        if (joint === null) { this.#leave(); return; }
        if (joint !== this.hover) { this.hover = joint; this.#fillTip(); this.redraw(); }
        this.placeTip(event);
      },
      leave: () => this.#leave(),
    });
  }
  /** The joint nearest to a pointer event, within a finger's width. */
  nearest(panel, event, reach = 14) {
    const [x, y] = panel.place(event);
    let best = null, least = (reach * panel.ratio) ** 2;
    for (const which of panel.sets) {
      this.places(which, panel).forEach(([px, py], j) => {
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least) { best = j; least = distance; }
      });
    }
    return best;
  }
  #leave() {
    if (this.hover === null) return;
    this.hover = null;
    this.tip.hidden = true;
    this.redraw();
  }
  #fillTip() {
    const { take, frame, hover: j, header } = this, sets = this.get("shown");
    const cells = (of) => sets.map((which) => tag("td", {}, of(which)));
    const error = (which) => (which ? `${take.error(which, frame, j).toFixed(1)} mm` : "");
    const place = (which) => take.joint(which, frame, j).map((value) => value.toFixed(1)).join(", ");
    const names = header.names.length > 1 ? sets.map((which) => tag("th", {}, header.names[which])) : [];
    const rows = [tag("tr", {}, tag("th", {}, take.joints[j]), ...names),
      tag("tr", {}, tag("td", {}, "x, y, z in mm"), ...cells(place)),
      tag("tr", {}, tag("td", {}, "visible"), tag("td", {}, take.visible(frame, j) ? "yes" : "no"))];
    if (header.names.length > 1) {
      rows.push(tag("tr", {}, tag("td", {}, "error"), ...cells(error)));
    }
    this.tip.replaceChildren(tag("table", {}, ...rows));
  }
}

const render = mounting(HandViewer);
export default { render };
