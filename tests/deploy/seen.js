/**
 * Not a test: shows the contents of the dashboards. It runs the stack with three browser sessions,
 * kills the workers and stops Redis for a moment, then draws every panel from Prometheus' answers
 * into one PNG per dashboard. Look at them.
 *
 *   node seen.js FOLDER
 */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { clip } from '../e2e/clip.js';
import { openPage, startBrowser } from '../e2e/harness.js';
import { measure } from '../e2e/measure.js';
import { dashboards, render } from '../../deploy/grafana/dashboards.mjs';
import { startStack } from './stack.js';

const folder = process.argv[2];
if (!folder) throw new Error('usage: node seen.js FOLDER');
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const COLOURS = ['#7eb26d', '#eab839', '#6ed0e0', '#ef843c', '#e24d42', '#1f78c1', '#ba43a9', '#705da0', '#508642', '#cca300'];

/** Formats a value in its unit. */
function shown(value, unit) {
  if (!Number.isFinite(value)) return '∞';
  if (unit === 'percentunit') return `${(value * 100).toFixed(1)} %`;
  if (unit === 's') return value < 1 ? `${(value * 1000).toFixed(1)} ms` : `${value.toFixed(2)} s`;
  const [scale, prefix] = value >= 1e6 ? [1e6, 'M'] : value >= 1e3 ? [1e3, 'k'] : [1, ''];
  return `${(value / scale).toFixed(2)} ${prefix}${{ bps: 'bit/s', bytes: 'B', cps: '/s' }[unit] ?? ''}`;
}

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const legendOf = (format, labels) => format.replaceAll(/\{\{(\w+)\}\}/g, (_, label) => labels[label] ?? '');

/** Returns a panel as SVG, from the results of its expressions. */
function drawn({ title, type, fieldConfig, gridPos }, lines, from, to) {
  const unit = fieldConfig.defaults.unit;
  const [width, height] = [gridPos.w * 50, gridPos.h * 30];
  const head = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" style="background:#181b1f"><text x="10" y="20" fill="#ddd" font-size="14">${escaped(title)}</text>`;
  if (lines.length === 0) return `${head}<text x="10" y="60" fill="#e24d42" font-size="20">no series</text></svg>`;
  if (type === 'stat') {
    const texts = lines.slice(0, 5).map(({ legend, values }, index) => `<text x="10" y="${50 + index * 22}" fill="${COLOURS[index]}" font-size="16">${escaped(legend)}: ${shown(values.at(-1)[1], unit)}</text>`);
    return `${head}${texts.join('')}</svg>`;
  }
  const finite = lines.flatMap(({ values }) => values.map(([, value]) => value)).filter(Number.isFinite);
  const top = Math.max(...finite, 1e-9) * 1.05;
  const [left, bottom] = [80, height - 50];
  const x = (time) => left + ((time - from) / (to - from)) * (width - left - 10);
  const y = (value) => bottom - (value / top) * (bottom - 35);
  const grid = [0, 0.5, 1].map((share) => `<line x1="${left}" x2="${width}" y1="${y(top * share)}" y2="${y(top * share)}" stroke="#333"/><text x="${left - 5}" y="${y(top * share) + 4}" text-anchor="end" fill="#999" font-size="11">${shown(top * share, unit)}</text>`);
  const paths = lines.map(({ values }, index) => {
    const points = values.filter(([, value]) => Number.isFinite(value)).map(([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`);
    return `<polyline points="${points.join(' ')}" fill="none" stroke="${COLOURS[index % COLOURS.length]}" stroke-width="1.5"/>`;
  });
  const legend = lines.slice(0, 8).map(({ legend }, index) => `<tspan fill="${COLOURS[index % COLOURS.length]}">■ ${escaped(legend)}  </tspan>`);
  return `${head}${grid.join('')}${paths.join('')}<text x="10" y="${height - 15}" font-size="11">${legend.join('')}</text></svg>`;
}

const played = clip({ width: 640, height: 480, measure });
const stack = await startStack();
const browser = await startBrowser(played);
try {
  const trusting = { ...browser, page: (url, options) => browser.page(url, { ignoreHTTPSErrors: true, ...options }) };
  const { connect, close, page } = await openPage(trusting, { url: stack.url }, played);
  const from = Date.now() / 1000;
  await connect({ effect: 'background_blur' }, 'first');
  await pause(15);
  await connect({ effect: 'style_transfer', params: { style: 'crimson_poster', resolution: '180p' } }, 'second');
  await pause(20);
  await connect({ effect: 'face_detection' }, 'third');
  await pause(15);
  await close('third');
  await stack.killWorkers();
  await pause(10);
  await stack.startWorkers();
  await pause(15);
  await stack.stopRedis();
  await pause(8);
  await stack.startRedis();
  await pause(12);
  await close('second');
  await pause(5);
  const to = Date.now() / 1000;

  mkdirSync(folder, { recursive: true });
  const context = await page.context().browser().newContext({ viewport: { width: 1220, height: 800 } });
  const canvas = await context.newPage();
  for (const uid of Object.keys(dashboards)) {
    const parts = [`<body style="margin:5px;background:#111217;color:#ddd;font-family:sans-serif"><h2>${escaped(dashboards[uid].title)}</h2>`];
    for (const panel of render(uid, dashboards[uid]).panels) {
      if (panel.type === 'row') {
        parts.push(`<h3 style="margin:8px 0 4px">${escaped(panel.title)}</h3>`);
        continue;
      }
      const lines = [];
      for (const { expr, legendFormat } of panel.targets) {
        const query = encodeURIComponent(expr.replaceAll('$__rate_interval', '15s'));
        const { result } = await stack.api(`query_range?query=${query}&start=${from}&end=${to}&step=1`);
        lines.push(...result.map(({ metric, values }) => ({ legend: legendOf(legendFormat, metric), values: values.map(([time, value]) => [time, Number(value.replace('+Inf', 'Infinity'))]) })));
      }
      parts.push(drawn(panel, lines, from, to));
    }
    await canvas.setContent(parts.join('\n'));
    await canvas.screenshot({ path: join(folder, `${uid}.png`), fullPage: true });
  }
  console.log(`drawn into ${folder}`);
} finally {
  await browser.close();
  await stack.end();
}
