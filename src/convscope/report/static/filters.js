// The filter page: sheets of units, cards, tables. Patches are cut from sheets of test images as they are shown.

const found = JSON.parse(document.getElementById("found").textContent);
const { classes, layers, images } = found;
const whole = (n) => n.toLocaleString("en");
function short(v, digits = 3) {
  if (v == null) return "–";
  const rounded = +v.toPrecision(digits), size = Math.abs(rounded);
  const text = size >= 1e3 && size < 1e7 ? whole(rounded) : size && (size >= 1e7 || size < 1e-3) ? v.toExponential(1) : String(rounded);
  return text.replaceAll("-", "−");
}
const percent = (v, digits = 0) => v == null ? "–" : `${(100 * v).toFixed(digits)} %`;
const signed = (v, digits = 1) => `${v < 0 ? "−" : "+"}${Math.abs(100 * v).toFixed(digits)}`;
const find = (selector, place = document) => place.querySelector(selector);

function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || ["role", "href", "scope"].includes(key)) { if (value != null) made.setAttribute(key, value); } else made[key] = value;
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

// ---- pictures, cut from sheets ----

class Sheet {
  constructor(data) {
    Object.assign(this, data);
    this.parts = data.src.map(() => null);
  }

  load(part) {  // decoded when first needed
    return this.parts[part] ??= new Promise((done, failed) => {
      const image = new Image();
      image.onload = () => done(image);
      image.onerror = failed;
      image.src = this.src[part];
    });
  }

  // Draws the box (top, left, bottom, right) of picture n, in pixels of the original, into (x, y, width, height).
  async draw(context, n, box, [x, y, width, height]) {
    const image = await this.load(Math.floor(n / this.per)), at = n % this.per;
    const [across, down] = [(at % this.columns) * this.pitch[0], Math.floor(at / this.columns) * this.pitch[1]];
    const [top, left, bottom, right] = box ?? [0, 0, this.height / this.scale[1], this.width / this.scale[0]];
    const [w, h] = [(right - left) * this.scale[0], (bottom - top) * this.scale[1]];
    context.imageSmoothingEnabled = width < w;  // crisp where enlarged
    context.drawImage(image, across + left * this.scale[0], down + top * this.scale[1], w, h, x, y, width, height);
  }
}

const photos = new Sheet(images.sheet);
const sheetOf = new Map();
const own = (data) => data && (sheetOf.get(data) ?? sheetOf.set(data, new Sheet(data)).get(data));

function canvasOf(pixels, ratio = 1, label = null) {
  const side = Math.round(pixels * (window.devicePixelRatio || 1));
  const made = el("canvas", { width: side, height: Math.max(1, Math.round(side * ratio)) });
  if (label) { made.setAttribute("role", "img"); made.setAttribute("aria-label", label); } else made.setAttribute("aria-hidden", "true");
  return made;
}

function drawPicture(data, n, pixels, label) {
  const sheet = own(data), canvas = canvasOf(pixels, sheet.height / sheet.width, label);
  sheet.draw(canvas.getContext("2d"), n, null, [0, 0, canvas.width, canvas.height]);
  return canvas;
}

// The nine strongest patches, each in the middle of a square of the largest patch's side.
function drawNine(canvas, layer, unit) {
  const context = canvas.getContext("2d"), cell = canvas.width / 3, gap = Math.max(1, Math.round(cell / 32)), inner = cell - gap;
  layer.image[unit].slice(0, 9).forEach((image, k) => {
    const box = layer.box[unit].slice(4 * k, 4 * k + 4), height = box[2] - box[0], width = box[3] - box[1];
    if (!height || !width) return;
    const scale = inner / layer.side, [w, h] = [width * scale, height * scale];
    const [x, y] = [(k % 3) * cell + (inner - w) / 2, Math.floor(k / 3) * cell + (inner - h) / 2].map(Math.round);
    photos.draw(context, image, box, [x, y, Math.round(w), Math.round(h)]);
  });
}

