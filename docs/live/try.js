// The page "Try it" (try.md): a text in, a line of the model out, written where the reader sees it.
import { shade } from "./looked.js";
import { Python, Stopped, canRun, here, inWords, lastLine, megabytes, weigh } from "./python.js";

const PARTS = ["python", "bundled"];
const MOST = 64; // ids that the model may write

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

const box = document.getElementById("try");
if (box && canRun()) build(box);

async function build(box) {
  const [examples, weights] = await Promise.all([fetch(here("../built/examples.json")).then((answer) => answer.json()), weigh(PARTS)]);
  const python = new Python();
  let ready = false;
  let again = false; // whether it was here before, and was stopped

  const text = element("textarea", { rows: 12, spellcheck: false, ariaLabel: "The text to read", placeholder: "Type or paste a text, or drop a file here" });
  const chosen = element("div", { className: "try-examples" }, "Examples: ");
  for (const { title, text: example } of examples) {
    chosen.append(element("button", { type: "button", textContent: title, onclick: () => { text.value = example; text.focus(); } }), " ");
  }
  const file = element("input", { type: "file", accept: "text/*,.md", ariaLabel: "Open a text file" });
  const beams = element("select", { ariaLabel: "Beams" }, new Option("one beam, word by word", "1"), new Option("four beams", "4"));
  const write = element("button", { type: "button", className: "md-button md-button--primary", textContent: "Write" });
  const cancel = element("button", { type: "button", className: "md-button", textContent: "Cancel", disabled: true });
  const link = element("button", { type: "button", className: "md-button", textContent: "Link to this text" });
  const explore = element("button", { type: "button", className: "md-button", textContent: "Show attention" });
  const bar = element("progress", { max: 1, value: 0, hidden: true });
  const status = element("p", { className: "try-status", role: "status" });
  const out = element("output", { className: "try-out", ariaLabel: "What the model wrote" });
  const looked = element("div", { className: "try-looked", hidden: true });
  const frame = element("iframe", { className: "explorer", title: "Attention and search of this run", hidden: true });
  status.textContent = `The first time this fetches ${inWords(weights)}.`;
  box.replaceChildren(
    chosen, text, element("div", { className: "try-row" }, file, beams), element("div", { className: "try-row" }, write, cancel, link, explore),
    bar, status, out, looked, frame,
  );

  const readFile = async (given) => { text.value = await given.text(); };
  file.onchange = () => file.files[0] && readFile(file.files[0]);
  text.ondragover = (event) => event.preventDefault();
  text.ondrop = (event) => {
    const [given] = event.dataTransfer.files;
    if (!given) return;
    event.preventDefault();
    readFile(given);
  };
  text.onkeydown = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) write.click(); };

  const carried = () => {
    const found = location.hash.match(/^#text=(.*)$/s);
    if (found) text.value = decodeURIComponent(found[1]);
  };
  carried();
  addEventListener("hashchange", carried);
  link.onclick = async () => {
    history.replaceState(null, "", `#text=${encodeURIComponent(text.value)}`);
    await navigator.clipboard?.writeText(location.href).catch(() => {});
    status.textContent = "The address above has the text in it; it is copied. What is behind its # stays in the browser.";
  };

  const busy = (is) => {
    for (const button of [write, explore]) button.disabled = is;
    cancel.disabled = !is;
    bar.hidden = !is;
    bar.removeAttribute("value");
  };
  const load = async () => {
    if (ready) return;
    status.textContent = again ? "Starting Python again" : `Fetching ${inWords(weights)}`;
    await python.load(PARTS, ({ loaded, total }) => {
      bar.value = loaded / total;
      status.textContent = loaded < total ? `Fetching: ${megabytes(loaded)} of ${megabytes(total)}` : "Starting Python";
    });
    ready = again = true;
    bar.removeAttribute("value");
  };
  const work = async (run) => {
    busy(true);
    status.textContent = "One moment";
    try {
      await load();
      await run();
    } catch (error) {
      status.textContent = error instanceof Stopped ? "Cancelled." : lastLine(error);
    } finally {
      busy(false);
    }
  };
  const told = ({ tokens, stage, done, of, text: written }) => {
    if (tokens) status.textContent = `Reading ${tokens} tokens`;
    if (stage) {
      bar.value = done / of;
      status.textContent = stage === "read" ? `Reading: layer ${done} of ${of}` : `Writing: token ${done} of at most ${of}`;
    }
    if (written !== undefined) out.textContent = written;
  };

  write.onclick = () =>
    work(async () => {
      out.textContent = "";
      looked.hidden = true;
      delete out.dataset.ids;
      const found = await python.call("write", { text: text.value, beams: Number(beams.value), most: MOST }, told);
      shade(found, out, looked);
      out.dataset.ids = found.ids.join(" ");
      status.textContent = `${found.tokens} tokens read, ${found.ids.length} ids written in ${found.seconds.toFixed(1)} s.`;
    });
  explore.onclick = () =>
    work(async () => {
      status.textContent = "Reading, and recording what it looks at";
      const page = await python.call("explore", { text: text.value }, told);
      const address = URL.createObjectURL(new Blob([page], { type: "text/html" }));
      frame.hidden = false;
      frame.src = address;
      const alone = element("a", { href: address, target: "_blank", textContent: "Open it on a page of its own" });
      status.replaceChildren("Below: who looks at whom in your text, and the search. It was computed here. ", alone, ".");
    });
  cancel.onclick = () => {
    ready = false;
    python.stop();
  };
}
