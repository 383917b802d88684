/**
 * Starts what a test needs and ends it again: the gateway, workers and Redis, each as a process of its own on free ports, and a
 * headless Chromium whose camera is a clip.
 *
 * Owns processes and pages. Refuses to know effects and what is expected of a picture. From the environment: `OOBLEX` (the binary;
 * target/release/ooblex otherwise) and `CHROMIUM` (/usr/bin/chromium otherwise).
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

import { clip } from './clip.js';
import { measure } from './measure.js';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
/** The program under test. */
export const BINARY = process.env.OOBLEX ?? here('../../target/release/ooblex');
const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const READY_MS = 60_000;
/** A host name that leads to this machine in the browser that `startBrowser` starts. */
export const ELSEWHERE = 'elsewhere.example';
/** How long a condition may take at most on a busy machine; nothing is judged by it. */
export const PATIENCE_MS = 60_000;

const IN_PAGE = `(() => {\n${readFileSync(here('measure.js'), 'utf8').replaceAll(/^export /gm, '')}\n${readFileSync(here('probe.js'), 'utf8')}\n})();`;

/** All sessions of the tests come from one address and in a moment; some pages are opened under a name that is made up. */
const ENVIRONMENT = { OOBLEX_SERVE__HOSTS: `localhost,127.0.0.1,${ELSEWHERE}`, OOBLEX_LIMITS__SESSIONS_PER_ADDRESS: '256', OOBLEX_LIMITS__UNCONNECTED_SESSIONS: '256', OOBLEX_LIMITS__UNCONNECTED_PER_ADDRESS: '256', OOBLEX_LIMITS__OFFERS_PER_MINUTE: '100000' };

/** Starts a gateway. Gives `{url, pid, log(), stop()}`; `log()` is all that it wrote. */
export const startGateway = (options = []) => start(BINARY, ['serve', '--listen', '127.0.0.1:0', '--media', '127.0.0.1:0', ...options], /is ready: (http:\S+)/, 'Build it with: cargo build --release');

/** Starts a worker with one thread; gives what `startGateway` gives. */
export const startWorker = (options = []) => start(BINARY, ['worker', '--listen', '127.0.0.1:0', '--threads', '1', ...options], /is ready: (http:\S+)/, 'Build it with: cargo build --release');

/** Starts a Redis on a unix socket, that keeps nothing on disk; gives its address as `url`, and what `startGateway` gives. */
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

/** Starts a program and waits for the line that says that it is ready; what the pattern found in it is its `url`. */
async function start(program, options, isReady, mend) {
  const name = [program.split('/').at(-1), ...options.slice(0, 1)].join(' ');
  const child = spawn(program, options, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...ENVIRONMENT, ...process.env } });
  const written = [];
  const exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
  const failed = new Promise((_, reject) => child.once('error', (error) => reject(new Error(`${program} does not start: ${error.message}. ${mend}`))));
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
  const url = await Promise.race([ready, failed, early, after(READY_MS, () => new Error(`${name} was not ready after ${READY_MS / 1000} s:\n${written.join('\n')}`))]).catch((error) => {
    leave();
    throw error;
  });
  const stop = async (signal = 'SIGTERM') => {
    process.removeListener('exit', leave);
    if (child.exitCode !== null || child.signalCode !== null) return exited;
    child.kill(signal);
    const how = await Promise.race([exited, after(15_000, () => new Error(`${name} did not end within 15 s of ${signal}`)).catch((error) => error)]);
    if (how instanceof Error) {
      child.kill('SIGKILL');
      throw how;
    }
    return how;
  };
  return { url, pid: child.pid, log: () => written.join('\n'), stop };
}

