// Unpacks plotly.js and draws the charts in the page's colours. On touch screens dragging scrolls the page, not the chart.
(async () => {
  const read = (id) => document.getElementById(id).textContent;
  const {charts, templates} = JSON.parse(read("charts-data"));
  const boxes = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isTouch = matchMedia("(pointer: coarse)").matches;
  const config = {
    responsive: true, displaylogo: false, showSendToCloud: false, displayModeBar: isTouch ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d"], toImageButtonOptions: {format: "svg", filename: document.title},
  };
  const fitting = (layout, width) => ({...layout, annotations: (layout.annotations || []).filter(
    (annotation) => annotation.name !== "only wide" || width >= 540)});
  const draw = (isDark) => boxes.forEach((box) => {
    const {data, layout} = charts[box.dataset.chart];
    Plotly.react(box, data, {...fitting(layout, box.clientWidth), template: templates[isDark ? "dark" : "light"],
      dragmode: isTouch ? false : "zoom"}, config);
  });
  try {
    const packed = Uint8Array.from(atob(read("plotly")), (letter) => letter.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
    draw(dark.matches);
  } catch (error) {
    document.querySelector(".no-charts").hidden = false;
    boxes.forEach((box) => { box.style.height = "auto"; });
    throw error;
  }
  dark.addEventListener("change", () => draw(dark.matches));
  addEventListener("beforeprint", () => draw(false));
  addEventListener("afterprint", () => draw(dark.matches));
})();
