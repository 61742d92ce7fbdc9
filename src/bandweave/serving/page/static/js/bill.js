// The bill: where the time of a step goes, on every node, as stacked bars of one scale.
import { html } from "./html.js";
import { bytes, many, seconds } from "./format.js";

const ITEMS = [
  ["weights", "reading weights"],
  ["attention", "attention"],
  ["exchange_wait", "waiting for another node"],
  ["wire", "the link"],
  ["sampling", "choosing the token"],
  ["other", "the rest"],
];

export function Bill({ status }) {
  const bill = status?.bill;
  return html`<section class="card bill" aria-labelledby="bill-title">
    <div class="head">
      <h2 id="bill-title">Where a token’s time goes</h2>
      ${bill && html`<p class="muted">one step, ${seconds(bill.nodes[0].wall)}, brings
        ${" "}${many(Math.max(1, Math.round(bill.streams)), "answer")} a token</p>`}
    </div>
    ${bill ? html`<${Bars} bill=${bill} />`
      : html`<p class="empty">${status
          ? "The bill appears with the first answer: reading weights, waiting, the link."
          : html`<i class="blank wide"></i>`}</p>`}
  </section>`;
}

function Bars({ bill }) {
  const most = Math.max(...bill.nodes.map((node) => node.wall));
  const crossed = Object.values(bill.wire_bytes).reduce((sum, one) => sum + one, 0);
  const read = bill.weight_bytes.reduce((sum, one) => sum + one, 0);
  return html`
    <ul class="bars">${bill.nodes.map((node) => html`<li>
      <span class="who">${node.name.replace(/\s*\(.*\)$/, "")}</span>
      <span class="bar" role="img" aria-label=${said(node)}>
        ${ITEMS.map(([item, text]) => node[item] > 0 && html`<i class=${item}
          title=${`${text}: ${seconds(node[item])}`}
          style=${{ width: `${(100 * node[item]) / most}%` }}></i>`)}
      </span></li>`)}</ul>
    <dl class="legend">${ITEMS.map(([item, text]) => html`<div class=${item}>
      <dt>${text}</dt><dd>${seconds(bill.nodes[0][item])}</dd></div>`)}
      <div class="note">on node 0; a step reads ${bytes(read)} of weights${bill.nodes.length > 1
        ? ` and sends ${bytes(crossed)}` : ""}</div>
    </dl>`;
}

function said(node) {
  const parts = ITEMS.filter(([item]) => node[item] > 0)
    .map(([item, text]) => `${text} ${seconds(node[item])}`);
  return `${node.name}: ${parts.join(", ")}`;
}
