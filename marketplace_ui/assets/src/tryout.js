// "Try it": sends one message to the base and to the adapter, streams both answers side by side. Without scripts the
// same form is sent as a page.
export function tryout() {
  return {
    busy: false,
    stopper: null,
    get idle() {
      return !this.busy;
    },
    async ask() {
      const message = this.$refs.message.value;
      if (this.busy || !message.trim()) return;
      this.busy = true;
      this.stopper = new AbortController();
      const panes = [...this.$root.querySelectorAll("[data-model]")];
      await Promise.all(panes.map((pane) => this.fill(pane, message)));
      this.busy = false;
    },
    stop() {
      this.stopper?.abort();
    },
    async fill(pane, message) {
      const output = pane.querySelector("[data-answer]");
      const label = pane.querySelector("[data-label]");
      output.classList.remove("answer-bad");
      output.textContent = "…";
      label.hidden = true;
      try {
        await this.stream(pane.dataset.model, message, output);
        label.hidden = false;
      } catch (error) {
        // A stopped answer keeps what came, with its label; a refusal is shown in place of the answer.
        if (error.name === "AbortError") {
          label.hidden = output.textContent === "…";
          return;
        }
        output.classList.add("answer-bad");
        output.textContent = error.message;
      }
    },
    async stream(model, message, output) {
      const answer = await fetch(this.$root.dataset.url, {
        method: "POST",
        headers: { "content-type": "application/json", accept: "application/json, text/plain" },
        body: JSON.stringify({ model, message }),
        signal: this.stopper.signal,
      });
      if (!answer.ok) {
        const problem = await answer.json().catch(() => ({}));
        throw new Error(problem.detail ?? `${answer.status} ${answer.statusText}`);
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        text += chunk.value;
        output.textContent = text;
      }
    },
  };
}
