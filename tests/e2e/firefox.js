/**
 * Starts a headless Firefox, for tests of what differs from Chromium. Playwright drives only a
 * Firefox of its own making, so Puppeteer drives the packaged one, by WebDriver BiDi.
 *
 * Owns the browser, and the server of a page of another origin than the gateway's. Refuses to know
 * what is expected of a picture. Environment: `FIREFOX` (by default /usr/bin/firefox-esr).
 */

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { createServer } from 'node:http';

import puppeteer from 'puppeteer-core';

import { IN_PAGE, PATIENCE_MS } from './harness.js';

/** The browser of the tests; null if there is none. */
export const FIREFOX = process.env.FIREFOX || ['/usr/bin/firefox-esr'].find((path) => existsSync(path)) || null;

const PREFERENCES = {
  // A camera and a microphone that are not there, allowed without a question.
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.autoplay.default': 0,
};

/** Starts the browser. Returns `{page(url, size), close()}`. */
export async function startFirefox() {
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: FIREFOX, headless: true, extraPrefsFirefox: PREFERENCES });
  return {
    /**
     * Opens a page with `window.probe`; `errors` and `requests` are filled as it runs. `evaluate`
     * and `waitFor` take a function, or its source, and one argument.
     */
    async page(url, { width = 1280, height = 800 } = {}) {
      const page = await browser.newPage();
      const [errors, requests] = [[], []];
      page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
      page.on('pageerror', (error) => errors.push(String(error)));
      page.on('request', (request) => requests.push(request.url()));
      await page.setViewport({ width, height });
      await page.evaluateOnNewDocument(IN_PAGE);
      await page.goto(url);
      return {
        page,
        errors,
        requests,
        evaluate: (work, given) => page.evaluate(work, given),
        waitFor: async (condition, given) => (await page.waitForFunction(condition, { timeout: PATIENCE_MS, polling: 50 }, given)).jsonValue(),
      };
    },
    close: () => browser.close(),
  };
}

/** Returns the path of the clip as a WebM file, which is made once and looks like the clip. */
export function filmOf({ file }) {
  const film = file.replace(/y4m$/, 'webm');
  if (existsSync(film)) return film;
  const partial = `${film}.${process.pid}`;
  const made = spawnSync('ffmpeg', ['-v', 'error', '-y', '-i', file, '-c:v', 'libvpx', '-b:v', '6M', '-qmin', '2', '-qmax', '12', '-cpu-used', '8', '-deadline', 'realtime', '-g', '30', '-f', 'webm', partial]);
  if (made.status !== 0) throw new Error(`ffmpeg made no film: ${made.error?.message ?? made.stderr}. Install it with: tools/install-packages.sh test`);
  renameSync(partial, film);
  return film;
}

/** Serves an empty page at `origin`, and a film as `/film.webm` below it. */
export async function serveElsewhere(film) {
  const server = createServer((request, response) => {
    if (request.url === '/film.webm') response.writeHead(200, { 'content-type': 'video/webm' }).end(readFileSync(film));
    else response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><link rel="icon" href="data:,"><body>');
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { origin: `http://127.0.0.1:${server.address().port}`, close };
}
