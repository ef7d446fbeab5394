// What is said beside the maps: controls, the text, what a token attends to, the arithmetic of a cell, the cost. And the keys.

let pointed = null; // the cell under the pointer, [i, j]

function choose(i, j) {
  state.i = clampToken(i);
  state.j = clampToken(j);
  pointed = null;
  draw();
}

// ---- controls ---------------------------------------------------------------------------------------------------------

function buttons(id, names, get, set) {
  const all = names.map(([value, words]) =>
    make("button", { type: "button", "data-value": value, onclick: () => { set(value); draw(); } }, words));
  byId(id).append(...all);
  return () => all.forEach((button) => button.setAttribute("aria-pressed", Number(button.dataset.value) === get()));
}

const pressLayers = buttons("layers", record.layers.map((layer, l) => [l, `${layer + 1}`]), () => state.layer, setLayer);
const pressHeads = buttons("heads", [[-1, "mean"], ...Array.from({ length: H }, (_, h) => [h, `${h + 1}`])],
  () => state.head, (head) => { state.head = head; });

function setLayer(layer) {
  const asRun = state.radius === runRadius();
  state.layer = layer;
  if (asRun) state.radius = runRadius();
}

function changePattern() {
  sums = new Map();
  pointed = null;
  draw();
}

function toggleGlobal(token) {
  if (!state.globals.delete(token)) state.globals.add(token);
  changePattern();
}

function reset() {
  state.radius = runRadius();
  state.globals = new Set(record.globals);
  changePattern();
}

function drawControls() {
  pressLayers();
  pressHeads();
  byId("radius").max = Math.min(T - 1, 4 * runRadius());
  byId("radius").value = state.radius;
  byId("radius-value").textContent = state.radius;
  const tokens = [...state.globals].sort((a, b) => a - b);
  byId("globals").replaceChildren(
    ...(tokens.length ? tokens.slice(0, 6) : []).map((g) => make("span", { class: "chip" }, `${g} ${tokenName(g)}`)),
    tokens.length ? (tokens.length > 6 ? `and ${tokens.length - 6} more` : "") : "none");
  byId("toggle-global").textContent = `${state.globals.has(state.i) ? "Make local" : "Make global"}: token ${state.i}`;
  byId("reset").disabled = isAsRun();
}

// ---- words ------------------------------------------------------------------------------------------------------------

const WAYS = { window: "through the window", column: "as a global column", row: "by its own global row" };

function drawTold() {
  const { i, j } = state;
  const role = state.globals.has(i) ? "global" : "local";
  const way = path(i, j);
  const who = state.head < 0 ? "on the mean of all heads" : `in head ${state.head + 1}`;
  const one = weight(i, j);
  const words = [`Token ${grouped(i)} “${tokenName(i)}” is ${role} and attends to ${grouped(keysOf(i).length)} of ${grouped(T)} tokens.`];
  if (!way) words.push(`It does not attend to token ${grouped(j)} “${tokenName(j)}”.`);
  else words.push(`It attends to token ${grouped(j)} “${tokenName(j)}” ${WAYS[way]}: ${said(one)} ${who}, layer ${record.layers[state.layer] + 1}.`);
  if (!isAsRun()) words.push("The pattern is not that of the run.");
  byId("told").textContent = words.join(" ");
}

function said({ weight: w, kind }) {
  if (kind === "unknown") return "a weight that this page cannot tell";
  if (kind === "small") return w ? `a weight of at least ${shown(w)}` : `a weight below the ${record.top} that are kept`;
  return `a weight of ${shown(w)}`;
}

function drawCost() {
  const now = cost();
  const part = (count) => `${grouped(count)} pairs, ${shown((100 * count) / now.all)} %`;
  const row = (hue, words, count) => [
    make("span", {}, words),
    make("div", { class: `bar ${hue}` }, make("i", { style: `width:${(100 * count) / now.all}%` })),
    make("span", { class: "number" }, part(count)),
  ];
  const all = record.allLayers * H;
  byId("cost").replaceChildren(
    ...row("", "every token with every token", now.all),
    ...row("window", "computed: tiles and global rows", now.tiles + now.rows),
    ...row("window", "of these, seen", now.seen),
    make("p", {}, `For each of ${record.allLayers} layers × ${H} heads; a pair costs 2 × ${K} multiplications, that is ${grouped((all * 2 * K * (now.tiles + now.rows)) / 1e6)} million for the document instead of ${grouped((all * 2 * K * now.all) / 1e6)} million (with this R in all layers, projections not counted).`));
  byId("cost").dataset.seen = now.seen;
  byId("cost").dataset.computed = now.tiles + now.rows;
}

