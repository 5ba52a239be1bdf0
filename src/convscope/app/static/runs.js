// The table of runs: sorted by its heads, and followed while runs go on.
import { $ } from "./common.js";

const PERIOD_MS = 3000;
const sort = () => document.querySelectorAll("table.sortable").forEach(makeSortable);

async function follow() {
  while ($("#runs-table").dataset.going !== "0") {
    await new Promise((done) => setTimeout(done, PERIOD_MS));
    const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
    if (!answer?.ok) continue;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const place of ["#runs-table", ".lead"]) $(place).replaceWith(document.adoptNode($(place, page)));
    sort();
  }
}

sort();
follow();
