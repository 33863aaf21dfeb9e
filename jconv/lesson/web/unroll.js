// Section 1: the patch that becomes a column, and the kernels that are rows.

const calm = matchMedia("(prefers-reduced-motion: reduce)");
let timer = null;

const isLater = (index) => index > state.at;

function paintUnroll() {
  const conv = forward();
  const sizes = sizesOf(conv);
  const at = position();
  const terms = termsOf(conv, at);
  const y = convolve(conv);
  const isLit = (p, q) => p === at[1] && q === at[2];
  paintPadded("unroll-x", conv, terms, "input");
  paintKernelRows(conv);
  paintColumns(conv, y);
  paintStack(byId("unroll-y"), y, (o) => ({ name: nameOf("channel", o, y.length), label: `output channel ${o}`,
    picked: o === state.o ? at.slice(1) : null, press: (p, q) => goTo(goToCell(o, p, q)), hidden: (p, q) => isLater(p * sizes.out[1] + q),
    look: (p, q) => "output" + (isLit(p, q) ? (o === state.o ? " lit" : " near") : "") }));
  paintSum(byId("unroll-sum"), `y[${at}] =`, terms, valueOf(conv, at), { bias: biasOf(conv, state.o) });
  paintUnrollSizes(sizes, at, conv);
}

function paintPadded(id, conv, terms, kind) {
  const inPatch = isPatch(terms);
  paintStack(byId(id), conv.x.map((_, c) => spreadOut(conv, c)), (c) => ({ name: nameOf("channel", c, conv.x.length), label: `${kind} channel ${c}`,
    look: (i, j) => (sourceOf(conv, [i, j]) ? kind : `nothing of-${kind}`) + (inPatch(i, j) ? " lit" : "") }));
}

// A kernel of c channels is a row of c·r·s numbers; a gap shows where a channel begins.
function paintKernelRows(conv) {
  const taps = flat(conv.w[0][0]).length;
  paintGrid(byId("unroll-w"), { matrix: conv.w.map(flat), label: "kernels as rows",
    look: (o, k) => "kernel" + (o === state.o ? " lit" : "") + (k && k % taps === 0 ? " begins" : "") });
}

function paintUnrollSizes({ given, kernel, out, padded }, at, conv) {
  const [taps, count, outs] = [kernel[0] * kernel[1], out[0] * out[1], conv.w.length];
  const depth = conv.x.length * taps;
  byId("unroll-x-size").textContent = [conv.x.length, ...given].join("×") + (padded.join() === given.join() ? "" : `, padded ${padded.join("×")}`);
  byId("unroll-w-size").textContent = `${[outs, conv.x.length, ...kernel].join("×")}, as ${outs > 1 ? "rows" : "a row"} ${outs}×${depth}`;
  byId("unroll-product").textContent = `(${outs}×${depth}) · (${depth}×${count}) = (${outs}×${count})` + (conv.b.some(Boolean) ? " + bias" : "");
  byId("unroll-y-size").textContent = [outs, ...out].join("×") + (conv.b.some(Boolean) ? `, bias ${conv.b.map(text).join(", ")}` : "");
  byId("position").max = count - 1;
  byId("position").value = state.at;
  byId("position").setAttribute("aria-valuetext", `row ${at[1] + 1}, column ${at[2] + 1}`);
  byId("position-text").textContent = `${state.at + 1} of ${count}`;
}

// The columns, and under each what the rows of kernels make of it.
function paintColumns(conv, y) {
  const columns = columnsOf(conv);
  const [depth, taps] = [columns.length, flat(conv.w[0][0]).length];
  const matrix = [...columns, ...y.map(flat)];
  const when = (i, j) => (j !== state.at ? "" : i < depth || i - depth === state.o ? " lit" : " near");
  const kind = (i) => (i < depth ? "input" + (i && i % taps === 0 ? " begins" : "") : "output" + (i === depth ? " foot" : ""));
  const host = byId("unroll-columns");
  paintGrid(host, { matrix, label: "im2col columns and the outputs below them", hidden: (i, j) => isLater(j),
    look: (i, j) => kind(i) + when(i, j) + (isLater(j) ? " later" : "") });
  showColumn(host, cellOf(host, 0, state.at));
}

function showColumn(host, cell) {
  const [left, right] = [cell.offsetLeft - 8, cell.offsetLeft + cell.offsetWidth + 8];
  if (left < host.scrollLeft) host.scrollLeft = left;
  else if (right > host.scrollLeft + host.clientWidth) host.scrollLeft = right - host.clientWidth;
}

function goTo(change) {
  const before = state.at;
  update(change);
  if (state.at !== before) fly();
}

// The lit patch travels to its column: only a hint, nothing waits for it.
function fly() {
  if (calm.matches || !document.body.animate) return;
  termsOf(forward(), position()).forEach(({ c, at }, k) =>
    flyOne(cellOf(planeOf(byId("unroll-x"), c), ...at), cellOf(byId("unroll-columns"), k, state.at), k));
}

function flyOne(from, to, order) {
  const [a, b] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
  const ghost = element("span", { class: "ghost", "aria-hidden": "true", style: `left:${a.left}px;top:${a.top}px;width:${b.width}px;height:${b.height}px` }, from.textContent);
  document.body.append(ghost);
  const shift = `translate(${b.left - a.left}px, ${b.top - a.top}px)`;
  ghost.animate([{ opacity: 0.9 }, { opacity: 0.9, offset: 0.8 }, { transform: shift, opacity: 0 }],
    { duration: 420, delay: order * 10, easing: "ease-in-out", fill: "both" }).finished.finally(() => ghost.remove());
}

function setPlaying(on) {
  clearInterval(timer);
  timer = on ? setInterval(playOn, 1200) : null;
  byId("play").setAttribute("aria-pressed", String(on));
  byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
  byId("play").textContent = on ? "❚❚ Pause" : "▶ Play";
}

function playOn() {
  const last = +byId("position").max;
  if (state.at >= last) return setPlaying(false);
  goTo({ at: state.at + 1 });
}

function togglePlaying() {
  if (!timer && state.at >= +byId("position").max) goTo({ at: 0 });
  setPlaying(!timer);
}

function stepBy(by) {
  setPlaying(false);
  goTo({ at: Math.max(0, Math.min(+byId("position").max, state.at + by)) });
}

function onUnrollKey(event) {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
  if (["INPUT", "SELECT"].includes(event.target.tagName)) return;
  const acts = { ArrowLeft: () => stepBy(-1), ArrowRight: () => stepBy(1), Home: () => stepBy(-Infinity), End: () => stepBy(Infinity) };
  if (event.target.tagName !== "BUTTON") acts[" "] = togglePlaying;
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
}

function startUnroll() {
  byId("prev").addEventListener("click", () => stepBy(-1));
  byId("next").addEventListener("click", () => stepBy(1));
  byId("play").addEventListener("click", togglePlaying);
  byId("position").addEventListener("input", ({ target }) => (setPlaying(false), goTo({ at: +target.value })));
  byId("unroll").tabIndex = 0;
  byId("unroll").addEventListener("keydown", onUnrollKey);
  painters.push(paintUnroll);
}
