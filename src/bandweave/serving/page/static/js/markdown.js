// A model's text as elements. What a model says is a stranger's: only marks of text get through,
// nothing that runs, loads or looks like a part of this page.
import createDOMPurify from "../vendor/purify.mjs";
import { Marked } from "../vendor/marked.mjs";

const marked = new Marked({ gfm: true, breaks: true });
const ALLOWED = {
  ALLOWED_TAGS: ["p", "br", "hr", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol",
    "li", "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "a"],
  ALLOWED_ATTR: ["href", "start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

// HTML of the model's own is shown as the text that it is.
marked.use({ renderer: { html: ({ text }) => escaped(text), image: ({ text, href }) =>
  escaped(text || href) } });

function escaped(text) {
  return text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);
}

/** A fragment of the document. */
export function fragment(text) {
  const found = createDOMPurify.sanitize(marked.parse(text), ALLOWED);
  for (const link of found.querySelectorAll("a")) {
    if (!link.hasAttribute("href")) link.replaceWith(...link.childNodes); // led nowhere good
    link.rel = "noopener noreferrer nofollow";
    link.target = "_blank";
  }
  for (const table of found.querySelectorAll("table, pre")) table.tabIndex = 0; // may scroll
  return found;
}
