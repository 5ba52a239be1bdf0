// The map: test images as points, drawn on a canvas; what is selected is shown beside it.
import { $, ask, client, data, element, imageAddress, isolated, link, percent, writeAddress } from "./common.js";

const about = data("map-data"), query = new URLSearchParams(location.search);
const N_COLOURS = 10, N_STEPS = 24, MOST_IMAGES = 60, NEAR_PX = 12, N_BANDS = 128;
const INSTRUCTIONS = "Draw around points with the lasso or the rectangle, or click one. By keyboard: move and zoom, then Enter.";
const colour = $("#colour");
colour.value = ["class", "error", "confidence"].includes(query.get("colour")) ? query.get("colour") : "class";

const state = () => ({ layer: $("#layer").value, method: $("#method").value === "pca" ? "" : $("#method").value, colour: colour.value === "class" ? "" : colour.value });
for (const select of [$("#layer"), $("#method")]) select.addEventListener("change", () => { location.href = link("map", state()); });
colour.addEventListener("change", () => writeAddress(() => link("map", state())));

if (about.shown) {
  const address = new URLSearchParams({ run: client.run, layer: about.layer, method: about.shown });
  ask(`/api/projection?${address}`).then((found) => start(found, address)).catch((error) => { $("#kept").textContent = error.message; });
}

