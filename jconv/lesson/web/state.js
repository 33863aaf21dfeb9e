// State: one example for the whole page. `update` changes it and repaints everything.

const DATA = JSON.parse(byId("data").textContent);
const KNOBS = { stride: [1, 4], padding: [0, 4], dilation: [1, 4] };
const LARGEST = { x: 12, w: 7, channels: 3 };
const copy = (value) => JSON.parse(JSON.stringify(value));

// `at` counts the output positions, `o` is the output channel that is looked at.
const state = { ...copy(DATA.start), at: 0, o: 0, flip: false, picked: { grad_kernel: [0, 0, 0, 0], grad_input: [0, 0, 0] } };
const painters = [];

function update(change) {
  Object.assign(state, change);
  const sizes = sizesOf(forward());
  const count = sizes.out[0] * sizes.out[1];
  if (count) state.g = upstreamOf(state.w.length, sizes.out);
  state.at = Math.max(0, Math.min(state.at, count - 1));
  state.o = Math.min(state.o, state.w.length - 1);
  paintFit(sizes);
  for (const paint of painters) if (count || paint.always) paint();
}

// As it was where it was; what comes in addition is 1 if all were, else as the page's maker drew it.
function upstreamOf(outs, [rows, cols]) {
  const ones = flat(state.g).every((value) => value === 1);
  return Array.from({ length: outs }, (_, o) => matrixOf(rows, cols, (p, q) => state.g[o]?.[p]?.[q] ?? (ones ? 1 : DATA.upstream[o][p][q])));
}

const forward = () => forwardOf(state.x, state.w, state.b, state);
const position = () => {
  const cols = sizesOf(forward()).out[1];
  return [state.o, Math.floor(state.at / cols), state.at % cols];
};
const goToCell = (o, p, q) => ({ o, at: p * sizesOf(forward()).out[1] + q });
const resized = (matrix, rows, cols, filler) => matrixOf(rows, cols, (i, j) => matrix[i]?.[j] ?? filler);
const edit = (name, ...path) => (i, j, value) => update({ [name]: moving(state[name], [...path, i, j], () => value) });
const nameOf = (kind, k, count) => (count > 1 ? `${kind} ${k}` : "");

// Where the kernel does not fit there is no output: say so and hide what would show it.
function paintFit({ window, padded, out }) {
  const fits = out[0] * out[1] > 0;
  for (const part of document.querySelectorAll("[data-fits]")) part.hidden = !fits;
  for (const part of document.querySelectorAll("[data-misfit]")) {
    part.hidden = fits;
    part.textContent = fits ? "" : `The kernel spans ${window.join("×")} with its dilation, the padded input only ` +
      `${padded.join("×")}: there is no position where it fits. Less dilation or more padding helps.`;
  }
}

function buildKnobs() {
  for (const host of document.querySelectorAll("[data-knobs]")) {
    for (const [name, [least, most]] of Object.entries(KNOBS)) host.append(stepper(name, least, most, () => state[name], (value) => update({ [name]: value })));
  }
}

const steppers = [];

function stepper(name, least, most, read, write) {
  const shown = element("output", { "aria-label": name, "data-knob": name });
  const button = (sign, by, word) => {
    const made = element("button", { type: "button", "aria-label": `${word} ${name}`, "data-step": name, "data-by": by }, sign);
    made.addEventListener("click", () => write(Math.max(least, Math.min(most, read() + by))));
    return made;
  };
  const [less, more] = [button("−", -1, "less"), button("+", 1, "more")];
  steppers.push(() => {
    shown.textContent = read();
    less.disabled = read() <= least;
    more.disabled = read() >= most;
  });
  return element("span", { class: "stepper", role: "group", "aria-label": name }, element("span", {}, name), less, shown, more);
}

const paintSteppers = () => steppers.forEach((paint) => paint());
paintSteppers.always = true;
painters.push(paintSteppers);
