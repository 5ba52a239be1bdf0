// Keys of a unit's page: the units beside it, and the switch.
import { $ } from "./common.js";

addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = { ArrowLeft: "a[rel=prev]", ArrowRight: "a[rel=next]", o: "#switch" }[event.key];
  if (target) $(target)?.click();
});
