// Section 2: your own numbers.

function paintCalculator() {
  const conv = forward();
  const fits = sizesOf(conv).out.every((size) => size > 0);
  const at = fits ? position() : null;
  const terms = fits ? termsOf(conv, at) : [];
  const used = new Set(terms.filter(({ source }) => source).map(({ source }) => source.join()));
  paintGrid(byId("calc-x"), { matrix: state.x, label: "input", edit: edit("x"), look: (i, j) => "input" + (used.has(`${i},${j}`) ? " lit" : "") });
  paintGrid(byId("calc-w"), { matrix: state.w, label: "kernel", edit: edit("w"), look: () => "kernel" });
  paintNamed();
  byId("size-formula").replaceChildren(...sizeFormula(sizesOf(conv)));
  if (!fits) return;
  paintGrid(byId("calc-y"), { matrix: convolve(conv), label: "output", picked: at, press: (p, q) => update({ at: p * sizesOf(conv).out[1] + q }),
    look: (p, q) => "output" + (p === at[0] && q === at[1] ? " lit" : "") });
  paintSum(byId("calc-sum"), `y[${at}] =`, terms, valueOf(conv, at));
}
paintCalculator.always = true;

function sizeFormula({ given, kernel, out }) {
  const line = (...parts) => element("p", { class: "mono" }, ...parts);
  const numbers = (d, name) => line(`${name} = ⌊(${given[d]} + 2·${state.padding} − ${state.dilation}·(${kernel[d]} − 1) − 1) / ${state.stride}⌋ + 1 = `,
    element("b", { "data-size": name }, String(out[d])));
  return [line("size = ⌊(input + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1"), numbers(0, "rows"), numbers(1, "columns")];
}

function paintNamed() {
  const found = DATA.kernels.find(({ values }) => same(values, state.w) && shapeOf(values).join() === shapeOf(state.w).join());
  byId("named").value = found ? found.name : "own";
  byId("named-meaning").textContent = found ? found.meaning : "A kernel of your own.";
}

function buildNamed() {
  for (const { name, meaning } of DATA.kernels) byId("named").append(element("option", { value: name }, meaning.split(":")[0]));
  byId("named").append(element("option", { value: "own" }, "your own"));
  byId("named").addEventListener("change", ({ target }) => {
    const found = DATA.kernels.find(({ name }) => name === target.value);
    update(found ? { w: copy(found.values) } : {});
  });
}

function buildSizeKnobs() {
  for (const [name, word] of [["x", "input"], ["w", "kernel"]]) {
    AXES.forEach((d) => byId("size-knobs").append(
      stepper(`${word} ${["rows", "columns"][d]}`, 1, LARGEST[name], () => shapeOf(state[name])[d], (size) => resize(name, d, size))));
  }
}

function resize(name, axis, size) {
  const shape = shapeOf(state[name]);
  shape[axis] = size;
  update({ [name]: resized(state[name], ...shape, 0) });
}

// A fixed little generator: the page draws the same numbers for everybody.
let seed = 7;
const draw = (least, most) => {
  seed = (seed * 16807) % 2147483647; // Park & Miller
  return least + Math.floor((seed / 2147483647) * (most - least + 1));
};

function nudge(by) {
  if (!lastEdited || !lastEdited.host.isConnected) lastEdited = { host: byId("calc-w"), i: 0, j: 0 };
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
  byId("shuffle").addEventListener("click", () => update({ x: state.x.map((row) => row.map(() => draw(-2, 4))) }));
  byId("reset").addEventListener("click", () => update({ ...copy(DATA.start), at: 0 }));
  painters.push(paintCalculator);
}
