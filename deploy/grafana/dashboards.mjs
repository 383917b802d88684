/**
 * Writes the dashboards, `dashboards/*.json`, from the tables below; run it after a change: node deploy/grafana/dashboards.mjs
 *
 * A panel is `[title, unit, {legend: expression}]`, with what it means as a fourth part. Two panels make a row; a row's name stands before
 * it as a plain text. A test holds the JSON against this file, and every expression against a running system.
 */

import { mkdirSync, writeFileSync } from 'node:fs';

const rate = (metric, by, extra = '') => `sum by (${by}) (rate(ooblex_${metric}${extra}[$__rate_interval]))`;
const total = (metric, extra = '') => `sum(rate(ooblex_${metric}${extra}[$__rate_interval]))`;
const quantile = (q, metric, by = '') => `histogram_quantile(${q}, ${rate(`${metric}_bucket`, by ? `${by}, le` : 'le')})`;
const p50to95 = (metric) => ({ p50: quantile(0.5, metric), p95: quantile(0.95, metric), p99: quantile(0.99, metric) });

export const dashboards = {
  viewers: {
    title: 'Ooblex: what viewers see',
    panels: [
      'Now',
      ['Sessions', 'short', { running: 'sum(ooblex_sessions)' }, 'Sessions that are running.', 'stat'],
      ['Time at ten frames a second or fewer', 'percentunit', { '{{effect}}': 'ooblex:slow_share:ratio' }, 'Share of the viewers’ time. Above a quarter, an alert.', 'stat'],
      ['Age of the picture, p95', 's', { '{{effect}}': 'ooblex:picture_age_seconds:p95' }, 'From the camera’s frame at the gateway to now. Above a second, an alert.', 'stat'],
      ['Alerts', 'short', { firing: 'count(ALERTS{alertstate="firing"}) or vector(0)' }, 'That fire now.', 'stat'],
      'Frame rate and freshness',
      ['Processed frames a second of a session', 'short', { '{{effect}} p50': quantile(0.5, 'processed_fps', 'effect'), '{{effect}} p5': quantile(0.05, 'processed_fps', 'effect') }, 'p5: one look in twenty is worse.'],
      ['Age of the picture', 's', { '{{effect}} p50': quantile(0.5, 'picture_age_seconds', 'effect'), '{{effect}} p95': quantile(0.95, 'picture_age_seconds', 'effect') }, 'Looked at once a second; grows while a picture is held.'],
      ['Time in the gateway', 's', p50to95('residence_seconds'), 'From the last packet of a frame in to its first packet out.'],
      ['Time by stage, mean', 's', { '{{stage}}': `${rate('stage_duration_seconds_sum', 'stage')} / ${rate('stage_duration_seconds_count', 'stage')}` }, 'Where the time goes.'],
      'What is missing',
      ['Pictures that stand still', 'percentunit', { '{{effect}}': 'ooblex:frozen_share:ratio' }, 'Share of the viewers’ time with no new processed frame for half a second.'],
      ['Freezes a minute', 'short', { '{{effect}}': `60 * ${rate('freezes_total', 'effect')}` }],
      ['Frames dropped, by reason', 'cps', { '{{reason}}': rate('frames_dropped_total', 'reason') }, '“replaced” is what happens when cameras send more than workers manage.'],
      ['Given up for want of CPU, and taken back', 'cps', { '{{step}} {{direction}}': rate('adaptations_total', 'step, direction') }, 'Down: given up. The encoder hurries first, then models get smaller inputs, then frames go.'],
      ['Held and stand-in pictures', 'cps', { placeholders: total('placeholders_total') }, 'Sent for want of a processed one.'],
    ],
  },
  workers: {
    title: 'Ooblex: workers and queue',
    panels: [
      'Now',
      ['Workers', 'short', { 'worker threads': 'max(ooblex_workers{job="ooblex-gateway"})' }, 'Of all processes that share the broker.', 'stat'],
      ['Busy', 'percentunit', { workers: 'ooblex:workers_busy:ratio' }, 'Above 0.9, frame rates fall.', 'stat'],
      ['Longest wait', 's', { wait: 'ooblex:queue_longest_wait_seconds:max' }, 'Of the track that has waited longest for a result.', 'stat'],
      ['Redis', 'short', { connected: 'min(ooblex_broker_connected)' }, '1: every process reaches it.', 'stat'],
      'Workers',
      ['Workers by effect', 'short', { '{{effect}}': 'ooblex:effect_workers:max' }],
      ['Frames analysed, by worker', 'cps', { '{{instance}}': rate('worker_frames_total', 'instance', '{result="analysed"}') }, 'Workers of the same speed have the same share.'],
      ['Model time, p50 and p95', 's', { '{{effect}} on {{backend}}, p50': quantile(0.5, 'worker_analyse_duration_seconds', 'effect, backend, device'), '{{effect}} on {{backend}}, p95': quantile(0.95, 'worker_analyse_duration_seconds', 'effect, backend, device') }],
      ['Frames that failed', 'cps', { '{{effect}} {{result}}': rate('worker_frames_total', 'effect, result', '{result!="analysed"}') }],
      'Queue',
      ['Tracks that wait, frames in flight', 'short', { waiting: 'max(ooblex_queue_tracks{job="ooblex-gateway"})', 'in flight': 'sum(ooblex_queue_in_flight{job="ooblex-gateway"})' }],
      ['Longest wait for a result', 's', { '{{instance}}': 'ooblex_queue_longest_wait_seconds{job="ooblex-gateway"}' }, 'Grows when there are too few workers.'],
      ['Frames analysed and replaced', 'cps', { analysed: total('frames_analysed_total'), replaced: total('frames_dropped_total', '{reason="replaced"}') }, 'Replaced: a newer frame took its place, because no worker was free.'],
      ['Redis, round trips', 's', p50to95('broker_round_trip_seconds')],
      'Redis and processes',
      ['Redis, errors', 'cps', { '{{kind}}': rate('broker_errors_total', 'kind') }],
      ['Late results, turns queued again', 'cps', { late: total('broker_results_late_total'), requeued: total('broker_turns_requeued_total') }],
      ['Cores in use', 'short', { '{{instance}}': rate('process_cpu_seconds_total', 'instance') }],
      ['Memory', 'bytes', { '{{instance}}': 'ooblex_process_resident_memory_bytes' }],
    ],
  },
  network: {
    title: 'Ooblex: network',
    panels: [
      'Rates',
      ['Video, bits a second', 'bps', { '{{direction}}': `8 * ${rate('video_bytes_total', 'direction')}` }, 'In: cameras. Out: with the effect.'],
      ['Encoder’s target and the network’s estimate, p50', 'bps', { target: quantile(0.5, 'encoder_target_bps'), estimate: quantile(0.5, 'network_estimate_bps') }],
      ['Worst tenth: target and estimate', 'bps', { target: quantile(0.1, 'encoder_target_bps'), estimate: quantile(0.1, 'network_estimate_bps') }],
      ['Round trip to browsers', 's', p50to95('network_round_trip_seconds')],
      'Losses',
      ['Packets lost', 'percentunit', { '{{direction}}': `${rate('video_packets_lost_total', 'direction')} / (${rate('video_packets_total', 'direction')} > 0)` }],
      ['Requests to send again (NACK)', 'cps', { '{{direction}}': rate('video_nacks_total', 'direction') }],
      ['Requests for a keyframe (PLI)', 'cps', { '{{direction}}': rate('video_plis_total', 'direction') }],
      ['Frames that could not be decoded, or were lost before', 'cps', { undecodable: total('frames_undecodable_total'), lost: total('frames_lost_total') }],
      'Consequences',
      ['Pictures sent smaller, and larger again', 'cps', { '{{direction}}': rate('picture_size_steps_total', 'direction') }],
      ['Datagrams', 'cps', { stray: total('datagrams_stray_total'), unsent: total('datagrams_unsent_total') }, 'Stray: of no session. Unsent: the system did not take them.'],
    ],
  },
  sessions: {
    title: 'Ooblex: a session’s life',
    panels: [
      'It begins',
      ['Offers', 'cps', { '{{result}}': rate('offers_total', 'result') }, 'accepted, or why it was refused.'],
      ['From the answer to the connection', 's', p50to95('session_connect_seconds')],
      ['Sessions that never connected, by how far they came', 'cps', { '{{cause}}': rate('session_setup_failures_total', 'cause') }, 'no_packets: the media port is closed, or the advertised address is wrong.'],
      ['Share that never connected', 'percentunit', { failures: 'ooblex:set_up_failures_share:ratio' }, 'Of those that ended. Above a fifth, an alert.'],
      'It lives',
      ['From the connection to the first processed picture', 's', p50to95('session_first_picture_seconds')],
      ['Sessions by effect', 'short', { '{{effect}}': 'sum by (effect) (ooblex_effect_sessions)' }],
      ['How full the gateways are', 'percentunit', { sessions: 'ooblex:sessions_share:ratio' }, 'Above 0.9, an alert.'],
      ['Frames on their way', 'cps', { received: total('frames_received_total'), decoded: total('frames_admitted_total'), analysed: total('frames_analysed_total'), shown: total('frames_shown_total') }],
      'It ends',
      ['Ends, by reason', 'cps', { '{{reason}}': rate('sessions_ended_total', 'reason') }],
      ['How long sessions last, p50', 's', { p50: quantile(0.5, 'session_duration_seconds') }],
      ['Starts of processes', 'short', { '{{job}} {{instance}}': 'ooblex:restarts:15m' }, 'Within a quarter of an hour.'],
      ['Days until the gateway’s certificate ends', 'short', { '{{instance}}': 'ooblex_certificate_days_left' }, 'Infinite where nginx has it: then this is not the one to look at.'],
      ['Versions', 'short', { '{{job}} {{version}} {{backend}}': 'count by (job, version, backend) (ooblex_build_info)' }],
    ],
  },
};

