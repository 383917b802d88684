/**
 * Starts and stops the parts that a test needs: gateway, workers and Redis, each as a process of
 * its own on free ports, and a headless Chromium whose camera is a clip.
 *
 * Owns processes and pages. Refuses to know effects and what is expected of a picture. Environment:
 * `OOBLEX` (the binary; by default target/release/ooblex) and `CHROMIUM` (by default
 * /usr/bin/chromium).
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

import { clip } from './clip.js';
import { measure } from './measure.js';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
/** The program under test. */
export const BINARY = process.env.OOBLEX ?? here('../../target/release/ooblex');
/** The browser of the tests. */
export const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const READY_MS = 60_000;
/** A host name that leads to this machine in the browser that `startBrowser` starts. */
export const ELSEWHERE = 'elsewhere.example';
/** Timeout for a condition on a busy machine; tests do not judge by it. */
export const PATIENCE_MS = 60_000;

/** The source of `window.probe`. */
export const IN_PAGE = `(() => {\n${readFileSync(here('measure.js'), 'utf8').replaceAll(/^export /gm, '')}\n${readFileSync(here('probe.js'), 'utf8')}\n})();`;

/**
 * All sessions of the tests come from one address within a short time; some pages are opened with
 * an invented host name.
 */
const ENVIRONMENT = { OOBLEX_SERVE__HOSTS: `localhost,127.0.0.1,${ELSEWHERE}`, OOBLEX_LIMITS__SESSIONS_PER_ADDRESS: '256', OOBLEX_LIMITS__UNCONNECTED_SESSIONS: '256', OOBLEX_LIMITS__UNCONNECTED_PER_ADDRESS: '256', OOBLEX_LIMITS__OFFERS_PER_MINUTE: '100000' };

/**
 * Starts a gateway. Returns `{url, pid, log(), stop()}`; `log()` returns everything that it wrote.
 */
export const startGateway = (options = [], environment = {}) =>
  start(BINARY, ['serve', '--listen', '127.0.0.1:0', '--media', '127.0.0.1:0', ...options], /is ready: (http:\S+)/, 'Build it with: cargo build --release', environment);

/** Starts a worker with one thread; returns the same as `startGateway`. */
export const startWorker = (options = []) => start(BINARY, ['worker', '--listen', '127.0.0.1:0', '--threads', '1', ...options], /is ready: (http:\S+)/, 'Build it with: cargo build --release');

/**
 * Starts Redis on a unix socket, without persistence; returns its address as `url`, and the rest as
 * `startGateway`.
 */
export async function startRedis() {
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-redis-'));
  const socket = join(folder, 'redis.sock');
  const options = ['--port', '0', '--unixsocket', socket, '--save', '', '--appendonly', 'no', '--daemonize', 'no', '--dir', folder];
  const redis = await start('redis-server', options, /(Ready to accept connections|ready to accept connections)/, 'Install it with: tools/install-packages.sh test');
  const stop = async (signal) => {
    await redis.stop(signal);
    rmSync(folder, { recursive: true, force: true });
  };
  return { ...redis, url: `redis+unix://${socket}`, stop };
}

/**
 * Starts a program and waits for the line that says that it is ready; the match of the pattern in
 * it is its `url`.
 */
async function start(program, options, isReady, remedy, environment = {}) {
  const name = [program.split('/').at(-1), ...options.slice(0, 1)].join(' ');
  const child = spawn(program, options, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...ENVIRONMENT, ...process.env, ...environment } });
  const written = [];
  const exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
  const failed = new Promise((_, reject) => child.once('error', (error) => reject(new Error(`${program} does not start: ${error.message}. ${remedy}`))));
  const leave = () => child.kill('SIGKILL');
  process.once('exit', leave);
  createInterface({ input: child.stderr }).on('line', (line) => written.push(line));
  const ready = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      written.push(line);
      const found = isReady.exec(line)?.[1];
      if (found) resolve(found);
    });
  });
  const early = exited.then((how) => Promise.reject(new Error(`${name} ended (${how}) before it was ready:\n${written.join('\n')}`)));
  early.catch(() => {});
  const url = await Promise.race([ready, failed, early, fails(READY_MS, () => new Error(`${name} was not ready after ${READY_MS / 1000} s:\n${written.join('\n')}`))]).catch((error) => {
    leave();
    throw error;
  });
  const stop = async (signal = 'SIGTERM') => {
    process.removeListener('exit', leave);
    if (child.exitCode !== null || child.signalCode !== null) return exited;
    child.kill(signal);
    const how = await Promise.race([exited, fails(15_000, () => new Error(`${name} did not end within 15 s of ${signal}`)).catch((error) => error)]);
    if (how instanceof Error) {
      child.kill('SIGKILL');
      throw how;
    }
    return how;
  };
  return { url, pid: child.pid, log: () => written.join('\n'), stop };
}

