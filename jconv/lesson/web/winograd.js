// Winograd's F(2×2, 3×3) on the top left tile of the example, with jconv's own matrices, a product at a time.

const WINO = DATA.winograd;
let productsDone = 0;

const areaOfWinograd = () => {
  const fits = shapeOf(state.w[0][0]).join() === "3,3" && shapeOf(state.x[0]).every((size) => size >= 4);
  return fits ? { fits, x: state.x[0], w: state.w[state.o][0] } : { fits, ...WINO.example };
};

function paintWinograd() {
  const { fits, x, w } = areaOfWinograd();
  const tile = matrixOf(4, 4, (i, j) => x[i][j]);
  const [v, u] = [sandwich(WINO.BT, tile), sandwich(WINO.G, w)];
  const m = matrixOf(4, 4, (i, j) => v[i][j] * u[i][j]);
  const [y, direct] = [sandwich(WINO.AT, m), convolve(forwardOf([tile], [[w]], null, { stride: 1, padding: 0, dilation: 1 }))[0]];
  const number = (i, j) => 4 * i + j;
  const now = (i, j) => (number(i, j) === productsDone - 1 ? " lit" : "");
  const grids = [["bt", WINO.BT, "matrix"], ["d", tile, "input"], ["b", transposed(WINO.BT), "matrix"], ["v", v, "input"], ["g", WINO.G, "matrix"], ["k", w, "kernel"],
    ["gt", transposed(WINO.G), "matrix"], ["u", u, "kernel"], ["at-matrix", WINO.AT, "matrix"], ["a", transposed(WINO.AT), "matrix"]];
  for (const [id, matrix, colour] of grids) {
    paintGrid(byId(`wino-${id}`), { matrix, label: `winograd ${id}`, look: (i, j) => colour + ("vu".includes(id) ? now(i, j) : "") });
  }
  paintGrid(byId("wino-m"), { matrix: m, label: "winograd products", look: (i, j) => "grad" + now(i, j), hidden: (i, j) => number(i, j) >= productsDone });
  paintGrid(byId("wino-y"), { matrix: y, label: "winograd outputs", look: () => "output", hidden: () => productsDone < 16 });
  paintWinogradWords(fits, m, u, v, y, direct, w);
}

function paintWinogradWords(fits, m, u, v, y, direct, w) {
  const all = flat(m).length;
  byId("direct-count").textContent = flat(direct).length * flat(w).length;
  byId("winograd-count").textContent = all;
  byId("wino-done").textContent = `${productsDone} of ${all} products`;
  byId("wino-at").value = productsDone;
  const last = productsDone - 1;
  byId("wino-product").textContent = productsDone ? `${text(flat(v)[last])} × ${text(flat(u)[last])} = ${text(flat(m)[last])}` : "press Next for the first product";
  const where = fits ? "the top left tile of input channel 0" : "an example of its own (the page's has no 4×4 tile and 3×3 kernel)";
  const verdict = productsDone < all ? `The direct sum would be at ${Math.round((productsDone * flat(direct).length * flat(w).length) / all)} products by now.`
    : `The direct sum gives ${flat(direct).map(text).join(", ")}: ` + (same(y, direct) ? "the same four numbers." : "not the same!");
  byId("wino-note").textContent = `Computed on ${where}, stride 1. ${verdict}`;
  byId("wino-note").dataset.good = same(y, direct);
}

function startWinograd() {
  const go = (to) => ((productsDone = Math.max(0, Math.min(16, to))), paintWinograd());
  byId("wino-next").addEventListener("click", () => go(productsDone + 1));
  byId("wino-prev").addEventListener("click", () => go(productsDone - 1));
  byId("wino-all").addEventListener("click", () => go(16));
  byId("wino-at").addEventListener("input", ({ target }) => go(+target.value));
  painters.push(paintWinograd);
}
