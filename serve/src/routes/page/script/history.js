// Looks so far, in memory: the newest first, bounded in number and bytes.

const LOOKS_MAX = 24;
const LOOKS_BYTES_MAX = 64 << 20;
const THUMB = { width: 272, height: 204 };

let looks = [];

async function remember(one) {
  looks.unshift(one);
  let bytes = 0;
  looks = looks.filter(({ picture }, index) => {
    bytes += picture.blob.size;
    return index < LOOKS_MAX && (index === 0 || bytes <= LOOKS_BYTES_MAX);
  });
  one.item = await itemOf(one);
  showLooks();
}

async function itemOf(one) {
  const thumb = make('canvas', THUMB);
  thumb.setAttribute('aria-hidden', 'true');
  const button = make('button', { type: 'button' }, thumb,
    make('span', { className: 'what', textContent: shortly(one) }),
    make('span', { className: 'when', textContent: one.prompt }),
    make('span', { className: 'when', textContent: one.time.toLocaleTimeString() }));
  button.onclick = () => {
    showStill(one.picture, one.picture.name === 'camera' ? 'Earlier picture' : null);
    showLook(one);
    markCurrent();
    showPicture();
  };
  try {
    const bitmap = await createImageBitmap(one.picture.blob);
    // As much of the picture as fits, whole.
    const scale = Math.min(THUMB.width / bitmap.width, THUMB.height / bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    const [x, y] = [(THUMB.width - width) / 2, (THUMB.height - height) / 2];
    const context = thumb.getContext('2d');
    context.drawImage(bitmap, x, y, width, height);
    bitmap.close();
    const objects = one.answer.objects;
    const colors = colorsOf(objects);
    objects.forEach(({ box }, index) => {
      const [across, down] = [width / one.answer.image.width, height / one.answer.image.height];
      Object.assign(context, { strokeStyle: colors[index], lineWidth: 3 });
      context.strokeRect(x + box.x_min * across, y + box.y_min * down, (box.x_max - box.x_min) * across, (box.y_max - box.y_min) * down);
    });
  } catch { /* Without its picture, the words are still there. */ }
  return make('li', {}, button);
}

function shortly({ answer }) {
  const labels = answer.objects.map(({ label }) => label);
  return labels.length ? labels.join(', ') : answer.text || 'nothing';
}

function showLooks() {
  $('history').hidden = !looks.length;
  const list = $('looks');
  const wanted = looks.map(({ item }) => item).filter(Boolean);
  for (const item of [...list.children]) if (!wanted.includes(item)) item.remove();
  // Only what is new moves, so that the focus stays where it is.
  wanted.forEach((item, index) => { if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null); });
  markCurrent();
}

function markCurrent() {
  for (const one of looks) one.item?.firstChild.setAttribute('aria-current', String(one === shown));
}

function forgetLooks() {
  looks = [];
  showLooks();
}
