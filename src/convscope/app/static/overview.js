// A cell of the confusion matrix opens its images.
import { client, link } from "./common.js";

for (const matrix of document.querySelectorAll("[data-matrix='0'] canvas")) {
  matrix.style.cursor = "pointer";
  matrix.addEventListener("cell", (event) => {
    if (!client.copy || client.cells.includes(`${event.detail.true}-${event.detail.predicted}`)) location.href = link("images", event.detail);
  });
}
