// The player: what the viewers share around their pictures. Time (play, step, scrub, speed), keys, pointers, theme,
// the layout of the page, and where it lives: `mounting` makes what a notebook calls, `openPage` serves exported pages.
// Knows nothing of what is shown: a viewer extends `Player` and brings the pictures. Every viewer's script has this
// file in front of its own; there is no bundler, no library, and no request to anywhere.

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
const SETTLE = 120; // ms without a further change before Python is told
const MOST_PIXELS = 2.5e6; // of one panel's canvas, whatever the screen's pixel ratio
const HINT = 2500; // ms that a hint stays
const WHEEL_HINT = "Click the picture first, or hold Ctrl (⌘), to zoom with the wheel";
const ICONS = {
  first: "M6 5v14M19 5 9 12l10 7z", back: "M17 5 7 12l10 7z", play: "M7 4.5v15L19.5 12z",
  pause: "M8 5v14M16 5v14", next: "M7 5l10 7L7 19z", last: "M18 5v14M5 5l10 7-10 7z", plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  lasso: "M12 4c5 0 8.5 2.2 8.5 5.3S17 14.5 12 14.5s-8.5-2-8.5-5.2S7 4 12 4zM8 14.2c.6 2.6.2 4.6-2 5.8",
  reset: "M4.5 12a7.5 7.5 0 1 0 2.3-5.4L4.5 9M4.5 4v5h5",
  box: "M4 6.5h3M17 6.5h3M4 17.5h3M17 17.5h3M6 4.5v3M6 16.5v3M18 4.5v3M18 16.5v3M10 6.5h4M10 17.5h4M6 10.5v3M18 10.5v3",
  moving: "M3.5 8h9M3.5 12h13M3.5 16h9M13 8l4 4-4 4", save: "M12 4v11M7.5 10.5 12 15l4.5-4.5M5 19.5h14",
  help: "M9 9.2a3 3 0 1 1 4.6 2.5c-1.1.7-1.6 1.3-1.6 2.6M12 18v.1",
};

/** One picture: canvases one above the other, as sharp as the screen is, with a name in the corner. */
class Surface {
  constructor(viewer, aspect, ...layers) {
    this.viewer = viewer;
    this.canvases = layers.map((name) => tag("canvas", { class: `tv-${name}`, "aria-hidden": "true" }));
    this.chip = tag("div", { class: "tv-chip" });
    const named = { role: "application", tabindex: "0", "aria-describedby": viewer.helpId };
    this.el = tag("div", { class: "tv-panel", ...named }, ...this.canvases, this.chip);
    this.el.style.aspectRatio = String(aspect);
    this.el.style.setProperty("--aspect", aspect);
    this.ratio = 1; // canvas pixels per pixel of the page
    this.density = 0; // the screen's, when this was measured; 0: to be measured
  }
  get width() { return this.canvases[0].width; }
  get height() { return this.canvases[0].height; }
  /** Fit the canvases to the page; whether there is anything to draw on. Measured anew only when told to, because the
   * browser lays out the whole page to answer. */
  resize() {
    const density = window.devicePixelRatio || 1;
    if (this.density === density) return true;
    const box = this.el.getBoundingClientRect();
    if (!box.width || !box.height) return false;
    const ratio = Math.min(density, Math.sqrt(MOST_PIXELS / (box.width * box.height)));
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    this.ratio = width / box.width;
    this.density = density;
    if (this.width === width && this.height === height && this.fitted) return true;
    for (const canvas of this.canvases) { canvas.width = width; canvas.height = height; }
    this.fitted = true;
    this.resized?.(width, height);
    return true;
  }
  /** Where a pointer event is, in canvas pixels. */
  place(event) {
    const box = this.el.getBoundingClientRect();
    return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
  }
}

/**
 * A viewer extends this and brings
 *   load()          unpack what came with the model (may be async)
 *   build()         call `layOut` once, with what goes into the page
 *   listen()        watch traits of its own
 *   arrange()       make `this.panels` (Surfaces) and put them on `this.stage`
 *   ready(frame)    a promise of what showing that frame takes; isReady(frame): whether it is there
 *   draw(all, whole)   draw the panels, `all` of them or only what moves, `whole` or what there is time for; whether
 *                   anything was drawn
 *   drawn(took)     what follows from the milliseconds that drawing what there was time for took
 *   aboutFrame(frame), frameShown()   a word on a frame (may be empty), and what else follows the frame
 *   zoomBy(factor, panel, event), showAll(), keys()   and `defaults`, the traits' values after a reset
 */
