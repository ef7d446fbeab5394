// The search, step by step: the tree of beams, the candidates of a step with their sums, and the fate of each.

const search = record.search;
const steps = search.steps;

// Which class of fate it is, and the reason in words.
const FATES = {
  "goes on": ["lives", (one) => `one of the ${search.beams} best that do not end: it is beam ${one.becomes + 1} now`],
  "pushed out": ["dies", () => `${search.beams} candidates that do not end have larger sums`],
  "impossible": ["dies", (one) => (one.processed === null ? "a rule forbids this id here" : "its beam has no score: all beams begin as copies, and only the first counts")],
  "finished": ["ends", (one) => `it ends; its value ${worth(one)} is among the ${search.beams} best`],
  "ends too low": ["dies", () => `it ends, but ${search.beams} candidates are better, and only those may finish`],
  "beaten at the end": ["dies", (one) => `it ends, but ${search.beams} finished hypotheses have higher values than ${worth(one)}`],
  "too late": ["dies", () => "the search is over for this document: what finishes now comes too late"],
};

// The value of a finished hypothesis: its sum over its length to the power of the length penalty.
function worth(one) {
  return `${shown(one.sum)} ÷ ${state.step + 1}${search.lengthPenalty === 1 ? "" : `^${search.lengthPenalty}`} = ${shown(one.value)}`;
}

// The text of beam b after a step, as pieces.
function textOf(step, b) {
  const pieces = [];
  for (let s = step, beam = b; s >= 0; s--) {
    const one = steps[s].running[beam];
    pieces.unshift(one.piece);
    beam = one.beam;
  }
  return pieces.join("");
}
const textOfCandidate = (step, one) => (step ? textOf(step - 1, one.beam) : "") + one.piece;

// The beams of the best finished hypothesis: "step,beam", and its end.
function bestPath() {
  const value = steps[steps.length - 1].finished[0]?.value;
  for (let s = 0; s < steps.length; s++) {
    for (const one of steps[s].candidates) {
      if (one.fate !== "finished" || one.value !== value) continue;
      const found = new Set();
      for (let t = s - 1, beam = one.beam; t >= 0; t--) {
        found.add(`${t},${beam}`);
        beam = steps[t].running[beam].beam;
      }
      return { found, end: { step: s, beam: one.beam } };
    }
  }
  return { found: new Set(), end: null };
}

const WIDE = 96;
const HIGH = 34;

function drawTree() {
  const { found, end } = bestPath();
  const ends = steps.map((step) => step.candidates.filter((one) => one.fate === "finished"));
  const lowest = search.beams + Math.max(0, ...ends.map((some) => some.length));
  const [width, height] = [70 + steps.length * WIDE + 10, 34 + lowest * HIGH + 8];
  const x = (s) => 70 + s * WIDE;
  const y = (row) => 32 + row * HIGH;
  const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  svg.append(make("rect", { class: "now", x: x(state.step) - 6, y: 4, width: WIDE - 4, height: height - 8, rx: 6 }));
  svg.append(make("text", { class: "faint", x: 10, y: y(0) + 16 }, "start"));
  const edges = make("g");
  const nodes = make("g");
  steps.forEach((step, s) => {
    svg.append(make("text", { class: "faint", x: x(s), y: 20 }, `${s + 1}`));
    const parentAt = (beam) => (s ? [x(s - 1) + WIDE - 22, y(beam) + 12] : [44, y(0) + 12]);
    const edge = (beam, row, best) => {
      const [fromX, fromY] = parentAt(beam);
      const middle = (fromX + x(s)) / 2;
      edges.append(make("path", { class: best ? "edge best" : "edge", d: `M${fromX} ${fromY}C${middle} ${fromY} ${middle} ${y(row) + 12} ${x(s)} ${y(row) + 12}` }));
    };
    step.running.forEach((one, b) => {
      if (one.sum === null || one.sum < -5e8) return;
      const best = found.has(`${s},${b}`);
      edge(one.beam, b, best);
      nodes.append(node(x(s), y(b), one.piece, best ? "node best" : "node", s, `${textOf(s, b)}: sum ${shown(one.sum)}`));
    });
    ends[s].forEach((one, n) => {
      const best = end && end.step === s && end.beam === one.beam;
      edge(one.beam, search.beams + n, best);
      nodes.append(node(x(s), y(search.beams + n), one.piece, best ? "node end best" : "node end", s, `${textOfCandidate(s, one)}: finished, value ${shown(one.value)}`));
    });
  });
  svg.append(edges, nodes);
  byId("tree").replaceChildren(svg);
  const box = byId("tree");
  box.scrollLeft = Math.max(0, x(state.step) - box.clientWidth + 2 * WIDE);
}

