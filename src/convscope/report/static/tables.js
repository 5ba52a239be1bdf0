// Tables that sort and boxes that scroll, the same on all pages.

// Orders cells as numbers where both are numbers, else as text; what is empty comes first.
function compareCells(a, b) {
  const [x, y] = [a, b].map((text) => text ? Number(text.replaceAll(/[,%\s]/g, "").replace("−", "-")) : -Infinity);
  return Number.isNaN(x - y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
}

// A button in each heading, so that the keyboard sorts as well; a click beside it counts too.
function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, k) => row.cells[k].dataset.value ?? row.cells[k].textContent.trim();
  heads.forEach((head, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * compareCells(value(a, k), value(b, k))));
    });
  });
}

// The heading that stands before an element, which names it.
function headingOf(element) {
  const before = (one) => one.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING;
  return [...element.closest("section, dialog").querySelectorAll("h2, h3, summary, figcaption")].filter(before).at(-1)?.textContent.trim();
}

// A box whose content is larger than it: the keyboard reaches it, it has a name, and CSS says where there is more.
function markScrolling(box) {
  const mark = () => {
    const wide = box.scrollWidth > box.clientWidth + 1, scrolls = wide || box.scrollHeight > box.clientHeight + 1;
    const names = box.querySelector("tbody th:first-child");  // they stay in sight, so that they must leave room for the rest
    if (wide && names?.offsetWidth > box.clientWidth / 2) box.classList.add("long-names");
    box.classList.toggle("sideways", wide);
    box.classList.toggle("more-right", wide && box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    const name = scrolls ? { tabindex: "0", role: "group", "aria-label": headingOf(box) ?? "table" } : { tabindex: null, role: null, "aria-label": null };
    for (const [key, text] of Object.entries(name)) if (text === null) box.removeAttribute(key); else box.setAttribute(key, text);
  };
  const watch = new ResizeObserver(mark);
  for (const one of [box, ...box.children]) watch.observe(one);
  box.addEventListener("scroll", mark, { passive: true });
}

document.querySelectorAll(".scroll").forEach(markScrolling);
