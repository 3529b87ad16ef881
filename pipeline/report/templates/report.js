"use strict";
// A click enlarges a picture; a plot shows the numbers of the point under the pointer.
for (const picture of document.querySelectorAll("figure img")) {
  picture.addEventListener("click", () => picture.parentElement.classList.toggle("wide"));
}

for (const plots of document.querySelectorAll(".plots")) {
  const series = JSON.parse(plots.querySelector("script").textContent);
  const readout = plots.querySelector(".readout");
  const resting = readout.textContent;
  const cursors = plots.querySelectorAll(".cursor");
  const ms = (seconds) => `${(1e3 * seconds).toFixed(1)} ms`;
  const compact = (value) => {
    const step = value < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(value) / 3));
    return `${(value / 1000 ** step).toPrecision(3)} ${["", "k", "M", "G", "T"][step]}MAC`;
  };

  const describe = (point) => {
    const first = series.index[point];
    const frames = series.frames_per_point > 1 ? `from frame ${first}` : `frame ${first}`;
    const stages = Object.entries(series.seconds_by_stage).filter(([, seconds]) => seconds[point] > 0).map(([stage, seconds]) => `${stage} ${(1e3 * seconds[point]).toFixed(1)}`);
    const invalid = series.invalid[point] ? ` · ${series.invalid[point]} invalid` : "";
    const reason = series.reason[point] ? ` (${series.reason[point]})` : "";
    const rows = `${(100 * series.rows_share[point]).toFixed(1)} % of tokens`;
    return `${frames} · ${series.pts_s[point].toFixed(2)} s · ${series.policy[point]}${reason}${invalid} · ${rows} · oldest patch ${series.oldest_s[point].toFixed(2)} s · ${ms(series.seconds[point])} (${stages.join(", ")})`
      + ` · ${compact(series.macs_executed[point])} of ${compact(series.macs_dense[point])}`;
  };
  for (const svg of plots.querySelectorAll("svg")) {
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const point = Math.min(series.index.length - 1, Math.max(0, Math.floor(share * series.index.length)));
      readout.textContent = describe(point);
      for (const cursor of cursors) {
        cursor.style.visibility = "visible";
        cursor.setAttribute("x1", point + 0.5);
        cursor.setAttribute("x2", point + 0.5);
      }
    });
    svg.addEventListener("pointerleave", () => {
      readout.textContent = resting;
      for (const cursor of cursors) cursor.style.visibility = "hidden";
    });
  }
}

addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not(.frames)")) part.open = true;
});
