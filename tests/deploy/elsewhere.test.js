/**
 * The browser on another machine: a network namespace of its own, joined to this one by a cable (veth). From there only what deploy/
 * publishes is reached: nginx and the media port.
 */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { clip } from '../e2e/clip.js';
import { openPage, startBrowser } from '../e2e/harness.js';
import { assertHidden } from '../e2e/judge.js';
import { measure } from '../e2e/measure.js';
import { startStack, until } from './stack.js';

const played = clip({ width: 640, height: 480, measure });

/** Lays the cable. Gives the addresses of both ends, `run(program, …)` over there, `browser()`, `end()`; or why that can not be. */
function anotherMachine() {
  if (process.getuid() !== 0) return { missing: 'network namespaces need root' };
  const number = 1 + (process.pid % 250);
  const [space, cable, here, there] = [`ooblex${process.pid}`, `oob${process.pid % 1e6}`, `10.213.${number}.1`, `10.213.${number}.2`];
  const ip = (...options) => spawnSync('ip', options, { encoding: 'utf8' });
  const steps = [
    ['netns', 'add', space],
    ['link', 'add', cable, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space],
    ['address', 'add', `${here}/24`, 'dev', cable],
    ['link', 'set', cable, 'up'],
    ['-n', space, 'address', 'add', `${there}/24`, 'dev', 'eth0'],
    // Without IPv6: its address would come seconds later, and a browser drops what is under way when an address comes.
    ['-n', space, 'link', 'set', 'eth0', 'addrgenmode', 'none'],
    ['-n', space, 'link', 'set', 'eth0', 'up'],
    ['-n', space, 'link', 'set', 'lo', 'up'],
  ];
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-elsewhere-'));
  const end = () => {
    ip('netns', 'delete', space);
    rmSync(folder, { recursive: true, force: true });
  };
  for (const step of steps) {
    const { status, stderr, error } = ip(...step);
    if (status !== 0) {
      end();
      return { missing: `ip ${step.join(' ')}: ${error?.message ?? stderr.trim()}` };
    }
  }
  const program = join(folder, 'chromium');
  writeFileSync(program, `#!/bin/sh\nexec ip netns exec ${space} ${process.env.CHROMIUM ?? '/usr/bin/chromium'} "$@"\n`);
  chmodSync(program, 0o755);
  return { here, there, end, program, run: (...command) => spawnSync('ip', ['netns', 'exec', space, ...command], { encoding: 'utf8' }) };
}

/** The stack here, a browser there. */
async function withBrowserElsewhere(t, options, use) {
  const machine = anotherMachine();
  if (machine.missing) return t.skip(`there is no other machine to play: ${machine.missing}`);
  let [stack, browser] = [];
  try {
    stack = await startStack({ host: machine.here, ...options });
    browser = await startBrowser(played, machine.program);
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
  // Opened on this machine alone: from elsewhere that is a port which a firewall closes, or which a container does not publish.
  withBrowserElsewhere(t, { media: '127.0.0.1' }, async ({ stack, browser, machine }) => {
    const { page } = await browser.page(new URL('?autostart&effect=background_blur', stack.url).href);
    const says = () => page.locator('body').innerText();
    const told = await until('the page to say it', async () => /UDP[^.]*/.exec(await says())?.[0]).catch(async ({ message }) => assert.fail(`${message}; it says: ${await says()}`));
    t.diagnostic(told);
    assert.match(await says(), /UDP media port is closed by a firewall or not published by the container, or the address that it advertises/);
    const logged = await until('the log to say it', () => /.*no packet of the browser has come to the media port.*/.exec(stack.running.gateway.said())?.[0]);
    assert.ok(logged.includes(`${machine.here}:${stack.ports.media}`), `it names what the browser was told: ${logged}`);
  }));
