// Winograd's F(2×2, 3×3) on the top left tile of the example, with jconv's own matrices.

function paintWinograd() {
  const { BT, G, AT } = DATA.winograd;
  const fits = shapeOf(state.w).join() === "3,3" && shapeOf(state.x).every((size) => size >= 4);
  const { x, w } = fits ? state : DATA.winograd.example;
  const tile = matrixOf(4, 4, (i, j) => x[i][j]);
  const [v, u] = [sandwich(BT, tile), sandwich(G, w)];
  const m = matrixOf(4, 4, (i, j) => v[i][j] * u[i][j]);
  const y = sandwich(AT, m);
  const direct = convolve(forwardOf(tile, w, { stride: 1, padding: 0, dilation: 1 }));
  for (const [id, matrix, colour] of [["v", v, "input"], ["u", u, "kernel"], ["m", m, "grad"], ["y", y, "output"]]) {
    paintGrid(byId(`wino-${id}`), { matrix, label: `winograd ${id}`, look: () => colour });
  }
  byId("direct-count").textContent = direct.flat().length * w.flat().length;
  byId("winograd-count").textContent = m.flat().length;
  const where = fits ? "the input's top left tile" : "an example of its own (the page's has no 4×4 tile and 3×3 kernel)";
  byId("wino-note").textContent = `Computed on ${where}, stride 1. The direct sum gives ${direct.flat().map(text).join(", ")}: ` +
    (same(y, direct) ? "the same four numbers." : "not the same!");
  byId("wino-note").dataset.good = same(y, direct);
}
