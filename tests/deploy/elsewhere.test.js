/**
 * Tests with the browser on another machine, which is a network namespace. From there only the ports
 * that deploy/ publishes are reachable: nginx and the media port.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { clip } from '../e2e/clip.js';
import { BROWSER, openPage, startBrowser } from '../e2e/harness.js';
import { assertHidden } from '../e2e/judge.js';
import { measure } from '../e2e/measure.js';
import { anotherMachine } from './machines.js';
import { startStack, until } from './stack.js';

const played = clip({ width: 640, height: 480, measure });

/** Calls `use` with the stack on this machine and a browser on another one. */
async function withBrowserElsewhere(t, options, use) {
  const machine = anotherMachine();
  if (machine.missing) return t.skip(`there is no other machine to play: ${machine.missing}`);
  let [stack, browser] = [];
  try {
    stack = await startStack({ host: machine.here, ...options });
    browser = await startBrowser(played, machine.program(BROWSER));
    const page = (url, more) => browser.page(url, { ignoreHTTPSErrors: true, ...more });
    await use({ machine, stack, browser: { ...browser, page } });
  } finally {
    await browser?.close();
    await stack?.end();
    machine.end();
  }
}

test('from another machine: page, connection and processed video, through nginx and the published ports only', (t) =>
  withBrowserElsewhere(t, { media: '0.0.0.0' }, async ({ machine, stack, browser }) => {
    const reached = (port) => machine.run('bash', '-c', `exec 3<>/dev/tcp/${machine.here}/${port}`).status === 0;
    assert.ok(reached(new URL(stack.url).port), 'HTTPS');
    for (const [name, port] of Object.entries(stack.ports).flatMap(([name, port]) => [port].flat().map((one) => [name, one]))) {
      if (name !== 'media') assert.equal(reached(port), false, `${name} is not for the world`);
    }
    const { connect, moreFrames, seen, errors } = await openPage(browser, { url: stack.url }, played);
    await connect({ effect: 'background_blur' });
    await moreFrames(60);
    assertHidden(await seen(), played, ['blurred']);
    assert.deepEqual(errors, []);
  }));

test('with the media port closed, the page and the gateway’s log name exactly that', (t) =>
  // The port is open only on this machine: from elsewhere it looks like a port that a firewall closes,
  // or that a container does not publish.
  withBrowserElsewhere(t, { media: '127.0.0.1' }, async ({ stack, browser, machine }) => {
    const { page } = await browser.page(new URL('?autostart&effect=background_blur', stack.url).href);
    const says = () => page.locator('body').innerText();
    const told = await until('the page to say it', async () => /UDP[^.]*/.exec(await says())?.[0]).catch(async ({ message }) => assert.fail(`${message}; it says: ${await says()}`));
    t.diagnostic(told);
    assert.match(await says(), /UDP media port is closed by a firewall or not published by the container, or the address that it advertises/);
    const logged = await until('the log to say it', () => /.*no packet of the browser has come to the media port.*/.exec(stack.running.gateway.said())?.[0]);
    assert.ok(logged.includes(`${machine.here}:${stack.ports.media}`), `it names what the browser was told: ${logged}`);
  }));
