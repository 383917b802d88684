/**
 * Runs deploy/ as processes: Redis, a gateway, workers, nginx and Prometheus, each with the files
 * of deploy/. `substituted` replaces the names and paths that exist only in containers, and fails
 * if one of them is missing.
 *
 * Owns processes, ports and a folder. Refuses to know what is tested.
 */

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync, readFileSync } from 'node:fs';
import { request } from 'node:https';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { stringify } from 'yaml';

import { at, environment, prometheus as prometheusYml, read } from './deployment.js';

/** Timeout for a condition on a busy machine; tests do not judge by it. */
export const PATIENCE_MS = 90_000;
const PROGRAM = process.env.OOBLEX ?? at('target/release/ooblex');
/** On Linux, the ports that systems give out begin at 32768. */
const [FIRST_PORT, END_OF_PORTS] = [10_000, 32_000];
let nextPort = (process.pid * 50) % (END_OF_PORTS - FIRST_PORT);
const PASSWORD = '0123456789abcdef';
const WORKER_PASSWORD = 'fedcba9876543210';

/**
 * Returns a text of deploy/ with the changes for running outside of containers; each change must
 * match something.
 */
export function substituted(text, changes) {
  for (const [from, to] of changes) {
    if (!(from instanceof RegExp ? from.test(text) : text.includes(from))) throw new Error(`the test would put ${to} in the place of ${from}, which is not there any more`);
    text = text.replaceAll(from, to);
  }
  return text;
}

/**
 * Starts the stack. `host` is the public address; `given` are the variables of .env besides
 * addresses and passwords; `media` is the address on which the media port is opened; `options` are
 * additional options of gateway and workers, as variables. Returns the processes, `url` (by HTTPS,
 * through nginx), `ask(path)`, `query(expression)`, `alerts()`, `end()`.
 */
