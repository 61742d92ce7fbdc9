// What every part is made with: elements from templates, and components with a state of their own.
import { Component, createRef, h, render } from "../vendor/preact.mjs";
import htm from "../vendor/htm.mjs";

export const html = htm.bind(h);
export { Component, createRef, render };