function drawText() {
  const [first, last] = [clampToken(state.i - Math.max(90, state.radius)), clampToken(state.i + Math.max(90, state.radius))];
  const spans = [];
  for (let t = first; t <= last; t++) {
    const way = path(state.i, t);
    const alpha = way ? 0.06 + 0.7 * strength(weight(state.i, t).weight) ** 1.5 : 0;
    const classes = [t === state.i && "chosen", state.globals.has(t) && "global"].filter(Boolean).join(" ");
    spans.push(make("span", { class: classes || null, "data-t": t, style: way ? `background:${rgb(colours[way], alpha)}` : null },
      record.tokens[t] || "∅"));
  }
  const box = byId("text");
  box.replaceChildren(first ? "… " : "", ...spans, last < T - 1 ? " …" : "");
  const chosen = spans[state.i - first];
  box.scrollTop = chosen.offsetTop - box.clientHeight / 2;
}

function drawSees() {
  const bar = (l, h) => {
    const part = inLayer(l, () => shares(h, state.i));
    if (!part) return make("td", {}, "not known");
    const ways = ["window", "column", "row"].filter((way) => part[way] > 0);
    return make("td", {},
      make("div", { class: "share" }, ...ways.map((way) => make("i", { class: way, style: `width:${100 * part[way]}%` }))),
      make("span", { class: "note" }, ways.filter((way) => way !== "window" || ways.length === 1).map((way) => `${way} ${(100 * part[way]).toFixed(1)}`).join(", ")));
  };
  const rows = Array.from({ length: H }, (_, h) => make("tr", {}, make("td", {}, `${h + 1}`), ...record.layers.map((_, l) => bar(l, h))));
  const best = largest(state.i, 10).map((one) =>
    make("tr", {},
      make("td", {}, make("button", { class: "link", type: "button", onclick: () => choose(state.i, one.j) }, make("span", { class: "token" }, tokenName(one.j)), ` ${grouped(one.j)}`)),
      make("td", {}, make("span", { class: `path ${path(state.i, one.j)}` }, path(state.i, one.j) === "window" ? `window, ${one.j - state.i > 0 ? "+" : ""}${one.j - state.i}` : `global ${path(state.i, one.j)}`)),
      make("td", { class: "number" }, `${one.kind === "small" ? "≥ " : ""}${shown(one.weight)}`)));
  byId("sees").replaceChildren(
    make("p", { class: "note" }, "The parts of the mask that its weight goes to, in percent; the rest is the window's:"),
    make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "head"), ...record.layers.map((layer) => make("th", {}, `layer ${layer + 1}`)))), make("tbody", {}, ...rows))),
    make("p", { class: "note" }, `Largest weights, ${state.head < 0 ? "mean of all heads" : `head ${state.head + 1}`}:`),
    make("table", {}, make("tbody", {}, ...(best.length ? best : [make("tr", {}, make("td", {}, "This page does not have the queries and keys to tell."))]))));
}

// ---- arithmetic -------------------------------------------------------------------------------------------------------

function drawArithmetic() {
  const [i, j] = pointed || [state.i, state.j];
  const way = path(i, j);
  const box = byId("arithmetic");
  const title = make("p", {}, make("span", { class: "token" }, tokenName(i)), ` ${grouped(i)} attends to `, make("span", { class: "token" }, tokenName(j)), ` ${grouped(j)}`);
  if (!way) return box.replaceChildren(title, make("p", {}, `They are ${Math.abs(i - j)} apart, R is ${state.radius}, and neither is global: not seen. Its score is left out of the softmax, its weight is 0.`));
  const parts = [title, make("p", {}, make("span", { class: `path ${way}` }, WAYS[way]))];
  if (state.head < 0) parts.push(make("p", { class: "note" }, "Choose a head to see the sum that makes its score."));
  else parts.push(...ofOneHead(state.head, i, j, way));
  parts.push(make("p", { class: "note" }, "The weight of this cell in every layer and head:"), everywhere(i, j));
  return box.replaceChildren(...parts);
}

// The weight of one cell in every layer and head that is kept.
function everywhere(i, j) {
  const words = ({ weight: w, kind }) => (kind === "unknown" ? "?" : kind === "small" ? (w ? `≥ ${shown(w)}` : "small") : shown(w));
  const head = make("tr", {}, make("th", {}, "head"), ...record.layers.map((layer) => make("th", { class: "number" }, `layer ${layer + 1}`)));
  const row = (name, h) => make("tr", {}, make("td", {}, name), ...record.layers.map((_, l) =>
    make("td", { class: "number" }, inLayer(l, () => words(h < 0 ? meanWeight(i, j) : weightOf(h, i, j))))));
  return make("div", { class: "scroll" }, make("table", { id: "everywhere" }, make("thead", {}, head),
    make("tbody", {}, ...Array.from({ length: H }, (_, h) => row(`${h + 1}`, h)), row("mean", -1))));
}