function node(x, y, piece, kind, step, title) {
  const text = visible(piece);
  return make("g", { class: kind, onclick: () => toStep(step) },
    make("title", {}, title),
    make("rect", { x, y, width: WIDE - 22, height: 24, rx: 5 }),
    make("text", { x: x + 7, y: y + 16 }, text.length > 9 ? `${text.slice(0, 8)}…` : text));
}

function drawStep() {
  const step = steps[state.step];
  byId("step").max = steps.length - 1;
  byId("step").value = state.step;
  byId("step-value").textContent = `${state.step + 1} of ${steps.length}`;
  byId("candidates-title").textContent = `Step ${state.step + 1}: the ${step.candidates.length} best continuations, and their fates`;
  const head = ["generated prefix + piece", "fate", "sum before", "log p", "sum", "why"];
  const rows = step.candidates.map((one) => {
    const [kind, why] = FATES[one.fate];
    const rule = one.processed !== null && one.processed !== one.logprob ? ` (a rule made ${shown(one.processed)} of it)` : "";
    return make("tr", {},
      make("td", {}, state.step ? textOf(state.step - 1, one.beam) : "", make("span", { class: "token" }, visible(one.piece))),
      make("td", { class: `fate ${kind}` }, one.fate),
      make("td", { class: "number" }, one.before < -5e8 ? "none" : shown(one.before)),
      make("td", { class: "number" }, shown(one.logprob) + rule),
      make("td", { class: "number" }, one.sum === null || one.sum < -5e8 ? "none" : shown(one.sum)),
      make("td", { class: "why" }, why(one)));
  });
  byId("candidates").replaceChildren(make("div", { class: "scroll" },
    make("table", {}, make("thead", {}, make("tr", {}, ...head.map((words, c) => make("th", { class: c > 1 && c < 5 ? "number" : null }, words)))), make("tbody", {}, ...rows))));
  const living = step.running.filter((one) => one.sum !== null && one.sum > -5e8);
  byId("running").replaceChildren(...living.map((one) => make("li", {}, `${textOf(state.step, step.running.indexOf(one))} `, make("span", { class: "note" }, shown(one.sum)))));
  byId("finished").replaceChildren(...(step.finished.length
    ? step.finished.map((one) => make("li", {}, `${one.text || "(the empty text)"} `, make("span", { class: "note" }, shown(one.value))))
    : [make("li", {}, "none yet")]));
}

function toStep(step) {
  state.step = clampTo(step, 0, steps.length - 1);
  drawTree();
  drawStep();
}

function startSearch() {
  const stopping = search.earlyStopping === true ? `It stops when ${search.beams} hypotheses are finished.` : "It stops when no running beam can beat the finished hypotheses.";
  byId("search-lead").textContent = `The model wrote “${record.text}”. At each of ${steps.length} steps, ${search.beams} beams go on. Each is continued by every id; a beam's sum is the sum of its log-probabilities, and the value of a finished hypothesis is its sum ÷ its length${search.lengthPenalty === 1 ? "" : `^${search.lengthPenalty}`}. ${stopping}${search.noRepeat ? ` No ${search.noRepeat} ids may follow each other twice.` : ""}`;
  byId("step").addEventListener("input", (event) => toStep(Number(event.target.value)));
  byId("step-back").addEventListener("click", () => toStep(state.step - 1));
  byId("step-on").addEventListener("click", () => toStep(state.step + 1));
  byId("tree").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    toStep(state.step + by);
    event.preventDefault();
  });
}

