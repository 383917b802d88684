/**
 * Writes the dashboards (`dashboards/*.json`) from the tables below. Run it after every change:
 * node deploy/grafana/dashboards.mjs
 *
 * A panel is `[title, unit, {legend: expression}, description, type]`; the last two are optional. A
 * string is the title of a row. A test compares the JSON with this file, and evaluates every
 * expression on a running system.
 */

import { mkdirSync, writeFileSync } from 'node:fs';

const rate = (metric, by, extra = '') => `sum by (${by}) (rate(ooblex_${metric}${extra}[$__rate_interval]))`;
const total = (metric, extra = '') => `sum(rate(ooblex_${metric}${extra}[$__rate_interval]))`;
const quantile = (q, metric, by = '') => `histogram_quantile(${q}, ${rate(`${metric}_bucket`, by ? `${by}, le` : 'le')})`;
const p50to95 = (metric) => ({ p50: quantile(0.5, metric), p95: quantile(0.95, metric), p99: quantile(0.99, metric) });

export const dashboards = {
  viewers: {
    title: 'Ooblex: stream quality',
    panels: [
      'Now',
      ['Sessions', 'short', { running: 'sum(ooblex_sessions)' }, 'Number of running sessions.', 'stat'],
      ['Time at 10 fps or less', 'percentunit', { '{{effect}}': 'ooblex:slow_share:ratio' }, 'Share of the viewing time. Alert above 25 %.', 'stat'],
      ['Picture age, p95', 's', { '{{effect}}': 'ooblex:picture_age_seconds:p95' }, 'Time since the gateway received the frame that viewers see. Alert above 1 s.', 'stat'],
      ['Alerts', 'short', { firing: 'count(ALERTS{alertstate="firing"}) or vector(0)' }, 'Number of firing alerts.', 'stat'],
      'Frame rate and latency',
      ['Frame rate per session', 'short', { '{{effect}} p50': quantile(0.5, 'processed_fps', 'effect'), '{{effect}} p5': quantile(0.05, 'processed_fps', 'effect') }, 'Processed frames per second. p5: 5 % of the samples are lower.'],
      ['Picture age', 's', { '{{effect}} p50': quantile(0.5, 'picture_age_seconds', 'effect'), '{{effect}} p95': quantile(0.95, 'picture_age_seconds', 'effect') }, 'Sampled once a second; grows while a picture is held.'],
      ['Latency in the gateway', 's', p50to95('residence_seconds'), 'From the last packet of a frame in to its first packet out.'],
      ['Time by stage, mean', 's', { '{{stage}}': `${rate('stage_duration_seconds_sum', 'stage')} / ${rate('stage_duration_seconds_count', 'stage')}` }, 'Mean time of a frame in each stage.'],
      'Freezes and dropped frames',
      ['Frozen time', 'percentunit', { '{{effect}}': 'ooblex:frozen_share:ratio' }, 'Share of the viewing time without a new processed frame for half a second. Alert above 10 %.'],
      ['Freezes per minute', 'short', { '{{effect}}': `60 * ${rate('freezes_total', 'effect')}` }],
      ['Frames dropped by reason', 'cps', { '{{reason}}': rate('frames_dropped_total', 'reason') }, '“replaced”: cameras send more frames than workers can analyse.'],
      ['Quality steps when CPU is short', 'cps', { '{{step}} {{direction}}': rate('adaptations_total', 'step, direction') }, 'Down: first the encoder uses less CPU, then models get smaller inputs, then the frame rate falls. Up: the reverse.'],
      ['Held pictures and placeholders', 'cps', { placeholders: total('placeholders_total') }, 'Sent because there was no processed picture.'],
    ],
  },
  workers: {
    title: 'Ooblex: workers and queue',
    panels: [
      'Now',
      ['Workers', 'short', { 'worker threads': 'max(ooblex_workers{job="ooblex-gateway"})' }, 'Worker threads of all processes that share the broker.', 'stat'],
      ['Worker utilisation', 'percentunit', { workers: 'ooblex:workers_busy:ratio' }, 'Above 90 %, frame rates fall. Alert above 90 %.', 'stat'],
      ['Longest queue wait', 's', { wait: 'ooblex:queue_longest_wait_seconds:max' }, 'Wait of the track that has waited longest for a result. Alert above 0.7 s.', 'stat'],
      ['Redis', 'short', { connected: 'min(ooblex_broker_connected)' }, '1: every process is connected to Redis.', 'stat'],
      'Workers',
      ['Workers by effect', 'short', { '{{effect}}': 'ooblex:effect_workers:max' }],
      ['Frames analysed by worker', 'cps', { '{{instance}}': rate('worker_frames_total', 'instance', '{result="analysed"}') }, 'Workers of equal speed analyse equally many frames.'],
      ['Model time, p50 and p95', 's', { '{{effect}} on {{backend}}, p50': quantile(0.5, 'worker_analyse_duration_seconds', 'effect, backend, device'), '{{effect}} on {{backend}}, p95': quantile(0.95, 'worker_analyse_duration_seconds', 'effect, backend, device') }],
      ['Failed frames', 'cps', { '{{effect}} {{result}}': rate('worker_frames_total', 'effect, result', '{result!="analysed"}') }],
      'Queue',
      ['Waiting tracks and frames in flight', 'short', { waiting: 'max(ooblex_queue_tracks{job="ooblex-gateway"})', 'in flight': 'sum(ooblex_queue_in_flight{job="ooblex-gateway"})' }],
      ['Longest wait for a result', 's', { '{{instance}}': 'ooblex_queue_longest_wait_seconds{job="ooblex-gateway"}' }, 'Grows when there are too few workers.'],
      ['Frames analysed and replaced', 'cps', { analysed: total('frames_analysed_total'), replaced: total('frames_dropped_total', '{reason="replaced"}') }, 'Replaced: no worker was free before a newer frame came.'],
      ['Redis round trip', 's', p50to95('broker_round_trip_seconds')],
      'Redis and processes',
      ['Redis errors', 'cps', { '{{kind}}': rate('broker_errors_total', 'kind') }],
      ['Late results and requeued tracks', 'cps', { late: total('broker_results_late_total'), requeued: total('broker_turns_requeued_total') }],
      ['CPU cores in use', 'short', { '{{instance}}': rate('process_cpu_seconds_total', 'instance') }],
      ['Memory', 'bytes', { '{{instance}}': 'ooblex_process_resident_memory_bytes' }],
    ],
  },
  network: {
    title: 'Ooblex: network',
    panels: [
      'Bitrate',
      ['Video bitrate', 'bps', { '{{direction}}': `8 * ${rate('video_bytes_total', 'direction')}` }, 'In: from cameras. Out: video with the effect.'],
      ['Encoder target and bandwidth estimate, p50', 'bps', { target: quantile(0.5, 'encoder_target_bps'), estimate: quantile(0.5, 'network_estimate_bps') }],
      ['Encoder target and bandwidth estimate, p10', 'bps', { target: quantile(0.1, 'encoder_target_bps'), estimate: quantile(0.1, 'network_estimate_bps') }],
      ['Round trip to browsers', 's', p50to95('network_round_trip_seconds')],
      'Packet loss',
      ['Packets lost', 'percentunit', { '{{direction}}': `${rate('video_packets_lost_total', 'direction')} / (${rate('video_packets_total', 'direction')} > 0)` }],
      ['Retransmission requests (NACK)', 'cps', { '{{direction}}': rate('video_nacks_total', 'direction') }],
      ['Keyframe requests (PLI)', 'cps', { '{{direction}}': rate('video_plis_total', 'direction') }],
      ['Frames undecodable or lost before decoding', 'cps', { undecodable: total('frames_undecodable_total'), lost: total('frames_lost_total') }],
      'Resolution and datagrams',
      ['Resolution steps down and up', 'cps', { '{{direction}}': rate('picture_size_steps_total', 'direction') }],
      ['Datagrams', 'cps', { stray: total('datagrams_stray_total'), unsent: total('datagrams_unsent_total') }, 'Stray: belongs to no session. Unsent: the operating system did not accept it.'],
    ],
  },
  sessions: {
    title: 'Ooblex: sessions',
    panels: [
      'Setup',
      ['Offers', 'cps', { '{{result}}': rate('offers_total', 'result') }, 'By result: accepted, or the reason for the refusal.'],
      ['Connection time', 's', p50to95('session_connect_seconds'), 'From the answer to an offer to the connection.'],
      ['Failed connections by cause', 'cps', { '{{cause}}': rate('session_setup_failures_total', 'cause') }, 'no_packets: the media port is closed, or the advertised address is wrong.'],
      ['Share of failed connections', 'percentunit', { failures: 'ooblex:set_up_failures_share:ratio' }, 'Share of the sessions that ended. Alert above 20 %.'],
      'Running sessions',
      ['Time to the first processed picture', 's', p50to95('session_first_picture_seconds'), 'From the connection of a session.'],
      ['Sessions by effect', 'short', { '{{effect}}': 'sum by (effect) (ooblex_effect_sessions)' }],
      ['Session limit in use', 'percentunit', { sessions: 'ooblex:sessions_share:ratio' }, 'Share of limits.sessions of all gateways. Alert above 90 %.'],
      ['Frames by stage', 'cps', { received: total('frames_received_total'), decoded: total('frames_admitted_total'), analysed: total('frames_analysed_total'), shown: total('frames_shown_total') }],
      'Ended sessions and processes',
      ['Sessions ended by reason', 'cps', { '{{reason}}': rate('sessions_ended_total', 'reason') }],
      ['Session duration, p50', 's', { p50: quantile(0.5, 'session_duration_seconds') }],
      ['Process restarts', 'short', { '{{job}} {{instance}}': 'ooblex:restarts:15m' }, 'Within 15 minutes. Alert above 2.'],
      ['Days until the gateway’s certificate expires', 'short', { '{{instance}}': 'ooblex_certificate_days_left' }, 'Infinite if nginx has the certificate: then monitor nginx. Alert below 14 days.'],
      ['Versions', 'short', { '{{job}} {{version}} {{backend}}': 'count by (job, version, backend) (ooblex_build_info)' }],
    ],
  },
};

const datasource = { type: 'prometheus', uid: 'prometheus' };

/** Returns a dashboard in Grafana's JSON model. */
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

/** Returns the content of a dashboard's file. */
export const text = (uid) => `${JSON.stringify(render(uid, dashboards[uid]), null, 2)}\n`;

if (process.argv[1]?.endsWith('/dashboards.mjs')) {
  const folder = new URL('dashboards/', import.meta.url);
  mkdirSync(folder, { recursive: true });
  for (const uid of Object.keys(dashboards)) writeFileSync(new URL(`${uid}.json`, folder), text(uid));
}
