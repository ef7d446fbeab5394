// The record of the run, as record.py wrote it: words and small numbers, and large arrays that are unpacked when first asked for.

const record = JSON.parse(document.getElementById("record").textContent);
const packed = JSON.parse(document.getElementById("arrays").textContent);
const unpacked = new Map();

const T = record.tokens.length;
const H = record.heads;
const K = record.width;
const N = record.region; // the first N tokens have their q and k here

// A typed array by name, such as numbers("0.q"); its axes are those of shape("0.q").
function numbers(name) {
  if (!unpacked.has(name)) {
    const { dtype, base64 } = packed[name];
    const letters = atob(base64);
    const bytes = new Uint8Array(letters.length);
    for (let b = 0; b < letters.length; b++) bytes[b] = letters.charCodeAt(b);
    const Kind = { float32: Float32Array, int16: Int16Array, uint16: Uint16Array }[dtype];
    unpacked.set(name, new Kind(bytes.buffer));
    packed[name].base64 = null;
  }
  return unpacked.get(name);
}

// A weight from its two-byte code.
function fromCode(code) {
  return code === 65535 ? 0 : 2 ** (-code / 2048);
}

// An element with attributes and children; a string becomes text, never markup.
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "rect", "text", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const byId = (id) => document.getElementById(id);
const grouped = (count) => Math.round(count).toLocaleString("en-US");

// Four digits that mean something: 0.01234, 12.35, 1.234e-7.
function shown(x) {
  if (x === null || x === undefined) return "none";
  if (x === 0) return "0";
  if (!Number.isFinite(x)) return x < 0 ? "-∞" : "∞";
  const size = Math.abs(x);
  if (size < 1e-4 || size >= 1e6) return x.toExponential(3);
  return size >= 1000 ? x.toFixed(1) : x.toPrecision(4);
}

// A token as one can see it: blanks at its edges stay visible, a line break becomes a sign.
const visible = (piece) => piece.replace(/\n/g, "↵").replace(/^ /, "␣") || "∅";
const tokenName = (t) => visible(record.tokens[t]);
