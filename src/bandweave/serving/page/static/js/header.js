// The head of the page: whose it is, how the connection is, light or dark, and on phones which half.
import { html } from "./html.js";
import { span } from "./format.js";

const LINKS = { connecting: "Connecting", live: "Live", lost: "No connection", locked: "Locked" };
const THEMES = [["light", "Light"], ["auto", "Auto"], ["dark", "Dark"]];
const ICONS = {
  light: html`<circle cx="8" cy="8" r="3" /><path d="M8 1.5v1.6M8 12.9v1.6M1.5 8h1.6M12.9 8h1.6M3.4
    3.4l1.1 1.1M11.5 11.5l1.1 1.1M12.6 3.4l-1.1 1.1M4.5 11.5l-1.1 1.1" />`,
  auto: html`<circle cx="8" cy="8" r="5.6" /><path class="solid" d="M8 2.4a5.6 5.6 0 0 1 0 11.2z" />`,
  dark: html`<path d="M13.4 9.6A5.8 5.8 0 0 1 6.4 2.6a5.8 5.8 0 1 0 7 7z" />`,
};

export function Header({ status, link, theme, view, locked, onTheme, onView, onLock }) {
  const failed = link === "live" && status && !status.ready;
  const word = !failed ? LINKS[link] : status.model === null ? "Loading" : "Not ready";
  return html`<header>
    <h1><${Mark} /> bandweave</h1>
    ${status?.model && html`<p class="model" title=${`context of ${status.context} tokens`}>
      <span>${status.model}</span></p>`}
    <p class="link" data-link=${!failed ? link : status.model === null ? "connecting" : "lost"} role="status">
      <i aria-hidden="true"></i>${word}${link === "live" && status && !failed
        ? html`<span class="wide"> for ${span(status.uptime_seconds)}</span>` : ""}</p>
    <div class="grow"></div>
    ${onLock && !locked && html`<button class="quiet" onClick=${onLock}>Forget key</button>`}
    <div class="choice theme" role="radiogroup" aria-label="Light or dark">
      ${THEMES.map(([name, text]) => html`<button role="radio" aria-checked=${theme === name}
        aria-label=${text} title=${text} onClick=${() => onTheme(name)}>
        <svg viewBox="0 0 16 16" aria-hidden="true">${ICONS[name]}</svg></button>`)}
    </div>
    ${!locked && html`<nav class="choice views" aria-label="Parts of the page">
      ${[["overview", "Overview"], ["chat", "Chat"]].map(([name, text]) => html`
        <button aria-pressed=${view === name} onClick=${() => onView(name)}>${text}</button>`)}
    </nav>`}
  </header>`;
}

function Mark() {
  return html`<svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
    <path class="weft" d="M4 11h24M4 21h24" />
    <path class="warp" d="M11 4v3.8M11 14.2V28M21 4v13.8M21 24.2V28" />
  </svg>`;
}