/** Starts a Chromium whose camera plays the clip, or another `program` that starts one. Gives `{page(url, options), close()}`. */
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
      // A name that is this machine, and not localhost: browsers give such a page no camera over plain http.
      `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`,
    ],
  });
  return {
    /** A page with `window.probe` in it; `errors`, `requests` fill as it goes. */
    async page(url, options = {}) {
      const context = await browser.newContext({ permissions: ['camera', 'microphone'], ...options });
      await context.addInitScript({ content: IN_PAGE });
      const page = await context.newPage();
      const about = { page, errors: [], requests: [] };
      page.on('console', (message) => message.type() === 'error' && about.errors.push(`${message.text()} (${message.location().url})`));
      page.on('pageerror', (error) => about.errors.push(String(error)));
      page.on('request', (request) => about.requests.push(request.url()));
      await page.goto(url);
      return about;
    },
    close: () => browser.close(),
  };
}

/**
 * A gateway, a browser and a page with an open camera of this size. Gives `{gateway, browser, played, end(), …}` and what `openPage` gives;
 * `end()` ends all of it.
 */
export async function open({ width = 640, height = 480, fps = 30, gateway: options, audio = false } = {}) {
  const played = clip({ width, height, fps, measure });
  const gateway = await startGateway(options);
  let browser = null;
  const end = async () => {
    await browser?.close();
    await gateway.stop();
  };
  try {
    browser = await startBrowser(played);
    return { gateway, browser, played, end, ...(await openPage(browser, gateway, played, { audio })) };
  } catch (error) {
    await end();
    throw error;
  }
}

/** `open` for the time of `use`; an error is told together with what the gateway wrote. */
export async function withSession(options, use) {
  const opened = await open(options);
  try {
    return await use(opened);
  } catch (error) {
    error.message += `\n--- the gateway wrote:\n${opened.gateway.log().split('\n').slice(-25).join('\n')}`;
    throw error;
  } finally {
    await opened.end();
  }
}

/** A page of the gateway's origin with the camera open, its frames watched as 'source', and what drives sessions in it. */
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
    /** Opens a session; its frames are watched under `name` from the very first one on. Gives its id. */
    connect: (options = {}, name = 'output') =>
      page.evaluate(
        async ([name, options]) => {
          // The track must be watched before the first frame is there, so before `connect` resolves.
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
    /** Changes the effect; gives the ack and when it came. */
    changeEffect: (effect, params, name = 'output') =>
      page.evaluate(async ([name, effect, params]) => ({ ack: await probe.kept[name].changeEffect(effect, params), t: performance.now() }), [name, effect, params]),
    /** All records of a watched track so far. */
    seen: (name = 'output') => page.evaluate((name) => probe.seen[name] ?? [], name),
    /** All events of one kind of a session so far. */
    heard: (event, name = 'output') => page.evaluate((key) => probe.kept[key] ?? [], `${name}.${event}`),
    /** Waits until `count` more frames came than there are now. */
    async moreFrames(count, name = 'output') {
      const before = await page.evaluate((name) => probe.seen[name]?.length ?? 0, name);
      await page.waitForFunction(([name, count]) => (probe.seen[name]?.length ?? 0) >= count, [name, before + count], { timeout: PATIENCE_MS });
    },
    /** What the browser measures of the video, by type: 'inbound-rtp', 'outbound-rtp', … and of the audio where asked. */
    report: (kind = 'video', name = 'output') =>
      page.evaluate(
        async ([name, kind]) => {
          const all = [...(await probe.kept[`${name}.pc`].getStats()).values()];
          const codec = (id) => all.find((entry) => entry.id === id)?.mimeType.split('/')[1].toLowerCase();
          return Object.fromEntries(all.filter((entry) => entry.kind === kind).map((entry) => [entry.type, { ...entry, codec: codec(entry.codecId) }]));
        },
        [name, kind],
      ),
    /** The codecs of what is sent and of what comes back. */
    async codecs(name = 'output') {
      const report = await this.report('video', name);
      return [report['outbound-rtp'].codec, report['inbound-rtp'].codec];
    },
    /** The first text of the answer to a request about the session, such as `/events`, which has no end. */
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
  // Bound, so that a test can take them apart.
  return Object.fromEntries(Object.entries(calls).map(([name, call]) => [name, call.bind(calls)]));
}

function after(ms, error) {
  return new Promise((_, reject) => setTimeout(() => reject(error()), ms).unref());
}
