// The curves of a training, drawn anew as its folder grows.
import { $, ask, client } from "./common.js";

const PERIOD_MS = 2000;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function draw(canvas, rows, measure) {
  const width = canvas.clientWidth || 480, height = 240, ratio = devicePixelRatio || 1, left = 44, bottom = 26;
  canvas.style.width = "100%"; canvas.style.height = `${height}px`;
  canvas.width = width * ratio; canvas.height = height * ratio;
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  const values = rows.flatMap((row) => [row[`train_${measure}`], row[`val_${measure}`]]).filter(Number.isFinite);
  if (!values.length) return;
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1, last = Math.max(2, rows.length);
  const x = (epoch) => left + ((epoch - 1) / (last - 1)) * (width - left - 8), y = (value) => 10 + (1 - (value - low) / span) * (height - bottom - 10);
  c.font = "12px system-ui, sans-serif"; c.fillStyle = colour("faint"); c.strokeStyle = colour("line");
  for (const share of [0, 0.5, 1]) {
    const value = low + share * span;
    c.beginPath(); c.moveTo(left, y(value)); c.lineTo(width - 8, y(value)); c.stroke();
    c.textAlign = "right"; c.textBaseline = "middle"; c.fillText(measure === "loss" ? value.toFixed(2) : `${(100 * value).toFixed(0)} %`, left - 5, y(value));
  }
  c.textAlign = "center"; c.textBaseline = "bottom"; c.fillText(`epoch 1${rows.length > 1 ? ` to ${rows.length}` : ""}: ${measure}, train (blue) and validation (orange)`, width / 2, height - 4);
  for (const [part, name] of [["train", "accent"], ["val", "warm"]]) {
    c.strokeStyle = colour(name); c.fillStyle = colour(name); c.lineWidth = 2; c.beginPath();
    rows.forEach((row, k) => { const v = row[`${part}_${measure}`]; if (Number.isFinite(v)) k ? c.lineTo(x(row.epoch), y(v)) : c.moveTo(x(row.epoch), y(v)); });
    c.stroke();
    rows.forEach((row) => { const v = row[`${part}_${measure}`]; if (Number.isFinite(v)) { c.beginPath(); c.arc(x(row.epoch), y(v), 2.5, 0, 7); c.fill(); } });
  }
}

async function follow() {
  for (;;) {
    const found = await ask(`/api/history?run=${client.run}`).catch((error) => { $("#epochs").textContent = error.message; });
    if (found?.evaluated) return location.reload();
    if (found?.rows.length) {
      const last = found.rows.at(-1), best = Math.max(...found.rows.map((row) => row.val_accuracy ?? 0));
      $("#epochs").textContent = `${found.rows.length} of ${found.epochs} epochs; validation accuracy ${(100 * (last.val_accuracy ?? 0)).toFixed(2)} %, best so far ${(100 * best).toFixed(2)} %.`;
      draw($("#live-loss"), found.rows, "loss");
      draw($("#live-accuracy"), found.rows, "accuracy");
    }
    await new Promise((done) => setTimeout(done, PERIOD_MS));
  }
}

follow();
