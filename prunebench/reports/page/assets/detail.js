// One run: what was measured, its layers, course, configuration and environment.
const STAGES = {baseline: "baseline", pruned: "pruned", repaired: "repaired", finetuned_last: "fine-tuned, last",
  finetuned_best_val: "fine-tuned, best validation"};
function folded(title, content, open) {
  const box = element("details");
  box.open = open;
  box.append(element("summary", title), content);
  return box;
}
function share(before, after) {
  const bar = element("span", null, "bar"), kept = element("i");
  kept.style.width = 100 * after / Math.max(before, 1) + "%";
  bar.append(kept);
  bar.setAttribute("aria-hidden", "true");
  return bar;
}
function pairs(values) {
  return grid(["key", "value"], Object.entries(values).map(([key, value]) => [key, value === null ? "null" : value]), [0, 1]);
}
function measured(run) {
  return grid(["stage", "accuracy %", "of", "params", "MACs", "file", "latency"], run.measured.map(one => [
    STAGES[one.stage] || one.stage, points(one.accuracy), one.seen ?? "", one.params, one.macs, one.bytes,
    one.latency.join("; ")]), [0, 6]);
}
function layers(run) {
  return grid(["layer", "channels", "kept", "", "params", "MACs", "why whole"],
    run.layers.map(([name, had, kept, params, paramsLeft, macs, macsLeft, why]) => [
      name, had, kept, share(had, kept), counted(params) + " → " + counted(paramsLeft),
      counted(macs) + " → " + counted(macsLeft), why]), [0, 6]);
}
// Fills the section, and returns the chart of the run's course; null where it left no log.
function showRun(box, run) {
  box.replaceChildren();
  box.append(element("p", run.path + ", finished " + run.finished, "quiet"));
  if (run.surgery !== null) {
    box.append(element("p", "Masked and slimmed network agree to " + run.surgery.toExponential(1) + " (relative).", "quiet"));
  }
  box.append(element("h3", "Measured"), measured(run));
  for (const line of run.speed) box.append(element("p", line));
  let chart = null;
  if (run.curves) {
    const frame = element("div", null, "chart low"), canvas = element("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Accuracy by epoch; the table above has the accuracy at each stage");
    frame.append(canvas);
    box.append(element("h3", "Course"), frame);
    chart = drawCourse(canvas, run.curves);
  } else {
    box.append(element("p", "No curves: metrics.jsonl did not lie beside the report.", "quiet"));
  }
  box.append(element("h3", "Layers"), layers(run), element("h3", "Configuration"));
  box.append(folded("Options", pairs(run.choices), true), folded("Every key", pairs(run.config), false),
    folded("Environment", pairs(run.environment), false), folded("Seconds by stage", pairs(run.seconds), false));
  return chart;
}