function start(points, address) {
  const canvas = $("#points"), context = canvas.getContext("2d"), n = points.row.length;
  const x = Float64Array.from(points.x), y = Float64Array.from(points.y);
  const wrong = points.class.map((k, i) => k !== points.predicted[i]);
  const selected = new Uint8Array(n);
  let nSelected = 0, highlighted = null, colours = [], kinds = [], order = [], sprites, whole, view, outline = null, asked = false;

  // Colours: of each point the number of its colour, and the order in which points are drawn.
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rgb = (name) => style(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
  function mixed(share) {
    const [low, middle, high] = [rgb("--low"), rgb("--middle"), rgb("--high")], at = 2 * share;
    const [from, to] = at < 1 ? [low, middle] : [middle, high], part = at < 1 ? at : at - 1;
    return `rgb(${from.map((value, k) => Math.round(value * (1 - part) + to[k] * part))})`;
  }

  function recolour() {
    const rows = [...Array(n).keys()];
    if (colour.value === "class") {
      colours = [...Array(N_COLOURS).keys()].map((k) => style(`--class-${k}`));
      kinds = points.class.map((k) => k % N_COLOURS);
      order = rows;
    } else if (colour.value === "error") {
      colours = [style("--right"), style("--wrong")];
      kinds = wrong.map(Number);
      order = rows.sort((a, b) => kinds[a] - kinds[b]);
    } else {
      colours = [...Array(N_STEPS).keys()].map((k) => mixed(k / (N_STEPS - 1)));
      kinds = points.confidence.map((value) => Math.min(N_STEPS - 1, Math.floor(value * N_STEPS)));
      order = rows.sort((a, b) => points.confidence[b] - points.confidence[a]);
    }
    sprites = null;
    showLegend();
    draw();
  }

  function showLegend() {
    const legend = $("#legend"), nWrong = wrong.filter(Boolean).length;
    const entry = (shade, words) => [element("i", { style: `background:${shade}` }), words];
    if (colour.value === "error") {
      legend.replaceChildren(element("span", {}, ...entry(colours[0], `right (${n - nWrong})`)), element("span", {}, ...entry(colours[1], `misclassified (${nWrong})`)));
    } else if (colour.value === "confidence") {
      legend.replaceChildren("probability of the predicted class: 0 %", element("b", { style: `background:linear-gradient(to right,${colours.join(",")})` }), "100 %");
    } else {
      legend.replaceChildren(...points.classes.map((name, k) => {
        const button = element("button", { type: "button", "aria-pressed": String(highlighted === k), title: "show this class alone" }, ...entry(colours[k % N_COLOURS], name));
        button.addEventListener("click", () => {
          highlighted = highlighted === k ? null : k;
          [...legend.children].forEach((each, other) => each.setAttribute("aria-pressed", String(highlighted === other)));
          draw();
        });
        return button;
      }));
    }
  }

  // The view: the point at the middle of the canvas, and pixels for each unit of the plane.
  const width = () => canvas.clientWidth, height = () => canvas.clientHeight;
  const toX = (value) => (value - view.x) * view.scale + width() / 2, toY = (value) => height() / 2 - (value - view.y) * view.scale;
  const fromX = (px) => (px - width() / 2) / view.scale + view.x, fromY = (px) => (height() / 2 - px) / view.scale + view.y;

  function showWhole() {
    const [left, right, low, high] = [Math.min(...x), Math.max(...x), Math.min(...y), Math.max(...y)];
    whole = Math.min((width() - 28) / (right - left || 1), (height() - 28) / (high - low || 1));
    view = { x: (left + right) / 2, y: (low + high) / 2, scale: whole };
    draw();
  }

  function zoom(factor, px = width() / 2, py = height() / 2) {
    const [atX, atY] = [fromX(px), fromY(py)];
    view.scale = Math.min(whole * 400, Math.max(whole * 0.5, view.scale * factor));
    view.x += atX - fromX(px);
    view.y += atY - fromY(py);
    draw();
  }

  function move(dx, dy) {
    view.x -= dx / view.scale;
    view.y += dy / view.scale;
    draw();
  }

  const radius = () => Math.min(7, Math.min(5, Math.max(1.8, 170 / Math.sqrt(n))) * Math.max(0.8, (view.scale / whole) ** 0.35));

  function makeSprites(size, ratio) {
    const side = Math.ceil(2 * size * ratio) + 2, sheet = element("canvas", { width: side * colours.length, height: side }), pen = sheet.getContext("2d");
    colours.forEach((shade, k) => {
      pen.fillStyle = shade;
      pen.beginPath();
      pen.arc(side * k + side / 2, side / 2, size * ratio, 0, 2 * Math.PI);
      pen.fill();
    });
    sprites = { sheet, side, size, ratio };
  }

  function draw() {
    if (asked || !view) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; drawNow(); });
  }

  function drawNow() {
    const ratio = devicePixelRatio || 1, size = radius(), begun = performance.now();
    if (canvas.width !== Math.round(width() * ratio) || canvas.height !== Math.round(height() * ratio)) {
      canvas.width = Math.round(width() * ratio);
      canvas.height = Math.round(height() * ratio);
    }
    if (!sprites || sprites.size !== size || sprites.ratio !== ratio) makeSprites(size, ratio);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const { sheet, side } = sprites, alone = highlighted !== null && colour.value === "class";
    const isStrong = (i) => (!nSelected || selected[i] === 1) && (!alone || points.class[i] === highlighted);
    for (const strong of nSelected || alone ? [false, true] : [true]) {
      context.globalAlpha = strong ? 0.85 : 0.1;
      for (const i of order) {
        if (isStrong(i) !== strong) continue;
        const px = toX(x[i]) * ratio, py = toY(y[i]) * ratio;
        if (px > -side && py > -side && px < canvas.width + side && py < canvas.height + side) context.drawImage(sheet, side * kinds[i], 0, side, side, Math.round(px - side / 2), Math.round(py - side / 2), side, side);
      }
    }
    context.globalAlpha = 1;
    if (outline) drawOutline(ratio);
    canvas.dataset.drawn = String(n);
    canvas.dataset.drawMs = (performance.now() - begun).toFixed(1);
  }

  function drawOutline(ratio) {
    context.beginPath();
    for (const [px, py] of outline) context.lineTo(px * ratio, py * ratio);
    context.closePath();
    context.fillStyle = context.strokeStyle = style("--accent");
    context.globalAlpha = 0.12;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 1.5 * ratio;
    context.stroke();
  }

  // Points within a polygon of the plane: by how often a ray to the right crosses its edges, of which each band of rows has its own.
  function within(polygon) {
    const px = Float64Array.from(polygon, (corner) => corner[0]), py = Float64Array.from(polygon, (corner) => corner[1]), m = px.length, found = new Uint8Array(n);
    const [left, right, low, high] = [Math.min(...px), Math.max(...px), Math.min(...py), Math.max(...py)];
    const bands = Array.from({ length: N_BANDS }, () => []), band = (value) => Math.min(N_BANDS - 1, Math.floor((N_BANDS * (value - low)) / (high - low || 1)));
    for (let a = 0, b = m - 1; a < m; b = a++) for (let k = band(Math.min(py[a], py[b])); k <= band(Math.max(py[a], py[b])); k++) bands[k].push([a, b]);
    for (let i = 0; i < n; i++) {
      if (x[i] < left || x[i] > right || y[i] < low || y[i] > high) continue;
      for (const [a, b] of bands[band(y[i])]) {
        if (py[a] > y[i] !== py[b] > y[i] && x[i] < ((px[b] - px[a]) * (y[i] - py[a])) / (py[b] - py[a]) + px[a]) found[i] ^= 1;
      }
    }
    return found;
  }

  function selectWithin(outlined) {
    const begun = performance.now();
    const found = within(outlined.map(([px, py]) => [fromX(px), fromY(py)]));
    canvas.dataset.lassoMs = (performance.now() - begun).toFixed(2);
    select(found);
  }

  function nearestTo(px, py) {
    let best = null, least = NEAR_PX * NEAR_PX;
    for (let i = 0; i < n; i++) {
      const far = (toX(x[i]) - px) ** 2 + (toY(y[i]) - py) ** 2;
      if (far < least) { least = far; best = i; }
    }
    return best;
  }

  function select(found) {
    selected.set(found);
    const rows = [];
    for (let i = 0; i < n; i++) if (selected[i]) rows.push(i);
    nSelected = rows.length;
    showSelected(rows);
    draw();
  }

  const selectNone = () => select(new Uint8Array(n));
  const inWords = (i) => `${isolated(points.classes[points.class[i]])}${wrong[i] ? `, predicted ${isolated(points.classes[points.predicted[i]])}` : ""} (${percent(points.confidence[i])})`;
  const address64 = (i) => imageAddress(points.row[i], 64);

  function showSelected(rows) {
    const counts = new Map();
    let nWrong = 0;
    for (const i of rows.length ? rows : order) {
      const count = counts.get(points.class[i]) ?? [0, 0];
      count[0]++;
      count[1] += wrong[i];
      nWrong += wrong[i];
      counts.set(points.class[i], count);
    }
    $("#selected").textContent = rows.length ? `${rows.length.toLocaleString("en")} image${rows.length === 1 ? "" : "s"} selected` : "No selection";
    $("#about-selected").textContent = rows.length ? `${nWrong.toLocaleString("en")} misclassified (${percent(nWrong / rows.length)})` : INSTRUCTIONS;
    const most = Math.max(...[...counts.values()].map((count) => count[0]), 1);
    const bars = [...counts].sort((a, b) => b[1][0] - a[1][0] || a[0] - b[0]).map(([k, [all, bad]]) => element("div", { class: "bars-row map-row", title: `${all} images, ${bad} misclassified` },
      element("span", {}, points.classes[k]), element("div", { class: "map-bar" }, element("i", { class: "good", style: `width:${100 * (all - bad) / most}%` }), element("i", { class: "bad", style: `width:${100 * bad / most}%` })), element("output", {}, bad ? `${all} (${bad})` : String(all))));
    $("#counts").replaceChildren(...bars, ...(bars.length ? [element("p", { class: "caption" }, `${rows.length ? "Images" : "All images"} by class, misclassified in brackets.`, rows.length > MOST_IMAGES ? ` The first ${MOST_IMAGES}:` : "")] : []));
    $("#images").replaceChildren(...rows.slice(0, MOST_IMAGES).map((i) => element("a", { href: link("lab", { image: points.row[i] }), class: wrong[i] ? "bad" : null, title: `image ${points.row[i]}, ${points.name[i]}: ${inWords(i)}` },
      element("img", { src: address64(i), alt: `test image ${points.row[i]}: ${inWords(i)}`, width: 64, height: 64, loading: "lazy" }))));
  }

  // The pointer: one draws or moves, two zoom.
  const down = new Map();
  const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop]; };
  const spread = () => { const [a, b] = [...down.values()]; return { far: Math.hypot(a[0] - b[0], a[1] - b[1]), x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2 }; };
  let first = null, moved = false;

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, place(event));
    hideTip();
    if (down.size === 1) { first = place(event); moved = false; } else { outline = null; moved = true; }
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (!down.has(event.pointerId)) { showTip(...at); return; }
    const before = down.get(event.pointerId);
    if (down.size === 2) {
      const was = spread();
      down.set(event.pointerId, at);
      const now = spread();
      move(now.x - was.x, now.y - was.y);
      zoom(now.far / (was.far || 1), now.x, now.y);
      return;
    }
    if (!moved && Math.hypot(at[0] - first[0], at[1] - first[1]) < 4) return;
    const tool = $("input[name=tool]:checked").value, begins = !moved;
    moved = true;
    if (tool === "move") move(at[0] - before[0], at[1] - before[1]);
    else if (tool === "rectangle") outline = [first, [at[0], first[1]], at, [first[0], at[1]]];
    else if (begins) outline = [first, at];
    else if (outline) outline.push(at);
    down.set(event.pointerId, at);
    draw();
  });
  function lift(event) {
    if (!down.delete(event.pointerId)) return;
    if (event.type === "pointerup" && outline) selectWithin(outline);
    else if (event.type === "pointerup" && !moved) {
      const found = new Uint8Array(n), nearest = nearestTo(...first);
      if (nearest !== null) found[nearest] = 1;
      select(found);
    }
    outline = null;
    draw();
  }
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...place(event));
  }, { passive: false });

  const tip = $("#tip");
  function hideTip() { tip.hidden = true; }
  function showTip(px, py) {
    const i = nearestTo(px, py);
    if (i === null) { hideTip(); return; }
    $("#tip-image").src = imageAddress(points.row[i], 96);
    $("#tip-words").replaceChildren(element("b", {}, inWords(i)), element("small", {}, `image ${points.row[i]}, ${points.name[i]}`));
    tip.hidden = false;
    tip.style.left = `${Math.max(4, px + 14 + tip.offsetWidth > width() ? px - 14 - tip.offsetWidth : px + 14)}px`;
    tip.style.top = `${Math.max(4, Math.min(py + 14, height() - tip.offsetHeight - 4))}px`;
  }

  const selectInView = () => selectWithin([[0, 0], [width(), 0], [width(), height()], [0, height()]]);
  const keys = {
    ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40),
    "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), 0: showWhole, Enter: selectInView, Escape: selectNone,
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  for (const [id, work] of [["#closer", keys["+"]], ["#farther", keys["-"]], ["#whole", showWhole], ["#in-view", selectInView]]) $(id).addEventListener("click", work);

  $("#write").addEventListener("click", async () => {
    $("#written").textContent = "writing …";
    try {
      const { file } = await ask(`/api/embeddings?${address}`, { method: "POST" });
      $("#written").replaceChildren("Written; open it with ", element("code", {}, `embedding-atlas ${file} --x x --y y --neighbors neighbors`));
    } catch (error) {
      $("#written").textContent = `This was not written: ${error.message}`;
    }
  });

  const of = n < about.n_images ? ` of ${about.n_images.toLocaleString("en")}` : "";
  $("#kept").textContent = `${about.titles[points.method]} of ${n.toLocaleString("en")}${of} test images by the features of ${points.layer}. Of each image's ${points.neighbours} nearest neighbours by these features the picture keeps ${percent(points.kept)}.`;
  canvas.dataset.kept = String(points.kept);
  colour.addEventListener("change", recolour);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  new ResizeObserver(() => { if (view) draw(); else showWhole(); }).observe(canvas);
  recolour();
  showSelected([]);
}
