// A browser with a fake camera, and what every case wants of a page.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

const MS = 60_000;
const FLAGS = ['--no-sandbox', '--headless', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-default-browser-check',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
  // So that a page can be opened from an address that is not secure.
  '--host-resolver-rules=MAP house.example 127.0.0.1'];

/** What the test that started this gives: addresses, files, and what is right. */
export const given = JSON.parse(process.env.PAGE_CASE);
const [{ objects, image }] = JSON.parse(given.looks).answers;
Object.assign(given, { objects, image });
const { chromium } = createRequire(path.join(given.modules, 'x'))('playwright-core');

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
/** Asks the test to do something, and waits until it has. */
export async function askTest(what) {
  process.stdout.write(`${what}\n`);
  const { value } = await answers.next();
  assert.equal(value, 'done', `the test has done ${what}`);
}

/**
 * Opens the page, runs `steps(page)` and closes it. `expected` are patterns of errors on the console that belong to the
 * case. Nothing else may be there, and no request may go elsewhere.
 */
export async function withPage({ camera, flags = [], expected = [], address = given.address, ...options }, steps) {
  const folder = mkdtempSync(path.join(tmpdir(), 'palmtop-page-'));
  const fake = {
    film: ['--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream', `--use-file-for-fake-video-capture=${given.film}`],
    two: ['--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream=device-count=2'],
    forbidden: ['--use-fake-device-for-media-stream', '--deny-permission-prompts'],
  }[camera] ?? [];
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: given.chromium, args: [...FLAGS, ...fake, ...flags], viewport: { width: 1280, height: 800 }, ...options,
  });
  try {
    context.setDefaultTimeout(MS);
    const wrong = [];
    const page = await context.newPage();
    page.on('console', (message) => {
      const text = `${message.text()} ${message.location().url}`;
      if (['error', 'warning'].includes(message.type()) && !expected.some((pattern) => pattern.test(text))) wrong.push(text);
    });
    page.on('pageerror', (error) => wrong.push(`thrown: ${error.stack}`));
    page.on('request', (request) => {
      if (!['data:', 'blob:'].includes(new URL(request.url()).protocol) && !request.url().startsWith(address)) wrong.push(`request to ${request.url()}`);
    });
    await page.addInitScript(() => {
      // Read from a copy: browsers warn if a canvas that is drawn on is read again and again.
      window.marksPixels = () => {
        const marks = document.getElementById('marks');
        const copy = new OffscreenCanvas(marks.width, marks.height).getContext('2d', { willReadFrequently: true });
        copy.drawImage(marks, 0, 0);
        return copy.getImageData(0, 0, marks.width, marks.height);
      };
    });
    await page.goto(address);
    await page.locator('#status[data-state=ready]').waitFor();
    await steps(page, context);
    assert.deepEqual(wrong, []);
  } finally {
    await context.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Chooses a task, writes into its field, looks, and waits for the answer; gives its JSON. */
export async function look(page, task, words) {
  await page.locator(`input[value=${task}]`).check();
  const field = { answer: '#question', detect: '#things', segment: '#things', free: '#free' }[task];
  if (field) await page.locator(field).fill(words);
  await page.locator('#look').click();
  return answerOf(page);
}

/** The answer that the page shows, as its button copies it. */
export async function answerOf(page) {
  await page.locator('#answer[aria-busy=false] #copies').waitFor();
  return JSON.parse(await copied(page, '#copy-json'));
}

export async function copied(page, button) {
  await page.evaluate(() => navigator.clipboard.writeText(''));
  await page.locator(button).click();
  return until(page, 'something is copied', () => page.evaluate(() => navigator.clipboard.readText()));
}

export async function until(page, what, question) {
  const end = Date.now() + MS;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    assert.ok(Date.now() < end, `in time: ${what}`);
    await page.waitForTimeout(50);
  }
}

export const looksSoFar = (page) => page.locator('#looks > li').count();

/** The canvas must show each box in the colour of its label, there and nowhere beside. */
export async function boxesAreDrawn(page, objects, image) {
  const shares = await page.evaluate(([boxes, size]) => {
    const { data, width, height } = window.marksPixels();
    const chips = [...document.querySelectorAll('#objects .chip')].map((chip) => chip.dataset.color);
    const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const [across, down] = [width / size.width, height / size.height];
    const isColor = (x, y, color) => {
      const [column, row] = [Math.round(x - 0.5), Math.round(y - 0.5)].map((place, axis) => Math.max(0, Math.min(place, (axis ? height : width) - 1)));
      const at = (row * width + column) * 4;
      return data[at + 3] > 250 && color.every((value, channel) => Math.abs(data[at + channel] - value) < 16);
    };
    return boxes.map((box, index) => {
      const color = rgb(chips[index]);
      const [left, top, right, bottom] = [box.x_min * across, box.y_min * down, box.x_max * across, box.y_max * down];
      const share = (from, to) => {
        const steps = [...Array(21).keys()].map((step) => 0.1 + step * 0.04);
        return steps.filter((t) => isColor(from[0] + (to[0] - from[0]) * t, from[1] + (to[1] - from[1]) * t, color)).length / steps.length;
      };
      const frame = (by) => ({
        left: share([left + by, top], [left + by, bottom]), right: share([right - by, top], [right - by, bottom]),
        top: share([left, top + by], [right, top + by]), bottom: share([left, bottom - by], [right, bottom - by]),
      });
      return { on: frame(0), inside: frame(6), outside: frame(-6), chip: chips[index] };
    });
  }, [objects.map(({ box }) => box), image]);
  assert.equal(shares.length, objects.length);
  for (const [index, { on, inside, outside }] of shares.entries()) {
    const { label } = objects[index];
    for (const side of ['left', 'right', 'top', 'bottom']) {
      assert.ok(on[side] > 0.75, `${label}: its ${side} edge is drawn (${on[side]})`);
      // Labels lie above boxes, or at their upper edge inside.
      if (side === 'top') continue;
      assert.ok(inside[side] < 0.3, `${label}: beside its ${side} edge nothing is, inside (${inside[side]})`);
      assert.ok(outside[side] < 0.3, `${label}: beside its ${side} edge nothing is, outside (${outside[side]})`);
    }
  }
  const labels = new Map(objects.map(({ label }, index) => [label, shares[index].chip]));
  assert.equal(new Set(labels.values()).size, labels.size, 'labels differ in colour');
}
