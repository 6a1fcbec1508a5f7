// Sends a form with a file and shows how far it is. Without scripts the browser sends the same form itself.
export function upload() {
  return {
    busy: false,
    sent: 0,
    get percent() {
      return `${this.sent} %`;
    },
    send(event) {
      event.preventDefault();
      if (this.busy) return;
      const form = event.target;
      const call = new XMLHttpRequest();
      call.open("POST", form.action);
      call.upload.onprogress = (step) => {
        if (step.lengthComputable) this.sent = Math.floor((100 * step.loaded) / step.total);
      };
      // What the server answers is shown as if the browser had sent the form: a redirect was followed already.
      call.onload = () => (call.status < 300 ? location.assign(call.responseURL) : this.show(call.responseText));
      call.onerror = () => form.submit();
      this.busy = true;
      call.send(new FormData(form));
    },
    show(text) {
      this.busy = false;
      this.sent = 0;
      const page = new DOMParser().parseFromString(text, "text/html");
      document.querySelector("#content").replaceWith(page.querySelector("#content"));
    },
  };
}
