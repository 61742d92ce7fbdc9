// One message of the chat: the user's words as they are, the model's as marked text.
import { html, Component, createRef } from "./html.js";
import { fragment } from "./markdown.js";

export function Message({ message, children }) {
  const { role, text, thoughts, open } = message;
  return html`<article class=${`message ${role}`}>
    <h3 class="hidden">${role === "user" ? "You" : "The model"}</h3>
    ${thoughts && html`<details class="thoughts">
      <summary>${open && !text ? "Thinking" : "Thoughts"}</summary>
      <${Marked} text=${thoughts} />
    </details>`}
    ${role === "user" ? html`<p class="plain">${text}</p>`
      : text ? html`<${Marked} text=${text} />` : open && html`<p class="dots" aria-hidden="true">
        <i></i><i></i><i></i></p>`}
    ${children}
  </article>`;
}

class Marked extends Component {
  constructor() {
    super();
    this.box = createRef();
  }

  shouldComponentUpdate({ text }) {
    return text !== this.props.text;
  }

  componentDidMount() {
    this.box.current.replaceChildren(fragment(this.props.text));
  }

  componentDidUpdate() {
    this.componentDidMount();
  }

  render() {
    return html`<div class="marked" ref=${this.box}></div>`;
  }
}
