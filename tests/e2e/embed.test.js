/**
 * Tests of the SDK in pages of others: below a path of a proxy, from another origin, and in a React
 * application that is the example of the SDK's README.
 */

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { clip } from './clip.js';
import { PATIENCE_MS, startBrowser, startGateway } from './harness.js';
import { measure } from './measure.js';

const PATH = '/video/';
const patience = { timeout: PATIENCE_MS };
const here = (name) => fileURLToPath(new URL(name, import.meta.url));

let gateway, browser, proxy, application, folder;
before(async () => {
  application = await serve((request, response) => {
    const [type, body] = request.url === '/application.js' ? ['text/javascript', application.script] : ['text/html', '<!doctype html><link rel="icon" href="data:,"><div id="root"></div><script type="module" src="application.js"></script>'];
    response.writeHead(200, { 'content-type': type }).end(body);
  });
  folder = mkdtempSync(join(tmpdir(), 'ooblex-embed-'));
  const config = join(folder, 'ooblex.toml');
  writeFileSync(config, `[serve]\nallow_origins = ["${application.origin}"]\n`);
  gateway = await startGateway(['--config', config]);
  const { hostname, port } = new URL(gateway.url);
  // As nginx with "location /video/ { proxy_pass http://gateway/; }": the path is removed, the host
  // is passed on.
  proxy = await serve((incoming, response) => {
    const { url, method, headers } = incoming;
    if (!url.startsWith(PATH)) return response.writeHead(url === '/' ? 200 : 404, { 'content-type': 'text/html' }).end('<!doctype html><link rel="icon" href="data:,">');
    const passed = request({ hostname, port, path: `/${url.slice(PATH.length)}`, method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy());
    incoming.pipe(passed);
  });
  browser = await startBrowser(clip({ width: 640, height: 480, measure }));
});
after(async () => {
  await browser?.close();
  await gateway?.stop();
  for (const { server } of [proxy, application].filter(Boolean)) {
    server.close();
    server.closeAllConnections();
  }
  rmSync(folder, { recursive: true, force: true });
});

async function serve(answer) {
  const server = createServer(answer);
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return { server, origin: `http://127.0.0.1:${server.address().port}` };
}

const listed = async () => (await (await fetch(new URL('api/sessions', gateway.url))).json()).sessions;

/** Waits until the gateway has `count` sessions, and has kept that for a second. */
async function sessionsBecome(count) {
  const until = Date.now() + PATIENCE_MS;
  for (let since = Date.now(); Date.now() - since < 1_000; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const sessions = await listed();
    if (sessions.length !== count) since = Date.now();
    assert.ok(Date.now() < until, `${sessions.length} sessions instead of ${count}`);
  }
}

test('the page works below a path of a proxy', async () => {
  const { page, errors, requests } = await browser.page(`${proxy.origin}${PATH}?autostart&effect=background_blur`);
  await page.waitForFunction(() => document.querySelector('#output').videoWidth > 0, null, patience);
  await page.waitForFunction(() => [...document.querySelectorAll('.tile img')].some(({ naturalWidth }) => naturalWidth > 0), null, patience);
  await page.evaluate(() => window.changeEffect('sepia'));
  const strange = requests.filter((url) => !url.startsWith(proxy.origin + PATH) && !url.startsWith('blob:'));
  assert.deepEqual(strange, [], 'requests outside of the path');
  assert.ok(requests.includes(`${proxy.origin}${PATH}offer`));
  await page.getByRole('button', { name: 'Stop' }).click();
  await sessionsBecome(0);
  assert.deepEqual(errors, []);
  await page.context().close();
});

test('a module that was loaded below a path finds its gateway there, and one of another origin at that origin', async () => {
  for (const [of, at] of [[proxy.origin, proxy.origin + PATH], [application.origin, gateway.url]]) {
    application.script = '';
    const { page, errors, requests } = await browser.page(`${of}/`);
    const seen = await page.evaluate(async (module) => {
      const { connect, effects } = await import(module);
      const session = await connect({ effect: 'sepia' });
      const { width } = await new Promise((resolve) => session.on('stats', (stats) => stats.fps_out > 0 && resolve(stats)));
      const { effects: list } = await effects();
      await session.close();
      return [width, list.length > 5];
    }, new URL('sdk/ooblex.js', at).href);
    assert.deepEqual(seen, [640, true]);
    assert.ok(requests.includes(new URL('offer', at).href), requests.join('\n'));
    assert.deepEqual(errors, []);
    await page.context().close();
  }
  await sessionsBecome(0);
});

/** Returns the component in the README of the SDK. */
function example() {
  const found = /```jsx\n([\s\S]*?)```/.exec(readFileSync(here('../../web/sdk/README.md'), 'utf8'));
  assert.ok(found, 'the README has an example for React');
  return found[1];
}

test('the example for React leaves one session in strict mode, and none when it is gone', async () => {
  const contents = `${example()}
    import { StrictMode } from 'react';
    import { createRoot } from 'react-dom/client';
    const root = createRoot(document.querySelector('#root'));
    window.show = (props) => root.render(<StrictMode>{props && <Ooblex {...props} />}</StrictMode>);`;
  const bundled = await build({
    stdin: { contents, loader: 'jsx', resolveDir: here('.') },
    bundle: true,
    write: false,
    format: 'esm',
    jsx: 'automatic',
    alias: { ooblex: here('../../web/sdk/ooblex.js') },
    define: { 'process.env.NODE_ENV': '"development"' },
  });
  application.script = bundled.outputFiles[0].text;
  const { page, errors, requests } = await browser.page(`${application.origin}/`);
  const url = gateway.url;
  const show = (props) => page.evaluate((props) => window.show(props), props);
  const shown = () => page.waitForFunction(() => document.querySelector('video')?.videoWidth > 0, null, patience);
  const effectBecomes = async (effect) => {
    for (const until = Date.now() + PATIENCE_MS; (await listed())[0]?.effect !== effect; await new Promise((resolve) => setTimeout(resolve, 50))) assert.ok(Date.now() < until, `the effect does not become ${effect}`);
  };
  await page.waitForFunction(() => window.show, null, patience);
  await show({ url, effect: 'background_blur' });
  await shown();
  await sessionsBecome(1);
  await show({ url, effect: 'sepia' });
  await effectBecomes('sepia');
  assert.equal((await listed()).length, 1, 'another effect needs no other session');
  // Components that come and go while they connect.
  for (const pause of [0, 1, 5, 20, 60, 150, 300]) {
    await show(null);
    await show({ url, effect: 'invert' });
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  await shown();
  await effectBecomes('invert');
  await sessionsBecome(1);
  await show(null);
  await sessionsBecome(0);
  assert.equal(await page.evaluate(() => document.querySelector('#root').innerText), '');
  await show({ url, effect: 'no_such_effect' });
  await page.waitForFunction(() => /no_such_effect/.test(document.querySelector('[role=alert]')?.textContent), null, patience);
  assert.deepEqual(errors.filter((error) => !/422/.test(error)), [], 'neither errors nor rejections that nobody handles');
  assert.ok(requests.filter((asked) => asked.endsWith('/offer')).length >= 2);
  await page.context().close();
});
