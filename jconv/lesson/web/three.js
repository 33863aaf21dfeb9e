// Section 3: forward, gradient of the kernel, gradient of the input: one routine, three times.

const GRADS = {
  grad_kernel: { colours: ["input", "grad", "kernel"], name: "∂w", label: "gradient of the kernel" },
  grad_input: { colours: ["grad", "kernel", "input"], name: "∂x", label: "gradient of the input" },
};

function paintThree() {
  const conv = forward();
  const found = gradients(conv, state.g);
  paintStack(byId("three-g"), state.g, (o) => ({ name: nameOf("channel", o, state.g.length), label: `upstream gradient ${o}`, edit: edit("g", o), look: () => "grad" }));
  paintRole("forward", conv, position(), convolve(conv), { colours: ["input", "kernel", "output"], name: "y", label: "output" }, (o, p, q) => update(goToCell(o, p, q)));
  paintGradKernel(conv, found.w);
  const picked = clamped("grad_input", found.x);
  paintRole("grad_input", gradInputOf(conv, state.g), picked, found.x, GRADS.grad_input, (...at) => pick("grad_input", at));
  byId("grad_bias").replaceChildren("∂b = Σ g, channel by channel: ", element("b", { class: "ink-bias", "data-bias": found.b.join() }, found.b.map(text).join(", ")));
  paintChecks(conv, found);
}

const pick = (role, at) => update({ picked: { ...state.picked, [role]: at } });

// The picked cell, moved inside where sizes have become smaller.
function clamped(role, result) {
  let inside = result;
  return state.picked[role].map((i) => {
    const at = Math.min(i, inside.length - 1);
    inside = inside[at];
    return at;
  });
}

// ∂w has two channel axes: one of x and one of g make one of its grids.
function paintGradKernel(conv, dw) {
  const [o, c, r, s] = clamped("grad_kernel", dw);
  const ins = conv.x.length;
  const made = gradKernelOf(conv, state.g, c);
  byId("grad_kernel-y").style.setProperty("--across", ins);
  paintOperands("grad_kernel", made, [o, r, s], GRADS.grad_kernel, { [ins > 1 ? "a" : ""]: `channel ${c}`, [conv.w.length > 1 ? "b" : ""]: `channel ${o}` });
  paintStack(byId("grad_kernel-y"), dw.flat(), (k) => resultPlan(GRADS.grad_kernel, ins * conv.w.length > 1 ? `${k % ins} → ${Math.floor(k / ins)}` : "",
    k === o * ins + c ? [r, s] : null, (i, j) => pick("grad_kernel", [Math.floor(k / ins), k % ins, i, j])));
  paintSum(byId("grad_kernel-sum"), `∂w[${[o, c, r, s]}] =`, termsOf(made, [o, r, s]), valueOf(made, [o, r, s]), GRADS.grad_kernel);
}

function paintRole(role, conv, at, result, how, press) {
  paintOperands(role, conv, at, how);
  paintStack(byId(`${role}-y`), result, (k) => resultPlan(how, nameOf("channel", k, result.length), k === at[0] ? at.slice(1) : null, (i, j) => press(k, i, j)));
  paintSum(byId(`${role}-sum`), `${how.name}[${at}] =`, termsOf(conv, at), valueOf(conv, at), { colours: how.colours, bias: biasOf(conv, at[0]) });
}

function paintOperands(role, conv, at, { colours, label }, names = {}) {
  paintPadded(`${role}-a`, conv, termsOf(conv, at), colours[0]);
  paintStack(byId(`${role}-b`), conv.w[at[0]], (c) => ({ name: names.b ?? nameOf("of channel", c, conv.x.length), label: `${label}: kernel ${c}`, look: () => colours[1] }));
  if (names.a) byId(`${role}-a`).querySelector("p").textContent = names.a;
  byId(`${role}-how`).textContent = describe(role, conv);
}

const resultPlan = ({ colours, label }, name, picked, press) => ({ name, label: `${label} ${name}`, picked, press,
  look: (i, j) => colours[2] + (picked && picked[0] === i && picked[1] === j ? " lit" : "") });

function describe(role, { stride, dilation, spread, b }) {
  const operands = { forward: "y = conv(x, w)", grad_kernel: "∂w = conv(x, g), each channel of x with each of g", grad_input: "∂x = conv(g, w flipped, its channels exchanged)" }[role];
  const notes = [];
  if (b && b.some(Boolean)) notes.push("plus b");
  if (spread[0] > 1) notes.push(`g spread by the stride ${spread[0]}`);
  if (stride[0] > 1) notes.push(`stride ${stride[0]}`);
  if (dilation[0] > 1) notes.push(`dilation ${dilation[0]}`);
  return [operands, ...notes].join(", ");
}

function paintChecks(conv, found) {
  const names = ["x", "w", "b"];
  const cells = names.flatMap((name) => flat(found[name])).length;
  const exact = names.every((name) => same(found[name], nudged(name, conv, state.g)));
  const loss = lossOf(conv, state.g);
  byId("checks").replaceChildren(
    element("li", { class: "plain" }, "L = Σ g·y = ", element("b", { id: "loss", "data-value": loss }, text(loss))),
    check("nudge", exact, `Each of the ${cells} input, kernel and bias cells, moved by 1, moves L by just its gradient.`),
    jaxCheck(found),
  );
}

const check = (id, good, words) => element("li", { id: `check-${id}`, class: good ? "good" : "bad", "data-good": good }, words);

// jax.grad ran when the page was made, for the numbers it starts from and several settings of the knobs.
function jaxCheck(found) {
  const known = DATA.jax_grad[[state.stride, state.padding, state.dilation].join()];
  const asStarted = ["x", "w", "b"].every((name) => JSON.stringify(state[name]) === JSON.stringify(DATA.start[name]));
  if (asStarted && known && JSON.stringify(state.g) === JSON.stringify(known.g)) {
    return check("jax", ["x", "w", "b"].every((name) => same(found[name], known[name])), "Equal to jax.grad of jconv.conv2d, cell by cell.");
  }
  const all = Object.keys(DATA.jax_grad).length;
  return element("li", { id: "check-jax", class: "plain" }, `jax.grad was asked about the numbers the page starts from, at ${all} settings; you have gone beyond them.`);
}

function startThree() {
  const all = (value) => update({ g: state.g.map((one, o) => one.map((row, i) => row.map((_, j) => value(o, i, j)))) });
  byId("g-ones").addEventListener("click", () => all(() => 1));
  byId("g-one").addEventListener("click", () => all((o, i, j) => (o + i + j ? 0 : 1)));
  painters.push(paintThree);
}
