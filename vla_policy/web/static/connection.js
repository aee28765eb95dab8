// One websocket that is opened again when it is lost. A stop that is pressed meanwhile is sent first of all.

export class Connection {
  constructor(path, token, { onMessage, onPicture, onChange }) {
    this.address = location.origin.replace(/^http/, "ws") + path;
    Object.assign(this, { token, onMessage, onPicture, onChange, stopping: false });
    this.open();
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  open() {
    this.socket = new WebSocket(this.address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.send("hello", { token: this.token });
      if (this.stopping) this.stop();
      this.onChange(true);
    };
    this.socket.onmessage = ({ data }) => {
      if (typeof data === "string") this.onMessage(JSON.parse(data));
      else this.onPicture(new Uint8Array(data, 0, 1)[0], new Blob([new Uint8Array(data, 1)], { type: "image/jpeg" }));
    };
    this.socket.onclose = ({ reason }) => {
      this.onChange(false, reason);
      setTimeout(() => this.open(), 1000);
    };
  }

  send(type, fields = {}) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  stop() {
    this.stopping = !this.isOpen;
    this.send("stop");
  }
}
