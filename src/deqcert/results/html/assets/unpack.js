// What the page carries is packed: gzip in base64. Nothing is fetched.
const element = (id) => document.getElementById(id);

async function unpack(id) {
  const bytes = Uint8Array.from(atob(element(id).textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// The policy lets exactly this text run: its hash is named there.
function execute(text) {
  const script = document.createElement("script");
  script.textContent = text;
  document.head.append(script);
}

// Strings become text, never markup: class names and reasons come from strangers.
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// Whole millionths as decimals, rounded down; lower bounds and radii never show more than they are.
const down = (micro, decimals) => (Math.floor(micro / 10 ** (6 - decimals)) / 10 ** decimals).toFixed(decimals);
const up = (micro, decimals) => (Math.ceil(micro / 10 ** (6 - decimals)) / 10 ** decimals).toFixed(decimals);
const grouped = (number) => number.toLocaleString("en-US");
