// What all pages share: JSON in the page, links that keep the state, jobs that are waited for.

export const data = (id) => JSON.parse(document.getElementById(id).textContent);
export const client = document.getElementById("client") ? data("client") : { run: 0, off: {} };
export const $ = (selector, within = document) => within.querySelector(selector);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name in made && typeof value !== "string") made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const offInWords = (off) => Object.entries(off).filter(([, units]) => units.length).map(([layer, units]) => `${layer}:${[...units].sort((a, b) => a - b).join(",")}`).join(";");

export function link(page, query = {}) {
  if (client.copy) return copiedPage(page, query);
  const kept = { ...(client.run ? { run: client.run } : {}), ...(offInWords(client.off) ? { off: offInWords(client.off) } : {}), ...query };
  const text = new URLSearchParams(Object.entries(kept).filter(([, value]) => value !== null && value !== undefined && value !== "")).toString();
  return `/${page}${text ? `?${text}` : ""}`;
}

// The file of a page in a copy without a server; see convscope.app.twin.
function copiedPage(page, query) {
  if (page === "images") return `images-${query.true}-${query.predicted}.html`;
  if (page === "lab" && query.image !== undefined) return `images/test-${query.image}.png`;
  return page === "overview" ? "index.html" : `${page}.html`;
}

export const imageAddress = (row, side, split = "test") => client.copy ? `images/${split}-${row}.png` : `/images/${row}.png?run=${client.run}&split=${split}&side=${side}`;

export const unitLink = (layer, unit) => link(`unit/${encodeURIComponent(layer)}/${unit}`);

// The answer of the server as JSON; an error has its words.
export async function ask(address, options = {}) {
  if (client.copy) return copiedAnswer(new URL(address, "http://copy"), options);
  const answer = await fetch(address, { headers: { accept: "application/json" }, ...options }).catch(() => { throw new Error("the server does not answer"); });
  const found = await (answer.headers.get("content-type") === "application/json" ? answer.json() : answer.text());
  if (!answer.ok) throw new Error(found.error ?? (typeof found === "string" && !found.startsWith("<") ? found.trim() : `the server answered ${answer.status}`));
  return found;
}

function copiedAnswer(address, options) {
  if (options.method) throw new Error("this is a copy without a server; use convscope serve");
  const found = data("answers")[address.pathname.split("/").at(-1)], image = address.searchParams.get("image");
  return image === null ? found : found[image];
}

// Work of which the last request counts: it is done once at a time, and of those that come meanwhile the last alone.
export function newestOnly(work) {
  let working = false, next = null;
  return async (...request) => {
    next = request;
    if (working) return;
    working = true;
    while (next) {
      const now = next;
      next = null;
      await work(...now);
    }
    working = false;
  };
}

