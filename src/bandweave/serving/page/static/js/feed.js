// The feed of the server's status: connects, keeps connected, and says how that goes.
//
// Browsers' own EventSource cannot send a key, so the events are read here.

const SILENCE = 12_000; // ms without a byte, after which the server counts as gone
const WAITS = [1, 2, 4, 8];

/** Server-sent events of a response, as [name, text]. */
async function* events(response, heard) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const whole = (rest + value).split("\n\n");
    rest = whole.pop();
    for (const one of whole) {
      let name = "message";
      const data = [];
      for (const line of one.split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        if (line.startsWith("data: ")) data.push(line.slice(6));
      }
      if (data.length) yield [name, data.join("\n")];
    }
  }
}

export class Feed {
  /** `tell({link, status, wait, why})`: link is "connecting", "live", "lost" or "locked". */
  constructor(tell, key) {
    this.tell = tell;
    this.key = key;
    this.status = null;
    this.failures = 0;
    this.aborter = null;
    this.timer = null;
  }

  async connect() {
    clearTimeout(this.timer);
    this.aborter?.abort();
    const aborter = (this.aborter = new AbortController());
    let watchdog;
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => aborter.abort(), SILENCE);
    };
    heard();
    let why = "The server ended the connection.";
    try {
      const response = await fetch("v1/status/stream", {
        headers: headersFor(this.key()),
        signal: aborter.signal,
        cache: "no-store",
      });
      if (response.status === 401 || response.status === 403) {
        this.tell({ link: "locked", why: this.key() ? "The server does not know this key." : "" });
        return;
      }
      if (!response.ok) throw new Error(`The server said ${response.status}.`);
      for await (const [name, text] of events(response, heard)) {
        const part = JSON.parse(text);
        this.status = name === "status" ? part : { ...this.status, ...part };
        this.failures = 0;
        this.tell({ link: "live", status: this.status, why: "" });
      }
    } catch (error) {
      if (error.message.startsWith("The server said")) why = error.message;
      else why = "The server does not answer.";
    } finally {
      clearTimeout(watchdog);
    }
    if (aborter === this.aborter) this.retry(why);
  }

  retry(why) {
    const wait = WAITS[Math.min(this.failures, WAITS.length - 1)];
    this.failures += 1;
    this.tell({ link: "lost", why, wait });
    this.timer = setTimeout(() => this.connect(), wait * 1000);
  }
}

export function headersFor(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** The data of a stream of chat chunks, parsed, up to "[DONE]". */
export async function* chunks(response) {
  for await (const [, text] of events(response, () => {})) {
    if (text === "[DONE]") return;
    yield JSON.parse(text);
  }
}
