// The machines and the links between them, as a picture: who holds what, and who is busy.
import { html, Component, createRef } from "./html.js";
import { bytes, many, percent, range, seconds } from "./format.js";

const WIDEST = 340, NARROWEST = 196, HEIGHT = 172, GAP = 96, DOWN = 56;

export class Machines extends Component {
  constructor() {
    super();
    this.box = createRef();
    this.state = { width: 720 };
  }

  componentDidMount() {
    this.watch = new ResizeObserver(([entry]) => {
      const { width } = entry.contentRect;
      if (width) this.setState({ width }); // 0 while another part of the page is shown
    });
    this.watch.observe(this.box.current);
  }

  componentWillUnmount() {
    this.watch.disconnect();
  }

  render({ status }, { width }) {
    const nodes = status?.nodes ?? [];
    return html`<section class="card machines" aria-labelledby="machines-title">
      <div class="head">
        <h2 id="machines-title">Machines</h2>
        ${nodes.length > 0 && html`<p class="muted">${told(status)}</p>`}
      </div>
      <div ref=${this.box}>
        ${nodes.length ? html`<${Picture} status=${status} width=${width} />`
          : html`<p class="empty">${status ? "The machines are shown once the model is loaded."
                                           : html`<i class="blank wide"></i>`}</p>`}
      </div>
      ${nodes.length > 0 && html`<ul class="key" aria-label="Colours of the memory bars">
        <li class="weights">weights</li><li class="kv">KV cache</li><li class="work">work space</li>
      </ul>`}
    </section>`;
  }
}

function told({ nodes, stages, format, kv_format, wire, exact, emulated_link }) {
  const parts = [many(nodes.length, "node")];
  if (stages > 1) parts.push(`${stages} stages`);
  parts.push(`${format} weights`, `${kv_format} KV cache`);
  if (nodes.length > 1) parts.push(exact ? "exact sums" : `sums cross as ${wire}`);
  if (emulated_link) parts.push(`as if over ${emulated_link.name}`);
  return parts.join(" · ");
}

/** Where every node stands: in a row as long as the page is wide, else in rows. */
function places(count, width) {
  const fit = Math.max(1, Math.floor((width + GAP) / (NARROWEST + GAP)));
  const columns = Math.ceil(count / Math.ceil(count / fit)); // rows of about the same length
  const wide = Math.min(width < 520 ? width : WIDEST,
                        Math.floor((width - GAP * (columns - 1)) / columns));
  const left = (width - columns * wide - GAP * (columns - 1)) / 2;
  return Array.from({ length: count }, (_, i) => ({
    x: left + (i % columns) * (wide + GAP),
    y: 2 + Math.floor(i / columns) * (HEIGHT + DOWN),
    wide,
  }));
}

function Picture({ status, width }) {
  const { nodes, links } = status;
  const at = places(nodes.length, width);
  const height = Math.max(...at.map((one) => one.y)) + HEIGHT + 4;
  const busy = status.tokens_per_s > 0 || status.prompt_tokens_per_s > 0;
  const most = Math.max(...nodes.map(memory));
  return html`<svg class="picture" viewBox=${`0 0 ${width} ${height}`} width=${width}
      height=${height} role="group" aria-label="Machines and links">
    ${links.map((link) => html`<${Link} link=${link} at=${at} busy=${busy} />`)}
    ${nodes.map((node, i) => html`<${Node} node=${node} at=${at[i]} most=${most} rank=${i}
      staged=${status.stages > 1} />`)}
  </svg>`;
}

function memory(node) {
  return node.weight_bytes + node.kv_bytes + node.work_bytes;
}