async function drawFramed(canvas, image, box) {
  const context = canvas.getContext("2d"), [height, width] = [found.input[1], found.input[2]], scale = canvas.width / width;
  await photos.draw(context, image, null, [0, 0, canvas.width, canvas.height]);
  const [top, left, bottom, right] = box.map((edge) => edge * scale), line = Math.max(2, canvas.width / 64);
  if (box[0] === 0 && box[1] === 0 && box[2] === height && box[3] === width) return;  // it sees the whole image
  for (const [ink, thick] of [["#000", 2 * line], ["#ffd23f", line]]) {
    context.strokeStyle = ink;
    context.lineWidth = thick;
    context.strokeRect(left + line / 2, top + line / 2, right - left - line, bottom - top - line);
  }
}

// ---- a layer: its sheet and its tables ----

const SORTS = {
  "number": { of: () => null },
  "selectivity": { of: (layer, u) => layer.selectivity?.[u], show: (v) => short(v, 2) },
  "share of zeros": { of: (layer, u) => layer.zeros[u], show: (v) => `${percent(v)} zeros` },
  "largest response": { of: (layer, u) => layer.response_max[u], show: (v) => short(v) },
  "effect": { of: (layer, u) => layer.effects?.[u] ? -layer.effects[u].accuracy : null, show: (v) => `${signed(-v)} points` },
};
const WIDEST_NAME = 16;  // letters of a class above a column; of longer ones there are several lines
const FEW = innerWidth < 640 ? 40 : 96;  // units on a sheet before "show all"
const key = (layer, unit) => `#${encodeURIComponent(layer.name)}${unit == null ? "" : `-${unit}`}`;
const counts = (layer, unit) => {
  const n = new Map();
  for (const image of layer.image[unit]) n.set(images.class[image], (n.get(images.class[image]) ?? 0) + 1);
  return [...n].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
};
let shown = null;

function drawLayerBar() {
  const bar = find(".bar-of-layers");
  if (layers.length <= 14) {
    bar.append(...layers.map((layer) => el("a", { href: key(layer), textContent: layer.name })));
  } else {
    const select = el("select", { "aria-label": "layer" }, ...layers.map((layer) => el("option", { value: key(layer), textContent: layer.name })));
    select.addEventListener("change", () => { location.hash = select.value; });
    bar.append(select);
  }
}

function showLayer(layer) {
  if (shown === layer) return;
  shown = layer;
  for (const link of document.querySelectorAll(".bar-of-layers a")) {
    if (link.getAttribute("href") === key(layer)) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
  }
  const select = find(".bar-of-layers select");
  if (select) select.value = key(layer);
  const place = find("#part-layer"), weights = layer.weights;
  find("h2", place).textContent = layer.name;
  const filter = weights ? ` with filters of ${weights.shape} over ${weights.inputs} ${weights.inputs === 1 ? "input" : "inputs"}` : "";
  find(".facts", place).textContent = `${whole(layer.units)} units${filter}, maps of ${layer.map.join("×")}; each number sees up to ` +
    `${layer.field.join("×")} pixels of the image${layer.stride && Math.max(...layer.stride) > 1 ? `, in steps of ${layer.stride.join("×")}` : ""}.` +
    (layer.shown < layer.units ? ` The first ${whole(layer.shown)} units are on this page; ${found.look} top_patches --layer ${layer.name} --unit N shows any.` : "");
  find(".words", place).replaceChildren(...layer.words.map((text) => el("p", { textContent: text })));
  find("#part-classes h2").textContent = `Classes among the strongest images of ${layer.name}`;
  find("#part-figures h2").textContent = `Figures of each unit of ${layer.name}`;
  find(".about-sheet", place).textContent = aboutSheet(layer);
  drawSorts(layer);
  drawUnits(layer, FEW);
  drawClasses(layer);
  drawFigures(layer);
}

function aboutSheet(layer) {
  const kind = { colour: "Its filter in colour: grey is weight 0.", signed: "Its filter: red is positive, blue negative.",
    mean: `Its filter as the mean over its ${layer.weights?.inputs} inputs: red is positive, blue negative.` }[layer.weights?.kind] ?? "";
  return `Of each unit: its nine strongest patches, from the images that it answers to most, each where its map is highest. ${kind} ` +
    "A click opens its card.";
}

