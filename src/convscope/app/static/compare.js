// One image, with the same edits, as two networks see it.
import { $, data, drawImage, drawMap, element, labSocket, link, percent, writeAddress } from "./common.js";

const about = data("compare-data");
let image = about.image, seq = 0;
const places = about.runs.map((_, k) => {
  const picture = element("canvas"), map = element("canvas"), bars = element("div"), words = element("figcaption");
  $("#both").append(element("figure", {}, element("h3", {}, about.names[k]), element("div", { class: "two" }, picture, map), bars, words));
  return { picture, map, bars, words };
});
const tell = about.runs.map((_, k) => labSocket(() => ask(k), (message) => answer(k, message), (header, bytes) => frame(k, header, bytes), (words) => { places[k].words.textContent = words; }));

const ask = (k) => tell[k]({ seq, run: about.runs[k], image, edits: about.edits, lens: $("#lens").value });

function askBoth() {
  seq += 1;
  $("#row").value = image;
  $("#edit").href = link("lab", { image, edits: about.edits.length ? JSON.stringify(about.edits) : null });
  writeAddress(() => {
    const address = new URL(location.href);
    address.searchParams.set("image", image);
    return address;
  });
  about.runs.forEach((_, k) => ask(k));
}

function answer(k, message) {
  if (message.error) { places[k].words.textContent = message.error; return; }
  if (message.seq !== seq || message.done) return;
  const order = message.probabilities.map((value, place) => [value, place]).sort((a, b) => b[0] - a[0]).slice(0, 5);
  places[k].bars.replaceChildren(...order.map(([value, place]) => {
    const bar = element("i", { class: "after" });
    bar.style.width = `${100 * value}%`;
    return element("div", { class: "bars-row" }, element("span", {}, about.classes[k][place] ?? `class ${place}`), element("div", { class: "pair-of-bars" }, bar), element("output", {}, percent(value)));
  }));
}

function frame(k, header, bytes) {
  if (header.seq !== seq) return;
  if (header.layer === "input") {
    const [height, width] = header.shape;
    places[k].picture.parentElement.style.setProperty("--aspect", String(width / height));
    drawImage(places[k].picture, bytes, height, width);
  } else {
    const [, height, width] = header.shape;
    drawMap(places[k].map, bytes.subarray(height * width), height, width, header.scale[0] < 0);
    places[k].words.textContent = `${header.label} for ${about.classes[k][header.target] ?? `class ${header.target}`}`;
  }
}

const step = (by) => { image = (image + by + about.images) % about.images; askBoth(); };
$("#previous").addEventListener("click", () => step(-1));
$("#next").addEventListener("click", () => step(1));
$("#row").addEventListener("change", ({ target }) => { image = Math.min(about.images - 1, Math.max(0, Math.floor(Number(target.value)) || 0)); askBoth(); });
$("#lens").addEventListener("change", askBoth);
$("#edit-words").textContent = about.edits.length ? `With ${about.edits.length} edits: ${about.edits.map((edit) => edit?.[0]).join(", ")}.` : "";
askBoth();
