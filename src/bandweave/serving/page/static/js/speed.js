// Tokens a second: now, over the last minutes, and beside what was predicted and what is possible.
import uPlot from "../vendor/uplot.mjs";
import { html, Component, createRef } from "./html.js";
import { many, number, rate, seconds } from "./format.js";

export function Speed({ status, history, link }) {
  const s = status;
  const busy = s && (s.running || s.tokens_per_s > 0 || s.prompt_tokens_per_s > 0);
  return html`<section class="card speed" aria-labelledby="speed-title">
    <div class="now">
      <h2 id="speed-title">Speed</h2>
      <p class="big" data-figure="tokens_per_s"><b>${s ? rate(s.tokens_per_s)
        : html`<i class="blank"></i>`}</b> <span>tokens/s</span></p>
      <p class="muted">${!s ? "\u00a0" : !busy ? "Nobody is asking at the moment."
        : `${many(s.running, "answer")} under way` +
          (s.step_seconds ? `, ${seconds(s.step_seconds)} a step` : "")}</p>
      <p class="muted">${s && s.prompt_tokens_per_s > 0
        ? `Reading ${rate(s.prompt_tokens_per_s)} prompt tokens/s` : "\u00a0"}</p>
    </div>
    <${Chart} history=${history} stale=${link !== "live"} />
    <${Compared} status=${s} />
  </section>`;
}

/** Measured, predicted and possible on one line. */
function Compared({ status }) {
  if (!status) return html`<p class="muted compared">\u00a0</p>`;
  const { measured_tokens_per_s: measured, predicted_tokens_per_s: predicted,
          limit_tokens_per_s: limit, bill } = status;
  if (measured === null) {
    return html`<p class="muted compared">The first answer shows here how fast these machines are,
      beside what was predicted and what their memory allows.</p>`;
  }
  const most = Math.max(measured, predicted ?? 0, limit ?? 0) * 1.04;
  const at = (value) => ({ left: `${(100 * value) / most}%` });
  const words = [`measured ${number(measured)}`];
  if (predicted !== null) words.push(`predicted ${number(predicted)}`);
  if (limit !== null) words.push(`limit ${number(limit)}`);
  return html`<div class="compared">
    <div class="bullet" role="img" aria-label=${`Tokens a second: ${words.join(", ")}`}>
      <i class="measured" style=${{ width: at(measured).left }}></i>
      ${predicted !== null && html`<i class="tick predicted" style=${at(predicted)}></i>`}
      ${limit !== null && html`<i class="tick limit" style=${at(limit)}></i>`}
    </div>
    <dl class="legend">
      <div class="measured"><dt>Measured</dt><dd>${number(measured)}</dd></div>
      ${predicted !== null && html`<div class="predicted"><dt>Predicted</dt>
        <dd>${number(predicted)}</dd></div>`}
      ${limit !== null && html`<div class="limit" title="If memory were read without a pause">
        <dt>Limit of the memory</dt><dd>${number(limit)}</dd></div>`}
      <div class="note">tokens/s of ${many(Math.max(1, Math.round(bill?.streams ?? 1)), "answer")}
        ${predicted === null && html`; <code>bandweave probe</code> measures the machines, then a
          prediction stands here`}</div>
    </dl>
  </div>`;
}

class Chart extends Component {
  constructor() {
    super();
    this.box = createRef();
  }

  componentDidMount() {
    this.make();
    this.watch = new ResizeObserver(() => this.size());
    this.watch.observe(this.box.current);
  }

  componentDidUpdate() {
    if (this.theme !== document.documentElement.dataset.theme) this.make();
    else this.plot.setData(this.data());
  }

  componentWillUnmount() {
    this.watch.disconnect();
    this.plot.destroy();
  }

  data() {
    const [times, tokens] = this.props.history;
    return [times, tokens];
  }

  size() {
    const { width, height } = this.box.current.getBoundingClientRect();
    if (width && height) this.plot.setSize({ width, height });
  }

  make() {
    this.plot?.destroy();
    this.theme = document.documentElement.dataset.theme;
    const css = getComputedStyle(document.documentElement);
    const of = (name) => css.getPropertyValue(name).trim();
    const font = `12px ${of("--font")}`;
    const axis = { stroke: of("--muted"), font, ticks: { show: false }, gap: 6 };
    const ago = (plot, at) => at.map((one) => {
      const back = Math.round(plot.scales.x.max - one);
      return back <= 0 ? "now" : back < 60 ? `${back} s ago` : `${Math.round(back / 60)} min ago`;
    });
    this.plot = new uPlot({
      ...this.box.current.getBoundingClientRect().toJSON(),
      padding: [10, 14, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { time: false, range: (_, low, high) => (high ? [high - 180, high] : [0, 180]) },
        y: { range: (_, low, high) => [0, Math.max(4, high * 1.12)] },
      },
      axes: [
        { ...axis, size: 26, grid: { show: false }, values: ago,
          splits: (plot) => [-180, -120, -60, 0].map((back) => plot.scales.x.max + back) },
        { ...axis, size: 42, space: 26, grid: { stroke: of("--line"), width: 1 } },
      ],
      series: [{}, { stroke: of("--accent"), width: 2, fill: of("--accent-wash"),
                     points: { show: false } }],
    }, this.data(), this.box.current);
  }

  render({ history, stale }) {
    const last = history[1].at(-1);
    const text = last === undefined ? "No figures yet"
      : `Tokens a second over the last three minutes, now ${rate(last)}`;
    return html`<div class="chart" ref=${this.box} role="img" aria-label=${text}
      data-stale=${stale}></div>`;
  }
}
