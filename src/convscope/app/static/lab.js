// The image lab: an image that is edited, and what the network answers at once. Its state is its address.
import { $, ask, client, data, drawImage, drawMap, element, isolated, labSocket, link, newestOnly, offInWords, percent, points, unitLink, writeAddress } from "./common.js";

const lab = data("lab-data");
const [, HEIGHT, WIDTH] = lab.shape;
const SIDE = Math.max(HEIGHT, WIDTH);
const MOST_VERSIONS = 14;

// ---- the state ----

const address = new URLSearchParams(location.search);
const parsed = (text, other) => { try { return JSON.parse(text); } catch { return other; } };
const state = {
  image: /^u[0-9a-f]{16}$/.test(lab.start.image) ? lab.start.image : Math.min(lab.images - 1, Math.max(0, parseInt(lab.start.image, 10) || 0)),
  edits: [parsed(lab.start.edits, [lab.start.edits])].flat(),
  lens: lab.start.lens,
  show: lab.start.show === "value" ? "value" : "change",
  layers: lab.layers.map((layer) => layer.name).filter((layer) => lab.start.layers.split(",").includes(layer)),
};
if (!state.layers.length) state.layers = lab.layers.filter((layer) => layer.shown).map((layer) => layer.name);
const history = { states: [state.edits], at: 0, pictures: [] };
let seq = 0, answered = 0, startOfRequest = 0, probabilities = null, before = null, pixels = null, original = null, cone = null, box = null;

const query = () => ({
  image: state.image, edits: state.edits.length ? JSON.stringify(state.edits) : null, lens: state.lens === lab.lenses[0] ? null : state.lens || "none",
  show: state.show === "change" ? null : state.show,
  layers: state.layers.join() === lab.layers.filter((layer) => layer.shown).map((layer) => layer.name).join() ? null : state.layers.join(),
});

// ---- the socket ----

let waiting = false;

function changed() {
  box = null;
  writeAddress(() => link("lab", query()));
  showState();
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; send(); });
}

function send() {
  seq += 1;
  document.body.dataset.asked = seq;
  startOfRequest = performance.now();
  tell({ seq, run: client.run, image: state.image, edits: state.edits, layers: state.layers, show: isEdited() ? state.show : "value", off: client.off, lens: state.lens && state.lens !== "none" ? state.lens : null });
}

function receive(message) {
  if (message.error && !message.done) { $("#about-image").textContent = `${known()}.`; $("#verdict").textContent = message.error; return; }
  if (message.seq !== seq) return;
  if (message.done) {
    if (message.error) $("#attribution-caption").textContent = message.error;
    answered = seq;
    document.body.dataset.answered = seq;
    document.body.dataset.latency = (performance.now() - startOfRequest).toFixed(1);
    keepPicture();
    return;
  }
  ({ probabilities, before } = message);
  showAnswer();
}

function receiveFrame(header, bytes) {
  if (header.seq !== seq) return;
  if (header.layer === "input") { pixels = bytes; drawPicture(); if (!state.edits.length) original = bytes; }
  else if (header.layer === "attribution") drawAttribution(header, bytes);
  else drawLayer(header, bytes);
}

const isEdited = () => state.edits.length > 0 || offInWords(client.off) !== "";

// ---- the picture ----

const canvas = $("#picture"), context = canvas.getContext("2d"), small = document.createElement("canvas");
const SCALE = Math.max(1, Math.ceil(384 / SIDE));
small.width = WIDTH; small.height = HEIGHT;
canvas.width = WIDTH * SCALE; canvas.height = HEIGHT * SCALE;
$("#lab").style.setProperty("--aspect", String(WIDTH / HEIGHT));

function drawPicture() {
  if (!pixels) return;
  drawImage(small, pixels, HEIGHT, WIDTH);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  for (const [rectangle, colour] of [[preview, "#e63c28"], [box, "#e63c28"], [cone && [cone.x, cone.y, 1, 1], "#ffd23c"], [pasting.source && tool() === "paste" ? pasting.source : null, "#3c8ce6"]]) {
    if (!rectangle) continue;
    context.strokeStyle = colour; context.lineWidth = Math.max(2, SCALE / 4);
    context.strokeRect(rectangle[0] * SCALE, rectangle[1] * SCALE, rectangle[2] * SCALE, rectangle[3] * SCALE);
  }
  if (cursor && document.activeElement === canvas) {
    context.strokeStyle = "#fff"; context.lineWidth = 3; crosshair();
    context.strokeStyle = "#000"; context.lineWidth = 1; crosshair();
  }
}

