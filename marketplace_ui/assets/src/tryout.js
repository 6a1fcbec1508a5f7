// "Try it": sends one message to the base and to the adapter, streams both answers side by side.
export function tryout() {
  return {
    message: "",
    busy: false,
    async ask() {
      if (this.busy || !this.message.trim()) return;
      this.busy = true;
      const panes = [...this.$root.querySelectorAll("[data-model]")];
      await Promise.all(panes.map((pane) => this.stream(pane)));
      this.busy = false;
    },
    async stream(pane) {
      const output = pane.querySelector("[data-answer]");
      output.textContent = "…";
      const answer = await fetch(this.$root.dataset.url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: pane.dataset.model, message: this.message }),
      });
      if (!answer.ok) {
        output.textContent = (await answer.json()).detail ?? answer.statusText;
        return;
      }
      output.textContent = "";
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) output.textContent += chunk.value;
    },
  };
}