function ofOneHead(h, i, j, way) {
  const found = vectors(h, i, j);
  const one = weightOf(h, i, j);
  const sum = logSum(h, i);
  if (!found || sum === undefined) {
    return [make("p", {}, `This cell: ${said(one)} (${one.kind}).`),
      make("p", { class: "note" }, `The page keeps queries and keys of the first ${grouped(N)} tokens${G ? " and of the run's global ones" : ""}. Choose a token there to see every sum.`)];
  }
  const s = dot(...found);
  const line = (term, words, result = false) => [make("dt", {}, term), make("dd", { class: result ? "result" : null, "data-term": term }, words)];
  const canvas = make("canvas", { id: "products", role: "img", "aria-label": `The ${K} products of query and key; they add up to ${shown(s)}.` });
  queueMicrotask(() => drawProducts(canvas, found));
  const prime = way === "row" ? "′" : "";
  return [
    make("dl", { class: "sum" },
      ...line(`q${prime}·k${prime}`, `${shown(s * Math.sqrt(K))} (sum of ${K} products)`),
      ...line(`÷ √${K}`, `${shown(s * Math.sqrt(K))} ÷ ${Math.sqrt(K).toFixed(4)} = ${shown(s)}`),
      ...line("exp", `e^${shown(s)} = ${shown(Math.exp(s))}`),
      ...line("sum", `over ${grouped(keysOf(i).length)} keys: ${shown(Math.exp(sum))}`),
      ...line("weight", `${shown(Math.exp(s))} ÷ ${shown(Math.exp(sum))} = ${shown(Math.exp(s - sum))}`, true)),
    canvas,
    make("p", { class: "note" }, `The ${K} products q${prime}·k${prime} ÷ √K, dimension by dimension${way === "row" ? ". A global token's own row has projections of its own" : ""}.${!isAsRun() && record.layers[state.layer] > 0 ? " Under another pattern the layers below would give other queries and keys; these are the run's." : ""}`),
  ];
}

function drawProducts(canvas, [a, aAt, b, bAt]) {
  if (!canvas.isConnected) return;
  const width = canvas.clientWidth;
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = 90 * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const products = Array.from({ length: K }, (_, d) => a[aAt + d] * b[bAt + d]);
  const [lowest, highest] = [Math.min(0, ...products), Math.max(0, ...products)];
  const unit = 84 / (highest - lowest || 1);
  const zero = 3 + highest * unit;
  products.forEach((product, d) => {
    pen.fillStyle = rgb(product > 0 ? colours.window : colours.column);
    const length = product * unit;
    pen.fillRect((d * width) / K, zero - Math.max(length, 0), Math.max(width / K - 2, 1), Math.abs(length));
  });
  pen.fillStyle = rgb(colours.soft);
  pen.fillRect(0, zero - 0.5, width, 1);
}

// ---- pointer, keys, start ---------------------------------------------------------------------------------------------

function draw() {
  readColours();
  for (const part of [drawControls, drawDocument, drawBlock, drawCells, drawTold, drawCost, drawText, drawSees, drawArithmetic]) part();
}

const STEPS = { document: () => record.queriesPerBlock, block: () => 4, cells: () => 1 };
for (const id of Object.keys(STEPS)) {
  const canvas = byId(id);
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return maps[id](event.clientX - box.left, event.clientY - box.top);
  };
  canvas.addEventListener("click", (event) => {
    const [i, j] = where(event);
    choose(i, id === "document" && !path(i, j) ? i : j);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (id === "document") return;
    const found = where(event);
    if (!pointed || found[0] !== pointed[0] || found[1] !== pointed[1]) {
      pointed = found;
      drawArithmetic();
    }
  });
  canvas.addEventListener("pointerleave", () => { pointed = null; drawArithmetic(); });
  canvas.addEventListener("keydown", (event) => walk(event, STEPS[id](), id === "document"));
}

function walk(event, by, together) {
  const moves = { ArrowUp: [-by, 0], ArrowDown: [by, 0], ArrowLeft: [0, -by], ArrowRight: [0, by] };
  const move = moves[event.key];
  if (move) choose(state.i + move[0] + (together ? move[1] : 0), state.j + move[1] + (together ? move[0] : 0));
  else if (event.key === "Home") choose(0, 0);
  else if (event.key === "End") choose(T - 1, T - 1);
  else return;
  event.preventDefault();
}

byId("text").addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -12, ArrowDown: 12 }[event.key];
  if (!by) return;
  choose(state.i + by, state.i + by);
  event.preventDefault();
});
byId("text").addEventListener("click", (event) => {
  const t = event.target.dataset.t;
  if (t) choose(Number(t), Number(t));
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "g") toggleGlobal(state.i);
  else if (event.key === "r") reset();
  else if (event.key === "h") { state.head = state.head + 1 < H ? state.head + 1 : -1; draw(); }
  else if (event.key === "l") { setLayer((state.layer + 1) % record.layers.length); draw(); }
});
byId("toggle-global").addEventListener("click", () => toggleGlobal(state.i));
byId("reset").addEventListener("click", reset);
byId("radius").addEventListener("input", (event) => { state.radius = Number(event.target.value); changePattern(); });
