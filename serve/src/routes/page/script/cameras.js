// The cameras that the server itself watches: their live pictures, and what happens.

/** Browsers open six connections to a server, and the page needs some for itself. */
const LIVE_MAX = 3;
const EVENTS_MAX = 100;

let cameras = new Map();
let eventsControl = null;

/** Shows what the server watches, if it watches something. */
async function showCameras() {
  let names = [];
  try {
    const body = await (await call('v1/cameras')).json();
    names = (Array.isArray(body) ? body : body.cameras ?? []).map((camera) => (typeof camera === 'string' ? { name: camera } : camera));
  } catch (error) {
    // A server without a loop has no such thing; one that is gone is asked again when it is back.
    if (error instanceof Gone) return;
  }
  for (const { live } of cameras.values()) live(false);
  cameras = new Map();
  $('cameras').hidden = !names.length;
  $('camera-list').replaceChildren(...names.map((camera, index) => cameraItem(camera, index < LIVE_MAX)));
  eventsControl?.abort();
  eventsControl = null;
  if (names.length) followEvents();
}

function cameraItem({ name, status, why }, isLiveAtFirst) {
  const image = make('img', { alt: `Live picture of ${name}`, hidden: true });
  const word = make('p', { className: 'hush', textContent: 'Paused' });
  const state = make('span', { className: 'hush' });
  const button = make('button', { type: 'button', className: 'quiet' });
  let isOn = false;
  const live = (isWanted) => {
    isOn = isWanted;
    button.textContent = isOn ? 'Pause' : 'Show';
    button.setAttribute('aria-label', `${button.textContent} ${name}`);
    image.hidden = !isOn;
    word.hidden = isOn;
    word.textContent = 'Paused';
    if (!isOn) return image.removeAttribute('src');
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
    state.textContent = newStatus && newStatus !== 'running' ? `${newStatus}${reason ? `: ${reason}` : ''}` : '';
  };
  cameras.set(name, { live, isOn: () => isOn, tellState });
  tellState(status, why);
  live(isLiveAtFirst);
  return make('li', {}, make('div', { className: 'live' }, image, word),
    make('div', { className: 'about' }, make('h3', { textContent: name }), state, button));
}

async function followEvents() {
  const control = new AbortController();
  eventsControl = control;
  while (!control.signal.aborted) {
    try {
      const response = await call('v1/events', { signal: control.signal, headers: { Accept: 'text/event-stream' } });
      for await (const { data } of eventsOf(response, control.signal)) takeRecord(data);
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
  if (record.record !== 'event') return;
  const time = new Date(record.time);
  const lasted = record.lasted_ms == null ? '' : `, after ${(record.lasted_ms / 1000).toFixed(1)}\u00a0s`;
  const what = [record.rule, record.label].filter(Boolean).join(': ') + (record.phase === 'end' ? ` – over${lasted}` : '');
  const item = make('li', {},
    make('time', { dateTime: record.time, textContent: time.toLocaleTimeString() }),
    make('span', { textContent: what }),
    make('span', { className: 'where', textContent: [record.camera, record.question].filter(Boolean).join(' · ') }));
  $('events').prepend(item);
  while ($('events').children.length > EVENTS_MAX) $('events').lastChild.remove();
  $('events-none').hidden = true;
}
