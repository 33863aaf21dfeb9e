// Section 1: the patch that becomes a column.

const calm = matchMedia("(prefers-reduced-motion: reduce)");
let timer = null;

function paintUnroll() {
  const conv = forward();
  const sizes = sizesOf(conv);
  const at = position();
  const terms = termsOf(conv, at);
  const y = convolve(conv);
  paintPadded("unroll-x", conv, terms, "input");
  paintGrid(byId("unroll-w"), { matrix: conv.w, label: "kernel", look: () => "kernel" });
  paintColumns(conv, y.flat());
  paintGrid(byId("unroll-y"), { matrix: y, label: "output", picked: at, press: (p, q) => goTo(p * sizes.out[1] + q),
    look: (p, q) => "output" + (p * sizes.out[1] + q === state.at ? " lit" : p * sizes.out[1] + q > state.at ? " later" : "") });
  paintSum(byId("unroll-sum"), `y[${at}] =`, terms, valueOf(conv, at));
  paintUnrollSizes(sizes, at);
}

function paintPadded(id, conv, terms, kind) {
  const inPatch = isPatch(terms);
  paintGrid(byId(id), { matrix: spreadOut(conv), label: kind,
    look: (i, j) => (sourceOf(conv, [i, j]) ? kind : `nothing of-${kind}`) + (inPatch(i, j) ? " lit" : "") });
}

function paintUnrollSizes({ given, kernel, out, padded }, at) {
  const [taps, count] = [kernel[0] * kernel[1], out[0] * out[1]];
  byId("unroll-x-size").textContent = given.join("×") + (padded.join() === given.join() ? "" : `, padded ${padded.join("×")}`);
  byId("unroll-w-size").textContent = `${kernel.join("×")}, as a row 1×${taps}`;
  byId("unroll-product").textContent = `(1×${taps}) · (${taps}×${count}) = (1×${count})`;
  byId("unroll-y-size").textContent = out.join("×");
  byId("position").max = count - 1;
  byId("position").value = state.at;
  byId("position").setAttribute("aria-valuetext", `row ${at[0] + 1}, column ${at[1] + 1}`);
  byId("position-text").textContent = `${state.at + 1} of ${count}`;
}

// Kernel values stand left of the rows they multiply, outputs under the columns they sum.
function paintColumns(conv, outputs) {
  const weights = conv.w.flat();
  const matrix = [...columnsOf(conv).map((row, tap) => [weights[tap], ...row]), [NaN, ...outputs]];
  const last = matrix.length - 1;
  const look = (i, j) => {
    const when = j - 1 === state.at ? " lit" : j - 1 > state.at ? " later" : "";
    if (i === last) return j ? `output foot${when}` : "corner";
    return j ? `input${when}` : "kernel side";
  };
  const host = byId("unroll-columns");
  paintGrid(host, { matrix, label: "kernel column, im2col columns and their sums", look });
  cellOf(host, last, 0).textContent = "Σ";
  showColumn(host, cellOf(host, 0, state.at + 1));
}

function showColumn(host, cell) {
  const [left, right] = [cell.offsetLeft - 48, cell.offsetLeft + cell.offsetWidth + 8];
  if (left < host.scrollLeft) host.scrollLeft = left;
  else if (right > host.scrollLeft + host.clientWidth) host.scrollLeft = right - host.clientWidth;
}

function goTo(at) {
  const moved = at !== state.at;
  update({ at });
  if (moved) fly();
}

// The lit patch travels to its column: only a hint, nothing waits for it.
function fly() {
  if (calm.matches || !document.body.animate) return;
  const taps = state.w.flat().length;
  const from = termsOf(forward(), position()).map(({ at }) => cellOf(byId("unroll-x"), ...at));
  const to = Array.from({ length: taps }, (_, tap) => cellOf(byId("unroll-columns"), tap, state.at + 1));
  from.forEach((cell, i) => flyOne(cell, to[i], i));
}

function flyOne(from, to, order) {
  const [a, b] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
  const ghost = element("span", { class: "ghost", "aria-hidden": "true", style: `left:${a.left}px;top:${a.top}px;width:${b.width}px;height:${b.height}px` }, from.textContent);
  document.body.append(ghost);
  const shift = `translate(${b.left - a.left}px, ${b.top - a.top}px)`;
  ghost.animate([{ opacity: 0.9 }, { opacity: 0.9, offset: 0.8 }, { transform: shift, opacity: 0 }],
    { duration: 420, delay: order * 14, easing: "ease-in-out", fill: "both" }).finished.finally(() => ghost.remove());
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
  goTo(state.at + 1);
}

function togglePlaying() {
  if (!timer && state.at >= +byId("position").max) goTo(0);
  setPlaying(!timer);
}

function stepBy(by) {
  setPlaying(false);
  goTo(Math.max(0, Math.min(+byId("position").max, state.at + by)));
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
  byId("position").addEventListener("input", ({ target }) => (setPlaying(false), goTo(+target.value)));
  byId("unroll").tabIndex = 0;
  byId("unroll").addEventListener("keydown", onUnrollKey);
  painters.push(paintUnroll);
}
