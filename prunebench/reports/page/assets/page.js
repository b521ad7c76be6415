// The page: reads the data, then ties table, plot and detail together.
const at = id => document.getElementById(id);
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}
function themed(choice) {
  const dark = choice ? choice === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}
function start(data) {
  const lines = prepared(data.rows), tiers = new Set(), state = {pareto: null, course: null, line: null};
  const own = lines.filter(line => !line.tier);
  const redraw = () => {
    const place = at("network").value, cost = at("cost").value, title = at("cost").selectedOptions[0].textContent;
    const shown = table.getData("active").filter(line => line.place === place);
    const {drawn, best} = drawPareto(state.pareto, shown, cost, title, open);
    state.pareto = drawn;
    const list = best.map(spot => `${spot.line.method}, ${points(spot.y)} % at ${counted(spot.x)}`).join("; ");
    at("front").textContent = list ? "Front of the runs shown: " + list + "." : "Nothing to plot.";
    at("pareto").setAttribute("aria-label", `${title} against accuracy of ${shown.length} rows. ${at("front").textContent}`);
    at("shown").textContent = `${table.getDataCount("active")} of ${lines.length} rows`;
  };
  const showSeed = () => {
    if (state.course) state.course.destroy();
    state.course = null;
    const number = at("seed").value;
    if (number === "") at("facts").replaceChildren(element("p", state.line.tier ? `Published (${state.line.tier}): ${state.line.source}. ${state.line.note}` : "No run of these settings has finished."));
    else state.course = showRun(at("facts"), data.runs[Number(number)]);
  };
  const open = line => {
    state.line = lines[line.id];
    table.deselectRow();
    table.selectRow(line.id);
    at("detail").hidden = false;
    at("detail-title").textContent = `${state.line.name}: ${state.line.place}`;
    const runs = state.line.runs || [];
    at("seed").replaceChildren(...(runs.length ? runs.map(i => option(i, data.runs[i].seed)) : [option("", "none")]));
    at("seeds").hidden = runs.length < 2;
    showSeed();
    at("detail-title").focus();
    at("detail").scrollIntoView();
  };
  const close = () => {
    at("detail").hidden = true;
    table.deselectRow();
    at("table-title").scrollIntoView();
  };
  const filter = () => {
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    table.setFilter(line => (!line.tier || tiers.has(line.tier)) &&
      words.every(word => `${line.name} ${line.place}`.toLowerCase().includes(word)));
  };
  const table = makeTable(lines, open);
  const places = Map.groupBy(own, line => line.place);
  const most = [...places.keys()].sort((a, b) => places.get(b).length - places.get(a).length);
  at("network").append(...most.map(place => option(place, `${place} (${places.get(place).length})`)));
  at("cost").append(...Object.entries(costs(lines)).map(([cost, title]) => option(cost, title)));
  for (const tier of Object.keys(TIERS).filter(tier => lines.some(line => line.tier === tier))) {
    const label = element("label"), tick = element("input");
    Object.assign(tick, {type: "checkbox", checked: true, value: tier});
    tiers.add(tier);
    tick.addEventListener("change", () => { tick.checked ? tiers.add(tier) : tiers.delete(tier); filter(); });
    label.append(tick, " " + tier);
    at("tiers").append(label);
  }
  at("tiers").hidden = !tiers.size;
  at("notes").append(...data.notes.map(note => element("li", note)));
  at("summary").textContent = `${own.length} settings, ${data.runs.length} runs, ${lines.length - own.length} published rows beside them`;
  const repaint = () => { redraw(); if (state.line && !at("detail").hidden) showSeed(); };
  const theme = () => { themed(at("theme").value); repaint(); };
  table.on("tableBuilt", () => {
    columnChooser(table, at("columns").querySelector("div"));
    table.on("dataFiltered", () => queueMicrotask(redraw));
    table.on("rowClick", (event, row) => { if (!event.target.closest("button")) open(row.getData()); });
    redraw();
    document.documentElement.dataset.ready = "yes";
  });
  at("network").addEventListener("change", redraw);
  at("cost").addEventListener("change", redraw);
  at("search").addEventListener("input", filter);
  at("seed").addEventListener("change", showSeed);
  at("close").addEventListener("click", close);
  at("theme").addEventListener("change", theme);
  at("print").addEventListener("click", () => print());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
  addEventListener("resize", () => table.redraw());
  addEventListener("keydown", event => { if (event.key === "Escape" && !at("detail").hidden) close(); });
  addEventListener("beforeprint", () => { themed("light"); repaint(); for (const box of document.querySelectorAll("#facts details")) box.open = true; });
  addEventListener("afterprint", theme);
}
themed("");
unpacked(at("data").textContent.trim()).then(start).catch(error => {
  at("summary").textContent = `This browser cannot show the page (${error.message}).`;
  throw error;
});
