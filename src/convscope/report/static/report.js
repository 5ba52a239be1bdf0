// Charts, the confusion matrix and copy buttons of a report. No network, no library but Vega.

const json = (id) => JSON.parse(document.getElementById(id).textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// ---- charts ----

function chartTheme() {
  const ink = colour("ink"), faint = colour("faint"), line = colour("line");
  return {
    background: null, font: "system-ui, Segoe UI, Roboto, DejaVu Sans, sans-serif", view: { stroke: null },
    axis: { labelColor: faint, titleColor: faint, gridColor: line, domainColor: line, tickColor: line, titleFontWeight: "normal", labelFontSize: 11.5 },
    legend: { labelColor: ink, labelFontSize: 12.5 }, text: { color: faint },
  };
}

// Black or white, whichever is read more easily on a colour that covers the ground by this share: at least 4.5:1 (WCAG 2.2).
function inkOn(name, strength) {
  const share = Math.min(1, strength), [over, under] = [name, "ground"].map((one) => colour(one).match(/[0-9a-f]{2}/gi).map((digits) => parseInt(digits, 16) / 255));
  const linear = over.map((v, k) => share * v + (1 - share) * under[k]).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 ? "#000" : "#fff";
}

function drawCharts() {
  const charts = json("charts");
  for (const place of document.querySelectorAll("[data-chart]")) {
    const { config, ...spec } = charts[place.dataset.chart];
    vegaEmbed(place, spec, { actions: false, ast: true, renderer: "svg", config: chartTheme(), tooltip: { theme: dark.matches ? "dark" : "light" } })
      .then(() => {  // one image, which Vega has labelled with the description; its marks have no names
        place.setAttribute("role", "img");
        place.querySelector("svg").setAttribute("aria-hidden", "true");
      });
  }
}

// ---- the confusion matrix: a canvas, because 96 × 96 cells are too many for elements ----

const SMALLEST_NAMED = 7.2;  // pixels of a cell beside which a name can be read
const WIDEST_PAGE = 1080, BESIDE = 100;  // pixels of a page, and of what stands beside the matrix on one of that width

class Confusion {
  constructor(place, data) {
    Object.assign(this, { place, ...data, size: data.classes.length, at: null });
    this.canvas = place.querySelector("canvas");
    this.readout = place.querySelector(".readout");
    this.unnamed = place.querySelector(".unnamed");
    this.order = Object.values(data.orders)[0];
    this.totals = (data.own?.[data.of[0]] ?? data.matrix).map((row) => row.reduce((a, b) => a + b, 0));  // images of a class
    place.querySelector(".order").addEventListener("change", (e) => { this.order = data.orders[e.target.value]; this.draw(); });
    place.querySelector(".view")?.addEventListener("change", (e) => this.show(data.views[e.target.value]));
    place.querySelector(".errors").addEventListener("change", () => this.draw());
    this.canvas.addEventListener("pointermove", (e) => this.point(e));
    this.canvas.addEventListener("pointerdown", (e) => this.point(e));
    this.canvas.addEventListener("pointerleave", () => this.select(null));
    this.canvas.addEventListener("keydown", (e) => this.step(e));
    this.canvas.addEventListener("click", () => this.choose());
    new ResizeObserver(() => this.draw()).observe(place);
  }

  // Of a comparison: one run's matrix, or that of one less another's, whose cells may be negative.
  show(view) {
    Object.assign(this, view, { at: null });
    this.draw();
  }

  get isDifference() { return this.of?.length === 2; }

  layout() {
    const width = this.place.clientWidth, context = this.canvas.getContext("2d");
    context.font = "12px system-ui, sans-serif";
    const widest = Math.max(...this.classes.map((name) => context.measureText(name).width));
    let cell = Math.min(46, (width - widest - 12) / this.size);
    const font = Math.max(7.5, Math.min(12, cell - 1));
    const named = cell >= SMALLEST_NAMED;  // below that, names are in the readout alone
    this.sayUnnamed(named, Math.ceil(SMALLEST_NAMED * this.size + widest + 12) + BESIDE);
    const margin = named ? Math.ceil(widest * font / 12) + 10 : 2;
    cell = Math.min(46, (width - margin - 2) / this.size);
    return { cell, margin, font, named };
  }

  // Where the names of the classes have no room, says where they are.
  sayUnnamed(named, window_px) {
    this.unnamed.hidden = named;
    const wider = window_px <= WIDEST_PAGE ? ` A window of ${window_px} pixels has room for them.` : "";
    this.unnamed.textContent = `The names of ${this.size} classes have no room here: touch or point at a cell, or move by the arrow keys, to read its two classes.${wider}`;
  }

  draw() {
    const { cell, margin, font, named } = (this.shape = this.layout());
    const ratio = devicePixelRatio || 1, side = margin + cell * this.size + 2, errors = this.place.querySelector(".errors").checked;
    this.canvas.width = this.canvas.height = Math.round(side * ratio);
    this.canvas.style.width = this.canvas.style.height = `${side}px`;
    const c = this.canvas.getContext("2d");
    c.scale(ratio, ratio);
    c.fillStyle = colour("ground");
    c.fillRect(margin, margin, cell * this.size, cell * this.size);
    const gap = cell > 12 ? 1 : cell > 6 ? 0.5 : 0;
    const ink = this.isDifference ? this.inkOfDifference(errors) : this.inkOfCounts(errors);
    this.order.forEach((i, y) => this.order.forEach((j, x) => {
      const n = this.matrix[i][j];
      if (!n || (errors && i === j)) return;
      const [name, strength] = ink(n, i, j);
      c.globalAlpha = Math.min(1, strength);
      c.fillStyle = colour(name);
      c.fillRect(margin + x * cell, margin + y * cell, cell - gap, cell - gap);
      c.globalAlpha = 1;
      if (cell >= 26) this.write(c, this.isDifference && n > 0 ? `+${n}` : n, margin + (x + 0.5) * cell, margin + (y + 0.5) * cell, cell, inkOn(name, strength));
    }));
    if (named) this.writeNames(c, margin, cell, font);
    if (this.at) this.frame(c, margin, cell);
  }

  inkOfCounts(errors) {
    const most = Math.max(...this.matrix.map((row, i) => Math.max(0, ...row.filter((_, j) => j !== i).map((n) => n / (this.totals[i] || 1)))));
    return (n, i, j) => {
      const share = n / this.totals[i];
      return i === j ? ["accent", 0.15 + 0.85 * share] : ["warm", 0.12 + 0.88 * Math.sqrt(share / (errors ? most : Math.max(most, 0.25)))];
    };
  }

  inkOfDifference(errors) {
    const most = Math.max(1, ...this.matrix.flatMap((row, i) => row.filter((_, j) => !errors || j !== i).map(Math.abs)));
    return (n) => [n > 0 ? "warm" : "accent", 0.12 + 0.88 * Math.sqrt(Math.abs(n) / most)];
  }

  write(c, n, x, y, cell, ink) {
    c.font = `${Math.min(12.5, cell / String(n).length * 1.35)}px system-ui, sans-serif`;
    c.textAlign = "center"; c.textBaseline = "middle";
    c.fillStyle = ink;
    c.fillText(n, x, y);
  }

  writeNames(c, margin, cell, font) {
    c.font = `${font}px system-ui, sans-serif`;
    c.fillStyle = colour("ink"); c.textBaseline = "middle"; c.textAlign = "right";
    this.order.forEach((k, place) => {
      c.fillText(this.classes[k], margin - 5, margin + (place + 0.5) * cell);
      c.save(); c.translate(margin + (place + 0.5) * cell, margin - 5); c.rotate(-Math.PI / 2); c.textAlign = "left";
      c.fillText(this.classes[k], 0, 0); c.restore();
    });
  }

  frame(c, margin, cell) {
    const [y, x] = this.at;
    c.strokeStyle = colour("ink"); c.lineWidth = 1.5;
    c.strokeRect(margin + x * cell - 0.5, margin + y * cell - 0.5, cell, cell);
    c.globalAlpha = 0.07; c.fillStyle = colour("ink");
    c.fillRect(margin, margin + y * cell, cell * this.size, cell); c.fillRect(margin + x * cell, margin, cell, cell * this.size);
    c.globalAlpha = 1;
  }

  point(event) {
    const { cell, margin } = this.shape, box = this.canvas.getBoundingClientRect();
    const [y, x] = [event.clientY - box.top, event.clientX - box.left].map((v) => Math.floor((v - margin) / cell));
    this.select(x < 0 || y < 0 || x >= this.size || y >= this.size ? null : [y, x]);
  }

  // For a page that has something to show of a cell.
  choose() {
    if (this.at) this.canvas.dispatchEvent(new CustomEvent("cell", { detail: { true: this.order[this.at[0]], predicted: this.order[this.at[1]] } }));
  }

  step(event) {
    if (event.key === "Enter") return this.choose();
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const at = this.at ?? [0, 0];
    this.select(at.map((v, k) => Math.min(this.size - 1, Math.max(0, v + move[k]))));
  }

  select(at) {
    if (String(at) === String(this.at)) return;
    this.at = at;
    this.draw();
    if (!at) return;
    const [i, j] = [this.order[at[0]], this.order[at[1]]], n = this.matrix[i][j], share = (100 * n / (this.totals[i] || 1)).toFixed(1);
    const verb = i === j ? "predicted correctly" : `predicted as “${this.classes[j]}”`;
    if (this.isDifference) {
      const counts = this.of.map((name) => `${this.own[name][i][j].toLocaleString("en")} by ${name}`);
      this.readout.textContent = `“${this.classes[i]}” ${verb}: ${counts.join(", ")}; of ${this.totals[i].toLocaleString("en")} images.`;
      return;
    }
    this.readout.textContent = `“${this.classes[i]}” ${verb}: ${n.toLocaleString("en")} of ${this.totals[i].toLocaleString("en")} images, ${share} %.`;
  }
}

// ---- copying ----

function addCopy(block) {
  const text = block.textContent, button = document.createElement("button");
  button.textContent = "copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  block.append(button);
}

const matrices = json("matrices");
const shown = [...document.querySelectorAll("[data-matrix]")].map((place) => new Confusion(place, matrices[place.dataset.matrix]));
document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll("pre.copy").forEach(addCopy);
drawCharts();
dark.addEventListener("change", () => { drawCharts(); shown.forEach((matrix) => matrix.draw()); });
