// Nodes that failed, joined or slowed down, how answers went on, and who is missing now.
import { html } from "./html.js";
import { many, seconds } from "./format.js";

const SHOWN = 5;
const PARTS = ["noticed", "waited", "planned", "loaded", "prefilled"];

export function Recoveries({ status }) {
  const missing = (status?.members ?? []).filter((one) => one.state !== "serving");
  const all = status?.recoveries ?? [];
  if (!all.length && !missing.length) return null;
  return html`<section class="card recoveries" aria-labelledby="recoveries-title">
    <div class="head">
      <h2 id="recoveries-title">Failures and changes</h2>
      <p class="muted">${status.recoveries_total} since the start</p>
    </div>
    ${missing.length > 0 && html`<ul>
      ${missing.map((one) => html`<li key=${one.node}><b>${one.name}</b> ${told(one)}</li>`)}
    </ul>`}
    ${all.length > 0 && html`<ul>
      ${all.slice(-SHOWN).reverse().map((one) => html`<li key=${one.at}>
        <time datetime=${new Date(1000 * one.at).toISOString()}>
          ${new Date(1000 * one.at).toLocaleTimeString()}</time>
        ${" "}${one.cause}. ${outcome(one)}</li>`)}
    </ul>`}
  </section>`;
}

function told({ state, silent_seconds, reason }) {
  if (state === "silent") return `has been silent for ${Math.round(silent_seconds)} s`;
  if (state === "loading") return "takes its share";
  if (state === "ready") return "is ready, and takes part soon";
  return reason ? `is missing: ${reason}` : "is missing";
}

function outcome({ seconds: taken, nodes_before, nodes_after, streams, over }) {
  if (!nodes_after) return "Not over yet.";
  const parts = PARTS.filter((part) => taken[part] > 0)
    .map((part) => `${part} ${seconds(taken[part])}`).join(", ");
  const went = streams ? `${many(streams, "stream")} went on` : "nobody asked";
  return `${nodes_before} to ${many(nodes_after, "node")}, ${went}` +
    `${over ? ` after ${seconds(taken.total)}` : ""} (${parts}).`;
}
