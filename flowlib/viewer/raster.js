// Dots and lines, drawn into pixels by hand: 20,000 of them take a few milliseconds on any machine, with or without a
// graphics card, which no path of the canvas API does. And the colours that numbers have (colours.py).

const SHAPES = { // signed distance from the edge of a shape of radius 1 at (x, y), in units of r
  disc: (x, y, r) => Math.hypot(x, y) - r,
  ring: (x, y, r) => Math.abs(Math.hypot(x, y) - r + 0.5) - 0.6,
  diamond: (x, y, r) => (Math.abs(x) + Math.abs(y) - r * 1.25) * Math.SQRT1_2,
  square: (x, y, r) => Math.max(Math.abs(x), Math.abs(y)) - r * 0.9,
  box: (x, y, r) => Math.abs(Math.max(Math.abs(x), Math.abs(y)) - r * 0.9 + 0.5) - 0.6,
  frame: (x, y, r) => Math.abs((Math.abs(x) + Math.abs(y) - r * 1.25) * Math.SQRT1_2 + 0.5) - 0.6,
};
const SHIFT = 8, FINE = 1 << SHIFT; // ends of lines are whole numbers of 1/256 of a pixel
const FAINT = 3; // alpha of what is not worth drawing
const HOLLOW = { disc: "ring", diamond: "frame", square: "box" };

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

  /** A shape at (x, y), with a thin dark rim that keeps it apart from a bright frame; `stamps` as `stampsOf` gives them. */
  dot(stamps, x, y, colour, opacity) {
    const left = Math.floor(x), top = Math.floor(y), W = this.width, H = this.height;
    const stamp = stamps[((y - top) * 4 << 2) | ((x - left) * 4)];
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

  /** Pixels of a shape for 4 × 4 places of its centre within a pixel. Ask once for many dots. */
  stampsOf(shape, radius) {
    const known = this.stamps.get(shape)?.get(radius);
    if (known) return known;
    const sizes = this.stamps.get(shape) ?? new Map(), phases = [];
    if (sizes.size > 8) sizes.clear();
    for (let phase = 0; phase < 16; phase++) {
      phases.push(shapePixels(SHAPES[shape], radius, ((phase & 3) + 0.5) / 4, ((phase >> 2) + 0.5) / 4));
    }
    this.stamps.set(shape, sizes.set(radius, phases));
    return phases;
  }

  /**
   * A line from (x0, y0) to (x1, y1), both in `FINE`ths of a pixel; alpha is 0 to 255, `half` half its width in `FINE`ths.
   * The far end belongs to the line that follows. Where lines cross, the more opaque one is seen, and the later of two
   * alike. All are whole numbers, because a call with fractions sets each of them aside in memory: with 140,000
   * lines that cost more than their pixels.
   */
  line(x0, y0, x1, y1, ink, full, half) {
    const { pixels, width, height } = this;
    // a runs along the line, b across it; swapped by masks, since a processor guesses such branches wrong half the time
    const steep = (Math.abs(x1 - x0) - Math.abs(y1 - y0)) >> 31;
    let swap = (x0 ^ y0) & steep, a0 = x0 ^ swap, b0 = y0 ^ swap;
    swap = (x1 ^ y1) & steep;
    let a1 = x1 ^ swap, b1 = y1 ^ swap;
    const turned = (a1 - a0) >> 31;
    swap = (a0 ^ a1) & turned; a0 ^= swap; a1 ^= swap;
    swap = (b0 ^ b1) & turned; b0 ^= swap; b1 ^= swap;
    if (a1 === a0) return;
    const along = width ^ ((width ^ height) & steep), across = height ^ ((width ^ height) & steep);
    const strideA = 1 ^ ((width ^ 1) & steep), strideB = width ^ ((width ^ 1) & steep);
    const slope = (b1 - b0) / (a1 - a0), reach = half * (1 + 0.4142 * slope * slope); // half · √(1 + slope²), within 2 %
    const wide = (2 * reach) | 0, start = a0 > 0 ? (a0 + FINE / 2 - 1) >> SHIFT : 0, most = (a1 + FINE / 2 - 1) >> SHIFT;
    const stop = most < along ? most : along, low = b0 + ((start + 0.5) * FINE - a0) * slope - reach;
    let at = start * strideA;
    if (half <= FINE / 2 && Math.min(b0, b1) >= FINE && Math.max(b0, b1) < (across - 2) << SHIFT) { // most trails
      const thin = wide < FINE ? wide : FINE, step = (slope * FINE * FINE) | 0; // two pixels a step, and no branch
      let fine = (low * FINE) | 0;
      for (let a = start; a < stop; a++, fine += step, at += strideA) {
        const room = FINE - ((fine >> SHIFT) & (FINE - 1)), first = thin < room ? thin : room;
        const k = at + (fine >> 2 * SHIFT) * strideB, one = (full * first) >> SHIFT, two = (full * (thin - first)) >> SHIFT;
        const p = pixels[k] | 0, q = pixels[k + strideB] | 0;
        pixels[k] = p ^ ((p ^ ((one << 24) | ink)) & ((FAINT - one) >> 31) & (((p >>> 24) - one - 1) >> 31));
        pixels[k + strideB] = q ^ ((q ^ ((two << 24) | ink)) & ((FAINT - two) >> 31) & (((q >>> 24) - two - 1) >> 31));
      }
      return;
    }
    for (let a = start, from = low; a < stop; a++, from += slope * FINE, at += strideA) {
      const to = from + wide, end = to < across << SHIFT ? (to - 1) >> SHIFT : across - 1;
      for (let b = from > 0 ? from >> SHIFT : 0; b <= end; b++) {
        const left = b << SHIFT, right = left + FINE, inside = (to < right ? to : right) - (from > left ? from : left);
        const alpha = (full * inside) >> SHIFT, k = at + b * strideB;
        if (alpha > FAINT && alpha >= pixels[k] >>> 24) pixels[k] = (alpha << 24) | ink;
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
function swatch(table, side, kind) {
  const canvas = tag("canvas", { width: side, height: side, class: `tv-swatch ${kind}`, "aria-hidden": "true" });
  const image = new ImageData(side, side), pixels = new Uint32Array(image.data.buffer);
  table.forEach((colour, k) => { pixels[k] = 0xff000000 | colour; });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