function crosshair() {
  const x = (cursor[0] + 0.5) * SCALE, y = (cursor[1] + 0.5) * SCALE, r = Math.max(6, SCALE);
  context.beginPath(); context.moveTo(x - r, y); context.lineTo(x + r, y); context.moveTo(x, y - r); context.lineTo(x, y + r); context.stroke();
}

// ---- tools ----

const tool = () => $("input[name=tool]:checked").value;
const radius = () => Number($("#radius").value);
const fill = () => ($("#fill").value === "colour" ? $("#colour").value : $("#fill").value);
const pasting = { source: null };
let drawing = null, preview = null, cursor = null;

function place(event) {
  const bounds = canvas.getBoundingClientRect();
  const within = (value, most) => Math.round(Math.min(most - 0.25, Math.max(0, value)) * 4) / 4;
  return [within(((event.clientX - bounds.left) / bounds.width) * WIDTH, WIDTH), within(((event.clientY - bounds.top) / bounds.height) * HEIGHT, HEIGHT)];
}

const square = ([x0, y0], [x1, y1]) => {
  const [left, top] = [Math.floor(Math.min(x0, x1)), Math.floor(Math.min(y0, y1))];
  return [left, top, Math.floor(Math.max(x0, x1)) - left + 1, Math.floor(Math.max(y0, y1)) - top + 1];
};

canvas.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  canvas.focus();
  canvas.setPointerCapture(event.pointerId);
  const at = place(event);
  cursor = null;
  if (tool() === "cone") { showCone(at); drawing = "cone"; return; }
  drawing = { start: at, points: [at], base: state.edits };
  draw(at);
});
canvas.addEventListener("pointermove", (event) => {
  if (!drawing) return;
  const at = place(event);
  if (drawing === "cone") showCone(at); else draw(at);
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => {
  if (drawing && drawing !== "cone") finish();
  drawing = null;
});

function draw(at) {
  if (tool() === "paint") {
    const last = drawing.points.at(-1);
    if (last[0] !== at[0] || last[1] !== at[1]) drawing.points.push(at);
    if (drawing.points.length > 1900) { drawing.base = state.edits; drawing.points = [at]; }
    setEdits([...drawing.base, ["paint", [...drawing.points], radius(), fill()]]);
  } else if (tool() === "rectangle") {
    preview = square(drawing.start, at);
    setEdits([...drawing.base, ["rectangle", preview, fill()]]);
  } else {
    const side = Math.max(2, Math.round(2 * radius()));
    pasting.source ??= [Math.floor((WIDTH - side) / 2), Math.floor((HEIGHT - side) / 2), side, side];
    pasting.source = [Math.min(pasting.source[0], Math.max(0, WIDTH - side)), Math.min(pasting.source[1], Math.max(0, HEIGHT - side)), Math.min(side, WIDTH), Math.min(side, HEIGHT)];
    setEdits([...drawing.base, ["paste", Number($("#paste-from").value) || 0, pasting.source, [Math.round(at[0] - side / 2), Math.round(at[1] - side / 2)]]]);
  }
}

function finish() { preview = null; commit(); }

canvas.addEventListener("keydown", (event) => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (move) {
    cursor = cursor ? [Math.min(WIDTH - 1, Math.max(0, cursor[0] + move[0])), Math.min(HEIGHT - 1, Math.max(0, cursor[1] + move[1]))] : [WIDTH >> 1, HEIGHT >> 1];
    if (tool() === "cone") showCone(cursor);
    $("#status").textContent = `column ${cursor[0]}, row ${cursor[1]}`;
  } else if (event.key === "Enter" && cursor && tool() !== "cone") {
    const centre = [cursor[0] + 0.5, cursor[1] + 0.5];
    drawing = { start: centre, points: [centre], base: state.edits };
    draw(centre); finish(); drawing = null;
  } else return;
  event.preventDefault();
  drawPicture();
});
canvas.addEventListener("blur", () => { cursor = null; drawPicture(); });

function setEdits(edits) { state.edits = edits; changed(); }

// ---- undo, and the strip of versions ----

function commit() {
  if (JSON.stringify(state.edits) === JSON.stringify(history.states[history.at])) return;
  history.states = [...history.states.slice(0, history.at + 1), state.edits].slice(-MOST_VERSIONS);
  history.pictures = history.pictures.slice(0, history.states.length);
  if (history.pictures.length === MOST_VERSIONS) history.pictures = history.pictures.slice(1);
  history.at = history.states.length - 1;
  if (answered === seq) keepPicture(); else showVersions();
}

