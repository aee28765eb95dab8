// One websocket that is opened again when it is lost or silent. A pressed stop is sent until the robot says it is stopped.

const WATCH = 200; // milliseconds between two looks at the connection, and between two stops that are sent
const SILENT = 1000; // milliseconds without a message after which nothing that was heard counts any longer
const LOST = 3000; // milliseconds without a message after which another connection is opened

export class Connection {
  constructor(path, token, { onMessage, onPicture, onChange }) {
    this.address = location.origin.replace(/^http/, "ws") + path;
    Object.assign(this, { token, onMessage, onPicture, onChange, stopping: false });
    this.open();
    setInterval(() => this.watch(), WATCH);
  }

  get isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  /** Open a new one; an old one that may be dead is given up. */
  open() {
    clearTimeout(this.again);
    if (this.socket) {
      this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
      this.socket.close();
    }
    this.heard = performance.now();
    this.socket = new WebSocket(this.address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.send("hello", { token: this.token });
      if (this.stopping) this.send("stop");
      this.onChange(true);
    };
    this.socket.onmessage = ({ data }) => {
      this.heard = performance.now();
      if (typeof data === "string") this.onMessage(JSON.parse(data));
      else this.onPicture(new Uint8Array(data, 0, 1)[0], new Blob([new Uint8Array(data, 1)], { type: "image/jpeg" }));
    };
    this.socket.onclose = ({ reason }) => {
      this.heard = performance.now();
      this.onChange(false, reason);
      this.again = setTimeout(() => this.open(), 1000);
    };
  }

  /** A connection that died without a word stays open for the browser. */
  watch() {
    const silence = performance.now() - this.heard;
    if (silence > SILENT) this.onChange(false);
    if (silence > LOST) this.open();
    if (this.stopping) this.send("stop");
  }

  send(type, fields = {}) {
    if (this.isOpen) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  stop() {
    this.stopping = true;
    this.send("stop");
  }

  /** The robot says that it is stopped. */
  stopped() {
    this.stopping = false;
  }
}
