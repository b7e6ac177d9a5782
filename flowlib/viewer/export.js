// Pictures and films made in the page itself: PNG, GIF, and mp4 where the browser can encode video (WebCodecs). No
// server and no library: what is saved is what the panels show, with their names, and a line below.

const GIF_WIDTH = 960; // pixels; wider films are shrunk, since a GIF of them weighs too much
const STRIP = 24; // pixels of the page below the panels, for the title and the frame's number
const CODECS = ["avc1.640033", "avc1.4d0033", "avc1.420033", "vp09.00.51.08"]; // players know H.264 better than VP9
const BITS = 0.2; // per pixel and frame
const BAYER = [0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5].map((rank) => rank / 2 - 3.75); // 4 × 4

/** The panels as they stand, on one canvas of even sides, at most `most` pixels wide. */
function composed(viewer, most = Infinity) {
  const stage = viewer.stage.getBoundingClientRect();
  const boxes = viewer.panels.map((panel) => panel.el.getBoundingClientRect());
  const left = Math.min(...boxes.map((box) => box.left)), right = Math.max(...boxes.map((box) => box.right));
  const ratio = Math.min(Math.max(...viewer.panels.map((panel) => panel.ratio)), most / (right - left));
  const even = (length) => Math.max(2, Math.round((length * ratio) / 2) * 2);
  const canvas = new OffscreenCanvas(even(right - left), even(stage.height + STRIP));
  const context = canvas.getContext("2d", { willReadFrequently: true }), { paper, ink, quiet } = viewer.inks();
  context.fillStyle = paper;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.textBaseline = "middle";
  viewer.panels.forEach((panel, i) => {
    const x = (boxes[i].left - left) * ratio, y = (boxes[i].top - stage.top) * ratio;
    for (const layer of panel.canvases) context.drawImage(layer, x, y, boxes[i].width * ratio, boxes[i].height * ratio);
    if (panel.chip.hidden) return;
    context.font = `550 ${12 * ratio}px system-ui, sans-serif`;
    const wide = context.measureText(panel.chip.textContent).width;
    context.fillStyle = "rgb(12 13 18 / 62%)";
    context.beginPath();
    context.roundRect(x + 9 * ratio, y + 9 * ratio, wide + 18 * ratio, 22 * ratio, 11 * ratio);
    context.fill();
    context.fillStyle = "#fff";
    context.fillText(panel.chip.textContent, x + 18 * ratio, y + 20.5 * ratio);
  });
  const middle = canvas.height - (STRIP / 2) * ratio, frame = `${viewer.get("frame")} / ${viewer.last}`;
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.fillStyle = quiet;
  const room = canvas.width - context.measureText(frame).width - 20 * ratio;
  context.fillText(frame, canvas.width - context.measureText(frame).width - 2 * ratio, middle);
  context.fillStyle = ink;
  if (viewer.header.title) context.fillText(viewer.header.title, 2 * ratio, middle, room);
  return canvas;
}

