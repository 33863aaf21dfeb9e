// Section 2, second half: convolution or cross-correlation, with the flip as a switch.

const impulse = () => matrixOf(5, 5, (i, j) => (i === 2 && j === 2 ? 1 : 0));
const lookAt = { impulse: true };

function paintFlip() {
  const w = state.w[state.o][0];
  const used = state.flip ? flipped(w) : w;
  const x = lookAt.impulse ? impulse() : state.x[0];
  const padding = Math.floor((Math.max(...shapeOf(w)) - 1) / 2);
  const conv = forwardOf([x], [[used]], null, { stride: 1, padding, dilation: 1 });
  if (sizesOf(conv).out.some((size) => size < 1)) return;
  const y = convolve(conv)[0];
  paintGrid(byId("flip-x"), { matrix: x, label: "input", look: (i, j) => "input" + (x[i][j] && lookAt.impulse ? " lit" : "") });
  paintGrid(byId("flip-w"), { matrix: used, label: state.flip ? "kernel, flipped" : "kernel", look: () => "kernel" });
  paintGrid(byId("flip-y"), { matrix: y, label: "output", look: (i, j) => "output" + (y[i][j] && lookAt.impulse ? " lit" : "") });
  byId("flip-w-name").textContent = state.flip ? "flipped: turned by 180°" : "as it is written";
  byId("flip-formula").textContent = state.flip ? "convolution: y[p] = Σ x[p − r] · w[r]" : "cross-correlation: y[p] = Σ x[p + r] · w[r]";
  byId("flip-note").textContent = verdictOnFlip(w, y);
}

function verdictOnFlip(w, y) {
  if (same(w, flipped(w))) return "This kernel is its own flip, so the two are one and the same for it.";
  if (!lookAt.impulse) return "Other numbers, by the same arithmetic: only the order in which the kernel is read has changed.";
  const [kh, kw] = shapeOf(w);
  const [top, left] = shapeOf(y).map((size, d) => Math.floor((size - [kh, kw][d]) / 2));
  const seen = matrixOf(kh, kw, (i, j) => y[top + i]?.[left + j]);
  return same(seen, w) ? "One lit pixel comes out as the kernel itself: that is what the flip is for."
    : same(seen, flipped(w)) ? "One lit pixel comes out as the kernel turned by 180°." : "One lit pixel comes out as the kernel, cut at the edge.";
}

function startFlip() {
  byId("flip").addEventListener("change", ({ target }) => update({ flip: target.checked }));
  byId("flip-impulse").addEventListener("change", ({ target }) => {
    lookAt.impulse = target.checked;
    update({});
  });
  painters.push(paintFlip);
}