/**
 * Starts a Chromium whose camera plays the clip, or another `program` that starts one. Returns
 * `{page(url, options), leave(), close()}`.
 */
export async function startBrowser(played, program = BROWSER) {
  const browser = await chromium.launch({
    executablePath: program,
    args: [
      '--no-sandbox',
      '--use-fake-ui-for-media-stream',
      `--use-fake-device-for-media-stream=fps=${played.fps}`,
      `--use-file-for-fake-video-capture=${played.file}`,
      '--autoplay-policy=no-user-gesture-required',
      '--disable-features=WebRtcHideLocalIpsWithMdns',
      // A name of this machine that is not localhost: browsers do not allow such a page to use the
      // camera over plain http.
      `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`,
    ],
  });
  return {
    /**
     * Returns a page with `window.probe`; `errors` and `requests` are filled as it runs. `script` runs
     * in the page before its own scripts.
     */
    async page(url, { script = '', ...options } = {}) {
      const context = await browser.newContext({ permissions: ['camera', 'microphone'], ...options });
      await context.addInitScript({ content: IN_PAGE + script });
      const page = await context.newPage();
      const about = { page, errors: [], requests: [] };
      page.on('console', (message) => message.type() === 'error' && about.errors.push(`${message.text()} (${message.location().url})`));
      page.on('pageerror', (error) => about.errors.push(String(error)));
      page.on('request', (request) => about.requests.push(request.url()));
      await page.goto(url);
      return about;
    },
    /** Closes all pages. */
    leave: () => Promise.all(browser.contexts().map((context) => context.close())),
    close: () => browser.close(),
  };
}

/**
 * Starts a gateway, a browser and a page with an open camera of this size. Returns `{gateway,
 * browser, played, end(), …}` and the result of `openPage`; `end()` ends all of them.
 */
export async function open({ audio = false, ...options } = {}) {
  const started = await startBoth(options);
  try {
    return { ...started, ...(await openPage(started.browser, started.gateway, started.played, { audio })) };
  } catch (error) {
    await started.end();
    throw error;
  }
}

/** Starts a gateway and a browser. Returns `{gateway, browser, played, end()}`. */
async function startBoth({ width = 640, height = 480, fps = 30, gateway: options }) {
  const played = clip({ width, height, fps, measure });
  const gateway = await startGateway(options);
  try {
    const browser = await startBrowser(played);
    const end = async () => {
      await browser.close();
      await gateway.stop();
    };
    return { gateway, browser, played, end };
  } catch (error) {
    await gateway.stop();
    throw error;
  }
}

/** Calls `use` with the result of `open`; an error contains the gateway's log. */
export async function withSession(options, use) {
  const opened = await open(options);
  try {
    return await use(opened);
  } catch (error) {
    throw withLog(error, opened.gateway);
  } finally {
    await opened.end();
  }
}

/**
 * Returns a function like `withSession` for a file whose tests can share a gateway and a browser: they are those of the test before if it
 * had the same options. Each test has a page of its own.
 */
export function sharing() {
  let started = null;
  let startedWith = '';
  const end = async () => {
    await started?.end();
    started = null;
  };
  after(end);
  return async ({ audio = false, ...options }, use) => {
    if (startedWith !== JSON.stringify(options)) await end();
    startedWith = JSON.stringify(options);
    started ??= await startBoth(options);
    const { gateway, browser, played } = started;
    try {
      return await use({ ...started, ...(await openPage(browser, gateway, played, { audio })) });
    } catch (error) {
      throw withLog(error, gateway);
    } finally {
      await browser.leave();
    }
  };
}

/** Returns the error with the end of the gateway's log. */
export function withLog(error, gateway) {
  error.message += `\n--- the gateway wrote:\n${gateway.log().split('\n').slice(-25).join('\n')}`;
  return error;
}

/**
 * Opens a page of the gateway's origin with the camera open, its frames watched as 'source';
 * returns functions that control sessions in it.
 */
export async function openPage(browser, gateway, played, { audio = false } = {}) {
  const { page, errors } = await browser.page(new URL('healthz', gateway.url).href);
  const { width, height, fps, layout } = played;
  await page.evaluate(
    async ({ width, height, fps, layout, audio }) => {
      probe.layout = layout;
      probe.sdk = await import('/sdk/ooblex.js');
      probe.camera = await navigator.mediaDevices.getUserMedia({ video: { width: { exact: width }, height: { exact: height }, frameRate: { ideal: fps } }, audio });
      probe.watch('source', probe.camera.getVideoTracks()[0].clone(), 'number');
    },
    { width, height, fps, layout, audio },
  );
  return { page, errors, ...sessionsOf(page) };
}

