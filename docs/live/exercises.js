// Exercises of the book on their page: the file that `led-ref exercise N` writes, to be edited and checked in the reader's browser.
import { Python, canRun, inWords, lastLine, megabytes, weigh } from "./python.js";

const PARTS = ["python", "bundled"]; // some checks run the model
const python = new Python();

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

// Put the exercise of this number behind an item of the list.
export async function open(item, number) {
  const say = element("p", { className: "cell-status", role: "status" });
  const box = item.appendChild(element("div", { className: "exercise" }, say));
  if (!canRun()) {
    say.textContent = "This needs JavaScript, WebAssembly and a page that is served, not opened from a file.";
    return;
  }
  const go = element("button", { type: "button", textContent: "Fetch and begin" });
  say.textContent = `The first time this fetches ${inWords(await weigh(PARTS))} from this site. `;
  say.append(go);
  go.focus();
  await new Promise((done) => { go.onclick = done; });
  go.remove();
  const load = () =>
    python.load(PARTS, ({ loaded, total }) => {
      say.textContent = loaded < total ? `fetching: ${megabytes(loaded)} of ${megabytes(total)}` : "starting Python";
    });
  const attempt = async (run) => {
    for (const button of box.querySelectorAll("button")) button.disabled = true;
    stop.disabled = false;
    try {
      await load();
      await run();
    } catch (error) {
      say.textContent = lastLine(error);
    } finally {
      for (const button of box.querySelectorAll("button")) button.disabled = false;
      stop.disabled = true;
    }
  };

  const editor = element("textarea", { className: "cell-editor", spellcheck: false, ariaLabel: `Exercise ${number}: your program` });
  const results = element("ul", { className: "exercise-results" });
  const check = element("button", { type: "button", textContent: "Check" });
  const show = element("button", { type: "button", textContent: "One way to do it" });
  const stop = element("button", { type: "button", textContent: "Stop", disabled: true, onclick: () => python.stop() });
  box.append(editor, check, " ", show, " ", stop, results);
  let solution = "";
  await attempt(async () => {
    const given = await python.call("exercise", { number });
    editor.value = given.handout;
    editor.rows = Math.min(40, given.handout.split("\n").length + 1);
    solution = given.solution;
    say.textContent = given.title;
  });
  check.onclick = () =>
    attempt(async () => {
      results.replaceChildren();
      say.textContent = "checking";
      const outcomes = await python.call("check", { number, code: editor.value });
      for (const { name, failure } of outcomes) {
        results.append(element("li", {}, element("b", { textContent: failure ? "fails" : "ok" }), ` ${name}${failure ? `: ${failure}` : ""}`));
      }
      const left = outcomes.filter(({ failure }) => failure).length;
      say.textContent = left ? `${left} of ${outcomes.length} to go` : "Solved.";
    });
  editor.onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) check.click();
  };
  show.onclick = () => {
    const text = element("code", { textContent: solution });
    show.replaceWith(element("div", { className: "highlight" }, element("pre", {}, text)));
  };
}
