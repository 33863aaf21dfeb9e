// Arithmetic: the sum of jconv's ConvSpec, for one image of one channel.
//
//   y[p] = Σ_r  x̃[p·stride + r·dilation] · w[r]         in each of the two dimensions
//
// x̃ is x with `spread`−1 zeros between its values, `lo` zeros before and `hi` after (negative: cut).

const AXES = [0, 1];
const extent = (size, dilation) => (size > 0 ? (size - 1) * dilation + 1 : 0);
const windows = (length, window, stride) => Math.max(0, Math.floor((length - window) / stride) + 1);
const shapeOf = (matrix) => [matrix.length, matrix.length ? matrix[0].length : 0];
const both = (value) => [value, value];
const matrixOf = (rows, cols, value) =>
  Array.from({ length: rows }, (_, i) => Array.from({ length: cols }, (_, j) => value(i, j)));
const flipped = (w) => w.map((row) => [...row].reverse()).reverse();
const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);

function forwardOf(x, w, { stride, padding, dilation }) {
  return { x, w, stride: both(stride), dilation: both(dilation), spread: [1, 1], lo: both(padding), hi: both(padding) };
}

function sizesOf(conv) {
  const [given, kernel] = [shapeOf(conv.x), shapeOf(conv.w)];
  const window = AXES.map((d) => extent(kernel[d], conv.dilation[d]));
  const padded = AXES.map((d) => extent(given[d], conv.spread[d]) + conv.lo[d] + conv.hi[d]);
  const out = AXES.map((d) => windows(padded[d], window[d], conv.stride[d]));
  return { given, kernel, window, padded, out };
}

// ∂w[r] = Σ_p x̃[r·dilation + p·stride] g[p]: x convolved with g; stride and dilation change places.
function gradKernelOf(forward, g) {
  const { given, kernel, out } = sizesOf(forward);
  const hi = AXES.map(
    (d) => extent(kernel[d], forward.dilation[d]) - 1 + extent(out[d], forward.stride[d]) - given[d] - forward.lo[d],
  );
  return { ...forward, w: g, stride: forward.dilation, dilation: forward.stride, hi };
}

// ∂x[t] = Σ_r g̃[(t − r·dilation + lo) / stride] w[r]: g spread by stride, convolved with the flipped w.
function gradInputOf(forward, g) {
  const { given, window, out } = sizesOf(forward);
  const lo = AXES.map((d) => window[d] - 1 - forward.lo[d]);
  const hi = AXES.map((d) => given[d] - 1 + window[d] - extent(out[d], forward.stride[d]) - lo[d]);
  return { x: g, w: flipped(forward.w), stride: [1, 1], dilation: forward.dilation, spread: forward.stride, lo, hi };
}

// Which cell of x lies at position t of x̃; null for a zero that was put in.
function sourceOf(conv, t) {
  const at = AXES.map((d) => (t[d] - conv.lo[d]) / conv.spread[d]);
  const size = shapeOf(conv.x);
  return at.every((i, d) => Number.isInteger(i) && i >= 0 && i < size[d]) ? at : null;
}

function spreadOut(conv) {
  const [rows, cols] = sizesOf(conv).padded;
  return matrixOf(rows, cols, (i, j) => {
    const source = sourceOf(conv, [i, j]);
    return source ? conv.x[source[0]][source[1]] : 0;
  });
}

// The products of one output, in the order of the kernel's memory.
function termsOf(conv, [p, q]) {
  const terms = [];
  for (const [r, row] of conv.w.entries()) {
    for (const [s, b] of row.entries()) {
      const at = [p * conv.stride[0] + r * conv.dilation[0], q * conv.stride[1] + s * conv.dilation[1]];
      const source = sourceOf(conv, at);
      terms.push({ at, source, tap: [r, s], a: source ? conv.x[source[0]][source[1]] : 0, b });
    }
  }
  return terms;
}

const valueOf = (conv, position) => total(termsOf(conv, position).map(({ a, b }) => a * b));

function convolve(conv) {
  const [rows, cols] = sizesOf(conv).out;
  return matrixOf(rows, cols, (p, q) => valueOf(conv, [p, q]));
}

// im2col: one column per output position, one row per tap.
function columnsOf(conv) {
  const [rows, cols] = sizesOf(conv).out;
  const patches = Array.from({ length: rows * cols }, (_, i) => termsOf(conv, [Math.floor(i / cols), i % cols]));
  return conv.w.flat().map((_, tap) => patches.map((patch) => patch[tap].a));
}

function product(a, b) {
  return matrixOf(a.length, b[0].length, (i, j) => total(a[i].map((value, k) => value * b[k][j])));
}
const transposed = (a) => matrixOf(a[0].length, a.length, (i, j) => a[j][i]);
const sandwich = (a, b) => product(product(a, b), transposed(a)); // a b aᵀ

// How L = Σ g·y answers when one cell moves by one up and one down. L is linear in every single cell,
// so this difference is its derivative exactly, and owes nothing to the formulas above.
function nudged(name, forward, g) {
  const loss = (conv) => total(convolve(conv).flatMap((row, p) => row.map((y, q) => y * g[p][q])));
  return forward[name].map((row, i) =>
    row.map((_, j) => {
      const moved = (by) => ({ ...forward, [name]: replaced(forward[name], i, j, forward[name][i][j] + by) });
      return (loss(moved(1)) - loss(moved(-1))) / 2;
    }),
  );
}

const replaced = (matrix, i, j, value) =>
  matrix.map((row, k) => (k === i ? row.map((old, l) => (l === j ? value : old)) : row));

// Largest difference, relative to the largest value of the second.
function distance(a, b) {
  if (a.flat().length !== b.flat().length) return Infinity;
  const scale = Math.max(1e-30, ...b.flat().map(Math.abs));
  return Math.max(0, ...a.flat().map((value, i) => Math.abs(value - b.flat()[i]))) / scale;
}
const same = (a, b) => distance(a, b) < 1e-5 || Math.max(0, ...a.flat().map(Math.abs), ...b.flat().map(Math.abs)) < 1e-12;
