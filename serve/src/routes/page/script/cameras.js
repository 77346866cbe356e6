// The cameras that the server itself watches: their live pictures, and what happens.

/** Browsers open six connections to a server, and the page needs some for itself. */
const LIVE_MAX = 3;
const EVENTS_MAX = 100;

let cameras = new Map();
let eventsControl = null;
/** The same event can come in the list of cameras and in the stream. */
let eventsKnown = new Set();

/** Shows what the server watches, if it watches something. */
async function showCameras() {
  let found = [];
  try {
    const body = await (await call('v1/cameras')).json();
    found = body.cameras;
  } catch (error) {
    // A server that is gone is asked again when it is back; one that wants a key, when there is one.
    if (error instanceof Gone) return;
  }
  for (const { live } of cameras.values()) live(false);
  cameras = new Map();
  $('cameras').hidden = !found.length;
  $('camera-list').replaceChildren(...found.map((camera, index) => cameraItem(camera, index < LIVE_MAX)));
  eventsControl?.abort();
  eventsControl = null;
  if (found.length) followEvents();
}

function cameraItem({ name, status, why, questions }, isLiveAtFirst) {
  const image = make('img', { alt: `Live picture of ${name}`, hidden: true });
  const word = make('p', { className: 'hush', textContent: 'Paused' });
  const state = make('p', { className: 'hush', hidden: true });
  const button = make('button', { type: 'button', className: 'quiet' });
  let isOn = false;
  const live = (isWanted) => {
    isOn = isWanted;
    button.textContent = isOn ? 'Pause' : 'Show';
    button.setAttribute('aria-label', `${button.textContent} ${name}`);
    image.hidden = !isOn;
    word.hidden = isOn;
    word.textContent = 'Paused';
    load();
  };
  // Nobody looks at a hidden tab.
  const load = () => {
    if (!isOn || document.hidden) {
      image.removeAttribute('src');
      return;
    }
    const address = at(`v1/cameras/${encodeURIComponent(name)}/stream`);
    // Pictures cannot bring headers.
    if (keptKey()) address.searchParams.set('key', keptKey());
    image.src = address;
  };
  image.onerror = () => {
    if (!isOn) return;
    live(false);
    word.textContent = 'No picture';
  };
  button.onclick = () => {
    const others = [...cameras.values()].filter((camera) => camera.isOn());
    if (!isOn && others.length >= LIVE_MAX) others[0].live(false);
    live(!isOn);
  };
  const tellState = (newStatus, reason) => {
    state.hidden = newStatus === 'running';
    state.textContent = reason ? `${newStatus}: ${reason}` : newStatus;
  };
  const answers = make('dl');
  const lines = new Map();
  const tellAnswer = ({ question, text, objects }) => {
    if (!lines.has(question)) {
      lines.set(question, make('dd'));
      answers.append(make('div', {}, make('dt', { textContent: `${question}:` }), ' ', lines.get(question)));
    }
    lines.get(question).textContent = objects?.length ? objects.map(({ label }) => label).join(', ') : text || 'nothing';
  };
  cameras.set(name, { live, load, isOn: () => isOn, tellState, tellAnswer });
  tellState(status, why);
  for (const { answer, events } of questions) {
    if (answer) tellAnswer(answer);
    events.forEach(takeEvent);
  }
  live(isLiveAtFirst);
  return make('li', {}, make('div', { className: 'live' }, image, word),
    make('div', { className: 'about' }, make('h3', { textContent: name }), button), make('div', { className: 'told' }, state, answers));
}

async function followEvents() {
  const control = new AbortController();
  eventsControl = control;
  let last = '';
  while (!control.signal.aborted) {
    try {
      // What was told while the stream was broken comes first.
      const headers = { Accept: 'text/event-stream', ...(last && { 'Last-Event-ID': last }) };
      const response = await call('v1/events', { signal: control.signal, headers });
      for await (const { id, data } of eventsOf(response, control.signal)) {
        last = id || last;
        takeRecord(data);
      }
    } catch (error) {
      if (error instanceof Refused && error.status !== 429) return;
    }
    if (server.state === 'gone') await serverBack(control.signal);
    await pause(1000, control.signal);
  }
}

/** A record of docs/json.md. */
function takeRecord(record) {
  if (record.record === 'camera') cameras.get(record.camera)?.tellState(record.status, record.why);
  if (record.record === 'answer') cameras.get(record.camera)?.tellAnswer(record);
  if (record.record === 'event') takeEvent(record);
}

function takeEvent(event) {
  const known = `${event.id} ${event.phase}`;
  if (eventsKnown.has(known)) return;
  eventsKnown.add(known);
  const lasted = event.lasted_ms == null ? '' : `, after ${(event.lasted_ms / 1000).toFixed(1)}\u00a0s`;
  const what = [event.rule, event.label].filter(Boolean).join(': ') + (event.phase === 'end' ? ` – over${lasted}` : '');
  const item = make('li', {},
    make('time', { dateTime: event.time, textContent: new Date(event.time).toLocaleTimeString() }),
    make('span', { textContent: what }),
    make('span', { className: 'where', textContent: [event.camera, event.question].filter(Boolean).join(' · ') }));
  $('events').prepend(item);
  while ($('events').children.length > EVENTS_MAX) $('events').lastChild.remove();
  if (eventsKnown.size > 10 * EVENTS_MAX) eventsKnown = new Set([...eventsKnown].slice(-EVENTS_MAX));
  $('events-none').hidden = true;
}