// ---- the page as a whole ----------------------------------------------------------------------------------------------

function startPage() {
  const some = record.layers.length < record.allLayers ? ` (kept here: ${record.layers.map((layer) => layer + 1).join(", ")})` : "";
  byId("subtitle").textContent = `${record.title}: ${grouped(T)} tokens, read by ${record.model} with ${record.allLayers} layers${some} of ${H} heads of width ${K}; R = ${[...new Set(record.radii)].join(", ")}, ${G} global token${G === 1 ? "" : "s"}.`;
  const say = (...words) => make("p", {}, ...words);
  const keys = (...some) => some.flatMap((key) => [make("kbd", {}, key), " "]);
  byId("notes-text").append(
    say(`Exact: of the first ${grouped(N)} of ${grouped(T)} tokens the page has every query and key in float32, as the model computed them, and the logarithm of each softmax's sum; scores and weights between them are computed from these, here, as you look. Of the search, every number is as it was recorded.`),
    say(`Rounded: elsewhere it has, for each query, head and layer, the ${record.top} largest weights of the window, all weights towards global tokens and all weights of the global tokens' own rows, each within 0.02 %, and what is below 3 in 10,000 million as 0. Cells that are not among these show a dot. The share of the window is what the global columns leave of 1.`),
    say("A changed pattern: weights are computed anew from the queries and keys of the run, where all that are needed are here; else a question mark. In the first layer that is what the model would do. Further up its queries and keys would change as well. A token that was not global in the run has no global projections here, so its row stays unknown."),
    say("Keys. Maps: ", ...keys("↑", "↓", "←", "→", "Home", "End"), ". Text: ", ...keys("←", "→"), ". Search: ", ...keys("←", "→"), ". Anywhere: ", ...keys("h"), "next head, ", ...keys("l"), "next layer, ", ...keys("g"), "make the token global or local, ", ...keys("r"), "as it was run."));
  const button = byId("theme");
  const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  const setTheme = (theme) => { document.documentElement.dataset.theme = theme; name(); draw(); };
  button.addEventListener("click", () => setTheme(dark() ? "light" : "dark"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { name(); draw(); });
  followSite(setTheme);
  name();
  let width = 0;
  new ResizeObserver(() => {
    if (width === document.body.clientWidth) return;
    width = document.body.clientWidth;
    draw();
  }).observe(document.body);
}

// Inside a page of the site: its colours, also when the reader switches them. From disk a browser forbids to look.
function followSite(setTheme) {
  if (window.parent === window) return;
  try {
    const body = window.parent.document.body;
    const follow = () => body.dataset.mdColorScheme && setTheme(body.dataset.mdColorScheme === "slate" ? "dark" : "light");
    new MutationObserver(follow).observe(body, { attributeFilter: ["data-md-color-scheme"] });
    follow();
  } catch {
    // another origin: the reader's own setting stays
  }
}

// Where to begin: in the last layer, at the most decided query and head of a block whose arithmetic is all here.
function mostDecided() {
  setLayer(record.layers.length - 1);
  const codes = numbers(`${state.layer}.topCodes`);
  const last = Math.max(1, Math.min(T, N - state.radius));
  let best = [65535, 0, 0];
  for (let h = 0; h < H; h++) {
    for (let i = Math.min(state.radius, last - 1); i < last; i++) {
      const code = codes[(h * T + i) * record.top];
      if (code < best[0] && !state.globals.has(i)) best = [code, h, i];
    }
  }
  [, state.head, state.i] = best;
  state.j = state.i + numbers(`${state.layer}.topOffsets`)[(state.head * T + state.i) * record.top];
}

mostDecided();
startSearch();
startPage();
draw();
toStep(0);