function Node({ node, at: { x, y, wide }, most, rank, staged }) {
  const inner = wide - 32;
  const scale = inner / most;
  let from = 0;
  const bar = [["weights", node.weight_bytes], ["kv", node.kv_bytes], ["work", node.work_bytes]]
    .map(([kind, size]) => {
      const part = html`<rect class=${kind} x=${16 + from * scale} y="94"
        width=${Math.max(0, size * scale - 1)} height="8" />`;
      from += size;
      return part;
    });
  const work = node.busy === null ? null : Math.max(0, Math.min(1, node.busy));
  const holds = `${staged ? `stage ${node.stage}, ` : ""}layers ${range(node.layers)}, ` +
    `heads ${range(node.heads)}`;
  const [name, where] = title(node.name, rank);
  const cut = (text, width = 6.9) => shortened(text, inner / width);
  const label = `${node.name}: ${percent(node.share)} of the weights, ${holds}, ` +
    `${bytes(memory(node))} of memory, ${work === null ? "" : `${percent(work)} busy, `}` +
    `${many(node.threads, "thread")}, ${node.isa}`;
  return html`<g class="node" data-node=${rank} transform=${`translate(${x} ${y})`} role="img"
      aria-label=${label}>
    <title>${label}</title>
    <rect class="box" width=${wide} height=${HEIGHT} rx="12" />
    <text class="name" x="16" y="29">${cut(name, 14)}</text>
    <text class="share" x=${wide - 16} y="29">${percent(node.share)}</text>
    <text class="muted" x="16" y="50">${cut(holds)}</text>
    <text class="muted" x="16" y="67">${cut(where || `columns ${range(node.columns)}`)}</text>
    <text class="muted" x="16" y="87">memory</text>
    <text class="figure" x=${wide - 16} y="87">${bytes(memory(node))}</text>
    <rect class="rail" x="16" y="94" width=${inner} height="8" rx="4" />
    ${bar}
    <text class="muted" x="16" y="122">busy</text>
    <text class="figure" x=${wide - 16} y="122">${work === null ? "–" : percent(work)}</text>
    <rect class="rail" x="16" y="129" width=${inner} height="8" rx="4" />
    ${work > 0 && html`<rect class="busy" x="16" y="129" width=${inner * work} height="8" rx="4" />`}
    <text class="muted small" x="16" y="157">
      ${cut(`${many(node.threads, "thread")} · ${node.isa}`)}</text>
  </g>`;
}

/** "node 1 (10.0.0.2:9000)" as two lines. */
function title(name, rank) {
  const found = /^(.*?)\s*\((.*)\)$/.exec(name);
  return found ? [found[1], found[2]] : [name || `node ${rank}`, ""];
}

function shortened(text, most) {
  return text.length > most ? `${text.slice(0, Math.floor(most) - 1)}…` : text;
}

function Link({ link, at, busy }) {
  const [a, b] = link.nodes.map((rank) => at[rank]);
  const beside = a.y === b.y && b.x - a.x <= a.wide + GAP + 1;
  const below = a.x === b.x && b.y - a.y <= HEIGHT + DOWN + 1;
  const label = [link.latency_seconds === null ? null : seconds(link.latency_seconds),
                 link.bytes_per_s ? `${bytes(link.bytes_per_s)}/s` : null].filter(Boolean);
  const kind = link.transport === "shared" ? "shared memory" : link.transport;
  const text = `Link of nodes ${link.nodes.join(" and ")}: ${[kind, ...label].join(", ")}`;
  if (beside) {
    const y = a.y + HEIGHT / 2, x = a.x + a.wide, middle = x + GAP / 2;
    return html`<g class="link" role="img" aria-label=${text}><title>${text}</title>
      <${Thread} d=${`M${x} ${y}H${b.x}`} busy=${busy} />
      <text x=${middle} y=${y - 10}>${label[0] ?? kind.split(" ")[0]}</text>
      <text x=${middle} y=${y + 22}>${label[1] ?? kind.split(" ")[1] ?? ""}</text></g>`;
  }
  if (below) {
    const x = a.x + a.wide / 2, y = a.y + HEIGHT;
    return html`<g class="link" role="img" aria-label=${text}><title>${text}</title>
      <${Thread} d=${`M${x} ${y}V${b.y}`} busy=${busy} />
      <text class="side" x=${x + 12} y=${y + DOWN / 2 + 4}>${label.join(" · ") || kind}</text></g>`;
  }
  const from = { x: a.x + a.wide / 2, y: a.y + HEIGHT / 2 };
  const to = { x: b.x + b.wide / 2, y: b.y + HEIGHT / 2 };
  const bend = a.y === b.y ? HEIGHT * 0.75 : 0;
  const d = `M${from.x} ${from.y}Q${(from.x + to.x) / 2} ${(from.y + to.y) / 2 - bend} ${to.x} ${to.y}`;
  return html`<g class="link far" role="img" aria-label=${text}><title>${text}</title>
    <${Thread} d=${d} busy=${busy} /></g>`;
}

function Thread({ d, busy }) {
  return html`<path class="cable" d=${d} />${busy && html`<path class="flow" d=${d} />`}`;
}
