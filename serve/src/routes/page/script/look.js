// A look: a picture and a prompt go to the server, and the answer comes as it arises.

/** A look that breaks off since the server is gone is repeated so often. */
const REPEATS_MAX = 3;
/** What takes less is not shown as waiting. */
const BUSY_AFTER_MS = 250;

let running = null;
let onLook = () => {};

/** Looks once, and shows it. Returns the look: `answer`, or `error`; null if it was cancelled or cannot begin. */
async function look() {
  running?.abort();
  const control = new AbortController();
  running = control;
  tell('ask-problem', '');
  const prompt = promptNow();
  const picture = prompt ? await pictureNow() : null;
  if (running !== control) return null;
  if (!prompt || !picture) {
    running = null;
    tell('ask-problem', prompt ? 'Show it a picture first: camera, file, drop, paste or a sample.' : TASKS[taskNow()].missing);
    return null;
  }
  const one = { prompt, picture, task: taskNow(), text: '', tokens: 0, firstMs: null, answer: null, error: null, time: new Date() };
  setBusy(true);
  try {
    await ask(one, control.signal);
  } catch (error) {
    if (!control.signal.aborted) one.error = error;
  }
  const isNewest = running === control;
  if (isNewest) {
    running = null;
    setBusy(false);
  }
  if (control.signal.aborted) {
    if (isNewest) showCancelled(one);
    return null;
  }
  showLook(one);
  if (one.error) tell('ask-problem', sentence(one.error.message));
  else onLook(one);
  return one;
}

/** Asks until the server has answered: when it is gone it waits for it, when it is busy it comes again. */
async function ask(one, signal) {
  for (let repeats = 0; ; repeats += 1) {
    Object.assign(one, { text: '', tokens: 0, firstMs: null });
    showLook(one);
    try {
      return await askOnce(one, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      if (error instanceof Gone) {
        if (repeats >= REPEATS_MAX) throw new Error('The connection broke off each time. The log of the server may say why.');
        showWaiting('Waiting for the server …');
        await serverBack(signal);
      } else if (error.status === 429) {
        const seconds = Math.max(1, error.retryAfter);
        showWaiting(`The server is busy. Next try in ${seconds} s …`);
        repeats -= 1;
        await pause(seconds * 1000, signal);
      } else {
        throw error;
      }
      signal.throwIfAborted();
    }
  }
}

async function askOnce(one, signal) {
  const body = new FormData();
  body.append('prompt', one.prompt);
  body.append('picture', one.picture.blob, 'picture');
  const began = performance.now();
  const response = await call('v1/looks', { method: 'POST', body, signal, headers: { Accept: 'text/event-stream' } });
  for await (const { name, data } of eventsOf(response, signal)) {
    if (name === 'text') {
      one.firstMs ??= performance.now() - began;
      one.text += data.text;
      one.tokens += data.tokens;
      showLook(one);
    } else if (name === 'answer') {
      one.firstMs ??= performance.now() - began;
      one.answer = data.answer;
      one.text = data.answer.text;
      one.tokens = data.answer.tokens.length;
      return;
    } else if (name === 'error') {
      if (data.error.code === 'ending') break;
      throw new Refused(0, data.error.message, 0);
    }
  }
  serverLost();
  throw new Gone();
}

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(first) ? first : `${first}.`;
}

let busyTimer = 0;
function setBusy(isBusy) {
  clearTimeout(busyTimer);
  $('answer').setAttribute('aria-busy', String(isBusy));
  if (isBusy) busyTimer = setTimeout(() => { $('busy').hidden = false; }, BUSY_AFTER_MS);
  else $('busy').hidden = true;
  showButtons();
}

function showButtons() {
  const isRepeating = $('repeat').checked && isLive();
  const cancel = $('cancel');
  const hadFocus = document.activeElement === cancel;
  cancel.hidden = !running && !isRepeating;
  cancel.textContent = isRepeating ? 'Stop' : 'Cancel';
  if (cancel.hidden && hadFocus) $('look').focus();
}

function cancelLook() {
  $('repeat').checked = false;
  running?.abort();
  showButtons();
}

// Looking again and again

let isLooping = false;
/** With the camera: looks, waits for the rest of the interval, and looks at the newest picture. */
async function keepLooking() {
  if (isLooping) return;
  isLooping = true;
  while ($('repeat').checked && isLive()) {
    // Somebody may have pressed the button meanwhile.
    while (running) await pause(50);
    const began = performance.now();
    const one = await look();
    if (one?.error || (!one && !running)) {
      // What was refused would be refused again. A look without a picture comes at a camera's start.
      if (one?.error || !promptNow()) $('repeat').checked = false;
      else await pause(200);
    }
    const until = began + Number($('every').value) * 1000;
    // In small steps, so that another choice counts at once.
    while ($('repeat').checked && isLive() && performance.now() < until) await pause(Math.min(100, until - performance.now()));
    await pause(0);
  }
  isLooping = false;
  showButtons();
}
