// What every page shares: htmx for parts of pages, Alpine for small state, the live charts and the try-out.
import htmx from "htmx.org";
import Alpine from "@alpinejs/csp";
import { chart } from "./chart.js";
import { tryout } from "./tryout.js";
import { upload } from "./upload.js";

htmx.config.allowEval = false;
htmx.config.includeIndicatorStyles = false;
htmx.config.responseHandling = [
  { code: "204", swap: false },
  { code: "[23]..", swap: true },
  { code: "422", swap: true },
  { code: "[45]..", swap: true, error: true },
];
window.htmx = htmx;

Alpine.data("curve", chart);
Alpine.data("tryout", tryout);
Alpine.data("upload", upload);
Alpine.data("copy", () => ({
  done: false,
  async take() {
    await navigator.clipboard.writeText(this.$refs.text.innerText);
    this.done = true;
  },
}));
Alpine.start();

// On a phone the menu is wider than the screen: show where one is.
document.querySelector(".tab-current")?.scrollIntoView({ block: "nearest", inline: "center" });
