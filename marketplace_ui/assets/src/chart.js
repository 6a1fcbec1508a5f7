// The loss curve of a run with its healthy band: reads server-sent events, keeps points by step, redraws at most once a
// frame. The band comes with each held-out loss and holds until the next one.
import htmx from "htmx.org";
import uPlot from "uplot";

const paint = { train: "#0a7069", valid: "#b3261e", band: "#6f9bd1", fill: "rgb(111 155 209 / 16%)" };

export function chart() {
  // Kept out of the component: Alpine would wrap every point in a proxy.
  const points = new Map();
  let plot = null;
  let frame = 0;

  function add(line) {
    const { loss, valid_loss: valid } = line.metrics;
    if (loss == null && valid == null) return;
    const row = points.get(line.step) ?? { train: null, valid: null, band: null };
    if (loss != null) row.train = loss;
    if (valid != null) row.valid = valid;
    if (line.band) row.band = line.band;
    points.set(line.step, row);
    if (!frame) frame = requestAnimationFrame(draw);
  }

  function draw() {
    frame = 0;
    const steps = [...points.keys()].sort((a, b) => a - b);
    const rows = steps.map((step) => points.get(step));
    let band = [null, null];
    const bands = rows.map((row) => (band = row.band ?? band));
    const edges = [1, 0].map((edge) => bands.map((found) => found[edge]));
    plot.setData([steps, rows.map((row) => row.train), rows.map((row) => row.valid), ...edges]);
  }

  return {
    init() {
      plot = new uPlot(options(this.$root.dataset, this.size()), [[], [], [], [], []], this.$refs.plot);
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
  const edge = { width: 1, stroke: paint.band, dash: [2, 3], points: { show: false } };
  return {
    ...size,
    scales: { x: { time: false } },
    axes: [{ ...axis }, { ...axis, size: 56 }],
    bands: [{ series: [3, 4], fill: paint.fill }],
    series: [
      { label: words.step },
      { ...line, label: words.train, stroke: paint.train },
      { ...line, label: words.valid, stroke: paint.valid, dash: [6, 4], points: { size: 7, fill: paint.valid } },
      { ...edge, label: words.high },
      { ...edge, label: words.low },
    ],
  };
}