function keepPicture() {
  if (!pixels || JSON.stringify(state.edits) !== JSON.stringify(history.states[history.at])) return;
  history.pictures[history.at] = pixels;
  showVersions();
}

function showVersions() {
  $("#versions").replaceChildren(...history.states.map((edits, k) => {
    const picture = element("canvas", { width: WIDTH, height: HEIGHT });
    if (history.pictures[k]) drawImage(picture, history.pictures[k], HEIGHT, WIDTH);
    const button = element("button", { type: "button", "aria-label": `version ${k}: ${edits.length} edits`, "aria-current": k === history.at ? "true" : null }, picture);
    button.addEventListener("click", () => goTo(k));
    return button;
  }));
  $("#undo").disabled = history.at === 0;
  $("#redo").disabled = history.at === history.states.length - 1;
}

function goTo(k) {
  if (k < 0 || k >= history.states.length) return;
  history.at = k;
  setEdits(history.states[k]);
  showVersions();
}

$("#undo").addEventListener("click", () => goTo(history.at - 1));
$("#redo").addEventListener("click", () => goTo(history.at + 1));
$("#reset").addEventListener("click", () => { setEdits([]); commit(); });
$("#copy-link").addEventListener("click", async () => {
  const address = new URL(link("lab", query()), location.href).href;
  const copied = await navigator.clipboard?.writeText(address).then(() => true, () => false);
  $("#status").textContent = copied ? "The link is copied." : "The browser does not let this page copy; the link is its address.";
});

// ---- sliders: each is one edit of its kind in the list ----

const HALF = SIDE >> 1;  // whole, or the slider would not stop at 0
const SLIDERS = [
  ["shift right", "shift", -HALF, HALF, 1, 0, (v, edit) => ["shift", v, edit ? edit[2] : 0], (edit) => edit[1]],
  ["shift down", "shift", -HALF, HALF, 1, 0, (v, edit) => ["shift", edit ? edit[1] : 0, v], (edit) => edit[2]],
  ["rotate", "rotate", -180, 180, 1, 0, (v) => ["rotate", v], (edit) => edit[1], "°"],
  ["scale", "scale", 0.4, 2.5, 0.05, 1, (v) => ["scale", v], (edit) => edit[1], "×"],
  ["brightness", "brightness", 0, 2.5, 0.05, 1, (v) => ["brightness", v], (edit) => edit[1], "×"],
  ["contrast", "contrast", 0, 2.5, 0.05, 1, (v) => ["contrast", v], (edit) => edit[1], "×"],
  ["saturation", "saturation", 0, 2.5, 0.05, 1, (v) => ["saturation", v], (edit) => edit[1], "×"],
  ["blur", "blur", 0, Math.max(3, SIDE / 12), 0.1, 0, (v) => ["blur", v], (edit) => edit[1], "px"],
  ["noise", "noise", 0, 0.5, 0.01, 0, (v) => ["noise", v, 0], (edit) => edit[1]],
  ["JPEG quality", "jpeg", 1, 100, 1, 100, (v) => ["jpeg", v], (edit) => edit[1]],
].filter(([, kind]) => (kind !== "saturation" || lab.shape[0] === 3) && (kind !== "jpeg" || [1, 3].includes(lab.shape[0])));
const changesNothing = (edit) => SLIDERS.filter(([, kind]) => kind === edit[0]).every(([, , , , , neutral, , read]) => read(edit) === neutral);
const inputs = SLIDERS.map(([words, kind, min, max, step, neutral, make, , unit = ""]) => {
  const input = element("input", { type: "range", min: String(min), max: String(max), step: String(step), value: String(neutral) }), output = element("output");
  input.addEventListener("input", () => {
    const at = state.edits.findIndex((edit) => edit?.[0] === kind), edit = make(Number(input.value), state.edits[at]), list = [...state.edits];
    if (at < 0) list.push(edit); else list[at] = edit;
    setEdits(list.filter((one) => one?.[0] !== kind || !changesNothing(one)));
  });
  input.addEventListener("change", commit);
  $("#sliders").append(element("label", {}, words, input, output));
  return { input, output, unit };
});

