// Everything a run knows of one image.
let current = null;

function openView(image, k, table) {
  const order = table.rows({ order: "applied", search: "applied" }).data().toArray().map(([at]) => at);
  current = { image, order, at: order.indexOf(k), k };
  if (!element("view").open) element("view").showModal(); // figures need to know their width
  drawView();
}

function step(by) {
  const at = current.at + by;
  if (at < 0 || at >= current.order.length) return;
  current = { ...current, at, k: current.order[at] };
  drawView();
}

function listenToView() {
  const view = element("view");
  view.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  view.addEventListener("click", (event) => {
    if (event.target === view) view.close(); // outside of its content
  });
}

function drawView() {
  const { image, k, at, order } = current;
  const c = image.columns;
  const focus = document.activeElement?.dataset?.step;
  const button = (text, by, disabled) => {
    const node = make("button", { type: "button", disabled, onclick: () => step(by) }, text);
    node.dataset.step = by;
    return node;
  };
  const close = make("button", { type: "button", onclick: () => element("view").close() }, "Close");
  const plot = make("div", { className: "wide", id: "view-plot" });
  element("view").replaceChildren(
    make(
      "div",
      { className: "view-head" },
      make("h2", { id: "view-title" }, `Image ${c.index[k]}: ${image.className(k, c.label[k])}`),
      make(
        "div",
        { className: "buttons" },
        button("Previous", -1, at <= 0),
        button("Next", 1, at < 0 || at >= order.length - 1),
        close,
      ),
    ),
    make("div", { className: "view-body" }, image.thumbnail(k), facts(image, k), plot, solves(image, k), others(image, k)),
  );
  drawCounts(plot, image, k);
  (element("view").querySelector(`[data-step="${focus}"]:not(:disabled)`) ?? close).focus();
}

