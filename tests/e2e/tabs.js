/**
 * Starts a Chromium whose tabs can be in the background, for tests of hidden pages. Playwright keeps
 * all its pages visible, so this speaks the DevTools protocol over the browser's pipe.
 *
 * Owns the browser and its profile. Refuses to know what the pages do.
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { BROWSER, PATIENCE_MS } from './harness.js';

/**
 * Returns `{tab(url), close()}`; a tab is in the foreground until another one is opened, and has
 * `evaluate(work, ...given)`.
 */
export async function startTabs() {
  const profile = mkdtempSync(join(tmpdir(), 'ooblex-tabs-'));
  const options = ['--headless=new', '--no-sandbox', '--no-first-run', '--remote-debugging-pipe', '--autoplay-policy=no-user-gesture-required', `--user-data-dir=${profile}`];
  const child = spawn(BROWSER, options, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  const leave = () => child.kill('SIGKILL');
  process.once('exit', leave);
  const exited = new Promise((resolve) => child.once('exit', resolve));
  const [, , , commands, answers] = child.stdio;
  const pending = new Map();
  let read = '';
  answers.on('data', (data) => {
    const texts = (read + data).split('\0');
    read = texts.pop();
    for (const { id, result, error } of texts.map((text) => JSON.parse(text))) {
      const { resolve, reject } = pending.get(id) ?? {};
      pending.delete(id);
      if (error) reject?.(new Error(error.message));
      else resolve?.(result);
    }
  });
  let last = 0;
  const send = (method, params = {}, sessionId = undefined) =>
    new Promise((resolve, reject) => {
      pending.set(++last, { resolve, reject });
      commands.write(`${JSON.stringify({ id: last, method, params, sessionId })}\0`);
    });
  return {
    async tab(url) {
      const { targetId } = await send('Target.createTarget', { url });
      const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
      const evaluate = async (work, ...given) => {
        const expression = `(${work})(...${JSON.stringify(given)})`;
        const { result, exceptionDetails: failed } = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
        if (failed) throw new Error(failed.exception?.description ?? failed.text);
        return result.value;
      };
      const loaded = (url) => location.href === url && document.readyState === 'complete';
      for (const until = Date.now() + PATIENCE_MS; !(await evaluate(loaded, url)); await new Promise((resolve) => setTimeout(resolve, 50))) {
        if (Date.now() > until) throw new Error(`${url} was not loaded`);
      }
      return { evaluate };
    },
    async close() {
      await send('Browser.close').catch(() => {});
      await exited;
      process.removeListener('exit', leave);
      rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
    },
  };
}
