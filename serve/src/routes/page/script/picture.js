// Where pictures come from: the device's camera, a file, a drop, a paste, a sample. What the stage shows is what is asked.

/** Sent as they are, so that the server sees every pixel; others are turned into JPEG by the browser. */
const SENT_AS_IS = ['image/jpeg', 'image/png', 'image/webp'];
const FILE_BYTES_MAX = 6 << 20;
const STILL_SIDE_MAX = 2048;
const FRAME_SIDE_MAX = 1280;
const JPEG_QUALITY = 0.92;

/** The picture that is shown instead of the camera, and the camera. */
const source = { still: null, stream: null, front: false };
let onSource = () => {};

const isLive = () => Boolean(source.stream) && !source.still;
const canvasOf = (drawable, width, height, sideMax) => {
  const scale = Math.min(1, sideMax / Math.max(width, height));
  const canvas = make('canvas', { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
  canvas.getContext('2d').drawImage(drawable, 0, 0, canvas.width, canvas.height);
  return canvas;
};
const jpegOf = (canvas) => new Promise((resolve, reject) => {
  canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('no JPEG'))), 'image/jpeg', JPEG_QUALITY);
});

/** The picture that the stage shows now: bytes, width and height; null if there is none. */
async function pictureNow() {
  if (source.still) return source.still;
  const video = $('video');
  if (!source.stream || !video.videoWidth) return null;
  const canvas = canvasOf(video, video.videoWidth, video.videoHeight, FRAME_SIDE_MAX);
  return { blob: await jpegOf(canvas), width: canvas.width, height: canvas.height, name: 'camera' };
}

/** Takes a file as the picture; says why if it cannot. True if it is shown. */
async function takeFile(file, name) {
  tell('source-problem', '');
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    tell('source-problem', file.type && !file.type.startsWith('image/')
      ? `${name} is not a picture.`
      : `This browser cannot show ${name}. JPEG, PNG and WebP always work.`);
    return false;
  }
  let picture = { blob: file, width: bitmap.width, height: bitmap.height, name };
  if (!SENT_AS_IS.includes(file.type) || file.size > FILE_BYTES_MAX) {
    const canvas = canvasOf(bitmap, bitmap.width, bitmap.height, STILL_SIDE_MAX);
    picture = { blob: await jpegOf(canvas), width: canvas.width, height: canvas.height, name };
  }
  bitmap.close();
  stopCamera();
  showStill(picture, null);
  return true;
}

let stillAddress = '';
/** Shows a picture; the badge says what it is if that is not clear. */
function showStill(picture, badge) {
  source.still = picture;
  URL.revokeObjectURL(stillAddress);
  stillAddress = URL.createObjectURL(picture.blob);
  $('still').src = stillAddress;
  $('still').alt = badge ?? picture.name;
  showSource(badge);
}

function showLive() {
  source.still = null;
  showSource(null);
}

function showSource(badge) {
  const live = isLive();
  const has = live || Boolean(source.still);
  $('stage').dataset.state = has ? 'picture' : 'empty';
  $('frame').hidden = !has;
  $('empty').hidden = has;
  $('video').hidden = !live;
  $('still').hidden = !source.still;
  tell('badge', live ? 'Live' : badge);
  $('badge').toggleAttribute('data-live', live);
  $('to-live').hidden = !(source.stream && source.still);
  $('camera').setAttribute('aria-pressed', String(Boolean(source.stream)));
  $('camera-word').textContent = source.stream ? 'Stop camera' : 'Camera';
  const size = source.still ?? { width: $('video').videoWidth || 4, height: $('video').videoHeight || 3 };
  $('frame').style.setProperty('--ratio', String(size.width / size.height));
  onSource();
}

/** Where the page is one column, the form may be far below the picture and what is drawn on it. */
function showPicture() {
  if (matchMedia('(min-width: 900px)').matches || $('frame').hidden) return;
  const isCalm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  $('stage').scrollIntoView({ block: 'nearest', behavior: isCalm ? 'auto' : 'smooth' });
}

// The camera

const CAMERA_PROBLEMS = {
  NotAllowedError: 'The browser may not use the camera. Allow it for this page (the sign beside the address), then press Camera again.',
  NotFoundError: 'This device has no camera that the browser can see.',
  NotReadableError: 'Another program uses the camera, or the system does not give it. Close that program, then press Camera again.',
  AbortError: 'The camera could not be started. Press Camera again.',
};
const INSECURE = 'Browsers give the camera only to pages from https, or from the computer itself (http://localhost). '
  + 'Start the server with --tls-cert and --tls-key, or open the page on the server. '
  + 'Choose a picture works anyway: on a phone it offers to take one.';