// The socket of the lab, opened again where it closes: `opened` may ask, `told` is given messages, `framed` frames by header and
// bytes, `lost` what to say meanwhile. Gives what sends a request, where the socket is open.
export function labSocket(opened, told, framed, lost) {
  let socket;
  function connect() {
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/lab/socket`);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", opened);
    socket.addEventListener("close", () => { lost("The server does not answer. It is tried again …"); setTimeout(connect, 1500); });
    socket.addEventListener("message", ({ data: message }) => {
      if (typeof message === "string") { told(JSON.parse(message)); return; }
      const length = new DataView(message).getUint32(0, true);
      framed(JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, length))), new Uint8Array(message, 4 + length));
    });
  }
  connect();
  return (request) => { if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(request)); };
}

// Browsers refuse many changes of the address, Safari more than 100 in 30 s: it is written every 400 ms at most, and before a
// click, which may copy it or leave the page.
let writing = null, newest = null;
export function writeAddress(make) {
  newest = make;
  writing ??= setTimeout(finishAddress, 400);
}

function finishAddress() {
  clearTimeout(writing);
  if (newest && !client.copy) history.replaceState(null, "", newest());
  writing = newest = null;
}
addEventListener("click", finishAddress, true);

// A name in a sentence: one that is read from the right does not turn what stands around it.
export const isolated = (name) => `\u2068${name}\u2069`;

export const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
export const points = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(100 * value).toFixed(1);

// Colours of maps: the same anchors as in the pictures of `convscope look`.
const SEQUENTIAL = [[8, 4, 26], [49, 15, 86], [104, 28, 109], [159, 42, 99], [211, 67, 70], [243, 120, 39], [250, 187, 62], [250, 250, 200]];
const DIVERGING = [[20, 60, 140], [70, 130, 200], [165, 205, 230], [247, 247, 247], [245, 185, 155], [214, 96, 77], [140, 20, 40]];

function table(anchors) {
  const colours = new Uint8ClampedArray(256 * 3);
  for (let k = 0; k < 256; k++) {
    const at = (k / 255) * (anchors.length - 1), first = Math.min(anchors.length - 2, Math.floor(at)), share = at - first;
    for (let c = 0; c < 3; c++) colours[3 * k + c] = anchors[first][c] * (1 - share) + anchors[first + 1][c] * share;
  }
  return colours;
}

const TABLES = { sequential: table(SEQUENTIAL), diverging: table(DIVERGING) };

// Draws bytes as a picture, red, green and blue of each pixel; or as a map in colours, one pixel a value.
export function drawImage(canvas, bytes, height, width, colourOf = (k) => bytes.subarray(3 * k, 3 * k + 3)) {
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let k = 0; k < height * width; k++) {
    image.data.set(colourOf(k), 4 * k);
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

export function drawMap(canvas, bytes, height, width, signed) {
  const colours = TABLES[signed ? "diverging" : "sequential"];
  drawImage(canvas, bytes, height, width, (k) => colours.subarray(3 * bytes[k], 3 * bytes[k] + 3));
}

async function follow(banner) {
  const address = `/api/jobs/${banner.dataset.job}`;
  $(".cancel", banner).addEventListener("click", () => ask(address, { method: "DELETE" }).catch(() => {}));
  for (;;) {
    await new Promise((done) => setTimeout(done, 400));
    const job = await ask(address).catch((error) => ({ state: "failed", error: error.message }));
    if (job.state === "done") return true;
    if (job.state === "failed") {
      banner.classList.add("failed");
      banner.textContent = job.error === "cancelled" ? `Cancelled: ${job.words}. Load the page again to compute it.` : `It failed: ${job.error}`;
      return false;
    }
    $(".seconds", banner).textContent = `${job.share === null ? "" : `${Math.round(100 * job.share)} %, `}${Math.round(job.seconds)} s`;
  }
}

const banners = [...document.querySelectorAll("[data-job]")];
if (banners.length) Promise.all(banners.map(follow)).then((done) => { if (done.some(Boolean)) location.reload(); });

// All but the units stays as it is now, which the server that wrote the link cannot know.
$("#switch-on")?.addEventListener("click", (event) => {
  const address = new URL(location.href);
  address.searchParams.delete("off");
  event.preventDefault();
  location.href = address.href;
});

// On a phone the pages stand in a row that scrolls: the one that is shown has to be in sight.
const here = $(".rail nav [aria-current]");
if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - (here.parentElement.clientWidth - here.offsetWidth) / 2;

// Who goes back finds what the address says, not controls as they were left.
for (const control of document.querySelectorAll("select, input")) control.autocomplete = "off";
addEventListener("pageshow", ({ persisted }) => { if (persisted) location.reload(); });

for (const select of document.querySelectorAll("[data-goes]")) {
  select.addEventListener("change", () => {
    const address = new URL(location.href);
    for (const name of ["off", ...(select.dataset.goes === "run" ? ["layer", "layers", "with"] : [])]) address.searchParams.delete(name);
    address.searchParams.set(select.dataset.goes, select.value);
    location.href = address.pathname.startsWith("/unit/") ? `/units?run=${select.value}` : address.href;
  });
}
