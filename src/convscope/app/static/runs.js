// The table of runs: sorted by its heads, and followed while runs go on.
import { $ } from "./common.js";

const PERIOD_MS = 3000;
const box = $("#runs-table");

async function follow() {
  while (box.dataset.going !== "0") {
    await new Promise((done) => setTimeout(done, PERIOD_MS));
    const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
    if (!answer?.ok) continue;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html"), found = $("#runs-table", page);
    $(".lead").replaceWith(document.adoptNode($(".lead", page)));
    box.dataset.going = found.dataset.going;
    show($("table", found));
  }
}

// The table in place of the one that is there: sorted as it is, the focus where it is.
function show(table) {
  const sorted = $("[aria-sort]", box), focused = box.contains(document.activeElement) && document.activeElement.textContent;
  const again = sorted && [...table.tHead.rows[0].cells].find((head) => head.textContent === sorted.textContent);
  box.replaceChildren(table);
  makeSortable(table);
  for (let k = 0; k < (sorted?.getAttribute("aria-sort") === "ascending" ? 2 : 1); k++) again?.click();
  [...box.querySelectorAll("a, button")].find((one) => one.textContent === focused)?.focus();
}

makeSortable($("table", box));
follow();
