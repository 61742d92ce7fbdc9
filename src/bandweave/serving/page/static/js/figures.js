// A row of single figures: what is under way, what waits, how full the caches are.
import { html } from "./html.js";
import { count, many, percent } from "./format.js";

export function Figures({ status }) {
  const s = status;
  const fill = s && s.pages ? s.pages_used / s.pages : null;
  const cells = [
    ["Under way", s && count(s.running),
     s && (s.steps_in_flight > 1 ? `in ${count(s.steps_in_flight)} steps at a time`
                                 : `${many(s.requests_total, "request")} so far`)],
    ["Waiting", s && count(s.waiting),
     s && (s.queued_requests ? `${many(s.queued_tokens, "token")} to read` : "nobody waits")],
    ["KV cache", percent(fill), s && (s.pages ? `${count(s.pages_used)} of ${many(s.pages, "page")}` : "not there yet"), fill],
    ["Prefix cache", s && s.prefix_cache_hit_rate === null ? "–" : percent(s?.prefix_cache_hit_rate),
     s && (s.prefix_cache_queries_total ? `${count(s.prefix_cache_hits_total)} tokens found again`
                                        : "nothing asked yet"), s?.prefix_cache_hit_rate],
    ["Written", s && count(s.generated_tokens_total),
     s && `${many(s.preemptions_total, "answer")} gave way`],
  ];
  return html`<section class="card figures" aria-label="Figures">
    <dl>${cells.map(([name, value, more, part]) => html`<div data-figure=${name}>
      <dt>${name}</dt>
      <dd><b>${value ?? html`<i class="blank"></i>`}</b>
        ${part !== undefined ? html`<${Meter} part=${part} />` : html`<span></span>`}
        <small>${more ?? "\u00a0"}</small></dd>
    </div>`)}</dl>
  </section>`;
}

/** A bar of one part of a whole; what it says stands beside it as text. */
export function Meter({ part, kind = "" }) {
  const style = { transform: `scaleX(${Math.min(1, Math.max(0, part ?? 0))})` };
  return html`<span class="meter ${kind}" aria-hidden="true"><i style=${style}></i></span>`;
}