function drawSorts(layer) {
  const select = find(".sort"), before = select.value;
  const names = Object.keys(SORTS).filter((name) => name === "number" || [...layer.zeros.keys()].some((u) => SORTS[name].of(layer, u) != null));
  select.replaceChildren(...names.map((name) => el("option", { value: name, textContent: name === "effect" ? "loss of accuracy when ablated" : name })));
  select.value = names.includes(before) ? before : "number";
  find(".living").parentElement.hidden = !layer.dead.length;
}

function order(layer) {
  const { of } = SORTS[find(".sort").value], units = [...Array(layer.shown).keys()];
  const chosen = find(".living").checked ? units.filter((u) => !layer.dead.includes(u)) : units;
  const value = (u) => of(layer, u) ?? -Infinity;
  return chosen.sort((a, b) => { const [x, y] = [value(b), value(a)]; return x === y ? a - b : x - y; });
}

const watcher = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    const [layer, unit] = target.unit;
    if (layer.weights?.sheet) find(".weights", target).replaceWith(Object.assign(drawPicture(layer.weights.sheet, unit, 30), { className: "weights" }));
    const nine = find(".nine", target);
    if (nine) drawNine(nine, layer, unit);
  }
}, { rootMargin: "300px" });

function drawUnits(layer, most) {
  watcher.disconnect();
  const units = order(layer), more = find(".more");
  const made = units.slice(0, units.length <= 1.25 * most ? units.length : most).map((unit) => el("div", { role: "listitem" }, unitOf(layer, unit)));
  find(".units").replaceChildren(...made);
  for (const one of made) watcher.observe(one.firstChild);
  more.hidden = made.length === units.length;
  more.textContent = `Show all ${whole(units.length)} units`;
}

function unitOf(layer, unit) {
  const dead = layer.dead.includes(unit), twin = layer.twins[unit], silent = !layer.image[unit].length;
  const sort = SORTS[find(".sort").value], value = sort.of(layer, unit), first = counts(layer, unit)[0];
  const said = [`unit ${unit} of ${layer.name}`, dead ? "dead" : null, twin ? `nearly the same as unit ${twin[0]}` : null,
    first ? `mostly ${classes[first[0]]}` : null].filter(Boolean).join(", ");
  const marks = [dead ? el("span", { className: "mark dead", textContent: "dead" }) : null,
    twin ? el("span", { className: "mark", textContent: `≈ ${twin[0]}`, title: `correlation ${twin[1].toFixed(2)}` }) : null].filter(Boolean);
  const link = el("a", { className: `unit${layer.weights?.sheet ? "" : " plain"}`, href: key(layer, unit), "aria-label": said },
    el("span", { className: "name" }, el("b", { textContent: unit }), value == null ? null : el("span", { className: "value", textContent: sort.show(value) })),
    layer.weights?.sheet ? el("span", { className: "weights" }) : null,
    silent ? el("span", { className: "none", textContent: dead ? "never fires" : "never above 0" }) : Object.assign(canvasOf(108), { className: "nine" }),
    marks.length ? el("span", { className: "marks" }, ...marks) : null);
  link.unit = [layer, unit];
  return link;
}

// ---- tables ----

