// Python in a thread of its own, so that the page never waits: Pyodide with NumPy and led_ref, all of it files of this site.
//
//   in   { id, do: "load", parts: ["python", "bundled"] }       fetch, and start
//        { id, do: "call", name, arguments: {...} }             a function of reader.py, with keyword arguments
//   out  { id, progress: { loaded, total } }   bytes, while parts are fetched
//        { id, piece: {...} }                  what the function reports while it runs
//        { id, result } or { id, error }       its end
const MADE = new URL("made/", import.meta.url);
const IN_PYTHON = "/led_ref"; // the repository's files lie here as they lie in the repository

const kept = new Map(); // name of a file -> its bytes, until Pyodide asks for it
const began = new Map(); // part -> promise of its being there
let files; // files.json
let python; // promise of Pyodide

// Python compiles each module when it is imported, which is two fifths of a start. So what it compiled is kept by this browser
// (one archive with the standard library, one with NumPy's and led_ref's modules), under the names of the files it was made
// from: if one of them changes, Python compiles anew. A browser that keeps nothing does that each time.
const COMPILED = "led_ref-compiled";
const ARCHIVES = ["stdlib", "modules"];
let compiled = 0; // how many modules are in these archives
let keeping; // the timer of the next look whether there are more

// Pyodide fetches its own files by itself. It gets those that are here already, and the program unpacked.
const fetchFromSite = self.fetch.bind(self);
self.fetch = async (what, ...rest) => {
  const name = new URL(what.url ?? what, self.location).pathname.split("/").pop();
  if (name === "pyodide.asm.wasm") {
    const packed = new Blob([take(`${name}.gzipped`)]).stream();
    return new Response(packed.pipeThrough(new DecompressionStream("gzip")), { headers: { "Content-Type": "application/wasm" } });
  }
  return kept.has(name) ? new Response(take(name)) : fetchFromSite(what, ...rest);
};

const take = (name) => {
  const bytes = kept.get(name);
  kept.delete(name);
  return bytes;
};

self.addEventListener("message", async ({ data }) => {
  const { id } = data;
  try {
    if (data.do === "load") {
      await load(data.parts, (progress) => self.postMessage({ id, progress }));
      self.postMessage({ id, result: null });
      return;
    }
    const reader = (await python).pyimport("reader");
    const report = (piece) => self.postMessage({ id, piece: JSON.parse(piece) });
    const result = reader[data.name].callKwargs(report, data.arguments);
    self.postMessage({ id, result: JSON.parse(result) });
    clearTimeout(keeping);
    keeping = setTimeout(keepCompiled, 2000); // when nothing has been asked for a while
  } catch (error) {
    self.postMessage({ id, error: String(error.message ?? error) });
  }
});

async function load(parts, tell) {
  files ??= await (await fetchFromSite(new URL("files.json", MADE))).json();
  const missing = parts.filter((part) => !began.has(part));
  const total = missing.flatMap((part) => files[part]).reduce((sum, file) => sum + file.bytes, 0);
  let loaded = 0;
  for (const part of missing) {
    const bringing = bring(files[part], (bytes) => tell({ loaded: (loaded += bytes), total }));
    began.set(part, install(part, bringing));
  }
  await Promise.all(parts.map((part) => began.get(part)));
}

// Fetch files, and say after each piece how many bytes came.
const bring = (list, tell) =>
  Promise.all(
    list.map(async ({ file, bytes }) => {
      if (file.endsWith(".mjs")) return; // the browser fetches programs itself, and keeps them compiled
      const answer = await fetchFromSite(new URL(file, MADE));
      if (!answer.ok) throw new Error(`${file} could not be fetched (${answer.status}). Try again later.`);
      const whole = new Uint8Array(bytes);
      let at = 0;
      for (const reader = answer.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        if (at + value.length > bytes) throw new Error(`${file} is larger than ${bytes} bytes. Load this page again.`);
        whole.set(value, at);
        at += value.length;
        tell(value.length);
      }
      if (at < bytes) throw new Error(`${file} came with ${at} of ${bytes} bytes. Load this page again.`);
      kept.set(file.split("/").pop(), whole);
    }),
  );