/** Save what is shown as "png", or all frames as "gif" or "mp4", by way of the browser's downloads. */
async function saveAs(viewer, kind) {
  viewer.set("playing", false, true);
  const before = viewer.get("frame"), name = fileName(viewer.header.title);
  try {
    if (kind === "png") {
      viewer.drawNow();
      offer(await composed(viewer).convertToBlob({ type: "image/png" }), `${name}-${before}.png`);
    } else {
      const rate = viewer.header.fps * viewer.get("speed");
      const blob = await (kind === "gif" ? filmGif : filmMp4)(viewer, rate);
      offer(blob, `${name}.${kind}`);
      viewer.tellHint(`${name}.${kind}: ${counted(viewer.last + 1, "frame")}, ${(blob.size / 1e6).toFixed(1)} MB`);
    }
  } catch (error) {
    viewer.tellHint(`The ${kind} could not be made: ${error.message}`);
  } finally {
    viewer.model.set("frame", before);
  }
}
/** Every frame, composed, one after the other. */
async function* film(viewer, kind, most) {
  for (let s = 0; s <= viewer.last; s++) {
    viewer.model.set("frame", s);
    await viewer.ready(s);
    viewer.backStale = true;
    viewer.drawNow();
    viewer.tellHint(`${kind}: frame ${s + 1} of ${viewer.last + 1}`);
    yield composed(viewer, most);
    await new Promise((done) => setTimeout(done)); // the page stays awake
  }
}
function fileName(title) {
  return title.normalize("NFKD").replace(/[^\w.-]+/g, "-").replace(/^[-.]+|-+$/g, "").slice(0, 60) || "flowlib";
}
function offer(blob, name) {
  const link = tag("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// ---- GIF (CompuServe, GIF89a; LZW as in its appendix F) ----------------------------------------------------------

async function filmGif(viewer, rate) {
  const frames = [];
  let width, height;
  for await (const canvas of film(viewer, "GIF", GIF_WIDTH)) {
    ({ width, height } = canvas);
    frames.push(canvas.getContext("2d").getImageData(0, 0, width, height).data);
  }
  return new Blob([encodeGif(frames, width, height, rate)], { type: "image/gif" });
}
/** RGBA frames of one size as a GIF that loops, in up to 256 colours that all frames share. */
function encodeGif(frames, width, height, rate) {
  const palette = medianCut(frames, 256), nearest = new Int16Array(32768).fill(-1), parts = [];
  const word = (value) => [value & 255, value >> 8], delay = Math.max(2, Math.round(100 / rate));
  const table = new Uint8Array(3 * 256);
  palette.forEach((rgb, i) => table.set(rgb, 3 * i));
  parts.push(Uint8Array.from([...bytesOf("GIF89a"), ...word(width), ...word(height), 0xf7, 0, 0]), table);
  parts.push(Uint8Array.from([0x21, 0xff, 11, ...bytesOf("NETSCAPE2.0"), 3, 1, 0, 0, 0]));
  for (const data of frames) {
    const indices = new Uint8Array(width * height);
    const coarse = (value, shift) => Math.min(255, Math.max(0, value + shift)) >> 3;
    for (let i = 0; i < indices.length; i++) {
      const shift = BAYER[4 * (Math.floor(i / width) & 3) + ((i % width) & 3)]; // so that gradients have no edges
      const r = coarse(data[4 * i], shift), g = coarse(data[4 * i + 1], shift), b = coarse(data[4 * i + 2], shift);
      const key = (r << 10) | (g << 5) | b;
      if (nearest[key] < 0) nearest[key] = closest(palette, 8 * r + 4, 8 * g + 4, 8 * b + 4);
      indices[i] = nearest[key];
    }
    parts.push(Uint8Array.from([0x21, 0xf9, 4, 0, ...word(delay), 0, 0]));
    parts.push(Uint8Array.from([0x2c, 0, 0, 0, 0, ...word(width), ...word(height), 0, 8]));
    parts.push(lzw(indices), Uint8Array.of(0));
  }
  return joinBytes([...parts, Uint8Array.of(0x3b)]);
}
function closest(palette, r, g, b) {
  let best = 0, least = Infinity;
  palette.forEach(([pr, pg, pb], i) => {
    const distance = 2 * (pr - r) ** 2 + 4 * (pg - g) ** 2 + (pb - b) ** 2; // eyes see green best
    if (distance < least) { best = i; least = distance; }
  });
  return best;
}
/** Up to `most` colours that stand for those of the frames: boxes of colour space are halved at the median. */
function medianCut(frames, most) {
  const counts = new Uint32Array(32768), step = Math.max(1, Math.floor(frames.length / 12));
  for (let f = 0; f < frames.length; f += step) {
    const data = frames[f];
    for (let i = 0; i < data.length; i += 4) {
      counts[((data[i] >> 3) << 10) | ((data[i + 1] >> 3) << 5) | (data[i + 2] >> 3)]++;
    }
  }
  const channel = (key, axis) => (key >> (10 - 5 * axis)) & 31;
  const boxOf = (keys) => {
    let weight = 0, axis = 0, spread = -1;
    for (const key of keys) weight += counts[key];
    for (let a = 0; a < 3; a++) {
      let low = 31, high = 0;
      for (const key of keys) {
        low = Math.min(low, channel(key, a));
        high = Math.max(high, channel(key, a));
      }
      if (high - low > spread) { spread = high - low; axis = a; }
    }
    return { keys, weight, axis, spread };
  };
  const boxes = [boxOf([...counts.keys()].filter((key) => counts[key]))];
  while (boxes.length < most) {
    // what is large and often seen is split first
    const widest = boxes.reduce((best, box) => (box.spread && (!best || box.spread * Math.cbrt(box.weight)
      > best.spread * Math.cbrt(best.weight)) ? box : best), null);
    if (!widest) break;
    const keys = widest.keys.sort((a, b) => channel(a, widest.axis) - channel(b, widest.axis));
    let half = 0, seen = 0;
    while (half < keys.length - 1 && seen < widest.weight / 2) seen += counts[keys[half++]];
    boxes.splice(boxes.indexOf(widest), 1, boxOf(keys.slice(0, half)), boxOf(keys.slice(half)));
  }
  const mean = ({ keys, weight }, axis) => (
    keys.reduce((sum, key) => sum + counts[key] * (8 * channel(key, axis) + 4), 0) / weight);
  return boxes.map((box) => [0, 1, 2].map((axis) => Math.min(255, Math.round(mean(box, axis)))));
}
/** Indices of 8 bits as LZW codes in blocks of up to 255 bytes. */
function lzw(indices) {
  const CLEAR = 256, END = 257, table = new Uint16Array(4096 * 256), out = [];
  let next = 258, size = 9, bits = 0, held = 0, prefix = indices[0];
  const put = (code) => {
    bits |= code << held;
    held += size;
    while (held >= 8) { out.push(bits & 255); bits >>>= 8; held -= 8; }
  };
  put(CLEAR);
  for (let i = 1; i < indices.length; i++) {
    const key = (prefix << 8) | indices[i], known = table[key];
    if (known) { prefix = known; continue; }
    put(prefix);
    if (next === 4096) {
      put(CLEAR);
      table.fill(0);
      next = 258;
      size = 9;
    } else {
      if (next === 1 << size) size++;
      table[key] = next++;
    }
    prefix = indices[i];
  }
  put(prefix);
  put(END);
  if (held) out.push(bits & 255);
  const blocks = [];
  for (let i = 0; i < out.length; i += 255) {
    const block = out.slice(i, i + 255);
    blocks.push(Uint8Array.from([block.length, ...block]));
  }
  return joinBytes(blocks);
}

// ---- mp4 (ISO/IEC 14496-12, and -15 for H.264; the VP9 binding of the WebM project) ------------------------------

const canFilm = () => typeof VideoEncoder === "function" && typeof VideoFrame === "function";

async function filmMp4(viewer, rate) {
  if (!canFilm()) throw new Error("this browser can not encode video; a GIF works everywhere");
  const chunks = [];
  let encoder, config, fault, setup, s = 0;
  for await (const canvas of film(viewer, "mp4", 3840)) {
    if (!encoder) {
      config = await encoding(canvas.width, canvas.height, rate);
      const output = (chunk, { decoderConfig } = {}) => {
        setup ??= decoderConfig;
        const data = new Uint8Array(chunk.byteLength);
        chunk.copyTo(data);
        chunks.push({ data, key: chunk.type === "key" });
      };
      encoder = new VideoEncoder({ output, error: (error) => { fault = error; } });
      encoder.configure(config);
    }
    if (fault) throw fault;
    const duration = Math.round(1e6 / rate), frame = new VideoFrame(canvas, { timestamp: s * duration, duration });
    encoder.encode(frame, { keyFrame: s % 30 === 0 });
    frame.close();
    s++;
  }
  await encoder.flush();
  encoder.close();
  if (fault) throw fault;
  return new Blob([muxMp4(chunks, config, setup, rate)], { type: "video/mp4" });
}
/** What this browser encodes frames of that size with. */
async function encoding(width, height, rate) {
  for (const codec of CODECS) {
    const config = {
      codec, width, height, framerate: rate, bitrate: Math.max(2e6, width * height * rate * BITS),
      latencyMode: "realtime", // no frame refers to a later one, so they are stored in the order they are shown
      ...(codec.startsWith("avc1") ? { avc: { format: "avc" } } : {}),
    };
    if ((await VideoEncoder.isConfigSupported(config).catch(() => ({}))).supported) return config;
  }
  throw new Error("this browser encodes neither H.264 nor VP9; a GIF works everywhere");
}
/** Encoded frames as an mp4 file whose index comes first, so that it plays while it loads. */
function muxMp4(chunks, { codec, width, height }, setup, rate) {
  const scale = 90_000, step = Math.round(scale / rate), length = step * chunks.length, h264 = codec.startsWith("avc1");
  const word = (...values) => values.flatMap((value) => [(value >>> 8) & 255, value & 255]);
  const long = (...values) => values.flatMap((value) => [...word(value >>> 16), ...word(value)]);
  const box = (type, ...parts) => {
    const content = joinBytes(parts.map((part) => (part instanceof Uint8Array ? part : Uint8Array.from(part))));
    return joinBytes([Uint8Array.from([...long(content.length + 8), ...bytesOf(type)]), content]);
  };
  const full = (type, version, flags, ...parts) => box(type, long((version << 24) | flags), ...parts);
  const matrix = long(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000), zeros = (count) => new Uint8Array(count);
  const description = setup?.description;
  const setupBox = h264
    ? box("avcC", description instanceof ArrayBuffer ? new Uint8Array(description)
      : new Uint8Array(description.buffer, description.byteOffset, description.byteLength))
    : full("vpcC", 1, 0, [0, 51, (8 << 4) | (1 << 1), 1, 1, 1, 0, 0]);
  const entry = box(h264 ? "avc1" : "vp09", zeros(6), word(1), zeros(16), word(width, height),
    long(0x480000, 0x480000, 0), word(1), zeros(32), word(24, 0xffff), setupBox);
  const keys = chunks.flatMap(({ key }, i) => (key ? [i + 1] : []));
  const sizes = chunks.map(({ data }) => data.length);
  const index = (offset) => box("moov",
    full("mvhd", 0, 0, long(0, 0, scale, length, 0x10000), word(0x100, 0), zeros(8), matrix, zeros(24), long(2)),
    box("trak",
      full("tkhd", 0, 3, long(0, 0, 1, 0, length), zeros(8), word(0, 0, 0, 0), matrix, long(width << 16, height << 16)),
      box("mdia", full("mdhd", 0, 0, long(0, 0, scale, length), word(0x55c4, 0)), // of no language
        full("hdlr", 0, 0, long(0), bytesOf("vide"), zeros(12), bytesOf("video\0")),
        box("minf", full("vmhd", 0, 1, zeros(8)), box("dinf", full("dref", 0, 0, long(1), full("url ", 0, 1))),
          box("stbl", full("stsd", 0, 0, long(1), entry), full("stts", 0, 0, long(1, chunks.length, step)),
            full("stss", 0, 0, long(keys.length, ...keys)), full("stsc", 0, 0, long(1, 1, chunks.length, 1)),
            full("stsz", 0, 0, long(0, chunks.length, ...sizes)), full("stco", 0, 0, long(1, offset)))))));
  const head = box("ftyp", bytesOf("isom"), long(0x200), bytesOf("isomiso2mp41"));
  const before = head.length + index(0).length + 8;
  return joinBytes([head, index(before), box("mdat", ...chunks.map(({ data }) => data))]);
}

function bytesOf(text) { return Uint8Array.from(text, (letter) => letter.charCodeAt(0)); }
function joinBytes(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
}