async function startCamera(wanted) {
  tell('source-problem', '');
  if (!navigator.mediaDevices?.getUserMedia) {
    tell('source-problem', window.isSecureContext ? 'This browser has no camera for pages.' : INSECURE);
    return;
  }
  const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
  try {
    // Phones give a camera to one user at a time.
    closeStream();
    const stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { ...size, ...wanted } });
    const track = stream.getVideoTracks()[0];
    track.addEventListener('ended', () => {
      if (source.stream !== stream) return;
      stopCamera();
      tell('source-problem', 'The camera stopped: it was unplugged, or another program took it.');
    });
    Object.assign(source, { stream, still: null });
    $('video').srcObject = stream;
    await $('video').play();
    $('camera-name').textContent = track.label;
    await offerSwitch();
  } catch (error) {
    closeStream();
    tell('source-problem', CAMERA_PROBLEMS[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
  showSource(null);
}

function closeStream() {
  source.stream?.getTracks().forEach((track) => track.stop());
  source.stream = null;
  $('video').srcObject = null;
  $('camera-name').textContent = '';
  $('camera-switch').hidden = true;
}

function stopCamera() {
  closeStream();
  showSource(null);
}

const camerasOfDevice = async () => (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === 'videoinput');

async function offerSwitch() {
  $('camera-switch').hidden = (await camerasOfDevice()).length < 2;
}

/** Front or back, if the camera says which it is; else the next one. */
async function switchCamera() {
  const settings = source.stream?.getVideoTracks()[0].getSettings() ?? {};
  if (settings.facingMode) {
    await startCamera({ facingMode: settings.facingMode === 'user' ? 'environment' : 'user' });
    return;
  }
  const devices = await camerasOfDevice();
  const next = (devices.findIndex(({ deviceId }) => deviceId === settings.deviceId) + 1) % devices.length;
  await startCamera({ deviceId: { exact: devices[next].deviceId } });
}

// Files, drops, pastes, samples

const SAMPLES = [
  { things: 'strawberry ; tree', question: 'is there a cat?' },
  { things: 'panda ; bus', question: 'how many doughnuts are there?' },
  { things: 'rocket ; guitar', question: 'what does the text say?' },
];
let nextSample = 0;

async function takeSample(index) {
  nextSample = (index + 1) % SAMPLES.length;
  // Fields that people wrote in stay as they are.
  for (const id of ['things', 'question']) {
    const field = $(id);
    if (!field.value || SAMPLES.some((sample) => sample[id] === field.value)) field.value = SAMPLES[index][id];
  }
  const image = document.querySelector(`[data-sample="${index}"] img`);
  const bytes = Uint8Array.from(atob(image.src.split(',')[1]), (letter) => letter.charCodeAt(0));
  return takeFile(new Blob([bytes], { type: 'image/webp' }), image.alt);
}

const pictureIn = (transfer) => [...(transfer?.files ?? [])].find(({ type }) => !type || type.startsWith('image/')) ?? transfer?.files?.[0];

async function takePaste() {
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((one) => one.startsWith('image/'));
      if (type) return takeFile(await item.getType(type), 'the pasted picture');
    }
    tell('source-problem', 'There is no picture on the clipboard.');
  } catch {
    tell('source-problem', 'This browser lets pages read the clipboard only by its own keys: press Ctrl+V or ⌘V.');
  }
  return false;
}

function watchSources() {
  $('camera').onclick = () => (source.stream ? stopCamera() : startCamera({ facingMode: { ideal: 'environment' } }));
  $('camera-switch').onclick = switchCamera;
  $('to-live').onclick = showLive;
  $('choose').onclick = () => $('file').click();
  $('file').onchange = async () => {
    const [file] = $('file').files;
    if (file) await takeFile(file, file.name);
    $('file').value = '';
  };
  $('paste').onclick = takePaste;
  addEventListener('paste', (event) => {
    const file = pictureIn(event.clipboardData);
    if (!file) return;
    event.preventDefault();
    takeFile(file, 'the pasted picture');
  });
  const stage = $('stage');
  const isOver = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
  addEventListener('dragover', (event) => {
    if (!isOver(event)) return;
    event.preventDefault();
    stage.toggleAttribute('data-drop', true);
  });
  addEventListener('dragleave', (event) => { if (!event.relatedTarget) stage.toggleAttribute('data-drop', false); });
  addEventListener('drop', (event) => {
    stage.toggleAttribute('data-drop', false);
    if (!isOver(event)) return;
    event.preventDefault();
    const file = pictureIn(event.dataTransfer);
    if (file) takeFile(file, file.name);
  });
  $('video').addEventListener('resize', () => { if (isLive()) showSource(null); });
  navigator.mediaDevices?.addEventListener?.('devicechange', () => { if (source.stream) offerSwitch(); });
}
