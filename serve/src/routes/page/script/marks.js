// Boxes and masks, drawn over the picture.

const COLORS = ['#ffd60a', '#4cc9f0', '#ff7a59', '#9be564', '#ff5fa2', '#c9a2ff', '#2de2b1', '#ffa62b', '#8fb3ff', '#f0f0f0'];
const LINE = 2.5;
const LABEL_PX = 13;
/** Masks are drawn with so many pixels at most. */
const MASK_PIXELS = 1_000_000;

/** Colours by label: those of earlier answers stay, and no two labels of an answer have the same while there are enough. */
const colorsKept = new Map();
function colorsOf(objects) {
  const colors = new Map();
  for (const { label } of objects) {
    if (colors.has(label)) continue;
    const used = new Set(colors.values());
    const kept = colorsKept.get(label);
    const color = kept && !used.has(kept) ? kept
      : COLORS.find((one) => !used.has(one) && ![...colorsKept.values()].includes(one))
      ?? COLORS.find((one) => !used.has(one)) ?? `hsl(${Math.round(colors.size * 137.5) % 360} 90% 70%)`;
    colors.set(label, color);
    if (colorsKept.size < 200) colorsKept.set(label, color);
  }
  return objects.map(({ label }) => colors.get(label));
}

/** The lengths of the runs in COCO's compressed string: groups of five bits, and differences from the fourth count on. */
function runsOf(text) {
  const counts = [];
  for (let at = 0; at < text.length;) {
    let value = 0;
    let shift = 0;
    let group;
    do {
      group = text.charCodeAt(at) - 48;
      at += 1;
      value |= (group & 0x1f) << shift;
      shift += 5;
    } while (group & 0x20 && at < text.length);
    if (group & 0x10 && shift < 32) value |= -1 << shift;
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
}

const maskPictures = new WeakMap();
/** The mask in its colour, its edge stronger, as a canvas of the picture's size or a whole fraction of it. */
function maskPicture(object, color) {
  const before = maskPictures.get(object);
  if (before?.color === color) return before.canvas;
  const { size: [rows, columns], counts } = object.mask.rle;
  const bits = new Uint8Array(rows * columns);
  let place = 0;
  runsOf(counts).forEach((length, index) => {
    if (index % 2) bits.fill(1, place, place + length);
    place += length;
  });
  const step = Math.max(1, Math.ceil(Math.sqrt(rows * columns / MASK_PIXELS)));
  const [width, height] = [Math.ceil(columns / step), Math.ceil(rows / step)];
  const canvas = make('canvas', { width, height });
  const context = canvas.getContext('2d');
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  const image = context.createImageData(width, height);
  const isSet = (x, y) => x >= 0 && y >= 0 && x < columns && y < rows && bits[x * rows + y];
  const edge = step * Math.max(1, Math.round(Math.max(width, height) / 400));
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const [column, row] = [x * step, y * step];
      if (!isSet(column, row)) continue;
      const isInside = isSet(column - edge, row) && isSet(column + edge, row) && isSet(column, row - edge) && isSet(column, row + edge);
      image.data.set([red, green, blue, isInside ? 105 : 255], (y * width + x) * 4);
    }
  }
  context.putImageData(image, 0, 0);
  maskPictures.set(object, { color, canvas });
  return canvas;
}

const percent = (score) => `${Math.floor(score * 100)} %`;

/** Draws objects that were found in a picture of this size over the whole canvas. */
function drawMarks(canvas, objects, size) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale].map(Math.round);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, width, height);
  if (!objects.length || !size) return;
  const colors = colorsOf(objects);
  objects.forEach((object, index) => {
    if (object.mask?.rle) context.drawImage(maskPicture(object, colors[index]), 0, 0, width, height);
  });
  const [across, down] = [width / size.width, height / size.height];
  const line = LINE * scale;
  const rectangles = objects.map(({ box }) => [box.x_min * across, box.y_min * down, (box.x_max - box.x_min) * across, (box.y_max - box.y_min) * down]);
  rectangles.forEach((rectangle, index) => {
    // A dark seam first: it shows on whatever is behind.
    for (const [color, thickness] of [['rgb(0 0 0 / 45%)', line + 2 * scale], [colors[index], line]]) {
      Object.assign(context, { strokeStyle: color, lineWidth: thickness, lineJoin: 'round' });
      context.strokeRect(...rectangle);
    }
  });
  context.font = `600 ${LABEL_PX * scale}px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = 'middle';
  objects.forEach(({ label, score }, index) => {
    const text = [label, score == null ? '' : percent(score)].filter(Boolean).join('  ');
    if (!text) return;
    const [x, y] = rectangles[index];
    const [w, h] = [context.measureText(text).width + 12 * scale, (LABEL_PX + 8) * scale];
    const left = Math.max(0, Math.min(x - line / 2, width - w));
    // Above the box, or inside if there is no room.
    const top = y - h >= 0 ? y - h : Math.max(0, y);
    context.fillStyle = colors[index];
    context.beginPath();
    context.roundRect(left, top, w, h, 4 * scale);
    context.fill();
    context.fillStyle = '#101411';
    context.fillText(text, left + 6 * scale, top + h / 2 + 0.5 * scale);
  });
}

/** Objects of an answer that is not over yet: those whose labels are complete. */
function objectsSoFar(text, size) {
  const found = text.matchAll(/<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>(?:<seg\d{3}>)* ?([^<;]*);/g);
  return [...found].map(([, y1, x1, y2, x2, label]) => ({
    label: label.trim(),
    score: null,
    box: { x_min: x1 / 1024 * size.width, y_min: y1 / 1024 * size.height, x_max: x2 / 1024 * size.width, y_max: y2 / 1024 * size.height },
  }));
}
