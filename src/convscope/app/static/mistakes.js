// The queue of mistakes: one at a time, judged by a key, written at once.
import { $, ask, client, data, element, imageAddress, isolated, link, newestOnly, percent, writeAddress } from "./common.js";

const queue = data("queue-data");
const start = Number(new URLSearchParams(location.search).get("at")) || 0;
let at = Math.min(queue.length - 1, Math.max(0, start)), verdicts = {};
const WORDS = { label: "label wrong", ambiguous: "ambiguous", model: "model's fault" };

const items = queue.map((one, k) => {
  const picture = element("img", { alt: "", loading: "lazy", width: 40, height: 40, src: imageAddress(one.row, 40) });
  const button = element("button", { type: "button", "data-row": one.row }, picture, element("span", {}, `${isolated(one.true)} → ${isolated(one.predicted)}`), element("small", { class: "faint" }));
  button.addEventListener("click", () => show(k));
  return button;
});
$("#queue .list").replaceChildren(...items.map((button) => element("li", {}, button)));

function show(k) {
  items[at].removeAttribute("aria-current");
  at = Math.min(queue.length - 1, Math.max(0, k));
  const one = queue[at];
  items[at].setAttribute("aria-current", "true");
  items[at].scrollIntoView({ block: "nearest" });
  $("#what").textContent = `“${one.true}” predicted as “${one.predicted}”`;
  $("#where").textContent = `${at + 1} of ${queue.length}: test image ${one.row}, ${one.name}; loss ${one.loss.toFixed(2)} nats${one.right_before ? "; right until the units were switched off" : ""}`;
  $("#big").src = imageAddress(one.row, 192);
  $("#big").alt = `test image ${one.row}`;
  $("#open-lab").href = link("lab", { image: one.row });
  writeAddress(() => {
    const address = new URL(location.href);
    address.searchParams.set("at", at);
    return address;
  });
  showMap();
  $("#nearest").replaceChildren(element("span", { class: "faint" }, "being looked for …"));
  showNearest(one.row);
  mark();
}

const off = new URLSearchParams(location.search).get("off") ?? "";

function showMap() {
  $("#map").src = client.copy ? `images/${$("#lens").value}-${queue[at].row}.png` : `/attribution/${queue[at].row}.png?${new URLSearchParams({ run: client.run, lens: $("#lens").value, ...(off ? { off } : {}) })}`;
  $("#map").alt = `${$("#lens").selectedOptions[0].textContent} of test image ${queue[at].row}`;
}

const showNearest = newestOnly(async (row) => {
  const place = $("#nearest");
  try {
    const found = await ask(`/api/nearest?run=${client.run}&image=${row}`);
    if (queue[at].row !== row) return;
    place.replaceChildren(...found.nearest.map((one) => element("figure", {}, element("img", { src: imageAddress(one.row, 64, "train"), alt: `training image ${one.row}`, width: 64, height: 64 }), element("figcaption", {}, `${isolated(one.class)} ${one.similarity.toFixed(2)}`))));
  } catch (error) {
    if (queue[at].row === row) place.replaceChildren(element("span", { class: "faint" }, error.message));
  }
});

function mark() {
  queue.forEach((one, k) => { items[k].lastChild.textContent = WORDS[verdicts[one.row]] ?? ""; });
  for (const button of document.querySelectorAll("[data-verdict]")) button.setAttribute("aria-pressed", String((verdicts[queue[at].row] ?? "") === button.dataset.verdict));
}

function showFigures(found) {
  verdicts = found.verdicts;
  const counts = Object.values(verdicts).reduce((sum, verdict) => ({ ...sum, [verdict]: (sum[verdict] ?? 0) + 1 }), {});
  $("#reviewed").textContent = String(Object.keys(verdicts).length);
  $("#counts").textContent = Object.entries(WORDS).filter(([key]) => counts[key]).map(([key, words]) => `${counts[key]} ${words}`).join(", ");
  if (found.without) {
    $("#without-doubtful").textContent = percent(found.without.value, 2);
    $("#without-words").textContent = `95 %: ${(100 * found.without.low).toFixed(2)} to ${(100 * found.without.high).toFixed(2)}; ${found.left_out} left out`;
  } else {
    $("#without-doubtful").textContent = "–";
    $("#without-words").textContent = "no label is in doubt yet";
  }
  mark();
}

async function judge(verdict) {
  const row = queue[at].row;
  try {
    showFigures(await ask(`/api/review?run=${client.run}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ image: row, verdict: verdict || null }) }));
    $("#problem").textContent = "";
    if (verdict && at + 1 < queue.length) show(at + 1);
  } catch (error) {
    $("#problem").textContent = `This was not written: ${error.message}`;
  }
}

for (const button of document.querySelectorAll("[data-verdict]")) button.addEventListener("click", () => judge(button.dataset.verdict));
$("#next").addEventListener("click", () => show(at + 1));
$("#previous").addEventListener("click", () => show(at - 1));
$("#lens").addEventListener("change", showMap);
addEventListener("keydown", (event) => {
  if (event.target.closest("select, input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const work = { l: () => judge("label"), a: () => judge("ambiguous"), m: () => judge("model"), u: () => judge(""), n: () => show(at + 1), p: () => show(at - 1), ArrowDown: () => show(at + 1), ArrowUp: () => show(at - 1) }[event.key];
  if (!work) return;
  event.preventDefault();
  work();
});

show(at);
ask(`/api/review?run=${client.run}`).then(showFigures).catch((error) => { $("#problem").textContent = error.message; });