function showState() {
  SLIDERS.forEach(([, kind, , , , neutral, , read], k) => {
    const edit = state.edits.find((one) => one?.[0] === kind), value = edit ? read(edit) : neutral;
    inputs[k].input.value = String(value);
    inputs[k].output.textContent = `${+Number(value).toFixed(2)}${inputs[k].unit}`;
  });
  $("#image").value = typeof state.image === "number" ? state.image : "";
  $("#edit-words").textContent = state.edits.length ? `${state.edits.length} edit${state.edits.length === 1 ? "" : "s"}: ${state.edits.map((edit) => edit?.[0]).join(", ")}.` : "No edits. Draw on the image, or move a slider.";
  $("#layers-caption").textContent = !isEdited() ? "For each layer the units that answer most." : state.show === "change" ? "For each layer the units that changed most, less the original: red more, blue less." : "For each layer the units that changed most.";
  $("#thousand").disabled = !state.edits.length;
}

// ---- the answer ----

const trueClass = () => (typeof state.image === "number" && lab.testClasses.length === probabilities?.length ? lab.targets[state.image] : null);
const name = (k) => lab.classes[k] ?? `class ${k}`;
const known = () => typeof state.image === "number" ? `Test image ${state.image}, ${lab.testClasses[lab.targets[state.image]] ?? ""}` : "Your image";

// The class of a head's largest value, among the classes of all heads.
function answerOf([first, end], values) {
  const own = values.slice(first, end);
  return first + own.indexOf(Math.max(...own));
}

function showAnswer() {
  const order = probabilities.map((value, k) => [Math.max(value, before[k]), k]).sort((a, b) => b[0] - a[0]).slice(0, 8).map(([, k]) => k).sort((a, b) => before[b] - before[a]);
  const actual = trueClass();
  $("#bars").replaceChildren(...order.map((k) => {
    const row = element("div", { class: "bars-row", "data-class": k });
    row.append(
      element("span", { class: k === actual ? "true" : null, title: name(k) }, name(k)),
      element("div", { class: "pair-of-bars" }, bar("before", before[k]), bar("after", probabilities[k])),
      element("output", {}, percent(probabilities[k])),
    );
    return row;
  }));
  const answers = lab.heads.map((head) => [answerOf(head, before), answerOf(head, probabilities)]);
  const predicted = answers.map(([was]) => `${isolated(name(was))} (${percent(before[was])})`).join(", ");
  $("#about-image").textContent = `${known()}: predicted ${predicted}${actual === null ? "" : actual === answers[0][0] ? ", which is right." : ", which is wrong."}`;
  $("#verdict").textContent = !isEdited() ? "Edit the image to see the answer change." : answers.map(([was, is]) => was === is
    ? `Still ${isolated(name(is))}: ${percent(before[was])} → ${percent(probabilities[was])} (${points(probabilities[was] - before[was])} points).`
    : `Now ${isolated(name(is))} (${percent(probabilities[is])}); ${isolated(name(was))} fell from ${percent(before[was])} to ${percent(probabilities[was])}.`).join(" ");
}

function bar(kind, value) {
  const made = element("i", { class: kind });
  made.style.width = `${100 * value}%`;
  return made;
}

// ---- layers ----

const layers = new Map();

function prepareLayers() {
  layers.clear();
  $("#layers").replaceChildren(...lab.layers.filter((layer) => state.layers.includes(layer.name)).map((layer) => {
    const much = element("i"), words = element("small"), place = element("div", { class: "units" });
    const [n, height, width] = layer.shape;
    place.style.setProperty("--aspect", String(width / height));
    layers.set(layer.name, { layer, much, words, place, cells: [] });
    return element("div", { class: "layer", "data-layer": layer.name }, element("header", {}, element("b", {}, layer.name), element("small", {}, `${layer.kind}, ${n} of ${height}×${width}`), element("span", { class: "much" }, much), words), place);
  }));
}

function drawLayer(header, bytes) {
  const found = layers.get(header.layer);
  if (!found) return;
  const [n, height, width] = header.shape;
  const change = header.change.reduce((a, b) => a + b, 0) / header.change.length;
  found.much.style.width = `${Math.min(100, 100 * change)}%`;
  found.words.textContent = change ? `mean change ${percent(change, change < 0.1 ? 1 : 0)} of the mean activation` : "";
  while (found.cells.length > n) { found.cells.pop().remove(); }
  while (found.cells.length < n) {
    const cell = element("a", {}, element("canvas"), element("span"));
    found.cells.push(cell);
    found.place.append(cell);
  }
  header.units.forEach((unit, k) => {
    const cell = found.cells[k];
    drawMap(cell.firstChild, bytes.subarray(k * height * width, (k + 1) * height * width), height, width, header.scale[0] < 0);
    cell.lastChild.textContent = String(unit);
    cell.href = unitLink(found.layer.units_of, unit);
    cell.setAttribute("aria-label", `unit ${unit} of ${found.layer.units_of}`);
  });
  showConeOn(found);
}

