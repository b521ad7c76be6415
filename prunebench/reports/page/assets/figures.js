// How figures read to a person, and elements made without markup: text is never parsed as HTML.
function counted(value) {
  if (value === null || value === undefined) return "";
  const shown = Number(value.toPrecision(4));  // 999,950 is 1 M, not 1000 k
  for (const [size, prefix] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (shown >= size) return Number((shown / size).toPrecision(4)) + prefix;
  }
  return String(shown);
}
function points(value, std) {
  if (value === null || value === undefined) return "";
  return fixed(value, 2) + (std === null || std === undefined ? "" : " ± " + std.toFixed(2));
}
function percent(value) {
  if (value === null || value === undefined) return "";
  const shown = fixed(-value, 1);
  return (Number(shown) > 0 ? "+" : "") + shown.replace("-", "−") + " %";
}
// What rounds to nothing has no sign.
function fixed(value, digits) {
  const shown = value.toFixed(digits);
  return Number(shown) ? shown : shown.replace("-", "");
}
function element(kind, text, name) {
  const made = document.createElement(kind);
  if (text !== undefined && text !== null) made.textContent = text;
  if (name) made.className = name;
  return made;
}
function option(value, text) {
  const made = element("option", text);
  made.value = value;
  return made;
}
// A table of cells that are text or elements; the columns in `texts` are aligned left.
function grid(headers, lines, texts) {
  const table = element("table"), head = element("tr"), body = element("tbody");
  headers.forEach((header, i) => {
    const cell = element("th", header, texts.includes(i) ? "text" : "");
    cell.scope = "col";
    head.append(cell);
  });
  for (const line of lines) {
    const row = element("tr");
    line.forEach((value, i) => {
      const cell = element(i ? "td" : "th", null, texts.includes(i) ? "text" : "");
      if (!i) cell.scope = "row";
      cell.append(value instanceof Node ? value : String(value ?? ""));
      row.append(cell);
    });
    body.append(row);
  }
  const top = element("thead");
  top.append(head);
  table.append(top, body);
  const box = element("div", null, "scroll");
  box.append(table);
  return box;
}
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
// Okabe and Ito's colours, safe for the colour-blind; the first and the black adapt to the paper.
function palette() {
  const dark = document.documentElement.dataset.theme === "dark";
  return [dark ? "#4da3ff" : "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
    dark ? "#f0e442" : "#000000", "#a37f2c"];
}
