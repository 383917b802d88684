/**
 * Tests of workers in separate processes, connected by Redis: every effect runs on them, and the
 * death of one is hardly visible.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { LOOP, clip } from './clip.js';
import { PATIENCE_MS, startBrowser, startGateway, startRedis, startWorker, withSession } from './harness.js';
import { assertHidden, assertInOrder, assertSize, unwrapped } from './judge.js';
import { measure } from './measure.js';

/**
 * Maximum time without a new picture when one of three workers is killed during a call; on a machine that is so busy that there are long
 * gaps anyway, twice the longest of them.
 */
const LONGEST_GAP_MS = 500;
const EFFECTS = [
  { effect: 'background_blur', params: {}, ways: ['blurred'] },
  { effect: 'face_detection', params: {}, ways: ['framed', 'painted', 'blurred'] },
  { effect: 'style_transfer', params: { style: 'crimson_poster', resolution: '180p' }, ways: ['painted', 'blurred'] },
];

/**
 * Calls the test with a session on a gateway without its own workers, and three workers with one
 * thread each.
 */
async function withWorkers(use) {
  const redis = await startRedis();
  const running = [];
  const more = async () => running[running.push(await startWorker(['--broker', redis.url])) - 1];
  try {
    const workers = await Promise.all([more(), more(), more()]);
    await withSession({ gateway: ['--broker', redis.url] }, async (session) => {
      await known(session.gateway, 3);
      await use({ ...session, workers, more });
    });
  } finally {
    await Promise.all(running.map((worker) => worker.stop('SIGKILL')));
    await redis.stop();
  }
}

/** Waits until the gateway knows this number of workers. */
async function known(gateway, count) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const { workers } = await (await fetch(new URL('api/effects', gateway.url))).json();
    if (workers === count) return;
    assert.ok(Date.now() < deadline, `the gateway knows of ${workers} workers instead of ${count}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Waits until the session was told that its effect is in this state. */
const told = (page, state) => page.waitForFunction((state) => probe.kept['output.service'].at(-1)?.state === state, state, { timeout: PATIENCE_MS });

const analysed = async (worker) => {
  const text = await (await fetch(new URL('metrics', worker.url))).text();
  const counts = text.split('\n').filter((line) => line.startsWith('ooblex_worker_frames_total{') && line.includes('result="analysed"'));
  return counts.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
};

test('every effect is live on three workers, and each of them has its share', () =>
  withWorkers(async ({ workers, played, connect, moreFrames, seen, heard, close }) => {
    for (const { effect, params, ways } of EFFECTS) {
      await connect({ effect, params });
      await moreFrames(60);
      const [records, services] = [await seen(), await heard('service')];
      await close();
      assertInOrder(records, played, { readable: 0.8 });
      assertSize(records, played.width, played.height);
      assertHidden(records, played, ways);
      assert.deepEqual(services.filter(({ state }) => state !== 'served'), [], 'the workers were there all the time');
    }
    const shares = await Promise.all(workers.map(analysed));
    assert.ok(Math.min(...shares) >= 10, `the workers have analysed ${shares} frames`);
  }));

test('a worker that is killed in mid-call is hardly seen', (t) =>
  withWorkers(async ({ workers, gateway, played, page, connect, moreFrames, seen }) => {
    await connect({ effect: 'background_blur' });
    await moreFrames(90);
    const killed = await page.evaluate(() => performance.now());
    await workers[0].stop('SIGKILL');
    await moreFrames(120);
    await known(gateway, 2);
    const records = await seen();
    assertInOrder(records, played, { readable: 0.8 });
    assertSize(records, played.width, played.height);
    assertHidden(records, played, ['blurred']);
    // Skips the second in which the connection is made.
    const usual = longestGap(records.filter(({ t }) => t < killed), records[0].t + 1000);
    const gap = longestGap(records, killed - 1000);
    t.diagnostic(`longest gap: ${Math.round(gap)} ms, and ${Math.round(usual)} ms before`);
    assert.ok(gap <= Math.max(LONGEST_GAP_MS, Math.min(2 * usual, 2 * LONGEST_GAP_MS)), `no new picture came for ${Math.round(gap)} ms`);
  }));

test('without any worker the last picture is held, the page is told, and it goes on when one comes', () =>
  withWorkers(async ({ workers, more, gateway, played, page, connect, moreFrames, seen, heard }) => {
    await connect({ effect: 'background_blur' });
    await moreFrames(30);
    await Promise.all(workers.map((worker) => worker.stop('SIGKILL')));
    await told(page, 'no_worker');
    await known(gateway, 0);
    assert.match((await heard('error')).at(-1).text, /background_blur/);
    await more();
    await told(page, 'served');
    await moreFrames(30);
    const records = await seen();
    assertInOrder(records, played, { readable: 0.8 });
    assertHidden(records, played, ['blurred']);
  }));

test('the demo page says in words that nobody serves its effect, and that somebody does again', async () => {
  const redis = await startRedis();
  const running = [];
  try {
    const gateway = await startGateway(['--broker', redis.url]);
    running.push(gateway);
    const browser = await startBrowser(clip({ width: 640, height: 480, measure }));
    running.push({ stop: () => browser.close() });
    const { page, errors } = await browser.page(new URL('?autostart&effect=background_blur', gateway.url).href);
    const hint = (pattern) => page.waitForFunction((pattern) => new RegExp(pattern).test(document.querySelector('#hint').textContent), pattern, { timeout: PATIENCE_MS });
    await hint('No worker serves .* now.*resumes by itself');
    running.push(await startWorker(['--broker', redis.url]));
    await hint('^$');
    // A picture must have arrived before it can be held.
    await page.evaluate(() => new Promise((resolve) => window.ooblex.session.on('stats', ({ placeholder, state }) => !placeholder && state === 'live' && resolve())));
    assert.equal(await page.locator('#status').getAttribute('data-state'), 'live');
    await running.pop().stop('SIGKILL');
    await hint('No worker serves .* now. The last picture is held');
    assert.equal(await page.locator('#notice').isVisible(), false, 'it is not told twice');
    await redis.stop('SIGKILL');
    await hint('The gateway cannot reach its workers');
    assert.deepEqual(errors, [], 'the console stays empty');
  } finally {
    for (const one of running.reverse()) await one.stop('SIGKILL');
    await redis.stop('SIGKILL');
  }
});

/** Returns the milliseconds between two pictures that differ, since a moment. */
function longestGap(records, since) {
  const numbers = unwrapped(records, LOOP);
  const fresh = records.filter((_, index) => numbers[index] !== null && numbers[index] !== numbers[index - 1]).filter(({ t }) => t >= since);
  return Math.max(...fresh.slice(1).map(({ t }, index) => t - fresh[index].t));
}
