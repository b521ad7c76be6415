// The plots: where each row stands, and the course of a run.
const SHAPE = ["circle", "rect", "triangle", "rectRot", "star", "cross", "crossRot"];
const TIERS = {quoted: "crossRot", printed: "cross", rebuilt: "star", "re-run": "triangle"};
const MARKS = {line: "—", circle: "●", rect: "■", triangle: "▲", rectRot: "◆", rectRounded: "■", crossRot: "×", cross: "+", star: "✳"};
function costs(lines) {
  const found = {macs: "MACs", params: "parameters"};
  for (const line of lines) {
    for (const batch of Object.keys(line.latency || {})) found["latency." + batch] = "latency, ms, batch " + batch;
  }
  return found;
}
function costOf(line, cost) {
  const [kind, batch] = cost.split(".");
  return (batch ? (line.latency || {})[batch] : line[kind]) || {};
}
function frontOf(spots) {
  const best = [];
  for (const spot of [...spots].sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (!best.length || spot.y > best[best.length - 1].y) best.push(spot);
  }
  return best;
}
function spotsOf(lines, cost) {
  return lines.map(line => ({x: costOf(line, cost).after, y: line.accuracy, line}))
    .filter(spot => spot.x !== null && spot.x !== undefined && spot.y !== null);
}
// The dense network: one spot for all rows that started from the same counts and accuracy.
function denseOf(lines, cost) {
  const spots = new Map();
  for (const line of lines.filter(line => !line.tier)) {
    const x = costOf(line, cost).before, y = line.baseline;
    if (x && y !== null) spots.set(x + " " + y, {x, y, line: {...line, name: "not pruned", method: "not pruned", std: null}});
  }
  return [...spots.values()];
}
function paretoSets(lines, cost) {
  const shades = palette(), sets = [];
  const own = spotsOf(lines.filter(line => !line.tier), cost), dense = denseOf(lines, cost);
  const best = frontOf([...own, ...dense]);
  sets.push({type: "line", label: "front of the runs", data: best, stepped: "before", pointStyle: "line", borderColor: colour("--front"),
    borderWidth: 1, pointRadius: 0, pointHitRadius: 0});
  const methods = [...new Set(own.map(spot => spot.line.method))];
  methods.forEach((method, i) => sets.push({label: method, data: own.filter(spot => spot.line.method === method),
    backgroundColor: shades[i % 8], borderColor: shades[i % 8], pointRadius: 5, pointHoverRadius: 8,
    pointStyle: SHAPE[(i + Math.floor(i / 8)) % 4]}));
  if (dense.length) sets.push({label: "not pruned", data: dense, backgroundColor: colour("--front"),
    borderColor: colour("--front"), pointRadius: 6, pointStyle: "rectRounded"});
  for (const [tier, shape] of Object.entries(TIERS)) {
    const data = spotsOf(lines.filter(line => line.tier === tier), cost);
    if (data.length) sets.push({label: "published, " + tier, data, borderColor: colour("--published"),
      backgroundColor: colour("--published"), pointStyle: shape, pointRadius: 5, pointHoverRadius: 8, borderWidth: 1.5});
  }
  return {sets, best};
}
function axis(title, more) {
  return {title: {display: true, text: title, color: colour("--ink")}, grid: {color: colour("--line")},
    ticks: {color: colour("--quiet")}, ...more};
}
function drawPareto(chart, lines, cost, title, open) {
  if (chart) chart.destroy();
  const {sets, best} = paretoSets(lines, cost);
  const metric = lines.length ? lines[0].metric : "top-1";
  const drawn = new Chart(document.getElementById("pareto"), {
    type: "scatter", data: {datasets: sets},
    options: {
      animation: false, maintainAspectRatio: false, responsive: true,
      interaction: {mode: "nearest", intersect: true},
      onClick: (event, hits) => { if (hits.length) open(hits[0].element.$context.raw.line); },
      onHover: (event, hits) => { event.native.target.style.cursor = hits.length ? "pointer" : ""; },
      scales: {
        x: axis(title, {beginAtZero: true, ticks: {color: colour("--quiet"), callback: value => counted(value)}}),
        y: axis(metric + ", %"),
      },
      plugins: {
        legend: {display: false},
        tooltip: {callbacks: {label: item => told(item.raw, title)}},
      },
    },
  });
  drawLegend(document.getElementById("legend"), drawn);
  return {drawn, best};
}
// A button for each set of points, which hides them; the chart's own legend cuts off what does not fit.
function drawLegend(list, chart) {
  list.replaceChildren(...chart.data.datasets.map((set, i) => {
    const item = element("li"), button = element("button"), mark = element("span", MARKS[set.pointStyle]);
    mark.style.color = set.borderColor;
    mark.ariaHidden = "true";
    button.append(mark, " " + set.label);
    button.type = "button";
    button.ariaPressed = "true";
    button.addEventListener("click", () => {
      chart.setDatasetVisibility(i, !chart.isDatasetVisible(i));
      chart.update();
      button.ariaPressed = String(chart.isDatasetVisible(i));
    });
    item.append(button);
    return item;
  }));
}
function told(spot, title) {
  const line = spot.line;
  return [line.name, points(spot.y, line.std) + " %, " + counted(spot.x) + " " + title,
    line.tier ? "published, " + line.tier : line.seeds > 1 ? line.seeds + " seeds" : ""].filter(Boolean);
}
function drawCourse(canvas, course) {
  const shades = palette(), names = {train: "training", val: "validation", test: "test"};
  const sets = Object.entries(course.curves).map(([kind, spots], i) => ({
    label: names[kind], data: spots.map(([x, y]) => ({x, y})), borderColor: shades[i], backgroundColor: shades[i],
    borderWidth: 1.5, pointRadius: kind === "test" || spots.length < 3 ? 5 : 0, showLine: kind !== "test", pointStyle: kind === "test" ? "rectRot" : "circle"}));
  const all = Object.values(course.curves).flat().map(spot => spot[1]);
  const ends = [Math.min(...all), Math.max(...all)];
  [...new Set(course.cuts.map(cut => cut[0]))].forEach((x, i) => sets.push({
    label: i ? "" : "channels go", data: ends.map(y => ({x, y})), borderColor: colour("--quiet"), borderDash: [5, 4],
    borderWidth: 1, pointRadius: 0, showLine: true}));
  return new Chart(canvas, {type: "scatter", data: {datasets: sets}, options: {
    animation: false, maintainAspectRatio: false,
    scales: {x: axis("epochs since the run began", {beginAtZero: true}), y: axis("accuracy, %")},
    plugins: {legend: {labels: {color: colour("--ink"), filter: item => item.text}}},
  }});
}
