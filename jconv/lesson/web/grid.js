// Grids: tables of numbers that are repainted in place, so that focus and transitions survive.

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A number as short as it can be said: whole, with up to three decimals, or as the fraction that it is.
function text(value) {
  if (!Number.isFinite(value)) return "?";
  const rounded = Math.round(value * 1000) / 1000;
  const exact = Math.abs(value - rounded) <= 1e-7 * Math.max(1, Math.abs(value));
  const short = Math.abs(value) >= 1e4 ? value.toPrecision(3) : exact ? String(rounded) : (fractionOf(value) ?? String(rounded));
  return (short === "-0" ? "0" : short).replace("-", "−");
}

function fractionOf(value) {
  for (let below = 2; below <= 64; below++) {
    const above = Math.round(value * below);
    if (above && Math.abs(value - above / below) <= 1e-7 * Math.max(1, Math.abs(value))) return `${above}/${below}`;
  }
  return null;
}

// `look(i, j)` names CSS classes; `edit` or `press` make the cells inputs or buttons.
function paintGrid(host, options) {
  const [rows, cols] = shapeOf(options.matrix);
  const kind = options.edit ? "edit" : options.press ? "press" : "show";
  const plan = `${rows}×${cols} ${kind}`;
  host.gridOptions = options;
  if (host.dataset.plan !== plan) buildGrid(host, rows, cols, kind, plan);
  host.firstChild.setAttribute("aria-label", `${options.label}, ${rows} by ${cols}`);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) paintCell(host, i, j);
}

function buildGrid(host, rows, cols, kind, plan) {
  const table = element("table", { class: `cells ${kind}`, role: kind === "show" ? "table" : "grid" });
  for (let i = 0; i < rows; i++) {
    const row = table.insertRow();
    for (let j = 0; j < cols; j++) row.insertCell().append(...cellContent(kind, i, j));
  }
  host.replaceChildren(table);
  host.dataset.plan = plan;
  if (!host.listening) listen(host);
}

function cellContent(kind, i, j) {
  const place = { "data-i": i, "data-j": j, tabindex: i + j ? -1 : 0 };
  if (kind === "edit") return [element("input", { ...place, type: "text", inputmode: "decimal", autocomplete: "off", size: 3 })];
  if (kind === "press") return [element("button", { ...place, type: "button" })];
  return [];
}

const cellOf = (host, i, j) => host.querySelector("table").rows[i].cells[j];

function paintCell(host, i, j) {
  const { matrix, look, label, picked, hidden } = host.gridOptions;
  const cell = cellOf(host, i, j);
  const value = matrix[i][j];
  cell.className = look ? look(i, j) : "";
  cell.dataset.value = value;
  const shown = hidden && hidden(i, j) ? "" : text(value);
  const where = `${label} row ${i + 1} column ${j + 1}`;
  const inner = cell.firstElementChild;
  if (!inner) cell.textContent = shown;
  else if (inner.tagName === "INPUT") paintInput(inner, value, where);
  else paintButton(inner, shown, `${where}: ${shown || "not computed yet"}`, picked && picked[0] === i && picked[1] === j);
}

// Several grids in one place, a channel each: `plan(k)` gives the options of the k-th and its `name`.
function paintStack(host, matrices, plan) {
  while (host.children.length > matrices.length) host.lastChild.remove();
  while (host.children.length < matrices.length) {
    host.append(element("div", { class: "plane", "data-channel": host.children.length }, element("p"), element("div")));
  }
  matrices.forEach((matrix, k) => {
    const { name, ...options } = plan(k);
    host.children[k].firstChild.textContent = name;
    paintGrid(host.children[k].lastChild, { matrix, ...options });
  });
}
const planeOf = (host, k) => host.children[k].lastChild;

function paintInput(input, value, name) {
  input.setAttribute("aria-label", name);
  if (document.activeElement !== input || parse(input.value) !== value) input.value = text(value);
}

function paintButton(button, shown, name, isPicked) {
  button.textContent = shown;
  button.setAttribute("aria-label", name);
  button.setAttribute("aria-pressed", String(Boolean(isPicked)));
}

// "−2.5", "0,25" or "1/9"; null for what is no number.
function parse(written) {
  const parts = written.trim().replace("−", "-").replace(",", ".").split("/");
  if (parts.length > 2 || parts.some((part) => part.trim() === "")) return null;
  const [above, below] = [Number(parts[0]), Number(parts[1] ?? 1)];
  const number = above / below;
  return Number.isFinite(number) && Math.abs(number) <= 1e6 ? number : null;
}

function listen(host) {
  host.listening = true;
  host.addEventListener("input", ({ target }) => {
    const value = parse(target.value);
    target.toggleAttribute("aria-invalid", value === null);
    if (value !== null) host.gridOptions.edit(+target.dataset.i, +target.dataset.j, value);
  });
  host.addEventListener("focusout", ({ target }) => {
    if (target.tagName !== "INPUT") return;
    target.removeAttribute("aria-invalid");
    paintCell(host, +target.dataset.i, +target.dataset.j);
  });
  host.addEventListener("focusin", ({ target }) => {
    moveTabStop(host, target);
    if (target.tagName === "INPUT") (target.select(), (lastEdited = { host, i: +target.dataset.i, j: +target.dataset.j }));
  });
  host.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-i]");
    if (button) host.gridOptions.press(+button.dataset.i, +button.dataset.j);
  });
  host.addEventListener("keydown", moveWithArrows);
}

let lastEdited = null; // the cell that the −1 +1 ± buttons change; touch keyboards have no minus

function moveTabStop(host, target) {
  if (target.dataset.i === undefined) return;
  for (const other of host.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
  target.tabIndex = 0;
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function moveWithArrows(event) {
  const { target, key, currentTarget } = event;
  const step = ARROWS[key];
  if (!step || target.dataset.i === undefined || isTyping(target, key)) return;
  const [i, j] = [+target.dataset.i + step[0], +target.dataset.j + step[1]];
  const next = currentTarget.querySelector(`[data-i="${i}"][data-j="${j}"]`);
  event.stopPropagation();
  event.preventDefault();
  if (next) next.focus();
}

// Left and right move the caret first; they leave the cell at its ends or when all of it is selected.
function isTyping(target, key) {
  if (target.tagName !== "INPUT" || key === "ArrowUp" || key === "ArrowDown") return false;
  const { selectionStart: start, selectionEnd: end, value } = target;
  if (start === 0 && end === value.length) return false;
  return key === "ArrowLeft" ? start > 0 : end < value.length;
}

// The arithmetic of one output, spelled out; the bias last, where there is any.
function paintSum(host, where, terms, value, { colours: [a, b, result] = ["input", "kernel", "output"], bias = 0 } = {}) {
  host.replaceChildren(element("b", { class: "mono" }, where), " ");
  terms.forEach((term, i) => {
    const shown = element("span", { class: term.source ? "term" : "term nothing" }, "(",
      element("span", { class: `ink-${a}` }, text(term.a)), "×", element("span", { class: `ink-${b}` }, text(term.b)), ")");
    host.append(i ? " + " : "", shown);
  });
  if (bias) host.append(bias < 0 ? " − " : " + ", element("span", { class: "ink-bias" }, text(Math.abs(bias))));
  host.append(" = ", element("b", { class: `result ink-${result}`, "data-value": value }, text(value)));
}

const isPatch = (terms) => {
  const lit = new Set(terms.map(({ at }) => at.join()));
  return (i, j) => lit.has(`${i},${j}`);
};
