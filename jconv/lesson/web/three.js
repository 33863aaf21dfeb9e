// Section 3: forward, gradient of the kernel, gradient of the input: one routine, three times.

const GRADS = {
  grad_kernel: { make: gradKernelOf, colours: ["input", "grad"], result: "kernel", name: "∂w", label: "gradient of the kernel" },
  grad_input: { make: gradInputOf, colours: ["grad", "kernel"], result: "input", name: "∂x", label: "gradient of the input" },
};

function paintThree() {
  const conv = forward();
  paintGrid(byId("three-g"), { matrix: state.g, label: "upstream gradient", edit: edit("g"), look: () => "grad" });
  paintRole("forward", conv, { colours: ["input", "kernel"], result: "output", name: "y", label: "output" }, position(),
    (p, q) => update({ at: p * sizesOf(conv).out[1] + q }));
  for (const [role, how] of Object.entries(GRADS)) {
    const made = how.make(conv, state.g);
    const size = sizesOf(made).out;
    const at = state.picked[role].map((i, d) => Math.min(i, size[d] - 1));
    paintRole(role, made, how, at, (p, q) => update({ picked: { ...state.picked, [role]: [p, q] } }));
  }
  paintChecks(conv);
}

function paintRole(role, conv, { colours, result, name, label }, at, press) {
  const terms = termsOf(conv, at);
  paintPadded(`${role}-a`, conv, terms, colours[0]);
  paintGrid(byId(`${role}-b`), { matrix: conv.w, label: `${label}: kernel`, look: () => colours[1] });
  paintGrid(byId(`${role}-y`), { matrix: convolve(conv), label, picked: at, press,
    look: (p, q) => result + (p === at[0] && q === at[1] ? " lit" : "") });
  paintSum(byId(`${role}-sum`), `${name}[${at}] =`, terms, valueOf(conv, at), [...colours, result]);
  byId(`${role}-how`).textContent = `${name} = ${describe(role, conv)}`;
}

function describe(role, { stride, dilation, spread }) {
  const operands = { forward: "conv(x, w)", grad_kernel: "conv(x, g)", grad_input: "conv(g, w flipped)" }[role];
  const notes = [];
  if (spread[0] > 1) notes.push(`g spread by the stride ${spread[0]}`);
  if (stride[0] > 1) notes.push(`stride ${stride[0]}`);
  if (dilation[0] > 1) notes.push(`dilation ${dilation[0]}`);
  return [operands, ...notes].join(", ");
}

const gradients = (conv, g) => ({ w: convolve(gradKernelOf(conv, g)), x: convolve(gradInputOf(conv, g)) });

function paintChecks(conv) {
  const found = gradients(conv, state.g);
  const loss = total(convolve(conv).flatMap((row, p) => row.map((y, q) => y * state.g[p][q])));
  const cells = found.w.flat().length + found.x.flat().length;
  const exact = same(found.w, nudged("w", conv, state.g)) && same(found.x, nudged("x", conv, state.g));
  byId("checks").replaceChildren(
    element("li", { class: "plain" }, "L = Σ g·y = ", element("b", { id: "loss", "data-value": loss }, text(loss))),
    check("nudge", exact, `Each of the ${cells} input and kernel cells, moved by 1, moves L by just its gradient.`),
    jaxCheck(found),
  );
}

const check = (id, good, words) => element("li", { id: `check-${id}`, class: good ? "good" : "bad", "data-good": good }, words);

// jax.grad ran when the page was made, for the numbers it starts from and several settings of the knobs.
function jaxCheck(found) {
  const asStarted = ["x", "w"].every((name) => JSON.stringify(state[name]) === JSON.stringify(DATA.start[name]));
  const ones = state.g.flat().every((value) => value === 1);
  const known = DATA.jax_grad[[state.stride, state.padding, state.dilation].join()];
  if (asStarted && ones && known) {
    return check("jax", same(found.w, known.w) && same(found.x, known.x), "Equal to jax.grad of jconv.conv2d, cell by cell.");
  }
  const all = Object.keys(DATA.jax_grad).length;
  return element("li", { id: "check-jax", class: "plain" }, `jax.grad was asked about the numbers the page starts from, at ${all} settings; you have gone beyond them.`);
}

function startThree() {
  byId("g-ones").addEventListener("click", () => update({ g: state.g.map((row) => row.map(() => 1)) }));
  byId("g-one").addEventListener("click", () => update({ g: matrixOf(...shapeOf(state.g), (i, j) => (i + j ? 0 : 1)) }));
  painters.push(paintThree);
}
