// The loss curve of a run: reads server-sent events, keeps points by step, redraws at most once a frame.
import htmx from "htmx.org";
import uPlot from "uplot";

const paint = { train: "#0a7069", valid: "#b3261e" };

export function chart() {
  // Kept out of the component: Alpine would wrap every point in a proxy.
  const points = new Map();
  let plot = null;
  let frame = 0;

  function add(line) {
    const { loss, valid_loss: valid } = line.metrics;
    if (loss == null && valid == null) return;
    const row = points.get(line.step) ?? { train: null, valid: null };
    if (loss != null) row.train = loss;
    if (valid != null) row.valid = valid;
    points.set(line.step, row);
    if (!frame) frame = requestAnimationFrame(draw);
  }

  function draw() {
    frame = 0;
    const steps = [...points.keys()].sort((a, b) => a - b);
    const rows = steps.map((step) => points.get(step));
    plot.setData([steps, rows.map((row) => row.train), rows.map((row) => row.valid)]);
  }

  return {
    init() {
      plot = new uPlot(options(this.$root.dataset, this.size()), [[], [], []], this.$refs.plot);
      const source = new EventSource(this.$root.dataset.events);
      source.addEventListener("progress", (event) => add(JSON.parse(event.data)));
      source.addEventListener("state", () => htmx.trigger(document.body, "run-changed"));
      source.addEventListener("end", (event) => this.end(source, JSON.parse(event.data)));
      window.addEventListener("resize", () => plot.setSize(this.size()));
    },
    size() {
      return { width: this.$refs.plot.clientWidth || 600, height: 280 };
    },
    // The server closes after a minute and the browser comes back by itself; only the end of the run is the end.
    end(source, { over }) {
      if (!over) return;
      source.close();
      if (this.$root.dataset.over !== "yes") window.location.reload();
    },
  };
}

function options(words, size) {
  const axis = { stroke: "#51607a", grid: { stroke: "#e7ecf3" }, ticks: { stroke: "#e7ecf3" } };
  const line = { width: 2, spanGaps: true };
  return {
    ...size,
    scales: { x: { time: false } },
    axes: [{ ...axis }, { ...axis, size: 56 }],
    series: [
      { label: words.step },
      { ...line, label: words.train, stroke: paint.train },
      { ...line, label: words.valid, stroke: paint.valid, dash: [6, 4], points: { size: 7, fill: paint.valid } },
    ],
  };
}