export async function startStack({ host = '127.0.0.1', media = host, given = {}, options = {} } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-stack-'));
  const [redisPort, gatewayPort, adminPort, mediaPort, https, http, prometheusPort, nobody, ...workerPorts] = await freePorts(11, host);
  const running = {};
  const end = async () => {
    await Promise.all(Object.values(running).map((one) => one.stop()));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const env = { OOBLEX_ADVERTISE: host, OOBLEX_AUTH_MODE: 'none', REDIS_PASSWORD: PASSWORD, REDIS_WORKER_PASSWORD: WORKER_PASSWORD, GRAFANA_PASSWORD: 'x', OOBLEX_MEDIA_PORT: mediaPort, ...given };

    mkdirSync(join(folder, 'redis'));
    cpSync(at('deploy/redis/start.sh'), join(folder, 'redis/start.sh'));
    const redisConf = substituted(read('deploy/redis/redis.conf'), [['port 6379', `port ${redisPort}`], ['bind * -::*', 'bind 127.0.0.1']]);
    writeFileSync(join(folder, 'redis/redis.conf'), redisConf);
    const startRedis = () => keep('redis', 'sh', [join(folder, 'redis/start.sh')], { env: environment('redis', env), cwd: folder, isReady: (said) => /Ready to accept connections/.test(said) });
    running.redis = await startRedis();

    const inImage = Object.fromEntries([...read('deploy/Dockerfile').matchAll(/(OOBLEX_\w+)=(\S+)/g)].map(([, name, value]) => [name, value]));
    // Combines the environment of the image, of the compose file, and the changes for this test.
    const ours = (service, changes) => ({ ...inImage, ...environment(service, env), ...changes });
    const broker = (service) => ({ OOBLEX_BROKER__URL: substituted(environment(service, env).OOBLEX_BROKER__URL, [['redis:6379', `127.0.0.1:${redisPort}`]]) });
    const library = { OOBLEX_INFERENCE__LIBRARY: onnxRuntime(), ...options };
    const gatewayEnv = ours('webrtc', { ...broker('webrtc'), ...library, OOBLEX_SERVE__LISTEN: `127.0.0.1:${gatewayPort}`, OOBLEX_SERVE__ADMIN_LISTEN: `127.0.0.1:${adminPort}`, OOBLEX_MEDIA__LISTEN: `${media}:${mediaPort}` });
    const isReady = (said) => /is ready: http/.test(said);
    running.gateway = await keep('gateway', PROGRAM, ['serve'], { env: gatewayEnv, cwd: folder, isReady });
    const startWorker = (index) => {
      const workerEnv = ours('ml-worker', { ...broker('ml-worker'), ...library, OOBLEX_WORKER__LISTEN: `127.0.0.1:${workerPorts[index]}`, OOBLEX_WORKER__THREADS: '1' });
      return keep(`worker ${index}`, PROGRAM, ['worker'], { env: workerEnv, cwd: folder, isReady });
    };
    const startWorkers = () => Promise.all(workerPorts.map(async (_, index) => (running[`worker${index}`] = await startWorker(index))));
    await startWorkers();

    const { nginx, certificate, tested, ask, url } = await startNginx({ folder, host, https, http, gateway: gatewayPort, grafana: nobody });
    running.nginx = nginx;

    const config = prometheusYml();
    const targets = { 'ooblex-gateway': [`127.0.0.1:${adminPort}`], 'ooblex-worker': workerPorts.map((port) => `127.0.0.1:${port}`), prometheus: [`127.0.0.1:${prometheusPort}`] };
    // Scrapes more often, and without a DNS server that knows containers.
    config.global = { scrape_interval: '1s', evaluation_interval: '1s' };
    config.scrape_configs = config.scrape_configs.map(({ job_name }) => ({ job_name, static_configs: [{ targets: targets[job_name] }] }));
    writeFileSync(join(folder, 'prometheus.yml'), stringify(config));
    // Alerts fire at once and use a window of ten seconds; rules.test.yml tests the original times.
    const hasty = [[/for: \w+/g, 'for: 1s'], [/\[[12]m\]/g, '[10s]']];
    writeFileSync(join(folder, 'rules.yml'), substituted(read('deploy/prometheus/rules.yml'), hasty));
    const prometheusUrl = `http://127.0.0.1:${prometheusPort}`;
    const api = async (path) => (await (await fetch(`${prometheusUrl}/api/v1/${path}`)).json()).data;
    const query = async (expr) => {
      const answer = await (await fetch(`${prometheusUrl}/api/v1/query?query=${encodeURIComponent(expr)}`)).json();
      if (answer.status !== 'success') throw new Error(`${expr}: ${answer.error}`);
      return answer.data.result ?? [];
    };
    running.prometheus = await keep('prometheus', 'prometheus', [`--config.file=${folder}/prometheus.yml`, `--storage.tsdb.path=${folder}/data`, `--web.listen-address=127.0.0.1:${prometheusPort}`], {
      cwd: folder,
      isReady: async () => (await fetch(`${prometheusUrl}/-/ready`).catch(() => ({}))).status === 200,
    });

    return {
      url,
      http: `http://${host}:${http}/`,
      folder,
      ports: { redis: redisPort, gateway: gatewayPort, admin: adminPort, media: mediaPort, prometheus: prometheusPort, workers: workerPorts },
      running,
      certificate,
      nginxTest: tested,
      ask,
      /** Returns the first piece of an answer that does not end. */
      api,
      /** Returns the current series of an expression. */
      query,
      /** Returns whether all these alerts have fired since then, even if they do not any more. */
      haveFired: async (names, since) => {
        const range = `${Math.max(1, Math.floor((Date.now() - since) / 1000))}s`;
        const fired = (await query(`max_over_time(ALERTS{alertstate="firing"}[${range}])`)).map(({ metric }) => metric.alertname);
        return names.every((name) => fired.includes(name));
      },
      /** Returns the names of the firing alerts. */
      alerts: async () => (await api('alerts')).alerts.filter(({ state }) => state === 'firing').map(({ labels }) => labels.alertname),
      killWorkers: () => Promise.all(workerPorts.map((_, index) => running[`worker${index}`].stop('SIGKILL'))),
      startWorkers,
      stopRedis: () => running.redis.stop(),
      startRedis: async () => (running.redis = await startRedis()),
      /**
       * Starts sessions of `ooblex bench`, directly to the gateway. They end with `stopLoad`, which
       * returns their results, or by themselves.
       */
      startLoad: async (flags) => {
        const bench = ['bench', `http://127.0.0.1:${gatewayPort}`, '--json', join(folder, 'load.json'), ...flags];
        running.load = await keep('bench', PROGRAM, bench, { cwd: folder, isReady: (said) => said !== '' });
      },
      stopLoad: async () => {
        await running.load.stop('SIGINT');
        return JSON.parse(readFileSync(join(folder, 'load.json'), 'utf8'));
      },
      end,
    };
  } catch (error) {
    await end();
    throw error;
  }
}

/**
 * Starts nginx with the files of deploy/nginx and a self-signed certificate in the existing
 * `folder`. Returns the processes `nginx`, `certificate` and `tested` (`nginx -t`), `url`,
 * `ask(path)`, and `logs()`, which returns everything that it has logged.
 */