function facts(image, k) {
  const c = image.columns;
  const [drawn, wrong, population] = c.audit[k];
  const [chosen, votes, n0] = c.chosen[k];
  const { claims, void: unclaimed } = image.run(k);
  const interval = image.interval(k);
  const entries = [
    ["run", image.run(k).name],
    ["outcome", c.outcomes[c.outcome[k]]],
    ["prediction", image.className(k, c.prediction[k])],
    [`radius (${image.norm}), pixel units`, image.radius(k) + (unclaimed ? ", no guarantee" : "")],
    ["radius if all claims hold at once", interval && claims ? image.radius(k, "together") : ""],
    ["p of the class", c.high[k] === NOTHING && interval ? `at least ${down(c.low[k], 4)}; not bounded above` : interval],
    ["selection", votes === undefined ? "" : `${image.className(k, chosen)} in ${votes} of ${n0} draws`],
    ["plan", c.plans[c.plan[k]]],
    ["because", c.reasons[c.reason[k]]],
    ["audit", drawn === undefined ? "" : `${grouped(wrong)} of ${grouped(drawn)} disagree, drawn from ${grouped(population)}`],
    ["cell evaluations", known(c.cost[k], grouped)],
    ["seconds", known(c.seconds[k], String)],
  ];
  const shownEntries = entries.filter(([, value]) => value);
  return make(
    "dl",
    { className: "view-facts" },
    ...shownEntries.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
}

// Steps and residuals of the solves, by share of the draws.
function solves(image, k) {
  const c = image.columns;
  const read = (values) => {
    const found = new Map();
    for (let i = 0; i < values.length; i += 2) found.set(values[i], values[i + 1]);
    return found;
  };
  const [steps, residual] = [read(c.steps[k]), read(c.residual[k])];
  const shares = [...new Set([...steps.keys(), ...residual.keys()])].sort((a, b) => a - b);
  if (!shares.length) return "";
  const row = (name, found, form) => [
    name,
    ...shares.map((share) => (found.has(share) ? form(found.get(share)) : "")),
  ];
  return listing(
    "Solves",
    ["of the draws, at most", ...shares.map((share) => `${100 * share} %`)],
    [row("steps", steps, String), row("relative residual", residual, (value) => value.toExponential(1))],
  );
}

// A table with a heading; rows are lists of texts and nodes, the first of each is its name.
function listing(title, head, rows) {
  const cells = (tag, scope, texts) => texts.map((text) => make(tag, scope, text));
  return make(
    "div",
    { className: "wide scroll" },
    make("h3", {}, title),
    make(
      "table",
      {},
      make("thead", {}, make("tr", {}, ...cells("th", { scope: "col" }, head))),
      make(
        "tbody",
        {},
        ...rows.map(([name, ...rest]) =>
          make("tr", {}, make("th", { scope: "row" }, name), ...cells("td", {}, rest)),
        ),
      ),
    ),
  );
}

// The same image in the other runs of this norm.
function others(image, k) {
  const c = image.columns;
  const same = [];
  c.index.forEach((index, j) => {
    if (index === c.index[k] && image.run(j).data === image.run(k).data) same.push(j);
  });
  const head = ["run", "prediction", `radius (${image.norm})`, "plan", "seconds"];
  const row = (j) => {
    const go = () => {
      current = { ...current, k: j, at: current.order.indexOf(j) };
      drawView();
    };
    const name = image.run(j).name;
    const cell = j === k ? name : make("button", { type: "button", onclick: go }, name);
    const radius = image.radius(j) + (image.run(j).void ? " no guarantee" : "");
    return [cell, image.className(j, c.prediction[j]), radius, c.plans[c.plan[j]], known(c.seconds[j], String)];
  };
  const table = listing(same.length > 1 ? "This image in all runs" : "This image", head, same.map(row));
  table.querySelectorAll("tbody tr")[same.indexOf(k)].setAttribute("aria-current", "true");
  return table;
}

function drawCounts(plot, image, k) {
  const c = image.columns;
  const counts = c.counts[k];
  if (!counts.length) return plot.remove();
  const names = [];
  const shares = [];
  const texts = [];
  for (let i = 0; i < counts.length; i += 2) {
    names.push(image.className(k, counts[i]));
    shares.push(counts[i + 1] / c.n[k]);
    texts.push(grouped(counts[i + 1]));
  }
  const ink = "#1c1c1c";
  const bars = {
    type: "bar",
    orientation: "h",
    x: shares,
    y: names.map((_, i) => i),
    text: texts,
    textposition: "auto",
    insidetextanchor: "start",
    marker: { color: "#9cc3dd", line: { color: "#0b5a8a", width: 1 } },
    hoverinfo: "skip",
  };
  const traces = [bars];
  const at = counts.findIndex((value, i) => i % 2 === 0 && value === c.chosen[k][0]) / 2;
  if (c.low[k] !== NOTHING && at >= 0) {
    const [low, high] = [c.low[k] / 1e6, c.high[k] === NOTHING ? 1 : c.high[k] / 1e6];
    traces.push({
      x: [low, high],
      y: [at, at],
      mode: "lines+markers",
      line: { color: ink, width: 2 },
      marker: { symbol: "line-ns-open", size: 16, color: ink },
      hoverinfo: "skip",
    });
  }
  const layout = {
    height: 110 + 26 * names.length,
    margin: { l: 10, r: 14, t: 30, b: 40 },
    font: { family: getComputedStyle(plot).fontFamily, size: 12, color: ink },
    showlegend: false,
    dragmode: false,
    title: { text: `Labels among ${grouped(c.n[k])} draws`, font: { size: 13 }, x: 0, xanchor: "left" },
    xaxis: { range: [0, 1.01], title: { text: "share of the draws; line: interval of p" }, zeroline: false, fixedrange: true },
    yaxis: {
      autorange: "reversed",
      automargin: true,
      fixedrange: true,
      tickmode: "array",
      tickvals: names.map((_, i) => i),
      ticktext: names.map(plotText),
      zeroline: false,
      showgrid: false,
    },
    shapes: [{ type: "line", x0: 0.5, x1: 0.5, yref: "paper", y0: 0, y1: 1, line: { color: "#a33b00", width: 1.5, dash: "4px,3px" } }],
  };
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", names.map((name, i) => `${name}: ${texts[i]} draws`).join(", "));
  Plotly.newPlot(plot, traces, layout, { displayModeBar: false, responsive: true });
}

// Plotly reads a few tags and entities in texts; a name is to be read as it is.
const plotText = (name) => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
