// What all parts use. The files of this folder are put together into one module, in the order that mod.rs says.

const $ = (id) => document.getElementById(id);

/** An element with properties and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Shows text, or hides its element if there is none. */
function tell(id, text) {
  $(id).textContent = text ?? '';
  $(id).hidden = !text;
}

let said = '';
/** Lets screen readers say something, unless it was the last thing said. */
function say(text) {
  if (text === said) return;
  said = text;
  $('say').textContent = text;
}

const pause = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
});

/** Copies text, also where the page is not from https and browsers lack the newer way. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make('textarea', { value: text, className: 'unseen' });
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  if (!done) throw new Error('copying is not allowed');
}
