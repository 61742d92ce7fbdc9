// The page: what is known, and the parts that show it.
import { Bill } from "./bill.js";
import { Chat } from "./chat.js";
import { Cluster } from "./cluster.js";
import { Feed } from "./feed.js";
import { Figures } from "./figures.js";
import { Header } from "./header.js";
import { html, Component, render } from "./html.js";
import { applyTheme, key, theme } from "./keep.js";
import { Lock } from "./lock.js";
import { Machines } from "./machines.js";
import { Speed } from "./speed.js";
import { Streams } from "./streams.js";

const KEPT = 360; // moments of the chart: three minutes

class App extends Component {
  constructor() {
    super();
    this.state = { link: "connecting", status: null, why: "", wait: 0, theme: theme.get(),
                   view: "overview" };
    this.history = [[], [], []]; // seconds, tokens a second, prompt tokens a second
    this.feed = new Feed((news) => this.hear(news), key.get);
    applyTheme(this.state.theme);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      applyTheme(this.state.theme);
      this.setState({});
    });
  }

  componentDidMount() {
    this.feed.connect();
  }

  hear(news) {
    if (news.status) {
      const { time, tokens_per_s, prompt_tokens_per_s } = news.status;
      if (time !== this.history[0].at(-1)) {
        [time, tokens_per_s, prompt_tokens_per_s].forEach((one, row) => {
          this.history[row].push(one);
          if (this.history[row].length > KEPT) this.history[row].shift();
        });
      }
      document.title = news.status.running
        ? `${Math.round(tokens_per_s)} tokens/s – bandweave` : "bandweave";
    }
    this.setState(news);
  }

  unlock(value) {
    key.set(value);
    this.setState({ link: "connecting", why: "" });
    this.feed.connect();
  }

  choose(choice) {
    theme.set(choice);
    applyTheme(choice);
    this.setState({ theme: choice });
  }

  render(_, { link, status, why, wait, theme: choice, view }) {
    const locked = link === "locked";
    return html`
      <a class="skip" href="#main">Skip to the content</a>
      <${Header} status=${status} link=${link} theme=${choice} view=${view}
        locked=${locked} onTheme=${(one) => this.choose(one)}
        onView=${(one) => this.setState({ view: one })}
        onLock=${key.get() && (() => this.unlock(""))} />
      <${Notice} link=${link} why=${why} wait=${wait} status=${status}
        onRetry=${() => this.feed.connect()} />
      <main id="main" tabindex="-1" data-view=${view} data-link=${link}>
        ${locked
          ? html`<${Lock} why=${why} onKey=${(value) => this.unlock(value)} />`
          : html`
            <div class="overview" aria-busy=${status === null}>
              <${Speed} status=${status} history=${this.history} link=${link} />
              <${Figures} status=${status} />
              <${Machines} status=${status} />
              <${Cluster} status=${status} />
              <${Bill} status=${status} />
              <${Streams} status=${status} />
            </div>
            <${Chat} status=${status} link=${link} keyOf=${key.get}
              onLocked=${(text) => this.setState({ link: "locked", why: text })} />`}
      </main>
      <footer>
        ${!key.get() && !locked && html`<span>The same figures, for programs:
          ${" "}<a href="v1/status">status</a> and <a href="metrics">metrics</a>.</span>`}
        ${status && html`<span>bandweave ${status.version}</span>`}
      </footer>`;
  }
}

function Notice({ link, why, wait, status, onRetry }) {
  let text = "", kind = "bad";
  if (link === "lost") text = `${why} Trying again in ${wait} s.`;
  else if (status && !status.ready) {
    text = `${status.reason[0].toUpperCase()}${status.reason.slice(1)}.`;
    if (status.model === null) kind = "calm"; // it loads, or goes on with other nodes
  }
  return html`<div class="notice ${kind}" role="status" hidden=${!text}>
    <span>${text}</span>
    ${link === "lost" && html`<button class="quiet" onClick=${onRetry}>Try now</button>`}
  </div>`;
}

document.getElementById("app").replaceChildren();
render(html`<${App} />`, document.getElementById("app"));
