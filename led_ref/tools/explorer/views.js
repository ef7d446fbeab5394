// The three maps: the whole document, one block of queries, single cells. Each is a canvas that can be clicked and walked
// through with the keys; what it shows is also said in words, in its label and in the panel below.

let colours = {};
const maps = {}; // where each map put what, for the pointer

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "card", "ink", "soft", "line", "hidden", "window", "column", "row", "mark"]) {
    const [red, green, blue] = style.getPropertyValue(`--${name}`).trim().slice(1).match(/../g) || ["0", "0", "0"];
    colours[name] = [red, green, blue].map((part) => parseInt(part, 16));
  }
  const card = style.getPropertyValue("--card").trim();
  if (card.length === 4) colours.card = [...card.slice(1)].map((digit) => parseInt(digit + digit, 16));
}
const rgb = ([red, green, blue], alpha = 1) => `rgb(${red} ${green} ${blue} / ${alpha})`;

// How strong a weight is drawn: 0 to 1, by its logarithm. 1/2 and more is the strongest, 2 ** -11 and less the lightest.
const strength = (w) => (w > 0 ? clampTo((Math.log2(w) + 11) / 10, 0, 1) : 0);

// The colour of a cell: nothing where nothing is seen, else the hue of the way, the stronger the more weight.
function cellColour(i, j, given = null) {
  const way = path(i, j);
  if (!way) return colours.hidden;
  const { weight: w, kind } = given || weight(i, j);
  // What is not kept is drawn as what it would be if a query's weights were all alike, or a little less.
  const drawn = kind === "small" ? Math.max(w, 0.5 / (2 * state.radius + 1)) : w;
  const alpha = kind === "unknown" ? 0.3 : 0.06 + 0.94 * strength(drawn) ** 1.6;
  return colours[way].map((part, c) => Math.round(part * alpha + colours.card[c] * (1 - alpha)));
}

// A canvas at the resolution of the screen, cleared; height in the page's pixels.
function prepare(id, height) {
  const canvas = byId(id);
  const width = canvas.clientWidth;
  const scale = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "11px system-ui, sans-serif";
  return { canvas, pen, width, height };
}

function label(id, words) {
  byId(id).setAttribute("aria-label", words);
}

// ---- 1. the document: all T x T pairs ---------------------------------------------------------------------------------

function drawDocument() {
  const side = byId("document").clientWidth;
  const { pen } = prepare("document", side);
  const margin = 18;
  const size = side - margin - 6;
  const at = (t) => margin + (t / T) * size;
  pen.fillStyle = rgb(colours.hidden);
  pen.fillRect(margin, margin, size, size);
  // The band, at least two pixels thick so that it can be seen.
  const reachOut = Math.max(state.radius + 0.5, (T / size) * 1.2);
  pen.save();
  pen.beginPath();
  pen.rect(margin, margin, size, size);
  pen.clip();
  pen.fillStyle = rgb(colours.window, 0.75);
  pen.beginPath();
  pen.moveTo(at(-reachOut), at(0));
  pen.lineTo(at(reachOut), at(0));
  pen.lineTo(at(T + reachOut), at(T));
  pen.lineTo(at(T - reachOut), at(T));
  pen.fill();
  const thick = Math.max(5, size / T);
  for (const g of state.globals) {
    strip(pen, g, "column", (t) => [at(g), at(t), thick], size);
    strip(pen, g, "row", (t) => [at(t), at(g), thick], size);
  }
  pen.restore();
  const block = blockOf(state.i);
  pen.strokeStyle = rgb(colours.ink);
  pen.lineWidth = 1.5;
  const least = (a, b) => Math.max(4, at(b) - at(a));
  pen.strokeRect(at(block.low), at(block.start), least(block.low, block.high), least(block.start, block.stop));
  pen.strokeStyle = rgb(colours.mark);
  pen.beginPath();
  pen.arc(at(state.j + 0.5), at(state.i + 0.5), 4, 0, 7);
  pen.stroke();
  pen.fillStyle = rgb(colours.soft);
  pen.fillText("keys j →", margin, 12);
  pen.save();
  pen.translate(12, margin + 70);
  pen.rotate(-Math.PI / 2);
  pen.fillText("← queries i", 0, 0);
  pen.restore();
  maps.document = (x, y) => [y, x].map((value) => clampToken(Math.floor(((value - margin) / size) * T)));
  byId("document-caption").textContent = `All ${grouped(T)} × ${grouped(T)} pairs. The frame is the block of the second map.`;
  label("document", `Map of all pairs: a band of ${2 * state.radius + 1} keys along the diagonal, ${state.globals.size} global rows and columns. Query ${state.i}, key ${state.j}. Up and down move by a block.`);
}

