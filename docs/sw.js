// Keeps what a reader has seen, and shows it without a network. It is registered when Python is first asked for (live/python.js).
// Files of live/made change their names with their contents, so a copy of one is as good as the file. Everything else is asked
// for anew, and the copy is shown where there is no answer.
const COPIES = "led_ref";
const FOR_EVER = new URL("live/made/", self.registration.scope).href;
const LIST = `${FOR_EVER}files.json`;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method !== "GET" || !url.startsWith(self.registration.scope)) return;
  event.respondWith(url.startsWith(FOR_EVER) && url !== LIST ? fromCopy(event) : fromNetwork(event));
});

// What the page had fetched before this program began its work.
self.addEventListener("message", (event) => {
  const ours = event.data.keep.filter((url) => url.startsWith(self.registration.scope));
  event.waitUntil(Promise.all([...new Set(ours)].map(keep)).then(forgetOld));
});

async function keep(url) {
  const copies = await caches.open(COPIES);
  if (await copies.match(url)) return;
  const answer = await fetch(url).catch(() => undefined);
  if (answer?.ok) await copies.put(url, answer);
}

async function fromCopy(event) {
  const copies = await caches.open(COPIES);
  const copy = await copies.match(event.request.url);
  if (copy) return copy;
  const answer = await fetch(event.request);
  if (answer.ok) event.waitUntil(copies.put(event.request.url, answer.clone()));
  return answer;
}

async function fromNetwork(event) {
  const copies = await caches.open(COPIES);
  const { url } = event.request;
  try {
    const answer = await fetch(event.request);
    if (answer.ok && answer.status !== 206) event.waitUntil(copies.put(url, answer.clone()));
    return answer;
  } catch (error) {
    const copy = await copies.match(url, { ignoreSearch: true });
    if (copy) return copy;
    throw error;
  }
}

// Files of an older site.
async function forgetOld() {
  const copies = await caches.open(COPIES);
  const list = await fetch(LIST).catch(() => undefined);
  if (!list?.ok) return;
  const named = new Set(Object.values(await list.json()).flat().map(({ file }) => FOR_EVER + file));
  for (const { url } of await copies.keys()) {
    if (url.startsWith(FOR_EVER) && url !== LIST && !named.has(url)) await copies.delete(url);
  }
}
