/**
 * Tests a custom effect that is added to a running gateway while a page is open: it is offered,
 * chosen and seen without reloading the page; then it is removed.
 */

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { clip } from './clip.js';
import { PATIENCE_MS, startBrowser, startGateway } from './harness.js';
import { measure } from './measure.js';

const EXAMPLES = fileURLToPath(new URL('../../examples/effects.d', import.meta.url));
const patience = { timeout: PATIENCE_MS };

/** Returns the mean of red, green and blue over the shown picture. */
const colours = (page) => page.evaluate(() => {
  const video = document.querySelector('#output');
  const canvas = new OffscreenCanvas(64, 48);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(video, 0, 0, 64, 48);
  const { data } = context.getImageData(0, 0, 64, 48);
  return [0, 1, 2].map((channel) => data.filter((_, index) => index % 4 === channel).reduce((sum, value) => sum + value, 0) / (64 * 48));
});

test('an effect that is dropped in while a session runs is offered on the page, and seen as soon as it is chosen', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-own-'));
  const effectsFolder = join(folder, 'effects.d');
  cpSync(join(EXAMPLES, 'faces'), join(effectsFolder, 'faces'), { recursive: true });
  process.env.OOBLEX_OWN_EFFECTS__FOLDER = effectsFolder;
  const gateway = await startGateway().finally(() => delete process.env.OOBLEX_OWN_EFFECTS__FOLDER);
  const browser = await startBrowser(clip({ width: 640, height: 480, measure }));
  try {
    const { page, errors } = await browser.page(new URL('?autostart&effect=background_blur', gateway.url).href, { viewport: { width: 1280, height: 900 } });
    await page.waitForSelector('#status[data-state=live]', patience);
    const id = await page.evaluate(() => window.ooblex.session.id);
    const tile = (title) => page.getByRole('radio', { name: title, exact: true });
    await tile('Faces').waitFor(patience);
    assert.equal(await tile('Spotlight').count(), 0);

    // Copies under a temporary name and renames, as recommended, so that the gateway never reads an
    // incomplete folder.
    cpSync(join(EXAMPLES, 'spotlight'), join(effectsFolder, '.spotlight'), { recursive: true });
    renameSync(join(effectsFolder, '.spotlight'), join(effectsFolder, 'spotlight'));
    const reloaded = await (await fetch(new URL('api/effects/reload', gateway.url), { method: 'POST' })).json();
    assert.deepEqual(reloaded, { added: ['spotlight'], changed: [], removed: [], refused: [] });
    await tile('Spotlight').waitFor(patience);
    // The page scrolls to the tile, and its picture shows the effect.
    await tile('Spotlight').locator('..').scrollIntoViewIfNeeded();
    await page.waitForFunction(() => [...document.querySelectorAll('.tile')].some((tile) => /Spotlight/.test(tile.textContent) && tile.querySelector('img')?.naturalWidth > 0), null, patience);
    await tile('Spotlight').locator('..').click();
    await page.waitForFunction(() => window.ooblex.session.effect === 'spotlight', null, patience);
    // Everything except the person becomes dark blue, and that is most of the picture.
    const deadline = Date.now() + PATIENCE_MS;
    let seen = await colours(page);
    while (!(seen[2] > seen[0] + 5 && Math.max(...seen) < 90)) {
      assert.ok(Date.now() < deadline, `the picture does not turn dark blue: ${seen}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
      seen = await colours(page);
    }
    assert.equal(await page.evaluate(() => window.ooblex.session.id), id, 'it is the same session');
    assert.equal(await page.locator('#notice').isVisible(), false);
    await page.screenshot({ path: join(folder, 'spotlight.png') });

    rmSync(join(effectsFolder, 'spotlight'), { recursive: true });
    await fetch(new URL('api/effects/reload', gateway.url), { method: 'POST' });
    await page.waitForFunction(() => /is not offered any more\. The last picture is held; choose another effect/.test(document.querySelector('#hint').textContent), null, patience);
    await tile('Spotlight').waitFor({ state: 'detached', ...patience });
    assert.equal(await page.evaluate(() => window.ooblex.session.id), id, 'the session stands');
    await page.screenshot({ path: join(folder, 'taken-away.png') });
    await tile('Faces').locator('..').click();
    await page.waitForFunction(() => window.ooblex.session.effect === 'faces' && document.querySelector('#hint').textContent === '', null, patience);
    assert.deepEqual(errors, []);
    t.diagnostic(`pictures of the page: ${folder}`);
  } finally {
    await browser.close();
    await gateway.stop();
  }
});