// A global token's row or column, each pixel as strong as the largest weight under it.
function strip(pen, g, way, place, size) {
  const pixels = Math.min(T, Math.ceil(size));
  for (let p = 0; p < pixels; p++) {
    const from = Math.floor((p * T) / pixels);
    const to = Math.max(from + 1, Math.floor(((p + 1) * T) / pixels));
    let most = 0;
    for (let t = from; t < to; t++) {
      const one = way === "row" ? weight(g, t) : weight(t, g);
      most = Math.max(most, one.kind === "unknown" ? 0.02 : one.weight);
    }
    const [x, y, thick] = place(from);
    const length = size / pixels + 0.5;
    pen.fillStyle = rgb(colours.card);
    pen.fillRect(x, y, way === "row" ? length : thick, way === "row" ? thick : length);
    pen.fillStyle = rgb(colours[way], 0.2 + 0.8 * strength(most * (way === "row" ? 16 : 1)));
    pen.fillRect(x, y, way === "row" ? length : thick, way === "row" ? thick : length);
  }
}

// ---- 2. the block: one tile, Q x (G + S) ------------------------------------------------------------------------------

function drawBlock() {
  const block = blockOf(state.i);
  const globals = [...state.globals].sort((a, b) => a - b);
  const rows = block.stop - block.start;
  const columns = block.high - block.low;
  const wide = byId("block").clientWidth;
  const left = globals.length ? Math.min(60, 14 * globals.length) + 6 : 0;
  const across = (wide - left - 2) / columns;
  const down = Math.max(Math.min(across * 1.25, 14), 150 / rows);
  const height = Math.round(rows * down) + 2;
  const { pen } = prepare("block", height);
  const image = new ImageData(columns, rows);
  const globalImage = globals.length ? new ImageData(globals.length, rows) : null;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) paint(image, c, r, cellColour(block.start + r, block.low + c));
    globals.forEach((g, c) => paint(globalImage, c, r, cellColour(block.start + r, g)));
  }
  pen.imageSmoothingEnabled = false;
  pen.drawImage(bitmap(image), left, 1, columns * across, rows * down);
  if (globalImage) pen.drawImage(bitmap(globalImage), 1, 1, left - 6, rows * down);
  pen.strokeStyle = rgb(colours.mark);
  pen.lineWidth = 1.5;
  const y = 1 + (state.i - block.start) * down;
  pen.strokeRect(left, y - 0.5, columns * across, Math.max(down, 2) + 1);
  if (state.j >= block.low && state.j < block.high) {
    const x = left + (state.j - block.low) * across;
    pen.strokeRect(x - 3, y + down / 2 - 4, across + 6, 8);
  }
  maps.block = (x, y2) => {
    const i = clampTo(block.start + Math.floor((y2 - 1) / down), block.start, block.stop - 1);
    if (globals.length && x < left - 3) return [i, globals[clampTo(Math.floor((x / (left - 6)) * globals.length), 0, globals.length - 1)]];
    return [i, clampTo(block.low + Math.floor((x - left) / across), block.low, block.high - 1)];
  };
  byId("block-caption").textContent = `Queries ${grouped(block.start)} to ${grouped(block.stop - 1)}, keys ${grouped(block.low)} to ${grouped(block.high - 1)}${globals.length ? ", global ones at the left" : ""}. Only tiles like this are computed.`;
  label("block", `One tile: ${rows} queries and ${columns} keys in reach, ${globals.length} global columns at the left. Query ${state.i}, key ${state.j}. Arrow keys move by four.`);
}