const datasource = { type: 'prometheus', uid: 'prometheus' };

/** A dashboard as Grafana reads it. */
export function render(uid, { title, panels }) {
  const placed = [];
  let [x, y, height] = [0, 0, 0];
  const newLine = () => ([x, y, height] = [0, y + height, 0]);
  for (const panel of panels) {
    const id = placed.length + 1;
    if (typeof panel === 'string') {
      newLine();
      placed.push({ id, type: 'row', title: panel, collapsed: false, gridPos: { x: 0, y, w: 24, h: 1 }, panels: [] });
      y += 1;
      continue;
    }
    const [name, unit, lines, description = '', type = 'timeseries'] = panel;
    const [w, h] = type === 'stat' ? [6, 5] : [12, 8];
    if (x + w > 24) newLine();
    placed.push({
      id,
      type,
      title: name,
      description,
      datasource,
      gridPos: { x, y, w, h },
      fieldConfig: { defaults: { unit, ...(type === 'stat' ? {} : { min: 0, custom: { fillOpacity: 10, showPoints: 'never' } }) }, overrides: [] },
      options: type === 'stat' ? { reduceOptions: { calcs: ['lastNotNull'] }, textMode: 'value_and_name' } : { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi' } },
      targets: Object.entries(lines).map(([legendFormat, expr], index) => ({ refId: String.fromCharCode(65 + index), datasource, expr, legendFormat })),
    });
    x += w;
    height = Math.max(height, h);
  }
  return {
    uid: `ooblex-${uid}`,
    title,
    tags: ['ooblex'],
    schemaVersion: 39,
    editable: false,
    refresh: '10s',
    time: { from: 'now-30m', to: 'now' },
    timezone: 'browser',
    links: [{ type: 'dashboards', tags: ['ooblex'], title: 'Ooblex', asDropdown: false, includeVars: false, keepTime: true }],
    panels: placed,
  };
}

/** The text of a dashboard's file. */
export const text = (uid) => `${JSON.stringify(render(uid, dashboards[uid]), null, 2)}\n`;

if (process.argv[1]?.endsWith('/dashboards.mjs')) {
  const folder = new URL('dashboards/', import.meta.url);
  mkdirSync(folder, { recursive: true });
  for (const uid of Object.keys(dashboards)) writeFileSync(new URL(`${uid}.json`, folder), text(uid));
}
