// A picture that has to be pushed sideways says so (site.css).
document$.subscribe(() => {
  const widths = new ResizeObserver((changes) => {
    for (const { target } of changes) target.classList.toggle("scrolls", target.scrollWidth > target.clientWidth + 1);
  });
  for (const picture of document.querySelectorAll(".picture")) widths.observe(picture);
});

// A frame is as high as what it shows. Its own load event does not bubble; it can be caught on its way down. So this holds for frames that come later, too.
document.addEventListener(
  "load",
  ({ target: frame }) => {
    const inside = frame.matches?.("iframe.explorer") && frame.contentDocument?.documentElement; // none of a page from a file
    if (!inside) return;
    new ResizeObserver(() => {
      frame.style.height = `${inside.offsetHeight + frame.offsetHeight - frame.clientHeight}px`;
    }).observe(inside);
  },
  true,
);

// Drawings that are built up in steps (docs/book_steps.py): a slider, and a button that plays them once.
const MOVES = !matchMedia("(prefers-reduced-motion: reduce)").matches;
const stepper = (svg) => {
  const count = Number(svg.dataset.steps);
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 1, max: count, value: count, ariaLabel: "step" });
  const button = Object.assign(document.createElement("button"), { type: "button" });
  const bar = document.createElement("div");
  let timer;
  const show = (step) => {
    slider.value = step;
    for (const part of svg.querySelectorAll(".step")) {
      part.setAttribute("visibility", part.dataset.from <= step && step <= part.dataset.to ? "visible" : "hidden");
    }
  };
  const stop = () => {
    timer = clearInterval(timer);
    button.textContent = "Play";
  };
  const play = () => {
    show(1);
    button.textContent = "Stop";
    timer = setInterval(() => (slider.valueAsNumber < count ? show(slider.valueAsNumber + 1) : stop()), Math.min(1200, 9000 / count));
  };
  let seen; // plays it when it comes into sight, unless the reader was there first
  slider.oninput = () => (seen?.disconnect(), stop(), show(slider.valueAsNumber));
  button.onclick = () => (seen?.disconnect(), timer ? stop() : play());
  bar.className = "steps-bar";
  bar.append(button, slider);
  svg.after(bar);
  svg.classList.add("has-steps");
  stop();
  if (!MOVES) return;
  seen = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && (seen.disconnect(), play()), { threshold: 0.9 });
  seen.observe(svg);
};
document$.subscribe(() => {
  const attach = () => document.querySelectorAll("svg[data-steps]:not(.has-steps)").forEach(stepper);
  attach();
  new MutationObserver(attach).observe(document.querySelector("article"), { childList: true, subtree: true }); // cells that run
});

// A drawing (docs/assets/*.svg) is a document of its own, so that its links work: its letters take the page's colour.
const ink = () => {
  for (const drawing of document.querySelectorAll(".drawing object")) {
    const { color, colorScheme } = getComputedStyle(drawing);
    Object.assign(drawing.contentDocument?.documentElement.style ?? {}, { color, colorScheme });
  }
};
document.addEventListener("load", ({ target }) => target.matches?.(".drawing object") && ink(), true);
document$.subscribe(() => {
  ink();
  new MutationObserver(ink).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
});

// Cells that can be run: between two marks that docs/notebook.md.j2 leaves lie a cell's code, and what it gave when the page was
// built. Everything else is fetched when the first button is pressed.
const LIVE = new URL("../live/cells.js", document.currentScript.src);

document$.subscribe(() => {
  const cells = [...document.querySelectorAll("article .cell")].map((mark) => {
    const between = [];
    for (let next = mark.nextElementSibling; next && !next.matches(".cell-end"); next = next.nextElementSibling) between.push(next);
    const bar = mark.appendChild(document.createElement("div"));
    bar.className = "cell-bar";
    for (const [what, words] of [["run", "Run"], ["edit", "Edit"], ["reset", "Reset"], ["stop", "Stop"]]) {
      const button = bar.appendChild(document.createElement("button"));
      Object.assign(button, { type: "button", textContent: words, hidden: what === "reset" || what === "stop" });
      button.dataset.do = what;
    }
    bar.appendChild(document.createElement("span")).className = "cell-status";
    bar.lastChild.role = "status";
    const [code, ...shown] = between;
    return { bar, block: code.matches("details") ? code.querySelector(".highlight") : code, shown };
  });
  for (const { bar } of cells) {
    for (const button of bar.querySelectorAll("[data-do=run], [data-do=edit]")) {
      // The first press hands all buttons over, and counts as one.
      button.onclick = async () => {
        const { open } = await import(LIVE);
        open(cells);
        button.click();
      };
    }
  }
});

// `led-ref exercise N` in a list of exercises can be done on the page.
const EXERCISES = new URL("../live/exercises.js", document.currentScript.src);

document$.subscribe(() => {
  for (const code of document.querySelectorAll("article li code")) {
    const [, number] = code.textContent.match(/^led-ref exercise (\d+)$/) ?? [];
    if (!number) continue;
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: "Do it here", className: "exercise-button" });
    button.onclick = async () => {
      button.remove();
      (await import(EXERCISES)).open(code.closest("li"), Number(number));
    };
    code.after(" ", button);
  }
});
