// Figures as people read them: three digits that matter, and units that fit.

const NONE = "–";

/** 0.53, 8.2, 31, 1,204 */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  const digits = size === 0 || size >= 99.5 ? 0 : size >= 9.95 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** Rates: 0.53, 8.2, 31.4, 1,204; never jumps in width while it changes. */
export function rate(value) {
  if (value === null || value === undefined) return NONE;
  const digits = value >= 99.5 || value === 0 ? 0 : 1;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function count(value) {
  return value === null || value === undefined ? NONE : Math.round(value).toLocaleString("en");
}

export function percent(part) {
  if (part === null || part === undefined) return NONE;
  const digits = part > 0 && part < 0.0995 ? 1 : 0;
  return `${(100 * part).toLocaleString("en", { maximumFractionDigits: digits })} %`;
}

/** Powers of ten, as bandwidths are. */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${number(value)} ${units[unit]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 0.001) return `${number(value * 1e6)} µs`;
  if (value < 1) return `${number(value * 1e3)} ms`;
  if (value < 100) return `${number(value)} s`;
  return span(value);
}

/** How long something has been going on: 8 s, 3 min, 2 h 5 min, 4 d. */
export function span(value) {
  if (value < 60) return `${Math.floor(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d`;
}

/** "1 answer", "3 answers" */
export function many(amount, noun) {
  return `${count(amount)} ${noun}${amount === 1 ? "" : "s"}`;
}

/** Half-open pairs as people count: "0–11", "none". */
export function range([start, stop]) {
  if (stop <= start) return "none";
  return stop - start === 1 ? count(start) : `${count(start)}–${count(stop - 1)}`;
}
