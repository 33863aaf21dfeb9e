// The files behind the panels: a line of links under each, and their text at the end of the page.

const idOf = (name) => `file-${name.replaceAll(/\W+/g, "-")}`;

function linkTo(name) {
  const link = element("a", { href: `#${idOf(name)}` }, element("code", {}, name));
  link.addEventListener("click", () => (byId(idOf(name)).open = true));
  return link;
}

function startSources() {
  const { behind, files } = DATA.sources;
  for (const host of document.querySelectorAll("[data-behind]")) {
    host.append("Behind this: ", ...behind[host.dataset.behind].flatMap((name, i) => (i ? [", ", linkTo(name)] : [linkTo(name)])));
  }
  for (const [name, written] of Object.entries(files)) {
    const content = written === null ? element("p", { class: "note" }, "in jconv's repository, not in the installed package") : element("pre", { tabindex: 0 }, written);
    byId("files").append(element("details", { id: idOf(name) }, element("summary", {}, element("code", {}, name)), content));
  }
}
