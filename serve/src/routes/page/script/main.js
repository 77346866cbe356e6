// Puts the parts together.

function start() {
  offerLanguages(false);
  showForm();
  watchSources();
  $('key-change').hidden = !keptKey();

  $('ask').addEventListener('input', showForm);
  $('ask').addEventListener('change', showForm);
  $('ask').onsubmit = (event) => {
    event.preventDefault();
    look();
    if (promptNow()) showPicture();
  };
  $('cancel').onclick = cancelLook;
  addEventListener('keydown', (event) => { if (event.key === 'Escape' && running && !$('key-dialog').open) cancelLook(); });
  $('repeat').onchange = async () => {
    if ($('repeat').checked && !source.stream) await startCamera({ facingMode: { ideal: 'environment' } });
    if ($('repeat').checked && !source.stream) $('repeat').checked = false;
    if ($('repeat').checked && source.still) showLive();
    showButtons();
    keepLooking();
  };
  $('copy-json').onclick = (event) => copyShown(event.currentTarget, JSON.stringify(shown.answer, null, 2));
  $('copy-curl').onclick = (event) => copyShown(event.currentTarget, curlOf(shown));
  $('forget').onclick = forgetLooks;
  $('key-change').onclick = () => askForKey(false);

  for (const button of document.querySelectorAll('[data-sample]')) {
    button.onclick = async () => { if (await takeSample(Number(button.dataset.sample))) look(); };
  }
  $('demo-sample').onclick = async () => { if (await takeSample(nextSample)) look(); };

  let last = null;
  onSource = () => {
    // An answer stays with its own picture; over the live one it stays until the next look.
    const now = source.still ?? source.stream;
    if (now !== last && shown?.picture !== source.still) {
      running?.abort();
      forgetShown();
    }
    last = now;
    showForm();
    showButtons();
    redraw();
    markCurrent();
    if (isLive()) keepLooking();
  };
  onLook = remember;
  new ResizeObserver(redraw).observe($('frame'));
  document.addEventListener('visibilitychange', () => {
    for (const { load } of cameras.values()) load();
    if (!document.hidden) wakeHealth();
  });
  addEventListener('online', () => wakeHealth());
  watchServer((wasGone) => {
    offerLanguages(server.isDemo);
    showForm();
    if (wasGone) say('The server is back.');
    showCameras();
  });
}

start();