function paint(image, x, y, [red, green, blue]) {
  image.data.set([red, green, blue, 255], 4 * (y * image.width + x));
}

function bitmap(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// ---- 3. cells: token by token -----------------------------------------------------------------------------------------

function drawCells() {
  const wide = byId("cells").clientWidth;
  const left = 84;
  const top = 78;
  const count = Math.min(T, wide > 380 ? 11 : 8);
  const around = (t) => clampTo(t - Math.floor(count / 2), 0, T - count);
  const middle = state.globals.has(state.j) && Math.abs(state.i - state.j) > state.radius ? state.i : state.j;
  const firstRow = around(state.i);
  const firstColumn = around(middle);
  const pinned = [...state.globals].filter((g) => g < firstColumn || g >= firstColumn + count).slice(0, 2);
  const keys = [...pinned, ...Array.from({ length: count }, (_, c) => firstColumn + c)];
  const gap = pinned.length ? 6 : 0;
  const side = (wide - left - gap - 4) / keys.length;
  const xOf = (c) => left + c * side + (c >= pinned.length ? gap : 0);
  const { pen } = prepare("cells", Math.round(top + count * side + 4));
  keys.forEach((j, c) => {
    pen.save();
    pen.translate(xOf(c) + side / 2 + 4, top - 6);
    pen.rotate(-Math.PI / 3);
    name(pen, j, j === state.j, 70, 0, 0);
    pen.restore();
  });
  for (let r = 0; r < count; r++) {
    const i = firstRow + r;
    pen.textAlign = "right";
    name(pen, i, i === state.i, left - 8, left - 6, top + r * side + side / 2 + 4);
    pen.textAlign = "center";
    keys.forEach((j, c) => drawCell(pen, i, j, xOf(c), top + r * side, side));
    pen.textAlign = "left";
  }
  const place = keys.indexOf(state.j);
  if (place >= 0) {
    pen.strokeStyle = rgb(colours.mark);
    pen.lineWidth = 2.5;
    pen.strokeRect(xOf(place), top + (state.i - firstRow) * side, side - 1, side - 1);
  }
  maps.cells = (x, y) => {
    const inside = x - (x >= left + pinned.length * side + gap ? gap : 0);
    return [
      firstRow + clampTo(Math.floor((y - top) / side), 0, count - 1),
      keys[clampTo(Math.floor((inside - left) / side), 0, keys.length - 1)],
    ];
  };
  byId("cells-caption").textContent = "Weights in percent; a row adds up to 100 over all keys of the query. Point at a cell for its arithmetic.";
  label("cells", `Weights of ${count} queries and ${keys.length} keys around query ${state.i} and key ${state.j}. Arrow keys move by one; the arithmetic of the cell is below.`);
}

function name(pen, t, chosen, room, x, y) {
  pen.fillStyle = rgb(chosen ? colours.mark : colours.ink);
  pen.font = `${chosen ? "bold " : ""}11px ui-monospace, Menlo, "DejaVu Sans Mono", monospace`;
  let text = tokenName(t);
  while (text.length > 1 && pen.measureText(text).width > room) text = `${text.slice(0, -2)}…`;
  pen.fillText(text, x, y);
}

function drawCell(pen, i, j, x, y, side) {
  const one = weight(i, j);
  const back = cellColour(i, j, one);
  pen.fillStyle = rgb(back);
  pen.fillRect(x, y, side - 1, side - 1);
  if (!path(i, j)) return;
  const dark = 0.299 * back[0] + 0.587 * back[1] + 0.114 * back[2] < 140;
  pen.fillStyle = dark ? "#fff" : "#111";
  pen.font = "10px system-ui, sans-serif";
  const percent = 100 * one.weight;
  const text = one.kind === "unknown" ? "?" : one.kind === "small" && !percent ? "·" : percent >= 9.95 ? percent.toFixed(0) : percent >= 0.095 ? percent.toFixed(1) : "0";
  pen.fillText(text, x + side / 2, y + side / 2 + 3.5);
}

const clampTo = (value, low, high) => Math.max(low, Math.min(high, value));
const clampToken = (t) => clampTo(t, 0, T - 1);