async function install(part, bringing) {
  await bringing;
  if (part === "python") return (python = start());
  await began.get("python"); // a small part may be here before Python is
  const pyodide = await python;
  if (part === "plots") return pyodide.loadPackage(files.plots.map(({ file }) => packageOf(file)), { messageCallback() {} });
  unpack(pyodide, part);
}

async function start() {
  const folder = new URL(files.python.find(({ file }) => file.endsWith("/pyodide.mjs")).file.replace(/[^/]*$/, ""), MADE).href;
  const [stdlib, modules] = await compiledBefore();
  if (stdlib && modules) kept.set("python_stdlib.zip", stdlib);
  const { loadPyodide } = await import(`${folder}pyodide.mjs`);
  const pyodide = await loadPyodide({ indexURL: folder });
  await pyodide.loadPackage("numpy", { messageCallback() {} });
  unpack(pyodide, "led_ref");
  if (stdlib && modules) pyodide.unpackArchive(modules, "zip", { extractDir: "/" });
  const source = await (await fetchFromSite(new URL("reader.py", import.meta.url))).text();
  pyodide.FS.writeFile(`${IN_PYTHON}/reader.py`, source);
  const paths = ["", "/backends", "/docs"].map((folder) => IN_PYTHON + folder);
  pyodide.runPython(`import sys; sys.dont_write_bytecode = False; sys.path[:0] = ${JSON.stringify(paths)}`);
  await multiplyFaster(pyodide);
  pyodide.pyimport("reader");
  return pyodide;
}

// NumPy has no BLAS here: led_ref's products are computed by a kernel of its own, in NumPy's memory (docs/build_products.py).
async function multiplyFaster(pyodide) {
  const bytes = take([...kept.keys()].find((name) => /^products-.*\.wasm$/.test(name)));
  try {
    const { instance } = await WebAssembly.instantiate(bytes, { env: { memory: pyodide._module.memory } });
    pyodide.pyimport("led_backends.numpy_products").KERNEL = instance.exports.products;
  } catch (error) {
    console.info("led_ref multiplies by NumPy alone, which is slower.", error); // a browser without SIMD
  }
}

const compiledAs = (archive) => new URL(`compiled/${archive}?of=${files.python.map(({ file }) => file)}`, MADE);

async function compiledBefore() {
  try {
    const cache = await caches.open(COMPILED);
    const found = await Promise.all(ARCHIVES.map((archive) => cache.match(compiledAs(archive))));
    compiled = Number(found[0]?.headers.get("X-Modules") ?? 0);
    return await Promise.all(found.map(async (answer) => answer && new Uint8Array(await answer.arrayBuffer())));
  } catch {
    return []; // a browser that forbids it
  }
}

async function keepCompiled() {
  try {
    const { FS, pyimport } = await python;
    const reader = pyimport("reader");
    const count = reader.count_compiled();
    if (count < compiled + 20) return; // for a few it is not worth a second
    reader.write_compiled(...ARCHIVES.map((archive) => `/${archive}.zip`));
    const cache = await caches.open(COMPILED);
    const wanted = ARCHIVES.map((archive) => compiledAs(archive).href);
    for (const { url } of await cache.keys()) if (!wanted.includes(url)) await cache.delete(url);
    for (const [i, archive] of ARCHIVES.entries())
      await cache.put(wanted[i], new Response(FS.readFile(`/${archive}.zip`), { headers: { "X-Modules": String(count) } }));
    compiled = count;
  } catch {
    compiled = Infinity; // no room, or forbidden: not again
  }
}

const unpack = (pyodide, part) => {
  const name = [...kept.keys()].find((key) => key.startsWith(`${part}-`) && key.endsWith(".zip"));
  pyodide.unpackArchive(take(name), "zip", { extractDir: IN_PYTHON });
  pyodide.runPython("import importlib; importlib.invalidate_caches()"); // a folder that was missing is looked into again
};

const packageOf = (file) => file.split("/").pop().split("-")[0].replaceAll("_", "-");