function makeTable(table, heads, rows) {
  table.replaceChildren(el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
  makeSortable(table);
}

const head = (text, numeric = true, tilt = false) => el("th", { className: `${numeric ? "n" : ""}${tilt ? " tilt" : ""}`, scope: "col" }, el("span", { textContent: text }));
const number = (value, text) => { const cell = el("td", { className: "n", textContent: text }); cell.dataset.value = value ?? -1e30; return cell; };
const named = (layer, unit) => { const cell = el("th", { scope: "row" }, el("a", { href: key(layer, unit), textContent: unit })); cell.dataset.value = unit; return cell; };

function drawClasses(layer) {
  const all = [...Array(layer.shown).keys()].map((u) => new Map(counts(layer, u)));
  const total = classes.map((_, k) => all.reduce((sum, n) => sum + (n.get(k) ?? 0), 0));
  const many = classes.length > found.columns;
  const columns = many ? [...total.keys()].sort((a, b) => total[b] - total[a]).slice(0, found.columns) : [...classes.keys()];
  const rows = all.map((n, u) => {
    const cells = columns.map((k) => n.get(k) ?? 0), others = layer.image[u].length - cells.reduce((a, b) => a + b, 0);
    return el("tr", {}, named(layer, u), many ? inWords(layer, u) : null, ...(many ? [...cells, others] : cells).map((value) => {
      const cell = number(value, value || "");
      cell.style.setProperty("--share", value / found.top);
      return cell;
    }));
  });
  const heads = [head("unit"), ...columns.map((k) => head(classes[k], true, many)), ...(many ? [head("others", true, true)] : [])];
  if (many) heads.splice(1, 0, Object.assign(head("the most frequent", false), { className: "most" }));
  const table = find("#part-classes table"), widest = many ? 5 : Math.min(WIDEST_NAME, Math.max(...columns.map((k) => classes[k].length)));
  table.style.minWidth = `${(many ? 400 : 90) + heads.length * Math.max(36, 12 + 7.2 * widest)}px`;
  makeTable(table, heads, rows);
  find(".about-classes").textContent = `How many of each unit's ${found.top} strongest images belong to a class.` +
    (many ? ` The columns are ${columns.length} of ${classes.length} classes, those that are most frequent in this layer.` : "") + " A click on a heading sorts.";
}

function inWords(layer, unit) {
  const text = counts(layer, unit).slice(0, 2).map(([k, n]) => `${n} × \u2068${classes[k]}\u2069`).join(", ");
  return el("td", { className: "most", textContent: text, title: text });
}

function drawFigures(layer) {
  const shows = [["mean response", "response_mean"], ["largest response", "response_max"], ["mean", "mean"], ["deviation", "deviation"],
    ["lowest", "low"], ["peak", "peak"], ["zeros", "zeros"], ["selectivity", "selectivity"]].filter(([, name]) => layer[name]);
  const effect = layer.effects;
  const heads = [head("unit"), ...shows.map(([text]) => head(text)), layer.best ? head("best class", false) : null,
    effect ? head("effect, points") : null, head("remarks", false)].filter(Boolean);
  const rows = [...Array(layer.shown).keys()].map((u) => {
    const cells = shows.map(([, name]) => name === "zeros" ? share(layer.zeros[u], percent(layer.zeros[u]))
      : name === "selectivity" ? share(layer.selectivity[u], layer.selectivity[u].toFixed(2)) : number(layer[name][u], short(layer[name][u])));
    if (layer.best) cells.push(el("td", { textContent: layer.best[u] < 0 ? "–" : classes[layer.best[u]] }));
    if (effect) cells.push(number(effect[u]?.accuracy, effect[u] ? signed(effect[u].accuracy, 2) : "–"));
    const remarks = [layer.dead.includes(u) ? "dead" : null, layer.twins[u] ? `like ${layer.twins[u][0]} (${layer.twins[u][1].toFixed(2)})` : null];
    return el("tr", {}, named(layer, u), ...cells, el("td", { textContent: remarks.filter(Boolean).join(", ") }));
  });
  makeTable(find("#part-figures table"), heads, rows);
}

function share(value, text) {
  const cell = number(value, text);
  cell.classList.add("bar");
  cell.style.setProperty("--share", value);
  return cell;
}

// ---- the card of a unit ----

const card = find("#card");
let open = null, opener = null;

function showCard(layer, unit) {
  open = [layer, unit];
  find("#card-title").textContent = `${layer.name}, unit ${unit}`;
  const parts = { itself: ofItself(layer, unit), images: [...ofImages(layer, unit), ...ofClasses(layer, unit)], figures: ofFigures(layer, unit), responses: ofResponses(layer, unit) };
  find(".card-body").replaceChildren(...Object.entries(parts).map(([className, made]) => el("div", { className }, ...made)));
  if (!card.open) {
    opener = document.activeElement;
    card.showModal();
    find("#card-title").focus();
  }
  card.scrollTop = 0;
}

function ofItself(layer, unit) {
  const dead = layer.dead.includes(unit), twin = layer.twins[unit], visualization = layer.visualization, weights = layer.weights;
  const parts = [];
  if (weights?.sheet) {
    const kind = { colour: "its filter; grey is weight 0", signed: "its filter; red is positive", mean: `its filter, mean over ${weights.inputs} inputs; red is positive` }[weights.kind];
    parts.push(el("figure", {}, drawPicture(weights.sheet, unit, 128, `weights of unit ${unit}`), el("figcaption", { textContent: kind })));
  }
  if (visualization && unit < visualization.units) {
    const text = `feature visualization: mean activation ${short(visualization.activation[unit])}${layer.relu ? " after the ReLU" : ""}`;
    parts.push(el("figure", {}, drawPicture(visualization.sheet, unit, 128, `picture that maximally activates unit ${unit}`), el("figcaption", { textContent: text })));
  }
  const said = [
    dead ? `This unit is dead: on none of the ${whole(found.tests)} test images does it give more than 0 after the ReLU.` : null,
    twin ? `It does nearly the same as unit ${twin[0]}: their maps correlate by ${twin[1].toFixed(2)}.` : null,
  ].filter(Boolean);
  return [
    ...said.map((text) => el("p", { className: "said", textContent: text })),
    parts.length ? el("h3", { textContent: "The unit" }) : null, el("div", { className: "own" }, ...parts),
  ].filter(Boolean);
}

function ofFigures(layer, unit) {
  const behind = layer.relu ? " after the ReLU" : "";
  const facts = [
    ["mean response", short(layer.response_mean[unit])], ["largest response", short(layer.response_max[unit])],
    ["receptive field", `${layer.field.join("×")} px`], ["mean", short(layer.mean[unit])], ["deviation", short(layer.deviation[unit])],
    [`zeros${behind}`, percent(layer.zeros[unit], 1)],
    [`peak${behind}`, short(layer.peak[unit])],
    layer.selectivity ? ["selectivity", layer.selectivity[unit].toFixed(2)] : null,
    layer.best ? ["best class", layer.best[unit] < 0 ? "none" : classes[layer.best[unit]]] : null,
  ].filter(Boolean);
  return [
    el("h3", { textContent: "Its figures" }), el("dl", {}, ...facts.flatMap(([name, text]) => [el("dt", { textContent: name }), el("dd", { textContent: text })])),
    ...ofEffect(layer.effects?.[unit]),
  ];
}

function ofEffect(effect) {
  if (!effect) return [];
  const of = effect.images == null ? "" : ` on ${whole(effect.images)} test images`;
  const range = effect.low == null ? "" : ` (95 %: ${signed(effect.low, 2)} to ${signed(effect.high, 2)})`;
  const most = effect.class == null ? "" : ` Most for ${effect.class}: ${signed(effect.class_accuracy)} points.`;
  const flips = effect.lost == null ? "" : ` ${whole(effect.lost)} images become wrong, ${whole(effect.gained)} right.`;
  return [el("h3", { textContent: effect.off ? `Ablation: ${effect.off}` : "Ablation" }),
    el("p", { className: "said effect", textContent: `Accuracy${of} changes by ${signed(effect.accuracy, 2)} points${range}.${most}${flips}` })];
}

function called(image) {
  const number = `test image ${images.row[image]}`;
  return images.name ? `${number}, ${images.name[image]}` : number;
}

function ofImages(layer, unit) {
  const list = layer.image[unit].slice(0, found.pictures);
  const heading = el("h3", { textContent: list.length ? "The images it answers to most" : "Images" });
  if (!list.length) return [heading, el("p", { className: "said", textContent: "None: its map is never above 0 on the test images." })];
  const ratio = found.input[1] / found.input[2];
  const figures = list.map((image, k) => {
    const name = classes[images.class[image]], canvas = canvasOf(128, ratio, `${called(image)}: ${name}`);
    drawFramed(canvas, image, layer.box[unit].slice(4 * k, 4 * k + 4));
    return el("figure", {}, canvas, el("figcaption", {}, el("b", { textContent: name }), el("br"), el("span", { className: "faint", textContent: short(layer.response[unit][k]) })));
  });
  const box = layer.box[unit], sees = list.every((_, k) => box[4 * k + 2] - box[4 * k] === found.input[1] && box[4 * k + 3] - box[4 * k + 1] === found.input[2]);
  const about = sees ? "It sees the whole image." : "The frame: what its strongest position sees.";
  return [heading, el("div", { className: "strongest" }, ...figures), el("p", { className: "caption", textContent: `${about} Below each class the response, the highest number of the map before the ReLU.` })];
}

function ofClasses(layer, unit) {
  const all = counts(layer, unit), most = all[0]?.[1];
  if (!all.length) return [];
  const bars = all.flatMap(([k, count]) => {
    const bar = el("i");
    bar.style.width = `${85 * count / most}%`;
    return [el("span", { textContent: classes[k] }), el("span", { className: "n" }, bar, el("span", { textContent: count }))];
  });
  const said = all.map(([k, count]) => `${classes[k]} ${count}`).join(", ");
  return [el("h3", { textContent: `Classes of its ${layer.image[unit].length} strongest images` }),
    el("div", { className: "histogram", role: "img", "aria-label": said }, ...bars)];
}

function ofResponses(layer, unit) {
  if (!layer.image[unit].length) return [];
  const rows = layer.image[unit].map((image, k) => {
    const first = el("th", { scope: "row", textContent: images.row[image], title: called(image) });
    first.dataset.value = images.row[image];
    return el("tr", {}, first, el("td", { textContent: classes[images.class[image]] }), number(layer.response[unit][k], short(layer.response[unit][k], 4)),
      number(layer.row[unit][k], layer.row[unit][k]), number(layer.column[unit][k], layer.column[unit][k]));
  });
  const table = el("table", { className: "sortable responses" }), box = el("div", { className: "scroll" }, table);
  makeTable(table, [head("test image"), head("class", false), head("response"), head("row"), head("column")], rows);
  markScrolling(box);
  return [el("h3", { textContent: "Responses" }), box,
    el("p", { className: "caption", textContent: `Row and column: the highest place on the map of ${layer.map.join("×")}, from 0.` })];
}

function step(by) {
  const units = order(open[0]), at = units.indexOf(open[1]) + by;
  if (at < 0 || at >= units.length) return;
  history.replaceState(null, "", key(open[0], units[at]));
  showCard(open[0], units[at]);
}

find(".before", card).addEventListener("click", () => step(-1));
find(".after", card).addEventListener("click", () => step(1));
find(".close", card).addEventListener("click", () => card.close());
card.addEventListener("click", (event) => { if (event.target === card) card.close(); });  // beside it
card.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) { event.preventDefault(); step(by); }
});
card.addEventListener("close", () => {
  const [layer, unit] = open;
  open = null;
  if (location.hash === key(layer, unit)) history.replaceState(null, "", key(layer));
  if (opener?.closest?.(".units")) [...document.querySelectorAll(".units a")].find((link) => link.getAttribute("href") === key(layer, unit))?.focus();
});

// ---- the address says what is shown: #conv3, #conv3-17 ----

function follow() {
  const asked = decodeURIComponent(location.hash.slice(1)), cut = asked.lastIndexOf("-");
  const whole = layers.find((layer) => layer.name === asked);
  const layer = whole ?? layers.find((one) => one.name === asked.slice(0, cut));
  const unit = whole || !layer ? null : Number(asked.slice(cut + 1));
  const before = shown;
  showLayer(layer ?? shown ?? layers[0]);
  if (layer && unit != null && Number.isInteger(unit) && unit >= 0 && unit < layer.shown) showCard(layer, unit);
  else if (card.open) card.close();
  if (layer && before !== layer && before !== null && !card.open) find("#part-layer").scrollIntoView();
}

drawLayerBar();
makeSortable(find("#part-layers table"));
for (const place of [".sort", ".living"]) find(place).addEventListener("change", () => drawUnits(shown, FEW));
find(".more").addEventListener("click", () => { const n = find(".units").children.length; drawUnits(shown, Infinity); find(".units").children[n].firstChild.focus(); });
addEventListener("hashchange", follow);
follow();
