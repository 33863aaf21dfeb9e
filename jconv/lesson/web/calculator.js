// Section 2: your own numbers.

function paintCalculator() {
  const conv = forward();
  const fits = sizesOf(conv).out.every((size) => size > 0);
  const at = fits ? position() : null;
  const terms = fits ? termsOf(conv, at) : [];
  const used = new Set(terms.filter(({ source }) => source).map(({ source }) => source.join()));
  paintStack(byId("calc-x"), state.x, (c) => ({ name: nameOf("channel", c, state.x.length), label: `input channel ${c}`, edit: edit("x", c),
    look: (i, j) => "input" + (used.has(`${i},${j}`) ? " lit" : "") }));
  paintKernels(byId("calc-w"), conv);
  paintGrid(byId("calc-b"), { matrix: [state.b], label: "bias", edit: (i, o, value) => update({ b: moving(state.b, [o], () => value) }), look: (i, o) => "bias" + (o === state.o ? " lit" : "") });
  paintNamed();
  byId("size-formula").replaceChildren(...sizeFormula(sizesOf(conv)));
  if (!fits) return;
  const y = convolve(conv);
  paintStack(byId("calc-y"), y, (o) => ({ name: nameOf("channel", o, y.length), label: `output channel ${o}`, picked: o === state.o ? at.slice(1) : null,
    press: (p, q) => update(goToCell(o, p, q)), look: (p, q) => "output" + (o === state.o && p === at[1] && q === at[2] ? " lit" : "") }));
  paintSum(byId("calc-sum"), `y[${at}] =`, terms, valueOf(conv, at), { bias: biasOf(conv, state.o) });
}

// A row of grids for each output channel, a grid for each input channel.
function paintKernels(host, conv) {
  const [outs, ins] = [conv.w.length, conv.x.length];
  host.style.setProperty("--across", ins);
  paintStack(host, conv.w.flat(), (k) => {
    const [o, c] = [Math.floor(k / ins), k % ins];
    return { name: outs * ins > 1 ? `${c} → ${o}` : "", label: `kernel ${c} to ${o}`, edit: edit("w", o, c), look: () => "kernel" + (o === state.o ? " lit" : "") };
  });
}
paintCalculator.always = true;

function sizeFormula({ given, kernel, out }) {
  const line = (...parts) => element("p", { class: "mono" }, ...parts);
  const numbers = (d, name) => line(`${name} = ⌊(${given[d]} + 2·${state.padding} − ${state.dilation}·(${kernel[d]} − 1) − 1) / ${state.stride}⌋ + 1 = `,
    element("b", { "data-size": name }, String(out[d])));
  return [line("size = ⌊(input + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1"), numbers(0, "rows"), numbers(1, "columns")];
}

// The list sets and names the kernels of the output channel that is looked at, the same for every input.
function paintNamed() {
  const ofOne = state.w[state.o];
  const found = DATA.kernels.find(({ values }) => ofOne.every((w) => shapeOf(values).join() === shapeOf(w).join() && same(values, w)));
  byId("named").value = found ? found.name : "own";
  byId("named-for").textContent = state.w.length > 1 ? `kernel of output ${state.o}` : "kernel";
  byId("named-meaning").textContent = found ? found.meaning + "." : "A kernel of your own.";
}

function buildNamed() {
  for (const { name, meaning } of DATA.kernels) byId("named").append(element("option", { value: name }, meaning.split(":")[0]));
  byId("named").append(element("option", { value: "own" }, "your own"));
  byId("named").addEventListener("change", ({ target }) => {
    const found = DATA.kernels.find(({ name }) => name === target.value);
    if (!found) return update({});
    const size = shapeOf(found.values); // one size for all kernels of a layer
    update({ w: state.w.map((kernels, o) => kernels.map((w) => (o === state.o ? copy(found.values) : resized(w, ...size, 0)))) });
  });
}

function buildSizeKnobs() {
  const add = (...all) => byId("size-knobs").append(stepper(...all));
  for (const [name, word] of [["x", "input"], ["w", "kernel"]]) {
    AXES.forEach((d) => add(`${word} ${["rows", "columns"][d]}`, 1, LARGEST[name], () => shapeOf(flatTo2(state[name])[0])[d], (size) => resize(name, d, size)));
  }
  add("channels in", 1, LARGEST.channels, () => state.x.length, (count) => update(withChannels(count, state.w.length)));
  add("channels out", 1, LARGEST.channels, () => state.w.length, (count) => update(withChannels(state.x.length, count)));
}

const flatTo2 = (nested) => (Array.isArray(nested[0][0][0]) ? nested.flat() : nested); // all matrices in it

function resize(name, axis, size) {
  const change = (matrix) => resized(matrix, ...shapeOf(matrix).map((old, d) => (d === axis ? size : old)), 0);
  update({ [name]: name === "x" ? state.x.map(change) : state.w.map((kernels) => kernels.map(change)) });
}

// Channels that come are drawn, those that go are the last.
function withChannels(ins, outs) {
  const drawn = (like) => like.map((row) => row.map(() => draw(-2, 3)));
  const upTo = (list, count, make) => Array.from({ length: count }, (_, i) => list[i] ?? make());
  const x = upTo(state.x, ins, () => drawn(state.x[0]));
  const w = upTo(state.w, outs, () => []).map((kernels) => upTo(kernels, ins, () => drawn(state.w[0][0])));
  return { x, w, b: upTo(state.b, outs, () => draw(-2, 3)) };
}

// A fixed little generator: the page draws the same numbers for everybody.
let seed = 7;
const draw = (least, most) => {
  seed = (seed * 16807) % 2147483647; // Park & Miller
  return least + Math.floor((seed / 2147483647) * (most - least + 1));
};

function nudge(by) {
  if (!lastEdited || !lastEdited.host.isConnected) lastEdited = { host: planeOf(byId("calc-w"), 0), i: 0, j: 0 };
  const { host, i, j } = lastEdited;
  const value = host.gridOptions.matrix[i]?.[j];
  if (value !== undefined) host.gridOptions.edit(i, j, by === "flip" ? 0 - value : value + Number(by));
}

function startCalculator() {
  buildNamed();
  buildSizeKnobs();
  for (const button of document.querySelectorAll("[data-nudge]")) {
    button.addEventListener("pointerdown", (event) => event.preventDefault()); // the cell keeps the focus
    button.addEventListener("click", () => nudge(button.dataset.nudge));
  }
  byId("shuffle").addEventListener("click", () => update({ x: state.x.map((one) => one.map((row) => row.map(() => draw(-2, 4)))) }));
  byId("reset").addEventListener("click", () => update({ ...copy(DATA.start), at: 0, o: 0 }));
  byId("simple").addEventListener("click", () => update({ ...copy(DATA.simple), at: 0, o: 0 }));
  painters.push(paintCalculator);
}
