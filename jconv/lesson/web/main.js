// Start: build the controls, paint once, and compare with what jconv computed in Python.

function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function startTheme() {
  try {
    applyTheme(localStorage.getItem("theme"));
  } catch {} // a page opened from a file may not have storage
  byId("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    applyTheme(theme);
    try {
      localStorage.setItem("theme", theme);
    } catch {}
  });
}

function selfCheck() {
  const conv = forward();
  const found = gradients(conv, state.g);
  const pairs = [[convolve(conv), DATA.computed.y], [columnsOf(conv), DATA.computed.columns], ...["x", "w", "b"].map((name) => [found[name], DATA.computed[name]])];
  const cells = total(pairs.map(([a]) => flat(a).length));
  const good = pairs.every(([a, b]) => same(a, b));
  byId("self-check").dataset.good = good;
  byId("self-check").textContent = good
    ? `Made by jconv ${DATA.version}. Compared on opening: ${cells} numbers of this page with those jconv computed in Python; all equal.`
    : "The numbers of this page differ from those jconv computed. Please report this browser.";
}

startTheme();
buildKnobs();
startUnroll();
startCalculator();
startFlip();
startThree();
startAlgorithms();
startWinograd();
startGroups();
startMemory();
startSources();
update({});
selfCheck();