for (const layer of lab.layers) {
  const input = element("input", { type: "checkbox", checked: state.layers.includes(layer.name) });
  input.addEventListener("change", () => {
    const wanted = new Set(state.layers);
    if (input.checked) wanted.add(layer.name); else wanted.delete(layer.name);
    state.layers = lab.layers.filter((each) => wanted.has(each.name)).map((each) => each.name);
    prepareLayers();
    changed();
  });
  $("#choose-layers").append(element("label", {}, input, ` ${layer.name}`));
}

// Where a pixel goes: on each map the positions whose receptive field holds it.
function showCone([x, y]) {
  cone = { x: Math.floor(x), y: Math.floor(y) };
  drawPicture();
  layers.forEach(showConeOn);
}

function showConeOn({ layer, cells }) {
  const field = lab.fields[layer.name];
  const reached = (spans, at) => spans.flatMap(([low, high], k) => (low <= at && at < high ? [k] : []));
  const rows = cone ? reached(field.rows, cone.y) : [], columns = cone ? reached(field.columns, cone.x) : [];
  for (const cell of cells) {
    cell.querySelector("i")?.remove();
    if (!rows.length || !columns.length) continue;
    const mark = element("i"), share = cell.firstChild.clientHeight;
    const [h, w] = [field.rows.length, field.columns.length];
    mark.style.left = `${(100 * columns[0]) / w}%`; mark.style.width = `${(100 * (columns.at(-1) - columns[0] + 1)) / w}%`;
    mark.style.top = `${(share * rows[0]) / h}px`; mark.style.height = `${(share * (rows.at(-1) - rows[0] + 1)) / h}px`;
    cell.append(mark);
  }
}

// ---- attribution ----

function drawAttribution(header, bytes) {
  const [, height, width] = header.shape, size = height * width;
  const pictures = [original ?? pixels, pixels];
  document.querySelectorAll("#attribution canvas").forEach((target, k) => {
    const map = element("canvas"), picture = element("canvas"), c = target.getContext("2d");
    drawMap(map, bytes.subarray(k * size, (k + 1) * size), height, width, header.scale[0] < 0);
    drawImage(picture, pictures[k], HEIGHT, WIDTH);
    target.width = WIDTH * SCALE; target.height = HEIGHT * SCALE;
    c.filter = "grayscale(1)"; c.imageSmoothingEnabled = false;
    c.drawImage(picture, 0, 0, target.width, target.height);
    c.filter = "none"; c.imageSmoothingEnabled = true; c.globalAlpha = 0.62;
    c.drawImage(map, 0, 0, target.width, target.height);
    c.globalAlpha = 1;
  });
  $("#attribution-caption").textContent = `For ${name(header.target)}: ${header.label}, one scale for both.`;
}

// ---- which image ----

async function loadOriginal() {
  const image = state.image;
  original = null;
  const address = typeof state.image === "number" ? `/images/${state.image}.png?run=${client.run}` : `/uploads/${state.image}.png?run=${client.run}`;
  const picture = new Image();
  picture.src = address;
  await picture.decode().catch(() => {});
  if (!picture.width || image !== state.image) return;
  const canvas = element("canvas", { width: WIDTH, height: HEIGHT }), c = canvas.getContext("2d");
  c.drawImage(picture, 0, 0, WIDTH, HEIGHT);
  const found = c.getImageData(0, 0, WIDTH, HEIGHT).data;
  original = Uint8Array.from({ length: 3 * WIDTH * HEIGHT }, (_, k) => found[4 * Math.floor(k / 3) + (k % 3)]);
}

function openImage(image) {
  state.image = image;
  state.edits = [];
  Object.assign(history, { states: [[]], at: 0, pictures: [] });
  cone = null;
  loadOriginal();
  changed();
  askWhatMatters();
}

const step = (by) => openImage((((typeof state.image === "number" ? state.image : 0) + by) % lab.images + lab.images) % lab.images);
$("#previous").addEventListener("click", () => step(-1));
$("#next").addEventListener("click", () => step(1));
$("#image").addEventListener("change", ({ target }) => openImage(Math.min(lab.images - 1, Math.max(0, Math.floor(Number(target.value)) || 0))));

