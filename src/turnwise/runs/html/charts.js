"use strict";
// A crosshair at the same position in all charts of a group, each with its own figure underneath.
(() => {
  const charts = [...document.querySelectorAll("svg.chart")].filter((svg) => svg.querySelector(".hit"));
  for (const svg of charts) {
    const readout = document.createElementNS(svg.namespaceURI, "text");
    readout.setAttribute("class", "figure readout");
    readout.setAttribute("x", "0");
    readout.setAttribute("y", svg.viewBox.baseVal.height - 2);
    svg.append(readout);
    for (const hit of svg.querySelectorAll(".hit")) {
      const title = hit.querySelector("title");
      hit.dataset.said = title.textContent;
      title.remove();
    }
  }
  const mark = (svg, x) => {
    const hits = [...svg.querySelectorAll(".hit")];
    const distance = (hit) => Math.abs(Number(hit.dataset.x) - x);
    const hit = hits.reduce((best, next) => (distance(next) < distance(best) ? next : best));
    const px = hit.dataset.px;
    svg.querySelector(".cross").setAttribute("transform", `translate(${px} 0)`);
    const spots = [...svg.querySelectorAll(".spot")];
    for (const spot of spots) spot.classList.remove("on");
    for (const pair of hit.dataset.spots.split(" ")) {
      const [index, py] = pair.split(":");
      spots[index].setAttribute("cx", px);
      spots[index].setAttribute("cy", py);
      spots[index].classList.add("on");
    }
    svg.querySelector(".readout").textContent = hit.dataset.said;
    svg.classList.add("live");
  };
  for (const svg of charts) {
    const group = svg.closest("[data-linked]");
    const linked = group ? charts.filter((other) => group.contains(other)) : [svg];
    svg.addEventListener("pointermove", (event) => {
      const hit = event.target.closest(".hit");
      if (hit) for (const other of linked) mark(other, Number(hit.dataset.x));
    });
    svg.addEventListener("pointerleave", () => {
      for (const other of linked) other.classList.remove("live");
    });
  }
})();
