// A cell of the confusion matrix opens its images.
import { link } from "./common.js";

for (const matrix of document.querySelectorAll("[data-matrix='0'] canvas")) {
  matrix.style.cursor = "pointer";
  matrix.addEventListener("cell", (event) => { location.href = link("images", event.detail); });
}