async function upload(file) {
  try {
    openImage((await ask(`/uploads?run=${client.run}`, { method: "POST", body: file })).image);
  } catch (error) {
    $("#about-image").textContent = `This image cannot be opened: ${error.message}`;
  }
}

$("#file").addEventListener("change", ({ target }) => { if (target.files[0]) upload(target.files[0]); target.value = ""; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); if (event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]); });
$("#camera").addEventListener("click", async () => {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: true }), video = element("video", { muted: true });
    video.srcObject = stream;
    await video.play();
    const frame = element("canvas", { width: video.videoWidth, height: video.videoHeight });
    frame.getContext("2d").drawImage(video, 0, 0);
    stream.getTracks().forEach((track) => track.stop());
    frame.toBlob(upload, "image/jpeg", 0.95);
  } catch {
    $("#about-image").textContent = "There is no camera, or the browser does not allow its use here.";
  }
});

// ---- questions that take longer ----

const analysis = (kind, settings = {}) => ask(`/api/analyses/${kind}?${new URLSearchParams({ run: client.run, image: state.image, ...settings })}`);

async function question(words, work) {
  const place = $("#question");
  place.textContent = `${words} …`;
  try { place.textContent = await work(); } catch (error) { place.textContent = error.message; }
}

$("#thousand").addEventListener("click", () => question("1,000 test images are edited", async () => (await ask(`/api/analyses/edit_effect?${new URLSearchParams({ run: client.run, edit: JSON.stringify(state.edits), images: 1000 })}`)).heading));
$("#smallest").addEventListener("click", () => question("squares are tried, from small to large", async () => {
  const found = await analysis("smallest_occlusion", { edit: JSON.stringify(state.edits) });
  const row = found.table?.[0];
  if (row) { box = [row.left, row.top, row.width, row.height]; drawPicture(); }
  return found.heading;
}));

function askWhatMatters() {
  $("#matter").replaceChildren(element("li", { class: "faint" }, "being computed …"));
  showWhatMatters(state.image);
}

const showWhatMatters = newestOnly(async (image) => {
  const place = $("#matter");
  try {
    const found = await analysis("unit_effects", { top: 3 });
    if (image !== state.image) return;
    place.replaceChildren(...(found.table ?? []).map((row) => element("li", {}, element("a", { href: unitLink(row.layer, row.unit) }, `${row.layer}, unit ${row.unit}`), `: logit ${row.logit_change.toFixed(2).replace("-", "−")}, probability ${points(row.probability_change)} points`)));
    if (!found.table?.length) place.replaceChildren(element("li", { class: "faint" }, "No unit lowers it."));
  } catch (error) {
    if (image === state.image) place.replaceChildren(element("li", { class: "faint" }, error.message));
  }
});

// ---- controls ----

const brush = $("#radius");
brush.max = String(Math.max(4, SIDE / 4));
brush.value = String(Math.max(1.5, SIDE / 16));
const sayRadius = () => { $("#radius + output").textContent = `${radius()} px`; };
brush.addEventListener("input", sayRadius);
sayRadius();
$("#fill").addEventListener("change", () => { $("#colour").hidden = $("#fill").value !== "colour"; });
for (const input of document.querySelectorAll("input[name=tool]")) input.addEventListener("change", () => {
  $(".of-paste").hidden = tool() !== "paste";
  if (tool() !== "cone") { cone = null; layers.forEach(showConeOn); }
  drawPicture();
});
$("#show").value = state.show;
$("#show").addEventListener("change", ({ target }) => { state.show = target.value; changed(); });
$("#lens").value = state.lens === "none" ? "" : state.lens;
$("#lens").addEventListener("change", ({ target }) => { state.lens = target.value || "none"; $("#attribution").hidden = !target.value; $("#attribution-caption").textContent = ""; changed(); });
$("#attribution").hidden = state.lens === "none";
addEventListener("keydown", (event) => {
  if (event.target.closest("input:not([type=radio]):not([type=checkbox]):not([type=range]), select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const work = { n: () => step(1), p: () => step(-1), z: () => goTo(history.at - 1), y: () => goTo(history.at + 1) }[event.key];
  if (work) work();
});

prepareLayers();
showState();
showVersions();
const loaded = loadOriginal();
const tell = labSocket(() => loaded.then(() => { send(); askWhatMatters(); }), receive, receiveFrame, (words) => { $("#about-image").textContent = words; });
