// The machines that hold the model or could, in their groups, and how answers went on when nodes
// failed, joined or slowed down.
import { html } from "./html.js";
import { many, percent, seconds } from "./format.js";

const SHOWN = 5;
const PARTS = [["noticed", "notice"], ["waited", "wait for a machine"], ["planned", "plan"],
               ["loaded", "load"], ["prefilled", "prefill"]];
const STATES = { serving: "serves", silent: "silent", loading: "loads", ready: "ready",
                 spare: "spare", left_out: "left out", missing: "down" };

export function Cluster({ status }) {
  const members = status?.members ?? [], all = status?.recoveries ?? [];
  if (members.length < 2 && !all.length) return null;
  const groups = status.groups?.length ? status.groups : [null];
  const loose = members.filter((one) => !groups.some((group) => belongs(one, group)));
  return html`<section class="card cluster" aria-labelledby="cluster-title">
    <div class="head">
      <h2 id="cluster-title">Cluster</h2>
      <p class="muted">${summary(members, status)}</p>
    </div>
    ${groups.map((group) => html`<${Group} key=${group?.group} group=${group}
      members=${members.filter((one) => belongs(one, group))} staged=${status.stages > 1} />`)}
    ${loose.length > 0 && html`<${Group} group=${null} members=${loose} />`}
    ${all.length > 0 && html`<${Recoveries} all=${all.slice(-SHOWN).reverse()} />`}
  </section>`;
}

function belongs(member, group) {
  return group === null || member.group === group.group;
}

function summary(members, { recoveries_total: changes, groups }) {
  const serving = members.filter((one) => one.state === "serving").length;
  const parts = [`${serving} of ${many(members.length, "machine")} ${serving === 1 ? "serves" : "serve"}`];
  if (groups?.length) parts.unshift(many(groups.length, "group"));
  if (changes) parts.push(`${many(changes, "change")} since the start`);
  return parts.join(" · ");
}

function Group({ group, members, staged }) {
  return html`<div class="group" data-group=${group?.group}>
    ${group !== null && html`<h3>Group ${group.group}${" "}
      <span class="muted">${group.serves ? many(group.streams, "stream")
        : group.reason || "does not serve"}</span></h3>`}
    <ul class="members">
      ${members.map((one) => html`<li key=${`${one.group} ${one.node}`} data-state=${one.state}>
        <b>${plain(one.name, group)}</b>
        <span class="muted">${part(one, staged)}</span>
        <span class="state"><i aria-hidden="true"></i>${state(one)}</span>
        ${one.reason && one.state !== "serving" && html`<span class="why">${one.reason}</span>`}
      </li>`)}
    </ul>
  </div>`;
}

/** Without the group, where that stands above. */
function plain(name, group) {
  const prefix = `group ${group?.group}, `;
  return group !== null && name.startsWith(prefix) ? name.slice(prefix.length) : name;
}

function part({ stage, share }, staged) {
  if (share === null || share === undefined) return "";
  return `${staged ? `stage ${stage} · ` : ""}${percent(share)} of the weights`;
}

function state({ state: one, silent_seconds: silent, slowed }) {
  if (one === "silent") return `silent for ${seconds(silent)}`;
  if (slowed > 1) return `${STATES[one] ?? one}, ${slowed.toFixed(1)} times slower than it was`;
  return STATES[one] ?? one;
}

function Recoveries({ all }) {
  const longest = Math.max(...all.map((one) => one.seconds.total), 1e-6);
  return html`<div class="recoveries">
    <h3>Last failures and changes</h3>
    <ul class="key" aria-label="Colours of the parts">
      ${PARTS.filter(([name]) => all.some((one) => one.seconds[name] > 0)).map(([name, said]) =>
        html`<li class=${name}>${said}</li>`)}
    </ul>
    <ol>
      ${all.map((one) => html`<li key=${one.at} data-kind=${one.kind}>
        <p><time datetime=${new Date(1000 * one.at).toISOString()}>
          ${new Date(1000 * one.at).toLocaleTimeString()}</time>
          ${" "}${one.cause}.</p>
        <div class="bar" aria-hidden="true">
          ${PARTS.filter(([name]) => one.seconds[name] > 0).map(([name]) => html`<i class=${name}
            style=${{ width: `${100 * one.seconds[name] / longest}%` }}></i>`)}
        </div>
        <p class="muted">${outcome(one)}</p></li>`)}
    </ol>
  </div>`;
}

function outcome({ seconds: taken, nodes_before: before, nodes_after: after, streams, over }) {
  if (!after) return "Not over yet.";
  const parts = PARTS.filter(([name]) => taken[name] > 0)
    .map(([name, said]) => `${said} ${seconds(taken[name])}`).join(", ");
  const went = streams ? `${many(streams, "stream")} went on` : "nobody asked";
  return `${before} to ${many(after, "node")}, ${went}` +
    `${over ? ` after ${seconds(taken.total)}` : ""}${parts && `: ${parts}`}.`;
}
