// Leading by hand: a finger on a picture or on a stick, or a key, each of which has to be held.

const PERIOD = 33; // milliseconds between two messages; the arm is let go of after 150 without one
// The keys by their place, which no modifier changes: channel, direction
const KEYS = { KeyW: [0, 1], KeyS: [0, -1], KeyA: [1, 1], KeyD: [1, -1], KeyR: [2, 1], KeyF: [2, -1] };

export class Hand {
  /** `mayLead()` tells whether this page leads now. */
  constructor(connection, channels, mayLead) {
    Object.assign(this, { connection, channels, mayLead, keys: new Set(), held: null });
    addEventListener("blur", () => this.release());
    addEventListener("pagehide", () => this.release());
    document.addEventListener("visibilitychange", () => document.hidden && this.release());
    addEventListener("keydown", (event) => this.onKey(event, true));
    addEventListener("keyup", (event) => this.onKey(event, false));
  }

  /** Say it now and as long as it is held; `message()` gives a type and fields. */
  hold(message) {
    if (!this.mayLead()) return;
    if (!this.held) {
      this.began = performance.now();
      this.timer = setInterval(() => this.say(), PERIOD);
    }
    const first = !this.held;
    this.held = message;
    if (first) this.say(0);
  }

  say(t = (performance.now() - this.began) / 1000) {
    if (!this.mayLead()) return this.release();
    const [type, fields] = this.held();
    this.connection.send(type, { ...fields, t });
  }

  release() {
    this.keys.clear();
    if (!this.held) return;
    clearInterval(this.timer);
    this.held = null;
    this.connection.send("release");
  }

  onKey(event, down) {
    const key = event.code;
    if (!down) {
      if (this.keys.delete(key) && !this.keys.size) this.release();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return this.release(); // the browser may keep the keyup
    const typing = event.target.matches?.("input, textarea, select");
    if (!(key in KEYS) || KEYS[key][0] >= this.channels || typing || event.repeat) return;
    this.keys.add(key);
    this.hold(() => ["push", { direction: this.pushed([...this.keys].map((each) => KEYS[each])) }]);
  }

  pushed(parts) {
    const direction = new Array(this.channels).fill(0);
    for (const [channel, amount] of parts) direction[channel] = Math.max(-1, Math.min(1, direction[channel] + amount));
    return direction;
  }

  /** A finger or the mouse over a picture leads towards the point below it. */
  overPicture(element, onPoint) {
    let at = { u: 0, v: 0 };
    this.follow(element, (u, v) => {
      const inside = u >= 0 && u <= 1 && v >= 0 && v <= 1;
      if (!inside) return this.release();
      at = { u, v };
      onPoint(at);
      this.hold(() => ["point", at]);
    }, () => onPoint(null));
  }

  /** A stick that moves `up` (a channel) with its height and `left` (a channel, or null) against its width. */
  overStick(element, up, left) {
    let parts = [];
    const show = (x, y) => {
      element.style.setProperty("--x", x);
      element.style.setProperty("--y", y);
    };
    this.follow(element, (u, v) => {
      let [x, y] = [left === null ? 0 : 2 * u - 1, 2 * v - 1];
      const length = Math.max(1, Math.hypot(x, y));
      [x, y] = [x / length, y / length];
      if (this.mayLead()) show(x, y);
      parts = [[up, -y], ...(left === null ? [] : [[left, -x]])];
      this.hold(() => ["push", { direction: this.pushed(parts) }]);
    }, () => show(0, 0));
  }

  follow(element, onMove, onEnd) {
    const place = (event) => {
      const box = element.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.mayLead()) return;
      event.preventDefault();
      element.setPointerCapture(event.pointerId);
      onMove(...place(event));
    });
    element.addEventListener("pointermove", (event) => {
      if (this.held && element.hasPointerCapture(event.pointerId)) onMove(...place(event));
    });
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) {
      element.addEventListener(kind, () => {
        this.release();
        onEnd();
      });
    }
  }
}
