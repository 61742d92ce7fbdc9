// The requests under way, each with how far it is.
import { html } from "./html.js";
import { count, many, percent, rate, span } from "./format.js";
import { Meter } from "./figures.js";

const PHASES = { waiting: "waits", reading: "reads the prompt", writing: "writes" };
const PROTOCOLS = { chat: "chat", completions: "completion", responses: "response",
  messages: "message", ollama_chat: "chat (Ollama)", ollama_generate: "text (Ollama)",
  embeddings: "embedding", ollama_embed: "embedding (Ollama)" };
const SHOWN = 40;

export function Streams({ status }) {
  const streams = status?.streams ?? [];
  const shown = streams.slice(0, SHOWN);
  return html`<section class="card streams" aria-labelledby="streams-title">
    <div class="head">
      <h2 id="streams-title">Requests</h2>
      ${streams.length > 0 && html`<p class="muted">${many(streams.length, "request")} under way</p>`}
    </div>
    ${!status ? html`<p class="empty"><i class="blank wide"></i></p>`
      : !streams.length ? html`<${Nobody} />`
      : html`<ul>${shown.map((one) => html`<${Stream} key=${one.id} stream=${one}
          context=${status.context} />`)}</ul>
        ${streams.length > SHOWN && html`<p class="muted">and ${streams.length - SHOWN} more</p>`}`}
  </section>`;
}

function Nobody() {
  return html`<p class="empty">Nobody is asking. Try the chat, or point a program that speaks
    OpenAI’s API at <code>${new URL("v1", document.baseURI).href}</code></p>`;
}

function Stream({ stream: s, context }) {
  const reading = s.phase !== "writing";
  const part = s.prompt_tokens ? s.read_tokens / s.prompt_tokens : 0;
  return html`<li data-stream=${s.id} data-phase=${s.phase}>
    <div class="what">
      <b>${PROTOCOLS[s.protocol] ?? "request"} ${s.id}</b>
      ${s.key && html`<span class="tag">${s.key}</span>`}
      <span class="phase"><i aria-hidden="true"></i>${PHASES[s.phase]}</span>
      <span class="muted time">${span(s.seconds)}</span>
    </div>
    <div class="measure">
      <span>${reading ? "Prompt" : "Context"}</span>
      <span class="said">${reading
        ? `${count(s.read_tokens)} of ${many(s.prompt_tokens, "token")} read`
        : `${percent(s.context_fill)} of ${many(context, "token")}`}</span>
      <${Meter} part=${reading ? part : s.context_fill} kind=${reading ? "reading" : "filling"} />
    </div>
    <div class="speeds">${reading ? "" : html`<b>${rate(s.tokens_per_s)}</b> tokens/s
      <span class="muted">${many(s.generated_tokens, "token")}${s.answers > 1
        ? ` in ${s.answers} answers` : ""}</span>`}</div>
  </li>`;
}
