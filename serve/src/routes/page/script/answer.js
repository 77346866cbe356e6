// What an answer looks like.

/** The look that the page shows. */
let shown = null;

function showLook(one) {
  shown = one;
  const objects = objectsOf(one);
  const hasCodes = one.text.includes('<loc');
  const text = $('text');
  text.hidden = false;
  text.classList.toggle('hush', false);
  text.textContent = summary(one, objects, hasCodes);
  const colors = colorsOf(objects);
  $('objects').hidden = !objects.length;
  $('objects').replaceChildren(...objects.map((object, index) => {
    const chip = make('span', { className: 'chip' });
    chip.style.backgroundColor = colors[index];
    chip.dataset.color = colors[index];
    const score = object.score == null ? [] : [make('span', { className: 'score', textContent: percent(object.score) })];
    return make('li', {}, chip, make('span', { className: 'label', textContent: object.label || 'no name' }), ...score);
  }));
  const stop = { limit: 'The answer was cut at its longest. ', cancelled: 'The answer was cut. ' }[one.answer?.stop] ?? '';
  if (stop && one.answer) tell('ask-problem', stop.trim());
  showFigures(one);
  $('raw').hidden = !hasCodes || !one.answer;
  $('raw-text').textContent = one.answer && hasCodes ? one.text : '';
  $('copies').hidden = !one.answer;
  const names = objects.map(({ label, score }) => (score == null ? label : `${label} ${percent(score)}`)).join(', ');
  tell('subtitle', names || text.textContent);
  redraw();
  if (one.answer) say([text.textContent, names].filter(Boolean).join(': '));
}

const objectsOf = (one) => one.answer?.objects ?? objectsSoFar(one.text, one.picture);

function summary(one, objects, hasCodes) {
  const looksForThings = one.task === 'detect' || one.task === 'segment';
  if (hasCodes) {
    // Beside objects, the model may have said something without a place.
    return one.answer && !objects.length ? one.text : `${objects.length} found`;
  }
  if (one.answer && !one.text) return looksForThings ? 'Nothing of that was found.' : 'The model says nothing.';
  if (one.error && !one.text) return 'No answer.';
  return one.text || (one.answer ? '' : '…');
}

function showFigures(one) {
  const decodes = one.answer?.timings.ms_per_token;
  $('figures').hidden = one.firstMs == null;
  if (one.firstMs == null) return;
  $('first').textContent = one.firstMs < 10_000 ? `${Math.round(one.firstMs)} ms` : `${(one.firstMs / 1000).toFixed(1)} s`;
  const perSecond = decodes > 0 ? 1000 / decodes : null;
  $('speed').textContent = perSecond == null ? '–' : perSecond.toLocaleString('en', { maximumFractionDigits: perSecond < 20 ? 1 : 0 });
  $('tokens').textContent = String(one.tokens);
}

/** Instead of an answer: what it waits for. */
function showWaiting(text) {
  tell('text', text);
  tell('subtitle', text);
}

function showCancelled(one) {
  showLook(one);
  if (!one.text) $('text').textContent = 'Cancelled.';
  say('Cancelled');
}

/** Nothing is shown of an answer whose picture is no longer there. */
function forgetShown() {
  shown = null;
  for (const id of ['objects', 'figures', 'raw', 'copies', 'subtitle']) $(id).hidden = true;
  $('text').className = 'text hush';
  tell('text', 'It will be here.');
  redraw();
}

function redraw() {
  const canvas = $('marks');
  if ($('frame').hidden) return;
  const objects = shown ? objectsOf(shown) : [];
  drawMarks(canvas, objects, shown?.answer?.image ?? shown?.picture);
  const names = objects.map(({ label }) => label).join(', ');
  canvas.setAttribute('aria-label', names ? `Marked in the picture: ${names}` : 'Nothing is marked in the picture');
}

async function copyShown(button, text) {
  const word = button.querySelector('span');
  const before = word.dataset.word ?? word.textContent;
  word.dataset.word = before;
  try {
    await copy(text);
    word.textContent = 'Copied';
    say('Copied');
  } catch {
    word.textContent = 'Not allowed';
  }
  setTimeout(() => { word.textContent = before; }, 1600);
}

/** Shells take everything between single quotes as it is. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curlOf(one) {
  const key = keptKey() ? ' -H "Authorization: Bearer $PALMTOP_API_KEY"' : '';
  const kind = one.picture.blob.type.split('/')[1] || 'jpeg';
  return `curl${key} --form-string ${quoted(`prompt=${one.prompt}`)} -F picture=@picture.${kind} ${quoted(at('v1/looks').href)}`;
}
