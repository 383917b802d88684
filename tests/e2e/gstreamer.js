/**
 * Runs GStreamer's webrtcbin, as a program of its own (tests/clients/gstreamer.py), on another machine:
 * as a publisher that plays a clip, and as a viewer.
 *
 * Owns the program, the clip on its standard input and the video on its standard output. Refuses to
 * know what is expected of a picture.
 */

import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { measure } from './measure.js';

/** The system's interpreter: Debian's packages of GStreamer are made for it. */
const PYTHON = '/usr/bin/python3';
const CLIENT = fileURLToPath(new URL('../clients/gstreamer.py', import.meta.url));

/** Returns the reason for which the client cannot run here; undefined if it can. */
export function missing() {
  const { status, error, stderr } = spawnSync(PYTHON, [CLIENT, '--help'], { encoding: 'utf8' });
  if (status === 0) return undefined;
  return `GStreamer is not here (tools/install-packages.sh gstreamer installs it): ${error?.message ?? stderr.trim().split('\n').at(-1)}`;
}

/** Plays a clip to a room again and again. Returns the same as `run`. */
export function publish(machine, url, played, options = []) {
  const publisher = run(machine, ['publish', url, ...options]);
  const { stdin } = publisher.child;
  // The client does not read to the end of the clip.
  stdin.on('error', () => {});
  const clip = readFileSync(played.file);
  const at = clip.indexOf('\n') + 1;
  const play = () => {
    while (stdin.writable && stdin.write(clip.subarray(at)));
  };
  stdin.on('drain', play);
  stdin.write(clip.subarray(0, at));
  play();
  return publisher;
}

/**
 * Watches a room. Returns the same as `run`, and `records`, which are like those of probe.js; their
 * time is the time of day.
 */
export function watch(machine, url, played, options = []) {
  const viewer = run(machine, ['watch', url, ...options]);
  const records = [];
  const read = async () => {
    for await (const { pts, ...picture } of pictures(viewer.child.stdout)) {
      const { thumb, ...found } = measure(picture, played.layout);
      const rtp = Number((pts * 9n) / 100_000n) | 0;
      records.push({ t: Date.now(), rtp, width: picture.width, height: picture.height, thumb: Buffer.from(thumb).toString('base64'), ...found });
    }
  };
  const done = read();
  done.catch(() => {});
  return { ...viewer, records, end: async () => (await viewer.end(), done) };
}

/**
 * Starts the client. `events` are what it told, `{t, event}`; `told(event)` is the time of the first
 * one of a kind; `end()` ends the client and its session, and fails if the client failed.
 */
function run(machine, options) {
  const child = spawn(machine.program(PYTHON), [CLIENT, ...options], { stdio: ['pipe', 'pipe', 'pipe'] });
  const leave = () => child.kill('SIGKILL');
  process.once('exit', leave);
  const [events, said] = [[], []];
  createInterface({ input: child.stderr }).on('line', (line) => {
    const [, t, event] = /^(\d+) (\S+)$/.exec(line) ?? [];
    if (event) events.push({ t: Number(t), event });
    else said.push(line);
  });
  const exited = new Promise((resolve) => child.once('close', (code, signal) => resolve(code ?? signal)));
  const end = async () => {
    child.kill('SIGTERM');
    const how = await exited;
    process.removeListener('exit', leave);
    if (how !== 0) throw new Error(`${CLIENT} ${options[0]} ended with ${how}:\n${said.join('\n')}`);
  };
  return { child, events, told: (event) => events.find((told) => told.event === event)?.t, end };
}

/** Yields the pictures of a Y4M video, `{width, height, planes, pts}`. */
async function* pictures(stream) {
  const chunks = stream[Symbol.asyncIterator]();
  let held = Buffer.alloc(0);
  const fill = async (length) => {
    while (held.length < length) {
      const { value, done } = await chunks.next();
      if (done) return false;
      held = Buffer.concat([held, value]);
    }
    return true;
  };
  const take = (length) => {
    const taken = held.subarray(0, length);
    held = held.subarray(length);
    return taken;
  };
  let [width, height] = [0, 0];
  for (;;) {
    while (!held.includes('\n')) if (!(await fill(held.length + 1))) return;
    const line = take(held.indexOf('\n') + 1).toString();
    const size = /^YUV4MPEG2 W(\d+) H(\d+) /.exec(line);
    if (size) {
      [width, height] = size.slice(1).map(Number);
      continue;
    }
    const [luma, chroma] = [width * height, Math.ceil(width / 2) * Math.ceil(height / 2)];
    if (!(await fill(luma + 2 * chroma))) return;
    const planes = [luma, chroma, chroma].map((length, index) => ({ data: take(length), stride: index ? Math.ceil(width / 2) : width, step: 1 }));
    yield { width, height, planes, pts: BigInt(/XPTS=(\d+)/.exec(line)[1]) };
  }
}
