// Arithmetic: the sum of jconv's ConvSpec, for one image of a few channels.
//
//   y[o, p] = b[o] + Σ_{c, r}  x̃[c, p·stride + r·dilation] · w[o, c, r]         p and r in two dimensions
//
// x is a list of matrices, one per channel c; w is a list over o of such lists.  x̃ is x with `spread`−1
// zeros between its values, `lo` zeros before and `hi` after (negative: cut).

const AXES = [0, 1];
const extent = (size, dilation) => (size > 0 ? (size - 1) * dilation + 1 : 0);
const windows = (length, window, stride) => Math.max(0, Math.floor((length - window) / stride) + 1);
const shapeOf = (matrix) => [matrix.length, matrix.length ? matrix[0].length : 0];
const both = (value) => [value, value];
const matrixOf = (rows, cols, value) =>
  Array.from({ length: rows }, (_, i) => Array.from({ length: cols }, (_, j) => value(i, j)));
const flipped = (w) => w.map((row) => [...row].reverse()).reverse();
const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
const flat = (nested) => nested.flat(Infinity);

function forwardOf(x, w, b, { stride, padding, dilation }) {
  return { x, w, b, stride: both(stride), dilation: both(dilation), spread: [1, 1], lo: both(padding), hi: both(padding) };
}

function sizesOf(conv) {
  const [given, kernel] = [shapeOf(conv.x[0]), shapeOf(conv.w[0][0])];
  const window = AXES.map((d) => extent(kernel[d], conv.dilation[d]));
  const padded = AXES.map((d) => extent(given[d], conv.spread[d]) + conv.lo[d] + conv.hi[d]);
  const out = AXES.map((d) => windows(padded[d], window[d], conv.stride[d]));
  return { given, kernel, window, padded, out };
}

// ∂w[o, c, r] = Σ_p x̃[c, r·dilation + p·stride] g[o, p]: channel c of x convolved with every g[o], which
// sums over no channel; stride and dilation change places.
function gradKernelOf(forward, g, c) {
  const { given, kernel, out } = sizesOf(forward);
  const hi = AXES.map(
    (d) => extent(kernel[d], forward.dilation[d]) - 1 + extent(out[d], forward.stride[d]) - given[d] - forward.lo[d],
  );
  const w = g.map((one) => [one]);
  return { ...forward, x: [forward.x[c]], w, b: null, stride: forward.dilation, dilation: forward.stride, hi };
}

// ∂x[c, t] = Σ_{o, r} g̃[o, (t − r·dilation + lo) / stride] w[o, c, r]: g spread by stride, convolved with
// the flipped w, whose input and output channels have changed places.
function gradInputOf(forward, g) {
  const { given, window, out } = sizesOf(forward);
  const lo = AXES.map((d) => window[d] - 1 - forward.lo[d]);
  const hi = AXES.map((d) => given[d] - 1 + window[d] - extent(out[d], forward.stride[d]) - lo[d]);
  const w = forward.x.map((_, c) => forward.w.map((kernels) => flipped(kernels[c])));
  return { x: g, w, b: null, stride: [1, 1], dilation: forward.dilation, spread: forward.stride, lo, hi };
}

// Which cell of x lies at position t of x̃; null for a zero that was put in.
function sourceOf(conv, t) {
  const at = AXES.map((d) => (t[d] - conv.lo[d]) / conv.spread[d]);
  const size = shapeOf(conv.x[0]);
  return at.every((i, d) => Number.isInteger(i) && i >= 0 && i < size[d]) ? at : null;
}

function spreadOut(conv, c) {
  const [rows, cols] = sizesOf(conv).padded;
  return matrixOf(rows, cols, (i, j) => {
    const source = sourceOf(conv, [i, j]);
    return source ? conv.x[c][source[0]][source[1]] : 0;
  });
}

// The products of one output, in the order of the kernel's memory.
function termsOf(conv, [o, p, q]) {
  const terms = [];
  for (const [c, kernel] of conv.w[o].entries()) {
    for (const [r, row] of kernel.entries()) {
      for (const [s, b] of row.entries()) {
        const at = [p * conv.stride[0] + r * conv.dilation[0], q * conv.stride[1] + s * conv.dilation[1]];
        const source = sourceOf(conv, at);
        terms.push({ c, at, source, tap: [r, s], a: source ? conv.x[c][source[0]][source[1]] : 0, b });
      }
    }
  }
  return terms;
}

const biasOf = (conv, o) => (conv.b ? conv.b[o] : 0);
const valueOf = (conv, at) => total(termsOf(conv, at).map(({ a, b }) => a * b)) + biasOf(conv, at[0]);

function convolve(conv) {
  const [rows, cols] = sizesOf(conv).out;
  return conv.w.map((_, o) => matrixOf(rows, cols, (p, q) => valueOf(conv, [o, p, q])));
}

// im2col: one column per output position, one row per channel and tap.
function columnsOf(conv) {
  const [rows, cols] = sizesOf(conv).out;
  const patches = Array.from({ length: rows * cols }, (_, i) => termsOf(conv, [0, Math.floor(i / cols), i % cols]));
  return flat(conv.w[0]).map((_, tap) => patches.map((patch) => patch[tap].a));
}

function product(a, b) {
  return matrixOf(a.length, b[0].length, (i, j) => total(a[i].map((value, k) => value * b[k][j])));
}
const transposed = (a) => matrixOf(a[0].length, a.length, (i, j) => a[j][i]);
const sandwich = (a, b) => product(product(a, b), transposed(a)); // a b aᵀ

const lossOf = (conv, g) => total(flat(convolve(conv)).map((y, i) => y * flat(g)[i]));

function gradients(conv, g) {
  const byChannel = conv.x.map((_, c) => convolve(gradKernelOf(conv, g, c)));
  return { x: convolve(gradInputOf(conv, g)), w: g.map((_, o) => byChannel.map((made) => made[o])), b: g.map((one) => total(flat(one))) };
}

// How L = Σ g·y answers when one cell moves by one up and one down. L is linear in every single cell,
// so this difference is its derivative exactly, and owes nothing to the formulas above.
function nudged(name, forward, g) {
  const moved = (path, by) => ({ ...forward, [name]: moving(forward[name], path, (value) => value + by) });
  const walk = (nested, path) =>
    Array.isArray(nested) ? nested.map((one, i) => walk(one, [...path, i])) : (lossOf(moved(path, 1), g) - lossOf(moved(path, -1), g)) / 2;
  return walk(forward[name], []);
}

// A copy in which the value at the path has become another.
const moving = (nested, [i, ...rest], value) =>
  nested.map((one, k) => (k !== i ? one : rest.length ? moving(one, rest, value) : value(one)));

// Largest difference, relative to the largest value of the second.
function distance(a, b) {
  const [one, other] = [flat(a), flat(b)];
  if (one.length !== other.length) return Infinity;
  const scale = Math.max(1e-30, ...other.map(Math.abs));
  return Math.max(0, ...one.map((value, i) => Math.abs(value - other[i]))) / scale;
}
const same = (a, b) => distance(a, b) < 1e-5 || Math.max(0, ...flat(a).map(Math.abs), ...flat(b).map(Math.abs)) < 1e-12;
