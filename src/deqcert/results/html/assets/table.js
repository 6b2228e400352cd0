// The table of images: sorted and filtered by DataTables, drawn a page at a time.
const NOTHING = -1;
const known = (value, form) => (value === NOTHING ? "" : form(value));

function drawTables(data) {
  for (const table of document.querySelectorAll("table[data-rows]")) drawTable(table, data);
}

function drawTable(node, data) {
  const norm = node.dataset.rows;
  const image = new Images(data, norm);
  const columns = tableColumns(image);
  const table = new DataTable(node, {
    data: image.columns.index.map((_, k) => [k]),
    columns,
    autoWidth: false,
    deferRender: true,
    pageLength: 25,
    lengthMenu: [25, 100, 500],
    order: [[0, "asc"]],
    layout: { topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
    language: {
      info: "_START_ to _END_ of _TOTAL_",
      infoEmpty: "none",
      infoFiltered: "(of _MAX_)",
      lengthMenu: "_MENU_ per page",
      zeroRecords: "No image matches.",
      emptyTable: "No images.",
    },
  });
  drawFilters(document.querySelector(`[data-filters="${norm}"]`), image, table);
  node.addEventListener("click", (event) => {
    const row = event.target.closest("tbody tr");
    const at = row && table.row(row).data();
    if (at) openView(image, at[0], table);
  });
}

// Columns of numbers, and how a reader sees them.
class Images {
  constructor(data, norm) {
    this.columns = data.images[norm];
    this.runs = data.runs;
    this.thumbnails = data.thumbnails;
    this.norm = norm;
    this.decimals = norm === "L2" ? 4 : 5;
  }
  run(k) {
    return this.runs[this.columns.run[k]];
  }
  className(k, number) {
    if (number === NOTHING) return "abstained";
    const name = this.run(k).classes[number];
    return name === undefined ? String(number) : name;
  }
  thumbnail(k) {
    const webp = this.thumbnails[this.run(k).data]?.[this.columns.index[k]];
    if (!this.thumbnails[this.run(k).data]) return "";
    if (!webp) return make("span", { className: "thumb none" });
    return make("img", {
      className: "thumb",
      src: `data:image/webp;base64,${webp}`,
      alt: `Image ${this.columns.index[k]}, ${this.className(k, this.columns.label[k])}`,
    });
  }
  radius(k, column = "radius") {
    const micro = this.columns[column][k];
    if (micro === 0) return "0";
    return micro === NOTHING ? "none" : down(micro, this.decimals);
  }
  interval(k) {
    const { low, high } = this.columns;
    if (low[k] === NOTHING) return "";
    return `[${down(low[k], 4)}, ${high[k] === NOTHING ? "1" : up(high[k], 4)}]`;
  }
  audit(k) {
    const [drawn, wrong] = this.columns.audit[k];
    return drawn === undefined ? "" : `${grouped(wrong)} of ${grouped(drawn)}`;
  }
}

function tableColumns(image) {
  const c = image.columns;
  const noise = c.low.some((bound) => bound !== NOTHING);
  const column = (title, value, display, more = {}) => ({
    title,
    type: "num",
    searchable: false,
    data: ([k], type) => (type === "display" ? display(k) : value(k)),
    ...more,
  });
  const text = { className: "text" };
  const less = { className: "less" };
  const predicted = (k) =>
    make("span", { className: ["", "wrong"][c.outcome[k]] ?? "quiet" }, image.className(k, c.prediction[k]));
  const radius = (k) =>
    image.run(k).void
      ? make("span", { className: "wrong" }, `${image.radius(k)} `, make("small", {}, "no guarantee"))
      : image.radius(k);
  const pick = (k) =>
    make("button", { type: "button", className: "pick" }, image.thumbnail(k), String(c.index[k]));
  const label = (k) => make("span", {}, image.className(k, c.label[k]));
  const runs = new Set(c.run).size > 1;
  return [
    column("image", (k) => c.index[k], pick, text),
    ...(runs ? [column("run", (k) => c.run[k], (k) => make("span", {}, image.run(k).name), text)] : []),
    column("label", (k) => c.label[k], label, text),
    column("prediction", (k) => c.prediction[k], predicted, text),
    column(`radius (${image.norm})`, (k) => c.radius[k], radius),
    ...(noise
      ? [
          column("radius, all at once", (k) => c.together[k], (k) => image.radius(k, "together"), less),
          column("p of the class", (k) => c.low[k], (k) => image.interval(k), less),
        ]
      : []),
    column("plan", (k) => c.plan[k], (k) => make("span", {}, c.plans[c.plan[k]]), { className: "text less" }),
    ...(c.audit.some((audit) => audit.length)
      ? [column("disagree", (k) => (c.audit[k].length ? c.audit[k][1] / c.audit[k][0] : NOTHING), (k) => image.audit(k), less)]
      : []),
    column("seconds", (k) => c.seconds[k], (k) => known(c.seconds[k], String), less),
  ];
}

function drawFilters(form, image, table) {
  const c = image.columns;
  const field = (title, control) => form.append(make("label", {}, title, control)) ?? control;
  const choice = (title, entries) => {
    const options = [["", "all"], ...entries].map(([value, name]) => make("option", { value: String(value) }, name));
    return field(title, make("select", {}, ...options));
  };
  const distinct = (values) => [...new Set(values)].sort((a, b) => a - b);
  const names = (column) => {
    const firsts = new Map(c[column].map((number, k) => [number, k]));
    return distinct(c[column]).map((number) => [number, image.className(firsts.get(number), number)]);
  };
  const number = field("image", make("input", { type: "search", inputMode: "numeric", size: 7 }));
  const tests = [[number, (k, wanted) => String(c.index[k]).startsWith(wanted.trim())]];
  const equal = (column) => (k, wanted) => c[column][k] === Number(wanted);
  const runs = distinct(c.run);
  if (runs.length > 1) tests.push([choice("run", runs.map((r) => [r, image.runs[r].name])), equal("run")]);
  tests.push([choice("label", names("label")), equal("label")]);
  tests.push([choice("prediction", names("prediction")), equal("prediction")]);
  tests.push([choice("outcome", distinct(c.outcome).map((o) => [o, c.outcomes[o]])), equal("outcome")]);
  if (c.plans.length > 1) tests.push([choice("plan", c.plans.map((name, p) => [p, name])), equal("plan")]);
  const least = field("radius at least", make("input", { type: "number", min: 0, step: "any" }));
  tests.push([least, (k, wanted) => c.radius[k] >= Number(wanted) * 1e6]);
  const reset = make("button", { type: "reset" }, "Clear");
  form.append(reset);
  table.search.fixed("page", (_, [k]) =>
    tests.every(([control, test]) => control.value.trim() === "" || test(k, control.value)),
  );
  // Not every way to choose an entry fires the first.
  for (const kind of ["input", "change"]) form.addEventListener(kind, () => table.draw());
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => table.draw()));
}
