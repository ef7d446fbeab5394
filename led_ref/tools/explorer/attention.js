// Which token attends to which, with which weight, and what it costs. No drawing here.
//
// The pattern can be changed: another radius, other global tokens. What the model then would do is known as far as its
// queries and keys are: in the first layer they do not depend on the pattern, further up they are those of the run.

const state = {
  layer: 0, // among the layers that are kept
  head: -1, // -1: the mean of all heads
  i: 0, // the chosen query
  j: 0, // the chosen key
  radius: record.radii[0],
  globals: new Set(record.globals),
  step: 0, // of the search
};

const runGlobal = new Map(record.globals.map((token, g) => [token, g]));
const G = record.globals.length;
let sums = new Map(); // log sum exp under a changed pattern, by layer, head and query

const runRadius = () => record.radii[state.layer];
const isAsRun = () =>
  state.radius === runRadius() && state.globals.size === G && record.globals.every((token) => state.globals.has(token));

// The part of the mask through which query i attends to key j: "row", "column", "window", or null where it does not.
function path(i, j) {
  if (state.globals.has(i)) return "row";
  if (state.globals.has(j)) return "column";
  return Math.abs(i - j) <= state.radius ? "window" : null;
}

// The keys that query i attends to: [first, last] of the window, and the global ones.
const reach = (i) => [Math.max(0, i - state.radius), Math.min(T - 1, i + state.radius)];
function keysOf(i) {
  if (state.globals.has(i)) return Array.from({ length: T }, (_, j) => j);
  const [first, last] = reach(i);
  const keys = [...state.globals].sort((a, b) => a - b);
  for (let j = first; j <= last; j++) if (!state.globals.has(j)) keys.push(j);
  return keys;
}

function dot(a, aAt, b, bAt) {
  let sum = 0;
  for (let d = 0; d < K; d++) sum += a[aAt + d] * b[bAt + d];
  return sum;
}

// Where the query and the key of a pair are kept: [array, offset] twice; null if one of them is not.
function vectors(h, i, j) {
  const l = state.layer;
  if (state.globals.has(i)) {
    if (!runGlobal.has(i) || j >= N) return null;
    return [numbers(`${l}.globalQ`), (h * G + runGlobal.get(i)) * K, numbers(`${l}.keyGlobal`), (h * N + j) * K];
  }
  if (i >= N) return null;
  const q = [numbers(`${l}.q`), (h * N + i) * K];
  if (j < N) return [...q, numbers(`${l}.k`), (h * N + j) * K];
  return runGlobal.has(j) ? [...q, numbers(`${l}.globalK`), (h * G + runGlobal.get(j)) * K] : null;
}

// q . k / sqrt(K) of a pair; undefined where the page does not have the two.
function score(h, i, j) {
  const found = vectors(h, i, j);
  return found ? dot(...found) : undefined;
}

// log sum exp over the keys of query i; undefined where that is not known.
function logSum(h, i) {
  const l = state.layer;
  if (state.globals.has(i)) return runGlobal.has(i) ? numbers(`${l}.globalLse`)[h * G + runGlobal.get(i)] : undefined;
  if (i >= N) return undefined;
  if (isAsRun()) return numbers(`${l}.lse`)[h * N + i];
  const name = (l * H + h) * T + i;
  if (!sums.has(name)) {
    const scores = keysOf(i).map((j) => score(h, i, j));
    const most = Math.max(...scores); // NaN where a key is not known
    sums.set(name, Math.log(scores.reduce((sum, s) => sum + Math.exp(s - most), 0)) + most);
  }
  const sum = sums.get(name);
  return Number.isNaN(sum) ? undefined : sum;
}

// The weight of one head. kind: "exact" from q and k; "rounded" from a code; "small": less than the ones that are kept;
// "unseen"; "unknown": the page cannot tell.
function weightOf(h, i, j) {
  const way = path(i, j);
  if (!way) return { weight: 0, kind: "unseen" };
  const s = score(h, i, j);
  const sum = s === undefined ? undefined : logSum(h, i);
  if (sum !== undefined) return { weight: Math.exp(s - sum), kind: "exact" };
  const l = state.layer;
  if (way === "row") {
    if (!runGlobal.has(i)) return { weight: 0, kind: "unknown" };
    return { weight: fromCode(numbers(`${l}.rows`)[(h * G + runGlobal.get(i)) * T + j]), kind: "rounded" };
  }
  if (!isAsRun()) return { weight: 0, kind: "unknown" };
  if (way === "column") return { weight: fromCode(numbers(`${l}.columns`)[(h * T + i) * G + runGlobal.get(j)]), kind: "rounded" };
  const at = (h * T + i) * record.top;
  const offsets = numbers(`${l}.topOffsets`);
  for (let n = 0; n < record.top; n++) {
    if (offsets[at + n] === j - i) return { weight: fromCode(numbers(`${l}.topCodes`)[at + n]), kind: "rounded" };
  }
  return { weight: 0, kind: "small" };
}

// Of the chosen head, or the mean of all; the kind is that of the least sure.
const SURE = ["unseen", "exact", "rounded", "small", "unknown"];
const weight = (i, j) => (state.head < 0 ? meanWeight(i, j) : weightOf(state.head, i, j));
function meanWeight(i, j) {
  let sum = 0;
  let worst = 0;
  for (let h = 0; h < H; h++) {
    const one = weightOf(h, i, j);
    sum += one.weight;
    worst = Math.max(worst, SURE.indexOf(one.kind));
  }
  return { weight: sum / H, kind: SURE[worst] };
}

// How one head's weight is shared between the ways: {window, column, row} that add up to 1; null where it is not known.
function shares(h, i) {
  if (state.globals.has(i)) return { window: 0, column: 0, row: 1 };
  let column = 0;
  for (const j of state.globals) {
    const one = weightOf(h, i, j);
    if (one.kind === "unknown") return null;
    column += one.weight;
  }
  if (!isAsRun() && logSum(h, i) === undefined) return null;
  return { window: 1 - column, column, row: 0 };
}

// What a function gives in another layer; the choice stays as it is.
function inLayer(l, compute) {
  const chosen = state.layer;
  state.layer = l;
  const found = compute();
  state.layer = chosen;
  return found;
}

// The largest weights of query i, best first.
function largest(i, count) {
  return keysOf(i)
    .map((j) => ({ j, ...weight(i, j) }))
    .filter((one) => one.weight > 0)
    .sort((a, b) => b.weight - a.weight || a.j - b.j)
    .slice(0, count);
}

// The block that query i is in, and the keys that it can reach, as model/masks.py cuts them.
function blockOf(i) {
  const start = Math.floor(i / record.queriesPerBlock) * record.queriesPerBlock;
  const stop = Math.min(start + record.queriesPerBlock, T);
  return { start, stop, low: Math.max(0, start - state.radius), high: Math.min(T, stop + state.radius) };
}

// Pairs of query and key: those that are seen, those that the tiles compute, those of the global rows, and all.
function cost() {
  const globals = [...state.globals];
  let seen = globals.length * T;
  for (let i = 0; i < T; i++) {
    if (state.globals.has(i)) continue;
    const [first, last] = reach(i);
    seen += last - first + 1 + globals.reduce((count, g) => count + (g < first || g > last), 0);
  }
  let tiles = 0;
  for (let start = 0; start < T; start += record.queriesPerBlock) {
    const block = blockOf(start);
    const inside = globals.filter((g) => g >= start && g < block.stop).length;
    if (inside < block.stop - start) tiles += (block.stop - start) * (globals.length + block.high - block.low);
  }
  return { seen, tiles, rows: globals.length * T, all: T * T };
}
