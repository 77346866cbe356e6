// What people do with the page, each case in a browser of its own. tests/page.rs starts them.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { answerOf, askTest, boxesAreDrawn, copied, given, look, looksSoFar, until, withPage } from './browser.mjs';

const clipboard = { permissions: ['clipboard-read', 'clipboard-write'] };

/** What a shell makes of a command's prompt: the server answers it, if there is curl. */
function promptOfShell(command) {
  if (spawnSync('curl', ['--version']).error) {
    process.stderr.write('SKIPPED: the command for curl: there is no curl\n');
    return null;
  }
  const { stdout, stderr } = spawnSync('sh', ['-c', command], { cwd: path.dirname(given.picture), encoding: 'utf8' });
  assert.ok(stdout.startsWith('{'), `${command}: ${stdout}${stderr}`);
  return JSON.parse(stdout).answers[0].prompt;
}

const cases = {
  /** A file: text as it arises, boxes and masks where the server says, and copies. */
  async file() {
    await withPage(clipboard, async (page) => {
      assert.ok(await page.locator('#demo').isVisible(), 'it says that the built-in model answers');
      assert.ok(await page.locator('#cameras').isHidden(), 'a server without a loop shows no cameras');
      await page.locator('#file').setInputFiles(given.picture);
      await page.locator('#still').waitFor();
      await page.evaluate(() => {
        window.seen = [];
        new MutationObserver(() => window.seen.push(document.getElementById('text').textContent))
          .observe(document.getElementById('text'), { childList: true, characterData: true, subtree: true });
      });
      const caption = await look(page, 'caption');
      assert.equal(caption.text, given.caption);
      assert.equal(await page.locator('#text').textContent(), given.caption);
      const parts = new Set((await page.evaluate(() => window.seen)).filter((text) => text && given.caption.startsWith(text)));
      assert.ok(parts.size > 3, `the text came in parts: ${[...parts]}`);
      assert.match(await page.locator('#first').textContent(), /^\d+ ms$/);
      assert.match(await page.locator('#speed').textContent(), /^\d/);

      const detected = await look(page, 'detect', given.things.join(', '));
      assert.equal(detected.prompt, `detect ${given.things.join(' ; ')}`);
      assert.deepEqual(detected.objects, given.objects);
      await boxesAreDrawn(page, given.objects, given.image);
      assert.equal(await page.locator('#objects > li').count(), given.objects.length);

      const curl = await copied(page, '#copy-curl');
      assert.equal(curl, `curl --form-string 'prompt=${detected.prompt}' -F picture=@picture.png '${given.address}v1/looks'`);

      const question = "what's there? \\ $HOME \"x\"";
      await look(page, 'answer', question);
      assert.ok([null, `answer en ${question}`].includes(promptOfShell(await copied(page, '#copy-curl'))));

      // The mask, pixel by pixel where it is clear what must be there.
      await look(page, 'segment', given.mask.label);
      const [set, unset] = await page.evaluate(([points, size]) => {
        const { data, width, height } = window.marksPixels();
        const alpha = ([x, y]) => data[(Math.floor((y + 0.5) * height / size.height) * width + Math.floor((x + 0.5) * width / size.width)) * 4 + 3];
        return points.map((some) => some.map(alpha));
      }, [[given.mask.set, given.mask.unset], given.image]);
      assert.ok(set.every((alpha) => alpha > 80), `the mask covers its pixels: ${set}`);
      assert.ok(unset.every((alpha) => alpha === 0), `and no others: ${unset}`);

      // An earlier look comes back with its marks.
      assert.equal(await looksSoFar(page), 4);
      await page.locator('#looks button').nth(2).click();
      assert.equal(await page.locator('#looks button').nth(2).getAttribute('aria-current'), 'true');
      await boxesAreDrawn(page, given.objects, given.image);
      await page.locator('#forget').click();
      assert.ok(await page.locator('#history').isHidden());
    });
  },

  /** Other ways in: a sample, a drop, a paste, and what is no picture. */
  async ways() {
    await withPage(clipboard, async (page) => {
      await page.locator('#look').click();
      assert.match(await page.locator('#ask-problem').textContent(), /Show it a picture/);
      await page.locator('[data-sample="0"]').click();
      assert.equal((await answerOf(page)).text, given.sampleCaption);
      const give = (type, bytes, kind) => page.evaluate(([mediaType, letters, event]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0))], 'given', { type: mediaType }));
        const init = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(event === 'drop'
          ? new DragEvent('drop', { ...init, dataTransfer: transfer }) : new ClipboardEvent('paste', { ...init, clipboardData: transfer }));
      }, [type, bytes, kind]);
      const still = () => page.locator('#still').getAttribute('src');
      for (const kind of ['drop', 'paste']) {
        const before = await still();
        await give('image/png', readFileSync(given.picture, 'base64'), kind);
        await until(page, `the ${kind} is shown`, async () => (await still()) !== before);
        assert.ok(await page.locator('#copies').isHidden(), 'the old answer is not shown with a new picture');
        assert.deepEqual((await look(page, 'detect', given.things.join(';'))).objects, given.objects);
      }
      await give('image/png', 'aGVsbG8=', 'drop');
      await page.locator('#source-problem').filter({ hasText: 'cannot show' }).waitFor();
      // What the server refuses is said as it says it.
      await look(page, 'caption');
      await page.locator('input[value=free]').check();
      await page.locator('#free').fill('a '.repeat(600));
      await page.locator('#look').click();
      await page.locator('#ask-problem').filter({ hasText: 'tokens' }).waitFor();
    });
  },

  /** The camera: boxes over the live picture, looking again and again, and an earlier look. */
  async camera() {
    await withPage({ ...clipboard, camera: 'film' }, async (page) => {
      await page.locator('#camera').click();
      await page.locator('#badge[data-live]').waitFor();
      const answer = await look(page, 'detect', given.things.join(';'));
      assert.deepEqual(answer.objects.map(({ label }) => label), given.objects.map(({ label }) => label));
      await boxesAreDrawn(page, answer.objects, answer.image);
      assert.ok(await page.locator('#video').isVisible(), 'the picture under them is live');

      await page.locator('#every').selectOption('0');
      await page.locator('.switch').click();
      await until(page, 'it looks again and again', async () => (await looksSoFar(page)) >= 5);
      await page.locator('#looks button').last().click();
      await page.locator('#badge').filter({ hasText: 'Earlier picture' }).waitFor();
      await page.locator('#to-live').click();
      const before = await looksSoFar(page);
      await until(page, 'and goes on after an earlier one was shown', async () => (await looksSoFar(page)) > before);
      await page.locator('#cancel').click();
      assert.ok(!await page.locator('#repeat').isChecked());
      await page.locator('#camera').click();
      await page.locator('#empty').waitFor();
    });
  },

  /** Another camera of the device. */
  async switch() {
    await withPage({ ...clipboard, camera: 'two' }, async (page) => {
      await page.locator('#camera').click();
      const name = page.locator('#camera-name');
      await until(page, 'the camera has a name', () => name.textContent());
      const first = await name.textContent();
      await page.locator('#camera-switch').click();
      await until(page, 'the other one is shown', async () => ![first, ''].includes(await name.textContent()));
      await page.locator('#badge[data-live]').waitFor();
      await page.locator('#camera-switch').click();
      await until(page, 'and the first again', async () => (await name.textContent()) === first);
    });
  },

  /** No camera: forbidden, and on a page that is not secure. */
  async refused() {
    await withPage({ ...clipboard, camera: 'forbidden' }, async (page) => {
      await page.locator('#camera').click();
      await page.locator('#source-problem').filter({ hasText: 'Allow it for this page' }).waitFor();
    });
    const address = given.address.replace('127.0.0.1', 'house.example');
    // Without https, browsers ignore one of the headers and say so.
    await withPage({ expected: [/Cross-Origin-Opener-Policy/], camera: 'film', address }, async (page) => {
      await page.locator('#camera').click();
      await page.locator('#source-problem').filter({ hasText: '--tls-cert' }).waitFor();
    });
  },

  /** The server goes, and comes back at the same port. */
  async restart() {
    const expected = [/ERR_CONNECTION_REFUSED/, /ERR_CONNECTION_RESET/, /ERR_EMPTY_RESPONSE/, /ERR_INCOMPLETE_CHUNKED/, /503/];
    await withPage({ ...clipboard, camera: 'film', expected }, async (page) => {
      await page.locator('#camera').click();
      await page.locator('#badge[data-live]').waitFor();
      await page.locator('#every').selectOption('0');
      await page.locator('.switch').click();
      await until(page, 'it looks', async () => (await looksSoFar(page)) >= 2);
      await askTest('end');
      await page.locator('#notice').filter({ hasText: 'cannot be reached' }).waitFor();
      await page.locator('#status[data-state=gone]').waitFor();
      const before = await looksSoFar(page);
      await askTest('start');
      await page.locator('#notice').waitFor({ state: 'hidden' });
      await page.locator('#status[data-state=ready]').waitFor();
      await until(page, 'it goes on by itself', async () => (await looksSoFar(page)) >= before + 3);
      await page.locator('#cancel').click();
      // Without interval: what was asked while the server was gone is answered once it is back.
      await askTest('end');
      await page.locator('#look').click();
      await page.locator('#text').filter({ hasText: 'Waiting for the server' }).waitFor();
      const then = await looksSoFar(page);
      await askTest('start');
      await until(page, 'the look is answered', async () => (await looksSoFar(page)) > then);
    });
  },

  /** The server wants a key. */
  async key() {
    await withPage({ ...clipboard, expected: [/401/] }, async (page) => {
      const dialog = page.locator('#key-dialog');
      await dialog.waitFor();
      await page.keyboard.press('Escape');
      await dialog.waitFor({ state: 'hidden' });
      await page.locator('[data-sample="0"]').click();
      await dialog.waitFor();
      await page.locator('#key').fill('not-the-right-one');
      await page.keyboard.press('Enter');
      await page.locator('#key-problem').filter({ hasText: 'does not take' }).waitFor();
      await page.locator('#key').fill(given.key);
      await page.keyboard.press('Enter');
      assert.equal((await answerOf(page)).text, given.sampleCaption);
      const curl = await copied(page, '#copy-curl');
      assert.ok(curl.includes('$PALMTOP_API_KEY') && !curl.includes(given.key), 'copies do not hold the key');
      await page.reload();
      await page.locator('[data-sample="0"]').click();
      assert.equal((await answerOf(page)).text, given.sampleCaption, 'the key is kept');
    });
  },

  /** Sizes, names and keys: narrow screens, fingers, keyboards and screen readers. */
  async access() {
    for (const width of [360, 768, 1280]) {
      await withPage({ ...clipboard, viewport: { width, height: 800 }, reducedMotion: 'reduce' }, async (page) => {
        await page.locator('[data-sample="0"]').click();
        await answerOf(page);
        await page.locator('input[value=detect]').check();
        await page.locator('#things').fill('strawberry, tree');
        await page.locator('#look').click();
        await page.locator('#say').filter({ hasText: '2 found: strawberry 99 %, tree 99 %' }).waitFor();
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `nothing lies beside a screen of ${width} pixels: ${wide}`);
        const bad = await page.evaluate(() => {
          const controls = [...document.querySelectorAll('button, select, input:not([type=file])')].filter((element) => element.checkVisibility());
          const small = controls.map((element) => [element, (element.closest('label:has(span)') ?? element).getBoundingClientRect()])
            .filter(([, { width: across, height }]) => height < 44 || across < 44).map(([element]) => `small: ${element.outerHTML}`);
          const nameless = controls.filter((element) => !(element.textContent.trim() || element.ariaLabel || element.labels?.length || element.querySelector('img[alt]')))
            .map((element) => `without a name: ${element.outerHTML}`);
          return [...small, ...nameless];
        });
        assert.deepEqual(bad, []);
        // From the things to look for by keys alone to an answer.
        await page.locator('#things').focus();
        await page.keyboard.press('Control+a');
        await page.keyboard.type('banana');
        const before = await looksSoFar(page);
        await page.keyboard.press('Enter');
        await until(page, 'Enter looks', async () => (await looksSoFar(page)) > before);
        await page.keyboard.press('Tab');
        assert.equal(await page.evaluate(() => document.activeElement.id), 'look');
      });
    }
  },

  /** The cameras of a loop: how they are, live pictures, what is answered and what happens. */
  async cameras() {
    await withPage({ ...clipboard, viewport: { width: 1280, height: 900 } }, async (page) => {
      await page.locator('#cameras').waitFor();
      assert.deepEqual(await page.locator('#camera-list h3').allTextContents(), ['door', 'garden']);
      const [door, garden] = [page.locator('#camera-list li').first(), page.locator('#camera-list li').nth(1)];
      await door.filter({ hasText: 'people: nothing' }).waitFor();
      await page.locator('#events li').filter({ hasText: 'someone: cat' }).waitFor();
      const picture = door.locator('img');
      await until(page, 'the live picture is shown', () => picture.evaluate((image) => image.naturalWidth === 64));

      await askTest('go on');
      await door.filter({ hasText: 'people: cat, dog' }).waitFor();
      await garden.filter({ hasText: 'waiting: the stream broke off' }).waitFor();
      await page.locator('#events li').first().filter({ hasText: /someone: cat – over, after 61.3/ }).waitFor();
      assert.equal(await page.locator('#events li').count(), 2, 'what is in the list and in the stream is shown once');

      await page.getByRole('button', { name: 'Pause door' }).click();
      assert.ok(await picture.isHidden());
      await page.getByRole('button', { name: 'Show door' }).click();
      await until(page, 'and it is shown again', () => picture.evaluate((image) => image.naturalWidth === 64));
    });
  },

  /** The picture of the README: detected things on a sample, 1280 by 800. */
  async picture() {
    await withPage({ ...clipboard, colorScheme: 'light', reducedMotion: 'reduce' }, async (page) => {
      await page.locator('[data-sample="2"]').click();
      await answerOf(page);
      await look(page, 'segment', 'rocket ; guitar');
      await page.mouse.move(0, 0);
      await page.evaluate(() => { document.activeElement.blur(); scrollTo(0, 0); });
      // Until the button says again what it copies.
      await page.locator('#copy-json').filter({ hasText: 'Copy JSON' }).waitFor();
      await page.screenshot({ path: given.screenshot });
    });
  },
};

await cases[process.argv[2]]();
// The test that listens keeps the input open.
process.exit();
