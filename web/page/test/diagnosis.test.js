// Tests of the page's diagnosis, for statistics as they come from the gateway and the browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { diagnose, latencyParts } from '../diagnosis.js';

const STAGES = { decode: 1, prepare: 0.5, queue: 0.5, analyse: 5, playout: 0.1, compose: 1, encode: 3 };

function figures({ stats = {}, camera = {}, sent = {}, received = {}, roundTripMs = 2 } = {}) {
  return [
    { fps_in: 30, fps_analysed: 30, fps_out: 30, service: 'served', stages_ms: STAGES, worker_utilisation: 0.3, ...stats },
    {
      roundTripMs,
      camera: { fps: 30, height: 480, ...camera },
      sent: { fps: 30, bitrateBps: 1.5e6, limitedBy: null, lostShare: 0, encodeMs: 3, height: 480, ...sent },
      received: { fps: 30, jitterBufferMs: 20, decodeMs: 2, droppedFps: 0, lostShare: 0, ...received },
    },
  ];
}

const cases = {
  fine: {},
  camera: { camera: { fps: 12 }, sent: { fps: 12 }, stats: { fps_in: 12, fps_analysed: 12, fps_out: 12 }, received: { fps: 12 } },
  browser: { sent: { fps: 14, limitedBy: 'cpu' }, stats: { fps_in: 14, fps_analysed: 14, fps_out: 14 }, received: { fps: 14 } },
  uplink: { sent: { fps: 29, limitedBy: 'bandwidth', height: 240 } },
  model: { stats: { fps_analysed: 9, fps_out: 9, stages_ms: { ...STAGES, analyse: 105 } }, received: { fps: 9 } },
  queue: { stats: { fps_analysed: 15, fps_out: 15, stages_ms: { ...STAGES, queue: 60 }, worker_utilisation: 1 }, received: { fps: 15 } },
  gateway: { stats: { fps_analysed: 12, fps_out: 12, stages_ms: { ...STAGES, encode: 60 } }, received: { fps: 12 } },
  downlink: { received: { fps: 12 } },
  network: { roundTripMs: 220 },
};

for (const [part, given] of Object.entries(cases)) {
  test(`where it is slow, it says so: ${part}`, () => {
    const found = diagnose(...figures(given));
    assert.equal(found.part, part, `${found.title}: ${found.text}`);
    assert.ok(found.title.length > 8 && found.text.length > 20);
  });
}

test('a source that is silent is named before all else', () => {
  const silent = { camera: { fps: null }, sent: { fps: 0 }, stats: { fps_in: 0, fps_analysed: 0, fps_out: 0 }, received: { fps: 0 } };
  assert.match(diagnose(...figures(silent), { silent: true }).title, /sends no picture/);
  assert.equal(diagnose(...figures({ camera: { fps: 24 } }), { fps: 24 }).part, 'fine');
  const black = { camera: { fps: 1 }, sent: { fps: 1 }, stats: { fps_in: 1, fps_analysed: 1, fps_out: 1 }, received: { fps: 1 } };
  assert.equal(diagnose(...figures(black)).part, 'camera');
  assert.match(diagnose(...figures(black), { muted: true }).title, /hidden/);
});

test('packets that are lost are named with the way that loses them', () => {
  assert.equal(diagnose(...figures({ sent: { lostShare: 0.1 } })).part, 'uplink');
  const back = diagnose(...figures({ received: { lostShare: 0.12 } }));
  assert.equal(back.part, 'downlink');
  assert.match(back.text, /12 % of the packets/);
});

test('faces that are reused on frames between analyses show as a model that is slow, not as a loss on the way', () => {
  assert.equal(diagnose(...figures({ stats: { fps_analysed: 8, stages_ms: { ...STAGES, analyse: 120 } } })).part, 'model');
});

test('an effect without a model is not blamed for analysing nothing', () => {
  const { analyse, ...stages } = STAGES;
  assert.equal(diagnose(...figures({ stats: { fps_analysed: 0, stages_ms: stages } })).part, 'fine');
  assert.equal(diagnose(...figures({ stats: { fps_analysed: 0, fps_out: 8, stages_ms: stages }, received: { fps: 8 } })).part, 'gateway');
});

test('who has used up its share of the cores is told so, and not that the model is slow', () => {
  const held = { fps_analysed: 12, fps_out: 12, cores: 0.6, stages_ms: { ...STAGES, analyse: 30 } };
  assert.match(diagnose(...figures({ stats: { ...held, cores_allowed: 0.62 }, received: { fps: 12 } })).title, /share/);
  assert.equal(diagnose(...figures({ stats: { ...held, cores_allowed: null }, received: { fps: 12 } })).part, 'model');
});

test('without workers, and without frames, nothing else is blamed', () => {
  assert.match(diagnose(...figures({ stats: { service: 'no_worker', fps_out: 0 } })).title, /No worker/);
  const [stats, measures] = figures({ stats: { fps_in: 0, fps_analysed: 0, fps_out: 0 }, received: { fps: null }, sent: { fps: null }, camera: { fps: null } });
  assert.equal(diagnose(stats, measures).part, 'none');
});

test('figures that are missing are no reason to blame anything, and a slow but full picture names its largest part', () => {
  const empty = { roundTripMs: null, camera: { fps: null, height: null }, sent: { fps: null, bitrateBps: null, limitedBy: null, lostShare: null, encodeMs: null, height: null }, received: { fps: null, jitterBufferMs: null, decodeMs: null, droppedFps: null, lostShare: null } };
  assert.equal(diagnose({ fps_in: 30, fps_analysed: 30, fps_out: 30 }, empty).part, 'fine');
  const [stats, measures] = figures({ stats: { stages_ms: { ...STAGES, analyse: 300 } } });
  assert.equal(diagnose(stats, measures).part, 'model');
  const parts = latencyParts(stats, measures);
  assert.deepEqual([parts.model, parts.network, parts.codec], [300, 22, 9]);
});
