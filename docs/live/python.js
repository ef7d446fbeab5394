// The page's side of worker.js: a Python that is fetched when first asked for, and can be stopped at any time.
export const here = (name) => new URL(name, import.meta.url);

export const canRun = () => "WebAssembly" in self && "Worker" in self && "DecompressionStream" in self && location.protocol !== "file:";

export const NAMES = {
  python: "Python, NumPy and led_ref",
  bundled: "the bundled model",
  book: "what the chapters use",
  plots: "Matplotlib, for the pictures",
};

export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

// What each of these parts weighs: part -> bytes.
export async function weigh(parts) {
  const files = await (await fetch(here("made/files.json"))).json();
  const bytes = (part) => files[part].reduce((sum, file) => sum + file.bytes, 0);
  return Object.fromEntries(parts.map((part) => [part, bytes(part)]));
}

export const inWords = (weights) =>
  Object.entries(weights)
    .map(([part, bytes]) => `${NAMES[part]} (${megabytes(bytes)})`)
    .join(", ");

export class Python {
  #worker;
  #waiting = new Map();
  #number = 0;

  // Fetch parts, if they are not there yet. `tell` gets {loaded, total}, in bytes.
  async load(parts, tell) {
    if (!this.#worker) await this.#start();
    return this.#ask({ do: "load", parts }, { progress: tell });
  }

  // Call a function of reader.py. `tell` gets what it reports on its way.
  call(name, args, tell) {
    return this.#ask({ do: "call", name, arguments: args }, { piece: tell });
  }

  // End whatever runs, and forget all variables. The next load starts anew, from the browser's own copy.
  stop() {
    this.#worker?.terminate();
    this.#worker = undefined;
    for (const { fail } of this.#waiting.values()) fail(new Stopped());
    this.#waiting.clear();
  }

  async #start() {
    await keepForLater();
    this.#worker ??= new Worker(here("worker.js"), { type: "module" });
    this.#worker.onmessage = ({ data }) => {
      const { tell, done, fail } = this.#waiting.get(data.id) ?? {};
      if ("progress" in data) tell?.progress?.(data.progress);
      else if ("piece" in data) tell?.piece?.(data.piece);
      else {
        this.#waiting.delete(data.id);
        if ("error" in data) fail?.(new Error(data.error));
        else done?.(data.result);
      }
    };
    this.#worker.onerror = (event) => {
      for (const { fail } of this.#waiting.values()) fail(new Error(event.message || "Python could not be started in this browser."));
      this.#waiting.clear();
    };
  }

  #ask(message, tell) {
    const id = ++this.#number;
    return new Promise((done, fail) => {
      this.#waiting.set(id, { tell, done, fail });
      this.#worker.postMessage({ id, ...message });
    });
  }
}

export class Stopped extends Error {}

// From now on the browser keeps what is fetched, and shows it without a network: sw.js. Where it cannot, all else works.
async function keepForLater() {
  if (!navigator.serviceWorker) return;
  const patience = new Promise((done) => setTimeout(done, 3000));
  const controlled = new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", done, { once: true }));
  try {
    const { active } = await Promise.race([
      navigator.serviceWorker.register(here("../sw.js")).then(() => navigator.serviceWorker.ready),
      patience.then(() => ({})),
    ]);
    if (!navigator.serviceWorker.controller) await Promise.race([controlled, patience]);
    active?.postMessage({ keep: [location.href.split("#")[0], ...performance.getEntriesByType("resource").map(({ name }) => name)] });
  } catch {
    // A browser that forbids it, in a private window for example.
  }
}

// The last line of Python's message, as led_ref wrote it.
export const lastLine = (error) =>
  error.message
    .trim()
    .split("\n")
    .pop()
    .replace(/^led_ref\.errors\.\w+: /, "");
