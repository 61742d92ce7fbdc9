// A chat with the model, over the API that programs use. Nothing of it is kept but in this page.
import { html, Component, createRef } from "./html.js";
import { chunks, headersFor } from "./feed.js";
import { many, percent, rate } from "./format.js";
import { Message } from "./message.js";

export class Chat extends Component {
  constructor() {
    super();
    this.state = { messages: [], busy: false, draft: "" };
    this.log = createRef();
    this.field = createRef();
    this.follows = true; // whether the newest line stays in view
  }

  componentDidUpdate() {
    const log = this.log.current;
    if (this.follows && log) log.scrollTop = log.scrollHeight;
  }

  async send() {
    const text = this.state.draft.trim();
    if (!text || this.state.busy) return;
    const asked = [...this.state.messages.filter((one) => !one.fault || one.text),
                   { role: "user", text }];
    const answer = { role: "assistant", text: "", thoughts: "", tokens: 0, begun: 0, open: true };
    this.follows = true;
    this.setState({ messages: [...asked, answer], draft: "", busy: true });
    this.aborter = new AbortController();
    try {
      await this.hear(asked, answer);
    } catch (error) {
      if (error.name !== "AbortError") answer.fault = fault(error);
      else answer.stopped = true;
    }
    answer.open = false;
    this.setState({ busy: false });
    this.field.current?.focus();
  }

  async hear(asked, answer) {
    const { status, keyOf, onLocked } = this.props;
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headersFor(keyOf()) },
      signal: this.aborter.signal,
      body: JSON.stringify({
        model: status.model,
        messages: asked.filter((one) => one.text).map(({ role, text }) => ({ role, content: text })),
        stream: true,
        stream_options: { include_usage: true },
      }),
    });
    if (!response.ok) {
      const said = await response.json().catch(() => null);
      if (response.status === 401) onLocked("The server does not know this key.");
      throw new Error(said?.error?.message ?? `The server said ${response.status}.`);
    }
    for await (const chunk of chunks(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      this.take(chunk, answer);
    }
  }

  take(chunk, answer) {
    const [choice] = chunk.choices;
    const delta = choice?.delta ?? {};
    const thought = delta.reasoning_content ?? delta.reasoning ?? "";
    if (delta.content || thought) {
      const now = performance.now();
      answer.text += delta.content ?? "";
      answer.thoughts += thought;
      answer.tokens += 1;
      answer.begun ||= now;
      answer.seconds = (now - answer.begun) / 1000;
    }
    if (choice?.finish_reason) answer.reason = choice.finish_reason;
    if (chunk.usage) {
      answer.tokens = chunk.usage.completion_tokens;
      answer.filled = chunk.usage.total_tokens;
      answer.cached = chunk.usage.prompt_tokens_details?.cached_tokens;
    }
    if (!this.drawing) {
      this.drawing = true;
      requestAnimationFrame(() => {
        this.drawing = false;
        this.setState({});
      });
    }
  }

  stop() {
    this.aborter?.abort();
  }

  clear() {
    this.stop();
    this.setState({ messages: [] });
    this.field.current?.focus();
  }

  typed(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.send();
    }
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.log.current;
    this.follows = scrollHeight - scrollTop - clientHeight < 40;
  }

  render({ status, link }, { messages, busy, draft }) {
    const ready = link === "live" && status?.ready;
    return html`<section class="card chat" aria-labelledby="chat-title">
      <div class="head">
        <h2 id="chat-title">Chat</h2>
        ${messages.length > 0 && html`<button class="quiet" onClick=${() => this.clear()}>
          New chat</button>`}
      </div>
      <div class="log" ref=${this.log} role="log" aria-live="polite" aria-busy=${busy} tabindex="0"
          aria-label="Conversation" onScroll=${() => this.scrolled()}>
        ${!messages.length && html`<p class="empty">${status?.model
          ? html`Ask <b>${status.model}</b> something. What you write here stays in this page; the
              answer joins the requests beside it.`
          : "The chat opens once the model is loaded."}</p>`}
        ${messages.map((one) => html`<${Message} message=${one}>
          ${one.role === "assistant" && html`<${Told} answer=${one} status=${status} />`}<//>`)}
      </div>
      <form class="composer" onSubmit=${(event) => { event.preventDefault(); this.send(); }}>
        <label class="hidden" for="prompt">Your message</label>
        <textarea id="prompt" ref=${this.field} rows="1" value=${draft}
          placeholder=${ready ? "Write a message" : "Waiting for the server"}
          onInput=${(event) => this.setState({ draft: event.target.value })}
          onKeyDown=${(event) => this.typed(event)}></textarea>
        ${busy
          ? html`<button class="main stop" type="button" onClick=${() => this.stop()}>
              <i aria-hidden="true"></i>Stop</button>`
          : html`<button class="main" type="submit" disabled=${!ready || !draft.trim()}>Send</button>`}
      </form>
    </section>`;
  }
}

/** What stands below an answer. */
function Told({ answer, status }) {
  const { tokens, seconds, reason, filled, cached, open, stopped, fault: trouble } = answer;
  const parts = [];
  if (open && !tokens) parts.push("reading your message …");
  if (tokens) parts.push(many(tokens, "token"));
  if (tokens > 1 && seconds > 0) parts.push(`${rate((tokens - 1) / seconds)} tokens/s`);
  if (filled && status) parts.push(`context ${percent(filled / status.context)} full`);
  if (cached) parts.push(`${cached} tokens found again`);
  if (reason === "length") parts.push("cut: there was no room for more");
  if (stopped) parts.push("stopped");
  return html`<p class="told">${parts.join(" · ")}</p>
    ${trouble && html`<p class="fault" role="alert">${trouble}</p>`}`;
}

function fault(error) {
  const lost = error instanceof TypeError;
  return lost ? "The server went away before the answer was whole." : error.message;
}
