// The server: whether it is there, its key, and requests to it.

/** The server cannot be reached, or is ending. */
class Gone extends Error {}

/** The server answered that it will not. */
class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    Object.assign(this, { status, retryAfter });
  }
}

/** Where something is, also if a proxy has put the page under a path of its own. */
const at = (path) => new URL(path, document.baseURI);

const server = { state: 'connecting', model: '', isDemo: false };
const HEALTH_MS = 15_000;
const RETRY_MS = [500, 1000, 2000, 3000, 5000];
const HEALTH_TIMEOUT_MS = 8000;

let wakeHealth = () => {};
let waitingForServer = [];
let onServer = () => {};

/** Asks forever whether the server is there: often while it is not. */
async function watchServer(onChange) {
  onServer = onChange;
  let failures = 0;
  for (;;) {
    try {
      const response = await fetch(at('health'), { cache: 'no-store', signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS) });
      const health = await response.json();
      if (!response.ok || health.status !== 'ok') throw new Gone();
      failures = 0;
      Object.assign(server, { model: health.model, isDemo: health.demo });
      setServerState('ready');
    } catch {
      failures += 1;
      setServerState('gone');
    }
    const ms = failures ? RETRY_MS[Math.min(failures, RETRY_MS.length) - 1] : HEALTH_MS;
    await Promise.race([pause(ms), new Promise((resolve) => { wakeHealth = resolve; })]);
  }
}

function setServerState(state) {
  const before = server.state;
  server.state = state;
  $('status').dataset.state = state;
  const word = state === 'ready' ? 'Ready' : 'Not reachable';
  if ($('status-text').textContent !== word) $('status-text').textContent = word;
  $('model').textContent = server.model || '…';
  tell('notice-text', state === 'gone' ? 'The server cannot be reached. This page tries again by itself, and goes on once it is back.' : '');
  $('notice').hidden = state !== 'gone';
  $('demo').hidden = !server.isDemo;
  if (state === 'ready') {
    const waiting = waitingForServer;
    waitingForServer = [];
    waiting.forEach((resolve) => resolve());
    if (before !== 'ready') onServer(before === 'gone');
  }
}

function serverLost() {
  setServerState('gone');
  wakeHealth();
}

/** Resolves once the server is there. */
function serverBack(signal) {
  return new Promise((resolve) => {
    waitingForServer.push(resolve);
    signal?.addEventListener('abort', resolve, { once: true });
  });
}

/** A request with the key. Asks for one if the server wants it. Throws `Gone` or `Refused`. */
async function call(path, options = {}) {
  for (;;) {
    const key = keptKey();
    const headers = new Headers(options.headers);
    if (key) headers.set('Authorization', `Bearer ${key}`);
    let response;
    try {
      response = await fetch(at(path), { ...options, headers, cache: 'no-store' });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      serverLost();
      throw new Gone();
    }
    if (response.ok) return response;
    // Another request may have asked for the key meanwhile.
    if (response.status === 401 && (keptKey() !== key || await askForKey(Boolean(key)))) continue;
    throw await refusal(response);
  }
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const error = body?.error;
  // A proxy before a server that is not there, or a server that is about to end.
  if (error?.code === 'ending' || (!error && [502, 503, 504].includes(response.status))) {
    serverLost();
    return new Gone();
  }
  const message = error?.message ?? `the server answers with status ${response.status}`;
  return new Refused(response.status, message, Number(response.headers.get('Retry-After')) || 0);
}

/** The events of a stream: name, data and id. Throws `Gone` if it breaks off. */
async function* eventsOf(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (signal?.aborted) throw error;
      serverLost();
      throw new Gone();
    }
    if (part.done) return;
    const blocks = (rest + part.value).replaceAll('\r', '').split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      let name = 'message';
      let id = '';
      const data = [];
      for (const line of block.split('\n')) {
        if (line.startsWith('event:')) name = line.slice(6).trim();
        if (line.startsWith('id:')) id = line.slice(3).trim();
        if (line.startsWith('data:')) data.push(line.slice(5).trimStart());
      }
      if (data.length) yield { name, id, data: JSON.parse(data.join('\n')) };
    }
  }
}

// The key

const KEY = 'palmtop-key';
let keyInMemory = null;

function keptKey() {
  // Some browsers forbid storage in private windows.
  try { return sessionStorage.getItem(KEY) ?? keyInMemory; } catch { return keyInMemory; }
}

function keepKey(key) {
  keyInMemory = key;
  try { sessionStorage.setItem(KEY, key); } catch { /* It stays in memory. */ }
  $('key-change').hidden = false;
}

let asking = null;
/** Shows the dialog; true if a key was given. */
function askForKey(wasWrong) {
  asking ??= new Promise((resolve) => {
    const dialog = $('key-dialog');
    tell('key-problem', wasWrong ? 'The server does not take this key.' : '');
    $('key').value = '';
    const finish = (key) => {
      if (key) keepKey(key);
      asking = null;
      dialog.close();
      resolve(Boolean(key));
      if (key) onServer(false);
    };
    $('key-form').onsubmit = (event) => {
      event.preventDefault();
      const key = $('key').value.trim();
      // Headers take nothing else.
      if (/^[\x21-\x7e]+$/.test(key)) finish(key);
      else tell('key-problem', 'A key has no spaces, and only letters, digits and signs of ASCII.');
    };
    $('key-later').onclick = () => finish(null);
    dialog.oncancel = (event) => { event.preventDefault(); finish(null); };
    if (!dialog.open) dialog.showModal();
    $('key').focus();
  });
  return asking;
}
