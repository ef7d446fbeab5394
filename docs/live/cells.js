// Cells of a chapter or notebook that run in the page. pages.js makes the bars with their buttons, and calls `open` when the
// reader asks for the first time.
import { Python, Stopped, canRun, inWords, lastLine, megabytes, weigh } from "./python.js";

const AGREED = "led_ref: Python was fetched here";
const python = new Python();
let cells = [];
let parts = [];
let ready;
let turn = Promise.resolve(); // one thing at a time, in the order of the clicks

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

// Take over the page's cells: [{ bar, block, shown }], block with the code, shown the outputs as they were built.
export function open(given) {
  if (cells.length) return cells;
  cells = given.map((cell, number) => new Cell(cell, number));
  parts = partsOf(document.querySelector("article"));
  return cells;
}

// What the cells of a page need.
export function partsOf(article) {
  const words = article.textContent;
  const needed = ["python", "book"];
  if (/\bbundled\(|led_ref\.(load|bundled_model|trace|generate)\(/.test(words)) needed.push("bundled");
  if (words.includes("matplotlib")) needed.push("plots");
  return needed;
}

// Python with all that this page needs, after the reader has seen what it weighs.
async function start(cell) {
  if (ready) return ready;
  if (!canRun()) throw new Error("This needs JavaScript, WebAssembly and a page that is served, not opened from a file.");
  if (!localStorage.getItem(AGREED)) {
    const weights = await weigh(parts);
    const total = Object.values(weights).reduce((sum, bytes) => sum + bytes, 0);
    if (!(await asked(cell, `This fetches ${inWords(weights)} from this site: ${megabytes(total)}, once.`))) throw new Stopped();
  }
  ready = python.load(parts, ({ loaded, total }) => {
    cell.say(loaded < total ? `fetching: ${megabytes(loaded)} of ${megabytes(total)}` : "starting Python");
  });
  ready.then(() => localStorage.setItem(AGREED, "yes"), () => (ready = undefined));
  return ready;
}

const asked = (cell, words) =>
  new Promise((done) => {
    const answer = (is) => () => {
      box.remove();
      done(is);
    };
    const yes = element("button", { type: "button", textContent: "Fetch and run", onclick: answer(true) });
    const no = element("button", { type: "button", textContent: "Not now", onclick: answer(false) });
    const box = element("div", { className: "cell-question", role: "group" }, `${words} `, yes, " ", no);
    cell.bar.after(box);
    yes.focus();
  });

class Cell {
  constructor({ bar, block, shown }, number) {
    Object.assign(this, { bar, block, shown, number, done: false });
    this.built = block.querySelector("code").textContent.replace(/\n$/, "");
    this.buttons = Object.fromEntries([...bar.querySelectorAll("button")].map((button) => [button.dataset.do, button]));
    this.status = bar.querySelector(".cell-status");
    this.out = element("div", { className: "cell-out", hidden: true });
    (shown.at(-1) ?? block).after(this.out);
    this.buttons.run.onclick = () => this.runAll();
    this.buttons.edit.onclick = () => this.edit();
    this.buttons.reset.onclick = () => this.reset();
    this.buttons.stop.onclick = stop;
  }

  get code() {
    return this.editor ? this.editor.value : this.built;
  }

  say(words) {
    this.status.textContent = words;
  }

  // Run this cell, and before it those above that have not run yet.
  runAll() {
    turn = turn.then(async () => {
      this.buttons.stop.hidden = false;
      this.buttons.run.disabled = true;
      try {
        await start(this);
        for (const cell of cells.slice(0, this.number + 1)) {
          if (cell !== this && cell.done) continue;
          this.say(cell === this ? "running" : `running cell ${cell.number + 1}, which comes before`);
          await cell.run();
          if (!cell.done) {
            if (cell !== this) this.say(`cell ${cell.number + 1} above failed`);
            return;
          }
        }
        this.say("");
      } catch (error) {
        this.say(error instanceof Stopped ? "stopped" : lastLine(error));
      } finally {
        this.buttons.stop.hidden = true;
        this.buttons.run.disabled = false;
      }
    });
    return turn;
  }

  async run() {
    const out = element("div");
    let text; // consecutive output stands in one block
    const show = (piece) => {
      if (piece.svg) {
        text = undefined;
        out.append(picture(piece.svg));
        return;
      }
      text ??= out.appendChild(element("div", { className: "highlight output" }, element("pre", {}, element("code"))));
      text.querySelector("code").textContent += piece.out ?? piece.error ?? piece.markdown;
    };
    const started = performance.now();
    const { failed } = await python.call("run_cell", { code: this.code, name: `cell ${this.number + 1}` }, show);
    if (failed) {
      text = undefined;
      show({ error: failed });
      text.classList.add("cell-failed");
    }
    this.done = !failed;
    this.out.replaceChildren(out);
    this.out.hidden = false;
    for (const node of this.shown) node.hidden = true;
    this.buttons.reset.hidden = false;
    this.say(failed ? "" : `${((performance.now() - started) / 1000).toFixed(1)} s`);
  }

  edit() {
    if (!this.editor) {
      this.editor = element("textarea", { className: "cell-editor", spellcheck: false, ariaLabel: `Code of cell ${this.number + 1}`, value: this.built });
      const grow = () => { this.editor.rows = this.editor.value.split("\n").length + 1; };
      this.editor.oninput = grow;
      this.editor.onkeydown = (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey || event.shiftKey)) {
          event.preventDefault();
          this.runAll();
        }
      };
      this.block.after(this.editor);
      this.block.hidden = true;
      const folded = this.block.closest("details");
      if (folded) folded.open = true;
      grow();
    }
    this.buttons.reset.hidden = false;
    this.editor.focus();
  }

  // The page as it was built; what the cell has set stays set.
  reset() {
    this.editor?.remove();
    this.editor = undefined;
    this.block.hidden = false;
    this.out.hidden = true;
    this.out.replaceChildren();
    for (const node of this.shown) node.hidden = false;
    this.buttons.reset.hidden = true;
    this.say("");
    this.bar.querySelector("button").focus();
  }
}

function stop() {
  python.stop();
  ready = undefined;
  for (const cell of cells) cell.done = false;
}

// Matplotlib's drawing in the page's colour, as docs/build_notebooks.py does it.
function picture(svg) {
  const box = element("div", { className: "picture" });
  box.innerHTML = svg.slice(svg.indexOf("<svg")).replaceAll("#3f4a50", "currentColor");
  const drawing = box.querySelector("svg");
  const points = parseFloat(drawing.getAttribute("width"));
  for (const size of ["width", "height"]) drawing.removeAttribute(size);
  drawing.style.setProperty("--width", `${Math.round((points / 72) * 88)}px`);
  for (const inside of box.querySelectorAll("metadata, style")) inside.remove();
  return box;
}