class Player {
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.header = model.get("_header");
    this.helpId = `tv-help-${Math.random().toString(36).slice(2)}`;
    this.saving = this.drawing = null;
    this.listeners = [];
    this.timings = []; // ms of the last redraws, for benchmarks
  }

  async start() {
    await this.load();
    this.build();
    this.#listen();
    this.listen();
    this.#applyTheme();
    this.arrange();
    await this.ready(this.get("frame"));
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
  on(name, listener) {
    this.model.on(`change:${name}`, listener);
    this.listeners.push([`change:${name}`, listener]);
  }
  get last() { return this.header.num_frames - 1; } // a viewer of several clips gives the last frame of the one shown
  /** To the next of a trait's values, in a circle. */
  cycle(name, values) { this.set(name, values[(values.indexOf(this.get(name)) + 1) % values.length], true); }
  aboutFrame() { return ""; }
  frameShown() {}

  // -- drawing

  /** Draw before the next repaint; however many ask, once. */
  redraw(all = false) {
    this.backStale ||= all;
    this.drawing ??= requestAnimationFrame(() => { this.drawing = null; this.drawNow(false); });
  }
  /** Draw at once, and `whole`: with all that there is, however long it takes. */
  drawNow(whole = true) {
    const began = performance.now();
    if (this.draw(this.backStale, whole)) this.backStale = false;
    const took = performance.now() - began;
    this.timings.push(took);
    if (this.timings.length > 1000) this.timings.shift();
    if (!whole) this.drawn(took);
  }
  drawn() {}
  showPanels(panels) {
    const focused = this.stage.contains(this.el.getRootNode().activeElement);
    this.panels = panels;
    this.stage.replaceChildren(...panels.map((panel) => panel.el));
    if (focused) panels[0].el.focus({ preventScroll: true }); // keys still go here
    const columns = panels.length <= 4 ? panels.length : Math.ceil(Math.sqrt(panels.length));
    this.stage.style.setProperty("--columns", columns);
    for (const panel of panels) this.sizes.observe(panel.el);
  }

  // -- time

  async showFrame(frame) {
    this.tellFrame();
    await this.ready(frame);
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
      this.ready((next + 1) % (this.last + 1));
      if (!this.isReady(next)) { this.ready(next); return; }
      due = now - due > 2 * pause ? now : due + pause;
      if (frame === this.last) due = now;
      this.model.set("frame", next); // not saved: no trip to the kernel while playing
    };
    requestAnimationFrame(tick);
  }

  tellFrame() {
    const frame = this.get("frame"), about = this.aboutFrame(frame);
    this.slider.value = frame;
    this.slider.style.setProperty("--done", this.last ? frame / this.last : 0);
    this.slider.setAttribute("aria-valuetext", `frame ${frame} of ${this.last}${about && `, ${about}`}`);
    this.counter.textContent = `${frame} / ${this.last}`;
    this.counter.title = about ? `frame ${frame}, ${about}` : "";
    this.frameShown();
  }
  #tellPlaying() {
    const playing = this.get("playing"), label = playing ? "Pause" : "Play";
    this.playButton.setAttribute("aria-label", label);
    this.playButton.title = label;
    this.playButton.classList.toggle("tv-on", playing);
    this.playButton.querySelector("path").setAttribute("d", ICONS[playing ? "pause" : "play"]);
  }

  // -- building

  /**
   * The page around the pictures: title and tools above them, time below, then `foot` and the settings.
   * @param {{kind: string, facts: string, tools: Node[], foot: Node[], settings: Node[]}} parts
   */
  layOut({ kind, facts, tools, foot, settings }) {
    const heading = this.header.title || kind;
    this.stage = tag("div", { class: "tv-stage" });
    this.tip = tag("div", { class: "tv-tip", role: "tooltip", hidden: "" });
    this.live = tag("div", { class: "tv-quiet", "aria-live": "polite" });
    this.info = tag("div", { class: "tv-info" }, facts);
    this.zoomText = tag("span", { class: "tv-zoom" }, "100 %");
    this.hint = tag("div", { class: "tv-hint", hidden: "" });
    this.sizes = new ResizeObserver(() => {
      for (const panel of this.panels) panel.density = 0;
      this.redraw(true);
    });
    const title = tag("div", { class: "tv-title", role: "heading", "aria-level": "3" }, heading);
    const toolbar = tag("div", { class: "tv-tools", role: "toolbar", "aria-label": "View" }, ...tools,
      button("minus", "Zoom out", () => this.zoomBy(1 / 1.5)), this.zoomText,
      button("plus", "Zoom in", () => this.zoomBy(1.5)), button("reset", "Reset everything", () => this.reset()),
      (this.saveButton = button("save", "Save a picture or a film", () => this.toggleSave())),
      (this.helpButton = button("help", "Keys and gestures (?)", () => this.toggleHelp())));
    for (const [opener, id] of [[this.helpButton, this.helpId], [this.saveButton, `${this.helpId}-save`]]) {
      opener.setAttribute("aria-expanded", "false");
      opener.setAttribute("aria-controls", id);
    }
    const grid = tag("div", { class: "tv-grid" }, ...settings, this.choice("theme", "Theme", Object.entries(THEMES)));
    this.el.append(tag("div", { class: "tv-head" }, title, this.info, toolbar), this.#buildSave(), this.#buildHelp(),
      tag("div", { class: "tv-frame" }, this.stage, this.hint), this.#buildTransport(),
      tag("div", { class: "tv-foot" }, ...foot),
      tag("details", { class: "tv-settings", open: "" }, tag("summary", {}, "Settings"), grid), this.live, this.tip);
    this.el.setAttribute("role", "group");
    this.el.setAttribute("aria-label", `${kind} viewer: ${this.header.title || kind.toLowerCase()}`);
    // JupyterLab keeps its one-letter commands to itself while the keys go here
    this.el.dataset.lmSuppressShortcuts = this.el.dataset.pSuppressShortcuts = "true";
  }
  #buildTransport() {
    const jump = (icon, label, to) => button(icon, label, () => this.goTo(to()));
    this.playButton = button("play", "Play", () => this.toggle());
    this.slider = tag("input", { type: "range", class: "tv-scrub", "aria-label": "Frame", min: 0, step: 1 });
    this.slider.addEventListener("input", () => this.goTo(Number(this.slider.value)));
    this.counter = tag("output", { class: "tv-counter" });
    const speeds = SPEEDS.map((speed) => [speed, `${speed}×`]);
    this.curve = tag("div", { class: "tv-curve" });
    this.time = tag("div", { class: "tv-time" }, this.curve, this.slider);
    this.transport = tag("div", { class: "tv-transport" },
      jump("first", "First frame", () => 0), jump("back", "Step back", () => this.get("frame") - 1), this.playButton,
      jump("next", "Step on", () => this.get("frame") + 1), jump("last", "Last frame", () => this.last),
      this.time, this.counter, this.choice("speed", "Speed", speeds, Number, (value) => `${value}×`));
    this.fitTime();
    return this.transport;
  }
  /** The time bar for as many frames as there are now. */
  fitTime() {
    this.slider.max = this.last;
    for (const control of this.transport.querySelectorAll("button, input, select")) control.disabled = this.last === 0;
  }
  /** A number of every frame (null: none), drawn above the slider; `label` says what it is. */
  drawCurve(values, label) {
    this.curve.replaceChildren();
    if (!values || this.last < 1) return;
    const top = Math.max(...values.filter((value) => value !== null)) || 1;
    const runs = [[]]; // a gap where there is no number
    values.forEach((value, s) => {
      if (value === null) runs.push([]);
      else runs.at(-1).push([(100 * s) / this.last, 20 - (18 * value) / top]);
    });
    const box = { viewBox: "0 0 100 20", preserveAspectRatio: "none" };
    const lines = runs.filter((run) => run.length).flatMap((run) => {
      const points = run.map((point) => point.join(",")).join(" ");
      return [shape("polygon", { points: `${run[0][0]},20 ${points} ${run.at(-1)[0]},20` }),
        shape("polyline", { points })];
    });
    this.curve.append(shape("svg", { role: "img", "aria-label": label, ...box }, ...lines));
  }
  /** A menu for a trait, in the order of `options` ([value, text] each); `spell` says a value not among them. */
  choice(name, label, options, parse = String, spell = String) {
    const select = tag("select", { "data-trait": name });
    for (const [value, text] of options) select.append(tag("option", { value }, text));
    const show = () => {
      const value = String(this.get(name));
      const known = [...select.options].some((option) => option.value === value);
      if (!known) select.append(tag("option", { value }, spell(value))); // Python may set what the menu does not offer
      select.value = value;
    };
    select.addEventListener("change", () => this.set(name, parse(select.value), true));
    this.on(name, show);
    show();
    return labelled(label, select);
  }
  range(name, label, min, max, step, text) {
    const input = tag("input", { type: "range", min, max, step, "data-trait": name }), value = tag("output");
    const show = () => {
      input.value = this.get(name);
      value.textContent = text(Number(input.value));
      input.setAttribute("aria-valuetext", value.textContent);
    };
    input.addEventListener("input", () => this.set(name, Number(input.value)));
    this.on(name, show);
    show();
    return labelled(label, input, value);
  }
  /** Ticks for a trait that is a list of numbers; the last one stays. */
  ticks(name, label, names) {
    const boxes = names.map(() => tag("input", { type: "checkbox" }));
    const show = () => boxes.forEach((box, i) => { box.checked = this.get(name).includes(i); });
    boxes.forEach((box) => box.addEventListener("change", () => {
      const ticked = boxes.flatMap((one, i) => (one.checked ? [i] : []));
      if (ticked.length) this.set(name, ticked, true);
      else show();
    }));
    this.on(name, show);
    show();
    const marks = names.map((text, i) => tag("label", { class: "tv-tick" }, boxes[i], text));
    return tag("div", { class: "tv-field tv-ticks", role: "group", "aria-label": label, "data-trait": name },
      tag("span", {}, label), tag("div", {}, ...marks));
  }
  reset() {
    for (const [name, value] of Object.entries(this.defaults)) this.model.set(name, value);
    this.goTo(0);
    this.showAll();
  }

  // -- keys

  /** [shown, words, {key: action}] of every key: what the list behind "?" says is what the keys do. */
  #allKeys() {
    return [
      ["Space", "play or pause", { " ": () => this.last && this.toggle() }],
      ["← →", "one frame back or on", {
        ArrowLeft: () => this.goTo(this.get("frame") - 1), ArrowRight: () => this.goTo(this.get("frame") + 1) }],
      ["Home End", "first or last frame", { Home: () => this.goTo(0), End: () => this.goTo(this.last) }],
      ["+ −", "zoom", {
        "+": () => this.zoomBy(1.5), "=": () => this.zoomBy(1.5), "-": () => this.zoomBy(1 / 1.5) }],
      ["0", "show all", { 0: () => this.showAll() }],
      ...this.keys(),
      ["?", "this list", { "?": () => this.toggleHelp() }],
    ];
  }
  #buildSave() {
    const offer = (kind, words) => {
      const made = tag("button", { type: "button", class: "tv-offer", onclick: () => this.save(kind) }, words);
      made.dataset.kind = kind;
      return made;
    };
    const mp4 = offer("mp4", "mp4, all frames");
    if (!canFilm()) {
      mp4.disabled = true;
      mp4.title = "This browser cannot encode video; a GIF works everywhere";
    }
    this.savePanel = tag("div", { id: `${this.helpId}-save`, class: "tv-drop tv-save-as", hidden: "" },
      tag("span", {}, "Save what is shown:"), offer("png", "PNG, this frame"), offer("gif", "GIF, all frames"), mp4);
    return this.savePanel;
  }
  toggleSave(open = this.savePanel.hidden) {
    this.savePanel.hidden = !open;
    this.saveButton.setAttribute("aria-expanded", String(open));
  }
  /** "png", "gif" or "mp4"; one after the other. */
  async save(kind) {
    if (this.isSaving) return;
    this.isSaving = true;
    try { await saveAs(this, kind); } finally { this.isSaving = false; }
  }
  /** Colours of the page around the pictures. */
  inks() {
    const style = getComputedStyle(this.el), of = (name) => style.getPropertyValue(name).trim();
    return { paper: of("--paper"), ink: of("--ink"), quiet: of("--quiet") };
  }
  #buildHelp() {
    const rows = [...this.#allKeys(), ...this.gestures()];
    const list = rows.map(([shown, words]) => tag("div", {}, tag("dt", {}, shown), tag("dd", {}, words)));
    this.help = tag("div", { id: this.helpId, class: "tv-drop tv-keys", hidden: "" }, tag("dl", {}, ...list));
    return this.help;
  }
  toggleHelp(open = this.help.hidden) {
    this.help.hidden = !open;
    this.helpButton.setAttribute("aria-expanded", String(open));
  }
  #press(event) {
    const typing = event.target.matches("input, select, textarea");
    const pushes = event.target.matches("button, summary") && [" ", "Enter"].includes(event.key);
    if (event.ctrlKey || event.metaKey || event.altKey || typing || pushes) return;
    if (event.key === "Escape" && !this.help.hidden) this.toggleHelp(false);
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const row = this.#allKeys().find(([, , actions]) => Object.hasOwn(actions, key));
    if (!row) return;
    event.preventDefault();
    event.stopPropagation();
    row[2][key]();
  }

  // -- pointers

  /**
   * Watch a panel: `press(event)` returns what a drag means (called with each move: event, dx, dy in page pixels, and
   * at the end with null), or nothing; then `drag(event, dx, dy)` follows. `click`, `hover` and `leave` as they say.
   * Two fingers and the wheel zoom.
   */
  watch(panel, { press, drag, click, hover, leave }) {
    const pointers = new Map();
    let moved = 0, span = 0, claimed = null;
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
      claimed?.(null, false);
      claimed = pointers.size === 1 ? press?.(event) ?? null : null;
    });
    panel.el.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) { hover?.(event); return; }
      pointers.set(event.pointerId, event);
      const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
      moved += Math.abs(dx) + Math.abs(dy);
      if (pointers.size === 2) { const now = spread(); this.zoomBy(now / span, panel, event); span = now; return; }
      if (claimed) { claimed(event); return; }
      if (moved < 4) return;
      leave?.();
      drag(event, dx, dy);
    });
    const end = (event) => {
      if (!pointers.delete(event.pointerId)) return;
      const done = claimed;
      claimed = null;
      const kept = event.type !== "pointercancel";
      done?.(null, kept && moved >= 4);
      if (kept && moved < 4) click?.(event);
      this.redraw();
    };
    panel.el.addEventListener("pointerup", end);
    panel.el.addEventListener("pointercancel", end);
    panel.el.addEventListener("pointerleave", () => leave?.());
    panel.el.addEventListener("dblclick", () => this.showAll());
    panel.el.addEventListener("wheel", (event) => {
      // the wheel belongs to the notebook until one has clicked into the picture
      if (!event.ctrlKey && !event.metaKey && !this.stage.contains(document.activeElement ?? null)
          && !this.stage.contains(this.el.getRootNode().activeElement ?? null)) { this.tellHint(WHEEL_HINT); return; }
      event.preventDefault();
      this.hint.hidden = true;
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), panel, event);
    }, { passive: false });
  }
  /** A word over the pictures, for a moment. */
  tellHint(text) {
    this.hint.textContent = text;
    this.hint.hidden = false;
    clearTimeout(this.hinting);
    this.hinting = setTimeout(() => { this.hint.hidden = true; }, HINT);
  }
  /** Put the tooltip beside a pointer, within the viewer. */
  placeTip(event) {
    const box = this.el.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    this.tip.hidden = false;
    this.tip.style.left = `${Math.max(4, Math.min(x + 16, box.width - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${y + 18}px`;
  }
  say(text) { this.live.textContent = text; }

  // -- listening

  #listen() {
    this.on("frame", () => this.showFrame(this.get("frame")));
    this.on("playing", () => {
      const playing = this.get("playing");
      this.#tellPlaying();
      if (playing) this.#play();
      else this.model.save_changes(); // where it stopped
    });
    this.#tellPlaying();
    this.on("theme", () => this.#applyTheme());
    this.el.addEventListener("keydown", (event) => this.#press(event));
    this.surroundings = new MutationObserver(() => this.#applyTheme());
    for (const node of [document.body, document.documentElement]) this.surroundings.observe(node, { attributes: true });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.themeChanged = () => this.#applyTheme();
    this.scheme.addEventListener("change", this.themeChanged);
  }
  #applyTheme() {
    const theme = this.get("theme") === "auto" ? (darkAround() ? "dark" : "light") : this.get("theme");
    if (this.el.dataset.theme === theme) return;
    this.el.dataset.theme = theme;
    if (this.panels) this.redraw(true);
  }
  get dark() { return this.el.dataset.theme === "dark"; }

  stop() {
    this.run = null;
    clearTimeout(this.saving);
    clearTimeout(this.hinting);
    cancelAnimationFrame(this.drawing);
    this.listeners.forEach(([name, listener]) => this.model.off(name, listener));
    this.sizes?.disconnect();
    this.surroundings?.disconnect();
    this.scheme?.removeEventListener("change", this.themeChanged);
  }
}

/** The bytes of a trait; some front ends give nothing where Python gave none. */
function bytesFrom(model, name) {
  const view = model.get(name);
  return view?.byteLength ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array(0);
}
async function inflate(view) {
  const stream = new Blob([view]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

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

function counted(n, noun) { return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`; }

// ---- Where it lives --------------------------------------------------------------------------------------------

/** What a notebook calls to show this kind of viewer (anywidget's `render`). */
function mounting(Viewer) {
  return async ({ model, el }) => {
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
  };
}

/** The picture that stands for the viewer in a saved notebook is not needed beside the live one. */
function hideSnapshot(name) {
  for (const picture of document.getElementsByClassName(name)) {
    (picture.closest(".jp-OutputArea-child, .output_area, .output-area > *") ?? picture).style.display = "none";
  }
}

/** What an exported page calls: the same viewer (`render`), with a model that has no kernel behind it. */
function openPage(render, el, state) {
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

