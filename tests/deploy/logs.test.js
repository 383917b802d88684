/**
 * Tests that nginx does not log tokens in URLs, with the files of deploy/nginx: without a gateway,
 * and beyond its limit of offers.
 */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { freePorts, startNginx, until } from './stack.js';

test('no log of nginx has the query of an address', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-nginx-'));
  const [https, http, gateway, grafana] = await freePorts(4, '127.0.0.1');
  let running;
  try {
    running = await startNginx({ folder, host: '127.0.0.1', https, http, gateway, grafana, healthz: 503 });
    const statuses = [];
    for (const path of ['page', ...Array(40).fill('offer')]) statuses.push((await running.ask(`${path}?token=SECRET`)).status);
    assert.deepEqual([...new Set(statuses)].sort(), [429, 503], 'the gateway is away, and offers are limited');
    await fetch(`http://127.0.0.1:${http}/plain?token=SECRET`, { redirect: 'manual' });
    const lines = ['"GET /page HTTP/1.1" 503', '"GET /offer HTTP/1.1" 429', '"GET /plain HTTP/1.1" 308'];
    await until('all to be logged', () => lines.every((line) => running.logs().includes(line)));
    assert.doesNotMatch(running.logs(), /SECRET|token/);
  } finally {
    await running?.nginx.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});
