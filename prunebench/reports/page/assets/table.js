// The table: sorts, filters, hides columns; a row opens with a click, or Enter on its name.
function figure(title, field, write, more) {
  return {
    title, field, hozAlign: "right", headerHozAlign: "right", sorter: "number",
    sorterParams: {alignEmptyValues: "bottom"}, headerFilter: "number", headerFilterFunc: ">=",
    headerFilterPlaceholder: "from", formatter: cell => document.createTextNode(write(cell.getValue(), cell.getData())),
    accessorPrint: value => value, ...more,
  };
}
function words(title, field, more) {
  return {title, field, sorter: "string", headerFilter: "input", headerFilterPlaceholder: "has",
    formatter: cell => document.createTextNode(cell.getValue() || ""), ...more};
}
function columns(lines, open) {
  const batches = [...new Set(lines.flatMap(line => Object.keys(line.latency || {})))];
  const plain = value => value ? String(value) : "";
  return [
    words("method", "method", {width: innerWidth > 700 ? 280 : 190, formatter: cell => {
      const line = cell.getData(), name = element("button", cell.getValue(), "name");
      name.type = "button";
      name.title = line.name;
      name.addEventListener("click", () => open(line));
      return name;
    }}),
    words("differs in", "details", {width: 150, visible: lines.some(line => line.details), tooltip: (event, cell) => element("span", cell.getValue())}),
    words("network", "model", {maxInitialWidth: 160}), words("data", "dataset", {maxInitialWidth: 160}),
    figure("final %", "accuracy", (value, line) => points(value, line.std)),
    figure("drop", "drop", value => points(value), {headerFilterFunc: "<=", headerFilterPlaceholder: "up to"}),
    figure("MACs cut", "macs.reduction", percent),
    figure("params cut", "params.reduction", percent),
    figure("MACs", "macs.after", counted, {headerFilterFunc: "<=", headerFilterPlaceholder: "up to"}),
    figure("params", "params.after", counted, {headerFilterFunc: "<=", headerFilterPlaceholder: "up to", visible: false}),
    ...batches.map(batch => figure("speed-up, batch " + batch, "speedup" + batch,
      (value, line) => value ? value.toFixed(2) + "x" + (line.latency[batch].busy ? " (busy)" : "") : "")),
    figure("baseline %", "baseline", value => points(value)),
    figure("pruned %", "pruned", value => points(value)),
    figure("seeds", "seeds", plain),
    figure("lost", "lost", plain, {visible: lines.some(line => line.lost)}),
    words("published", "tier", {visible: lines.some(line => line.tier)}),
    words("note", "note", {visible: false}),
  ];
}
function prepared(lines) {
  lines.forEach((line, i) => {
    line.id = i;
    line.name = line.method + (line.details ? " [" + line.details + "]" : "");
    line.place = line.model + " on " + line.dataset;
    for (const [batch, time] of Object.entries(line.latency || {})) {
      line["speedup" + batch] = time.after ? time.before / time.after : null;
    }
  });
  return lines;
}
function makeTable(lines, open) {
  return new Tabulator("#table", {
    data: lines, columns: columns(lines, open), layout: "fitDataFill", maxHeight: "75vh",
    columnDefaults: {headerSortTristate: true, resizable: false, titleFormatter: cell => {
      const title = element("button", cell.getValue(), "sort");  // Enter and space click it, which sorts
      title.type = "button";
      return title;
    }},
    initialSort: [{column: "accuracy", dir: "desc"}], selectableRows: 1, nestedFieldSeparator: ".",
    placeholder: "no row passes the filters", printAsHtml: true, printRowRange: "active",
    autoResize: false,  // it would build all rows anew, under the focus, when they come into view
    rowFormatter: row => row.getElement().classList.toggle("published", Boolean(row.getData().tier)),
  });
}
function columnChooser(table, box) {
  for (const column of table.getColumns()) {
    const label = element("label"), tick = element("input");
    tick.type = "checkbox";
    tick.checked = column.isVisible();
    tick.addEventListener("change", () => { tick.checked ? column.show() : column.hide(); });
    label.append(tick, " " + column.getDefinition().title);
    box.append(label);
  }
}
