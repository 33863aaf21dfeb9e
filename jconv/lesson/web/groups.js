// Which input channels feed which output channels.

const CHANNELS = 8;
const drawing = { groups: 2, picked: 0 };
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const groupOf = (channel) => Math.floor((channel * drawing.groups) / CHANNELS);
const feeds = (c, o) => groupOf(c) === groupOf(o);
const height = (channel) => 20 + channel * 25;

function paintGroups() {
  const { picked, groups } = drawing;
  const pairs = matrixOf(CHANNELS, CHANNELS, (c, o) => [c, o]).flat().filter(([c, o]) => feeds(c, o));
  const lines = pairs.map(([c, o]) => svg("line", { x1: 86, y1: height(c), x2: 334, y2: height(o), class: o === picked ? "wire lit" : "wire", "data-wire": `${c},${o}` }));
  const ins = Array.from({ length: CHANNELS }, (_, c) => node(70, c, "in", feeds(c, picked)));
  const outs = Array.from({ length: CHANNELS }, (_, o) => node(350, o, "out", o === picked));
  const focused = byId("group-drawing").contains(document.activeElement);
  byId("group-drawing").replaceChildren(...lines.sort((a, b) => a.classList.length - b.classList.length), ...ins, ...outs);
  if (focused) byId("group-drawing").querySelector(".node.out.lit").focus();
  const from = Array.from({ length: CHANNELS }, (_, c) => c).filter((c) => feeds(c, picked));
  const kind = groups === 1 ? "dense" : groups === CHANNELS ? "depthwise" : `${groups} groups`;
  byId("group-note").textContent = `Output ${picked} is fed by input${from.length > 1 ? "s" : ""} ${from.join(", ")}. ${kind}: ${pairs.length} of ` +
    `${CHANNELS * CHANNELS} connections, so a 3×3 kernel has ${pairs.length} × 9 = ${pairs.length * 9} values.`;
}

function node(x, channel, side, lit) {
  const isOut = side === "out";
  const label = svg("text", { x: isOut ? x + 20 : x - 20, y: height(channel) + 4, "text-anchor": isOut ? "start" : "end" }, `${side} ${channel}`);
  const circle = svg("circle", { cx: x, cy: height(channel), r: 9 });
  const made = svg("g", { class: `node ${side}${lit ? " lit" : ""}` }, circle, label);
  if (isOut) makePickable(made, channel, lit);
  return made;
}

function makePickable(made, channel, lit) {
  for (const [name, value] of Object.entries({ tabindex: lit ? 0 : -1, role: "button", "aria-pressed": lit, "aria-label": `output channel ${channel}` })) made.setAttribute(name, value);
  made.prepend(svg("rect", { x: 334, y: height(channel) - 12, width: 80, height: 24, class: "hit" }));
  made.addEventListener("click", () => pickChannel(channel));
  made.addEventListener("keydown", (event) => {
    const to = { ArrowUp: channel - 1, ArrowDown: channel + 1, Enter: channel, " ": channel }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    pickChannel(Math.max(0, Math.min(CHANNELS - 1, to)));
  });
}

function pickChannel(channel) {
  drawing.picked = channel;
  paintGroups();
}

function startGroups() {
  for (let g = 1; g <= CHANNELS; g *= 2) byId("groups").append(element("option", { value: g }, g === CHANNELS ? `${g} (depthwise)` : String(g)));
  byId("groups").value = drawing.groups;
  byId("groups").addEventListener("change", ({ target }) => {
    drawing.groups = +target.value;
    paintGroups();
  });
  paintGroups();
}