function sessionsOf(page) {
  const calls = {
    /**
     * Opens a session; its frames are watched under `name` from the first one on. Returns its id.
     */
    connect: (options = {}, name = 'output') =>
      page.evaluate(
        async ([name, options]) => {
          // The track must be watched before the first frame arrives, so before `connect` resolves.
          delete probe.seen[name];
          const Connection = window.RTCPeerConnection;
          window.RTCPeerConnection = class extends Connection {
            constructor(...given) {
              super(...given);
              probe.keep(`${name}.pc`, this);
              this.addEventListener('track', ({ track }) => track.kind === 'video' && !probe.seen[name] && probe.watch(name, track));
            }
          };
          const session = await probe.sdk.connect({ source: probe.camera, ...options }).finally(() => (window.RTCPeerConnection = Connection));
          probe.keep(name, session);
          for (const event of ['detections', 'stats', 'service', 'error', 'close']) {
            const heard = (probe.kept[`${name}.${event}`] = []);
            session.on(event, (detail) => heard.push({ t: performance.now(), ...JSON.parse(JSON.stringify(detail ?? null)), text: detail?.message }));
          }
          return session.id;
        },
        [name, options],
      ),
    /** Changes the effect; returns the ack and the time of its arrival. */
    changeEffect: (effect, params, name = 'output') =>
      page.evaluate(async ([name, effect, params]) => ({ ack: await probe.kept[name].changeEffect(effect, params), t: performance.now() }), [name, effect, params]),
    /** Returns all records of a watched track so far. */
    seen: (name = 'output') => page.evaluate((name) => probe.seen[name] ?? [], name),
    /** Returns all events of one kind of a session so far. */
    heard: (event, name = 'output') => page.evaluate((key) => probe.kept[key] ?? [], `${name}.${event}`),
    /** Waits until `count` more frames have arrived. */
    async moreFrames(count, name = 'output') {
      const before = await page.evaluate((name) => probe.seen[name]?.length ?? 0, name);
      await page.waitForFunction(([name, count]) => (probe.seen[name]?.length ?? 0) >= count, [name, before + count], { timeout: PATIENCE_MS });
    },
    /**
     * Returns the browser's statistics of the video, by type: 'inbound-rtp', 'outbound-rtp', …, and
     * of the audio if requested.
     */
    report: (kind = 'video', name = 'output') =>
      page.evaluate(
        async ([name, kind]) => {
          const all = [...(await probe.kept[`${name}.pc`].getStats()).values()];
          const codec = (id) => all.find((entry) => entry.id === id)?.mimeType.split('/')[1].toLowerCase();
          return Object.fromEntries(all.filter((entry) => entry.kind === kind).map((entry) => [entry.type, { ...entry, codec: codec(entry.codecId) }]));
        },
        [name, kind],
      ),
    /** Returns the codecs of the sent and the received video. */
    async codecs(name = 'output') {
      const report = await this.report('video', name);
      return [report['outbound-rtp'].codec, report['inbound-rtp'].codec];
    },
    /**
     * Returns the first text of the answer to a request about the session, such as `/events`, which
     * does not end.
     */
    firstOf: (below, name = 'output') =>
      page.evaluate(
        async ([name, below]) => {
          const { body } = await probe.kept[name].request(below);
          const reader = body.pipeThrough(new TextDecoderStream()).getReader();
          const { value } = await reader.read();
          await reader.cancel();
          return value;
        },
        [name, below],
      ),
    close: (name = 'output') => page.evaluate((name) => probe.kept[name].close(), name),
  };
  // The functions are bound, so that a test can destructure them.
  return Object.fromEntries(Object.entries(calls).map(([name, call]) => [name, call.bind(calls)]));
}

/**
 * Waits until an asynchronous function returns something true in the page, and returns that. (Playwright's waitForFunction takes the
 * promise for the result, and so waits for nothing.)
 */
export async function becomes(page, look, given = null) {
  for (const deadline = Date.now() + PATIENCE_MS; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
    const found = await page.evaluate(look, given);
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${PATIENCE_MS / 1000} s: ${look}`);
  }
}

function fails(ms, error) {
  return new Promise((_, reject) => setTimeout(() => reject(error()), ms).unref());
}

/**
 * Waits until the last frames that came back have this size: browsers begin with a low resolution
 * and increase it.
 */
export const come = (page, width, height, count = 10) =>
  page.waitForFunction(([width, height, count]) => probe.seen.output.length >= count && probe.seen.output.slice(-count).every((record) => record.width === width && record.height === height), [width, height, count], { timeout: PATIENCE_MS });
