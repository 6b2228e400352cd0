// Figures, and what a reader may show, hide and choose in them.
const shown = {};
const CONFIG = { responsive: true, displayModeBar: false, doubleClick: "reset", showTips: false };
const PAPER = { width: 680, height: 350 };

function drawFigures(data) {
  for (const { figure, norm } of Object.values(data.pictures)) {
    shown[norm] ??= { hidden: new Set(), kind: "each", bands: true, published: new Set() };
    for (const { meta, visible } of figure.data)
      if (meta.part === "published" && visible) shown[norm].published.add(meta.row);
  }
  const coarse = matchMedia("(pointer: coarse)").matches;
  for (const plot of document.querySelectorAll("[data-picture]")) {
    const { figure } = data.pictures[plot.dataset.picture];
    // Under a finger a drag scrolls the page; the buttons zoom.
    figure.layout.dragmode = coarse ? false : "zoom";
    if (plot.clientWidth < 560) narrow(plot, figure.layout);
    Plotly.newPlot(plot, figure.data, figure.layout, CONFIG);
  }
  listen(data);
}

// On a phone two panels stand one above the other, and margins shrink.
function narrow(plot, layout) {
  layout.margin = { ...layout.margin, l: Math.min(layout.margin.l, 48), r: 8 };
  layout.font.size = 12;
  if (!layout.xaxis2) return;
  plot.style.height = "560px";
  layout.xaxis.domain = layout.xaxis2.domain = [0, 1];
  layout.yaxis.domain = [0.6, 1];
  layout.yaxis2.domain = [0, 0.38];
  layout.annotations[0].x = layout.annotations[1].x = 0.5;
  layout.annotations[1].y = 0.38;
}

function listen(data) {
  const each = (selector, action) =>
    document.querySelectorAll(selector).forEach((control) => {
      control.addEventListener(control.tagName === "BUTTON" ? "click" : "change", () => action(control));
    });
  each("input[data-run]", (box) => {
    const { norm, run } = box.dataset;
    shown[norm].hidden[box.checked ? "delete" : "add"](Number(run));
    for (const twin of document.querySelectorAll(`input[data-run="${run}"][data-norm="${norm}"]`))
      twin.checked = box.checked;
    refresh(data, norm);
  });
  each("input[data-kind]", (radio) => {
    shown[radio.dataset.kind].kind = radio.value;
    refresh(data, radio.dataset.kind);
  });
  each("input[data-bands]", (box) => {
    shown[box.dataset.bands].bands = box.checked;
    refresh(data, box.dataset.bands);
  });
  each("input[data-published]", (box) => {
    const { published } = shown[box.dataset.published];
    published[box.checked ? "add" : "delete"](Number(box.value));
    refresh(data, box.dataset.published);
  });
  document.querySelectorAll("input[data-published]").forEach((box) => {
    box.checked = shown[box.dataset.published].published.has(Number(box.value));
  });
  each("button[data-zoom]", (button) => zoom(data, button.dataset.figure, button.dataset.zoom));
  each("select[data-pareto]", (select) => compare(data, select.dataset.figure));
}

const plotOf = (key) => document.querySelector(`[data-picture="${key}"]`);

function isShown(meta, { hidden, kind, bands, published }) {
  if (meta.part === "published") return published.has(meta.row);
  if (meta.run !== undefined && hidden.has(meta.run)) return false;
  if (meta.kind !== undefined && meta.kind !== kind) return false;
  return meta.part !== "band" || bands;
}

function refresh(data, norm) {
  for (const [key, picture] of Object.entries(data.pictures)) {
    if (picture.norm !== norm) continue;
    const plot = plotOf(key);
    Plotly.restyle(plot, { visible: plot.data.map(({ meta }) => isShown(meta, shown[norm])) });
  }
}

function zoom(data, key, direction) {
  const plot = plotOf(key);
  const { xaxis, yaxis } = data.pictures[key].more.whole;
  const whole = { x: xaxis, y: yaxis };
  const change = {};
  for (const [axis, [first, last]] of Object.entries(whole)) {
    const [low, high] = plot.layout[`${axis}axis`].range;
    const half = ((high - low) / 2) * { in: 0.6, out: 1 / 0.6, all: Infinity }[direction];
    const middle = (low + high) / 2;
    change[`${axis}axis.range`] = [Math.max(first, middle - half), Math.min(last, middle + half)];
  }
  Plotly.relayout(plot, change);
}

// Another cost or result for the same runs.
function compare(data, key) {
  const plot = plotOf(key);
  const { costs, results, fronts, scales } = data.pictures[key].more;
  const chosen = (what) =>
    document.querySelector(`select[data-pareto="${what}"][data-figure="${key}"]`).value;
  const [cost, result] = [chosen("cost"), chosen("result")];
  const [x, y, best] = [costs[cost], results[result], fronts[cost][result]];
  const points = x.map((value, k) => ({ x: [value], y: [y[k]] }));
  const front = { x: best.map((k) => x[k]), y: best.map((k) => y[k]) };
  const all = [front, ...points];
  Plotly.update(
    plot,
    { x: all.map((trace) => trace.x), y: all.map((trace) => trace.y) },
    { "xaxis.title.text": cost, "xaxis.type": scales[cost], "yaxis.title.text": result, "xaxis.autorange": true, "yaxis.autorange": true },
  );
}

// Figures are drawn for the screen; paper has its own width.
function preparePrint() {
  document.querySelectorAll("details").forEach((part) => {
    part.dataset.was = part.open;
    part.open = true;
  });
  document.querySelectorAll("[data-picture]").forEach((plot) => {
    plot.dataset.height = plot.style.height;
    const height = Math.min(plot.clientHeight, PAPER.height);
    plot.style.height = `${height}px`;
    Plotly.relayout(plot, { width: PAPER.width, height });
  });
}

function endPrint() {
  document.querySelectorAll("details").forEach((part) => (part.open = part.dataset.was === "true"));
  document.querySelectorAll("[data-picture]").forEach((plot) => {
    plot.style.height = plot.dataset.height;
    Plotly.relayout(plot, { width: null, height: null, autosize: true });
  });
}
