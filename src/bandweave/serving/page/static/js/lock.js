// Asks for a key, where the server wants one.
import { html, Component } from "./html.js";

export class Lock extends Component {
  submit(event) {
    event.preventDefault();
    const value = event.target.elements.key.value.trim();
    if (value) this.props.onKey(value);
  }

  render({ why }) {
    return html`<form class="card lock" onSubmit=${(event) => this.submit(event)}>
      <h2>This server wants a key</h2>
      <p>Whoever started it has set one. It stays in this tab and is forgotten when the tab
        closes.</p>
      <label for="key">Key</label>
      <div class="row">
        <input id="key" name="key" type="password" autocomplete="off" spellcheck="false" required
          aria-describedby="key-why" aria-invalid=${Boolean(why)} />
        <button class="main" type="submit">Open</button>
      </div>
      <p id="key-why" class="fault" role="alert">${why}</p>
    </form>`;
  }

  componentDidMount() {
    document.getElementById("key")?.focus();
  }
}
