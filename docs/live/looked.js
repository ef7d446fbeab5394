// Where the model looked ("Try it"): the written words can be pointed at, and the text as it was read is shaded, token by token.
//
// `found` is what reader.py's `write` returns. The shares are those of cross-attention in the last layer, the mean of its heads.
const HINT = "Point at a written word, touch it, or go along with ← and →: below, the text is shaded where the model looked when it wrote it.";

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const named = (token) => (token.trim() ? `“${token.trim()}”` : token.includes("\n") ? "a line’s end" : "a blank");

export function shade({ text, looked: { tokens, words } }, out, box) {
  const read = tokens.map((token) => element("span", { textContent: token }));
  const pane = element("div", { className: "try-read", tabIndex: 0, role: "region", ariaLabel: "The text as it was read" }, ...read);
  const said = element("p", { className: "try-said", role: "status", textContent: HINT });
  const buttons = words.map(({ word }) => element("button", { type: "button", textContent: word, tabIndex: -1, ariaPressed: "false" }));
  out.replaceChildren(...words.flatMap(({ before }, n) => [before, buttons[n]]));
  out.append(text.slice(out.textContent.length)); // blanks at the end
  box.replaceChildren(said, pane);
  box.hidden = !words.length;
  if (!words.length) return;

  let shaded = [];
  const look = (n) => {
    for (const [at] of shaded) {
      read[at].style.removeProperty("--share");
      read[at].removeAttribute("title");
    }
    buttons.forEach((button, m) => Object.assign(button, { ariaPressed: String(m === n), tabIndex: m === n ? 0 : -1 }));
    const { word, tokens: parts, looked } = words[n];
    shaded = looked;
    for (const [at, share] of shaded) {
      read[at].style.setProperty("--share", Math.sqrt(share / looked[0][1]).toFixed(3));
      read[at].title = percent(share);
    }
    const spelled = parts.length > 1 ? ` (${parts.length} tokens: ${parts.join(" · ")})` : "";
    said.textContent = `“${word}”${spelled} looked most at ${looked.slice(0, 4).map(([at, share]) => `${named(tokens[at])} ${percent(share)}`).join(", ")}.`;
    // The pane is moved, not the page. The first token is <s>, which is no place in the text.
    const [at] = looked.find(([place]) => place > 0) ?? looked[0];
    pane.scrollTop += read[at].getBoundingClientRect().top - pane.getBoundingClientRect().top - pane.clientHeight / 3;
  };
  const keys = { ArrowLeft: (n) => n - 1, ArrowRight: (n) => n + 1, Home: () => 0, End: () => words.length - 1 };
  buttons.forEach((button, n) => {
    button.onpointerenter = ({ pointerType }) => pointerType === "mouse" && look(n);
    button.onclick = button.onfocus = () => look(n);
    button.onkeydown = (event) => {
      const next = buttons[keys[event.key]?.(n)];
      if (!next) return;
      event.preventDefault();
      next.focus();
    };
  });
  buttons[0].tabIndex = 0;
}
