"use strict";
// Draws the charts of the page in its own colours, and lets check boxes show and hide arms.
const specs = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  const words = { labelColor: of("--soft"), titleColor: of("--ink"), titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12 };
  return {
    font: getComputedStyle(document.body).fontFamily,
    axis: { ...words, gridColor: of("--line"), domainColor: of("--line"), tickColor: of("--line"), labelLimit: innerWidth < 640 ? 130 : 240 },
    legend: { ...words, orient: "top", title: null, symbolStrokeColor: of("--ink"), symbolFillColor: of("--ink"), symbolBaseStrokeColor: of("--ink"), symbolBaseFillColor: of("--ink") },
    view: { stroke: null },
    rule: { color: of("--soft") },
  };
}

function chosen(id) {
  const boxes = document.querySelectorAll(`input[data-chart="${id}"]`);
  return [...boxes].filter((box) => !box.checked).map((box) => box.value);
}

async function draw(id) {
  const drawn = await vegaEmbed(`#${CSS.escape(id)}`, specs[id], { actions: false, renderer: "svg", config: colours() });
  const boxes = document.querySelectorAll(`input[data-chart="${id}"]`);
  const toggle = () => drawn.view.signal("hidden", chosen(id)).runAsync();
  boxes.forEach((box) => { box.onchange = toggle; });
  if (boxes.length) await toggle();
}

const all = () => Promise.all(Object.keys(specs).map(draw));
document.querySelectorAll("button[data-all]").forEach((button) => {
  button.onclick = () => {
    const boxes = button.closest("fieldset").querySelectorAll("input");
    const on = ![...boxes].every((box) => box.checked);
    boxes.forEach((box) => { box.checked = on; });
    boxes[0].onchange();
  };
});
dark.addEventListener("change", all);
all().then(() => { document.body.dataset.drawn = "yes"; });