export async function startNginx({ folder, host, https, http, gateway, grafana, healthz = 200 }) {
  const tls = join(folder, 'tls');
  mkdirSync(tls);
  const certificate = await keep('certificate', 'sh', [at('deploy/nginx/make-certificate.sh')], { env: { OOBLEX_ADVERTISE: host, TLS_FOLDER: tls }, cwd: folder, isReady: () => false, ends: true });
  const ca = readFileSync(join(tls, 'fullchain.pem'));
  const accessLog = join(folder, 'access.log');
  const conf = substituted(read('deploy/nginx/ooblex.conf'), [
    ['listen 80;', `listen ${host}:${http};`],
    ['listen 443 ssl;', `listen ${host}:${https} ssl;`],
    [/\n *listen \[::\][^\n]*/g, ''],
    ['/etc/nginx/tls', tls],
    ['/var/www/acme', folder],
    // Node passes sockets to its children, which cannot be opened as files.
    ['/dev/stdout', accessLog],
    ['http://webrtc:8000', `http://127.0.0.1:${gateway}`],
    ['http://grafana:3000', `http://127.0.0.1:${grafana}`],
  ]);
  writeFileSync(join(folder, 'ooblex.conf'), conf);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`).join(' ');
  const user = process.getuid() === 0 ? 'user root;' : '';
  writeFileSync(join(folder, 'nginx.conf'), `${user} daemon off; pid ${folder}/nginx.pid; error_log stderr; events {} http { access_log off; ${temporary} include ${folder}/ooblex.conf; }`);
  const url = `https://${host}:${https}/`;
  const ask = (path, from = url) => askHttps(new URL(path, from), ca);
  const options = ['-e', 'stderr', '-p', folder, '-c', join(folder, 'nginx.conf')];
  const tested = await keep('nginx -t', 'nginx', ['-t', ...options], { cwd: folder, isReady: () => false, ends: true });
  const nginx = await keep('nginx', 'nginx', options, { cwd: folder, isReady: async () => (await ask('healthz').catch(() => ({}))).status === healthz });
  return { nginx, certificate, tested, url, ask, logs: () => nginx.said() + readFileSync(accessLog, 'utf8') };
}

/** Waits until `condition` returns a truthy value. */
export async function until(what, condition, patience = PATIENCE_MS) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`timeout while waiting for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/**
 * Starts a program and waits until it is ready or, with `ends`, until it has ended successfully.
 */
export async function keep(name, program, options, { env = {}, cwd, isReady, ends = false }) {
  const path = [process.env.PATH, '/usr/sbin', '/sbin'].join(delimiter);
  const child = spawn(program, options, { cwd, env: { PATH: path, HOME: cwd, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  let ended = null;
  const exited = new Promise((resolve) => {
    child.once('error', (error) => resolve((ended = `it does not start: ${error.message}; install it with tools/install-packages.sh deploy`)));
    child.once('close', (code, signal) => resolve((ended ??= code ?? signal)));
  });
  const leave = () => child.kill('SIGKILL');
  process.once('exit', leave);
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (data) => (said += data));
  const stop = async (signal = 'SIGTERM') => {
    process.removeListener('exit', leave);
    if (ended === null) child.kill(signal);
    const late = setTimeout(leave, 15_000);
    await exited;
    clearTimeout(late);
  };
  try {
    await until(`${name} to be ready`, async () => {
      if (ended !== null && !(ends && ended === 0)) throw new Error(`${name} ended (${ended})`);
      return ended !== null || (await isReady(said));
    });
  } catch (error) {
    await stop('SIGKILL');
    error.message += `; it said:\n${said}`;
    throw error;
  }
  if (ends) process.removeListener('exit', leave);
  return { pid: child.pid, said: () => said, stop };
}

function onnxRuntime() {
  if (process.env.ORT_DYLIB_PATH) return process.env.ORT_DYLIB_PATH;
  const found = readdirSync(at('.runtime')).find((name) => name.startsWith('libonnxruntime.so'));
  if (!found) throw new Error('ONNX Runtime is not here: make onnxruntime');
  return at('.runtime', found);
}

/**
 * Returns ports on which nothing listens now, by TCP or UDP. They are below those that systems give to connections and to sockets without
 * a port, and each process begins elsewhere, so that nobody takes them before they are used.
 */
export async function freePorts(count, host) {
  const ports = [];
  for (let tries = 0; ports.length < count; tries++) {
    if (tries > END_OF_PORTS - FIRST_PORT) throw new Error(`no free ports on ${host}`);
    // coturn also takes the port that follows its own.
    const port = FIRST_PORT + ((nextPort += 7) % (END_OF_PORTS - FIRST_PORT));
    if ((await isFree(createServer(), 'listen', port, host)) && (await isFree(createSocket('udp4'), 'bind', port, host))) ports.push(port);
  }
  return ports;
}

function isFree(socket, open, port, host) {
  return new Promise((resolve) => {
    socket.once('error', () => (socket.close(), resolve(false)));
    socket[open](port, host, () => socket.close(() => resolve(true)));
  });
}

/** Sends a request by HTTPS, accepting certificates of `ca`. */
function askHttps(url, ca) {
  return new Promise((resolve, reject) => {
    const asking = request(url, { ca, agent: false, timeout: 10_000 }, (response) => {
      let body = '';
      const answered = () => resolve({ status: response.statusCode, headers: response.headers, body });
      response.on('end', answered).on('data', (data) => (body += data));
    })
      .on('error', reject)
      .on('timeout', () => asking.destroy(new Error(`${url} does not answer`)));
    asking.end();
  });
}
