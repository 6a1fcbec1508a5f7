// The loss curve of a run: reads server-sent events, keeps points by sequence number, redraws at most once a frame.
import uPlot from "uplot";

const paint = { train: "#206bc4", valid: "#d6336c" };

export function chart() {
  return {
    points: new Map(),
    plot: null,
    status: "",
    init() {
      this.plot = new uPlot(this.options(), [[], [], []], this.$refs.plot);
      const source = new EventSource(this.$root.dataset.events);
      source.addEventListener("progress", (event) => this.add(JSON.parse(event.data)));
      source.addEventListener("state", (event) => this.announce(JSON.parse(event.data)));
      source.addEventListener("end", () => source.close());
      window.addEventListener("resize", () => this.plot.setSize(this.size()));
    },
    size() {
      return { width: this.$refs.plot.clientWidth || 600, height: 260 };
    },
    options() {
      const words = this.$root.dataset;
      return {
        ...this.size(),
        scales: { x: { time: false } },
        series: [
          { label: words.step },
          { label: words.train, stroke: paint.train, width: 2, spanGaps: true },
          { label: words.valid, stroke: paint.valid, width: 2, spanGaps: true, points: { size: 6 } },
        ],
      };
    },
    add(point) {
      const row = this.points.get(point.step) ?? { train: null, valid: null };
      if (point.loss != null) row.train = point.loss;
      if (point.valid_loss != null) row.valid = point.valid_loss;
      this.points.set(point.step, row);
      this.fill(point);
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.draw());
    },
    draw() {
      const steps = [...this.points.keys()].sort((a, b) => a - b);
      const rows = steps.map((step) => this.points.get(step));
      this.plot.setData([steps, rows.map((row) => row.train), rows.map((row) => row.valid)]);
    },
    fill(point) {
      for (const cell of this.$root.querySelectorAll("[data-live]")) {
        if (point[cell.dataset.live] != null) cell.textContent = point[cell.dataset.live];
      }
    },
    announce(state) {
      if (this.status && this.status !== state.state) window.location.reload();
      this.status = state.state;
    },
  };
}
