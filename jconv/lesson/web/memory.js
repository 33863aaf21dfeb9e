// The same image in two memory orders. Addresses come from the strides, as an array library finds them.

const IMAGE = { c: 3, h: 3, w: 4 };
const STRIDES = { nchw: { c: IMAGE.h * IMAGE.w, h: IMAGE.w, w: 1 }, nhwc: { h: IMAGE.w * IMAGE.c, w: IMAGE.c, c: 1 } };
const pixel = { h: 0, w: 1 };
const addressOf = (order, at) => total(Object.entries(STRIDES[order]).map(([axis, stride]) => stride * at[axis]));

function paintMemory() {
  paintGrid(byId("layout-image"), { matrix: matrixOf(IMAGE.h, IMAGE.w, (h, w) => h * IMAGE.w + w), label: "pixel", picked: [pixel.h, pixel.w],
    press: (h, w) => (Object.assign(pixel, { h, w }), paintMemory()), look: (h, w) => "input" + (h === pixel.h && w === pixel.w ? " lit" : "") });
  for (const order of ["nchw", "nhwc"]) paintStrip(order);
  const found = (order) => [0, 1, 2].map((c) => addressOf(order, { ...pixel, c })).join(", ");
  byId("layout-note").textContent = `The ${IMAGE.c} channels of pixel (${pixel.h}, ${pixel.w}) lie at addresses ${found("nchw")} in NCHW, ` +
    `${IMAGE.h * IMAGE.w} apart, and at ${found("nhwc")} in NHWC, side by side.`;
}

function paintStrip(order) {
  const cells = [];
  for (let c = 0; c < IMAGE.c; c++) for (let h = 0; h < IMAGE.h; h++) for (let w = 0; w < IMAGE.w; w++) {
    const lit = h === pixel.h && w === pixel.w;
    cells[addressOf(order, { c, h, w })] = element("span", { class: `slot channel${c}${lit ? " lit" : ""}`, "data-what": `${c},${h},${w}`,
      title: `channel ${c}, pixel (${h}, ${w})` }, String(h * IMAGE.w + w));
  }
  byId(order).replaceChildren(...cells);
  const strides = Object.entries(STRIDES[order]).map(([axis, stride]) => `${axis} ${stride}`).join(", ");
  byId(`${order}-strides`).textContent = `strides ${strides}`;
}

function startMemory() {
  byId("layout-size").textContent = `${IMAGE.h}×${IMAGE.w} pixels, ${IMAGE.c} channels (the colours below)`;
  paintMemory();
}
