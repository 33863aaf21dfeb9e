// Section 4: what jconv answers for a layer. The answers travel with the page, one per setting of the
// fields; sizes and counts are computed here.

const LAYERS = DATA.layers;
const layer = copy(LAYERS.presets[1].fields);
const WORDS = { batch: "batch", size: "image", c: "channels in", o: "channels out", kernel: "kernel", stride: "stride", groups: "groups" };

const keyOf = (fields) => Object.keys(LAYERS.fields).map((name) => fields[name]).join();
const known = (fields) => LAYERS.answers[keyOf(fields)];
const groupsOf = ({ groups, c }) => (groups === "depthwise" ? +c : +groups);

function layerFacts(fields) {
  const [n, h, c, o, k, stride] = ["batch", "size", "c", "o", "kernel", "stride"].map((name) => +fields[name]);
  const groups = groupsOf(fields);
  const padding = Math.floor(k / 2);
  const out = windows(h + 2 * padding, k, stride);
  const parameters = (k * k * c * o) / groups;
  const macs = n * out * out * parameters;
  const bytes = 4 * (n * h * h * c + parameters + n * out * out * o);
  return { out, parameters, macs, flops: 2 * macs, bytes, padding };
}

const grouped = (number) => Math.round(number).toLocaleString("en-US").replaceAll(",", "\u202f");

function sizeInWords(bytes) {
  for (const [unit, factor] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (bytes >= factor) return `${(bytes / factor).toFixed(bytes >= 10 * factor ? 0 : 1)} ${unit}`;
  }
  return `${bytes} B`;
}

const timeInWords = (microseconds) =>
  microseconds >= 1e6 ? `${(microseconds / 1e6).toPrecision(3)} s` : microseconds >= 1e3 ? `${(microseconds / 1e3).toPrecision(3)} ms` : `${microseconds.toPrecision(3)} µs`;

function paintLayer() {
  for (const select of document.querySelectorAll("[data-field]")) select.value = layer[select.dataset.field];
  const groups = byId("field-groups");
  for (const option of groups.options) option.disabled = !known({ ...layer, groups: option.value });
  const facts = layerFacts(layer);
  paintFacts(facts);
  const answer = known(layer);
  byId("verdict").replaceChildren("jconv chooses ", element("b", { id: "chosen" }, LAYERS.names[answer.chosen]), ": ",
    LAYERS.texts[answer.reason].replace(`${LAYERS.names[answer.chosen]}: `, ""));
  paintTable(answer, facts);
  for (const button of byId("presets").children) button.setAttribute("aria-pressed", String(button.dataset.key === keyOf(layer)));
}

function paintFacts({ out, parameters, macs, flops, bytes, padding }) {
  const facts = [
    ["output", `${layer.batch}×${layer.o}×${out}×${out}`, "out", out], ["padding", padding, "padding", padding],
    ["kernel values", grouped(parameters), "parameters", parameters], ["multiply-adds", grouped(macs), "macs", macs],
    ["FLOPs (2 each)", grouped(flops), "flops", flops], ["x, w and y, once", sizeInWords(bytes), "bytes", bytes],
  ];
  byId("spec-facts").replaceChildren(...facts.map(([name, shown, id, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", { "data-fact": id, "data-value": value }, String(shown)))));
}

const COLUMNS = ["multiplications", "workspace", "estimated time"];

// rows: [microseconds, bytes of workspace, multiplications where they are not the direct sum's], or the
// number of the sentence in which the algorithm refuses.
function paintTable({ chosen, rows }, { macs }) {
  const head = element("tr", {}, ...["algorithm", ...COLUMNS].map((name) => element("th", { scope: "col" }, name)));
  const indices = rows.map((_, i) => i);
  const able = indices.filter((i) => Array.isArray(rows[i])).sort((a, b) => rows[a][0] - rows[b][0]);
  const slowest = rows[able.at(-1)][0];
  byId("algorithm-table").replaceChildren(element("caption", {}, "Every algorithm that takes this layer, forward"), element("thead", {}, head),
    element("tbody", {}, ...able.map((i) => algorithmRow(i, rows[i], i === chosen, slowest, macs))));
  const others = indices.filter((i) => !able.includes(i));
  byId("refusals").hidden = !others.length;
  byId("refusals-count").textContent = `${others.length} do not take it`;
  byId("refusals-list").replaceChildren(...others.map((i) =>
    element("li", { "data-algorithm": LAYERS.names[i] }, element("b", {}, LAYERS.names[i]), `: ${LAYERS.texts[rows[i]]}`)));
}

function algorithmRow(index, [time, workspace, multiplications], isChosen, slowest, macs) {
  const name = element("th", { scope: "row" }, LAYERS.names[index], element("small", {}, LAYERS.about[index]));
  const row = element("tr", { "data-algorithm": LAYERS.names[index], class: isChosen ? "chosen" : "" }, name);
  const count = multiplications ?? macs;
  const share = count === macs ? "" : ` (${(count / macs).toPrecision(2)}×)`;
  const bar = element("span", { class: "bar", style: `--part:${Math.max(1, (100 * time) / slowest)}%` });
  const cell = (column, value, ...shown) => element("td", { "data-label": COLUMNS[column], "data-value": value }, ...shown);
  row.append(cell(0, count, grouped(count) + share), cell(1, workspace, workspace ? sizeInWords(workspace) : "none"),
    cell(2, time, bar, timeInWords(time)));
  row.lastChild.className = "time";
  return row;
}

function setLayer(change) {
  Object.assign(layer, change);
  if (!known(layer)) layer.groups = "1";
  paintLayer();
}

function startAlgorithms() {
  for (const [name, values] of Object.entries(LAYERS.fields)) {
    const select = element("select", { "data-field": name, id: `field-${name}` }, ...values.map((value) => element("option", { value }, fieldText(name, value))));
    select.addEventListener("change", () => setLayer({ [name]: select.value }));
    byId("spec-fields").append(element("label", {}, `${WORDS[name]} `, select));
  }
  for (const { name, fields } of LAYERS.presets) {
    const button = element("button", { type: "button", "data-key": keyOf(fields) }, name);
    button.addEventListener("click", () => setLayer(copy(fields)));
    byId("presets").append(button);
  }
  byId("platform-note").textContent = LAYERS.note;
  paintLayer();
}

const fieldText = (name, value) => (["size", "kernel"].includes(name) ? `${value}×${value}` : value);
