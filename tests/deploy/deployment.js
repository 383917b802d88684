/** Reads what deploy/ holds. Owns paths and parsing; refuses to know what is right. */

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { parse, parseAllDocuments } from 'yaml';

export const root = fileURLToPath(new URL('../../', import.meta.url));
/** A path in the repository. */
export const at = (...parts) => join(root, ...parts);
export const read = (...parts) => readFileSync(at(...parts), 'utf8');
export const yaml = (...parts) => parse(read(...parts), { merge: true });

export const compose = () => yaml('deploy/compose.yaml');
export const prometheus = () => yaml('deploy/prometheus/prometheus.yml');
export const rules = () => yaml('deploy/prometheus/rules.yml').groups.flatMap((group) => group.rules);
export const alerts = () => rules().filter(({ alert }) => alert);

/** What an alert compares with its threshold. */
export const measured = ({ expr }) => /^(.*?)\s*(<|>)\s*[\d.]+$/s.exec(expr.trim())?.[1];

/** All expressions of all dashboards: `{dashboard, panel, expr}`. */
export const panels = () =>
  readdirSync(at('deploy/grafana/dashboards')).flatMap((file) => {
    const dashboard = JSON.parse(read('deploy/grafana/dashboards', file));
    return dashboard.panels.flatMap(({ title, targets = [] }) => targets.map(({ expr, legendFormat }) => ({ dashboard: file, panel: title, expr, legend: legendFormat })));
  });

/** Every manifest for Kubernetes. */
export const manifests = () =>
  readdirSync(at('deploy/kubernetes')).flatMap((file) => parseAllDocuments(read('deploy/kubernetes', file)).map((document) => ({ file, object: document.toJS() })));

/** Every option of ooblex.toml with its default as it is written there: `{'serve.listen': '"127.0.0.1:8000"'}`. */
export function options() {
  const found = {};
  let section = '';
  for (const line of read('ooblex.toml').split('\n')) {
    const plain = line.replace(/^#(?=[\w[])/, '');
    section = /^\[([\w.]+)\]/.exec(plain)?.[1] ?? section;
    const [, name, value] = /^(\w+) = (.*)$/.exec(plain) ?? [];
    if (name) found[`${section}.${name}`] ??= value;
  }
  return found;
}

/** The names of all metrics that the program tells, as docs/metrics.md lists them, which a test of the program holds against it. */
export function metrics() {
  const names = new Map();
  for (const [, name, type] of read('docs/metrics.md').matchAll(/^\| `(ooblex_\w+)` \| (\w+) \|/gm)) names.set(name, type);
  return names;
}

/** The names of series in an expression of Prometheus. */
export const series = (expr) => [...expr.replaceAll(/"[^"]*"/g, '').matchAll(/\b(ooblex[_:][\w:]+)/g)].map(([name]) => name);

/** What a text of the compose file stands for, when .env gives `given`. */
export const interpolated = (value, given = {}) => String(value).replaceAll(/\$\{(\w+)(?::([-?])([^}]*))?\}/g, (_, name, kind, rest) => given[name] ?? (kind === '-' ? rest : `<${name}>`));

/** The environment of a service, when .env gives `given`. */
export const environment = (service, given) => Object.fromEntries(Object.entries(compose().services[service].environment).map(([name, value]) => [name, interpolated(value, given)]));
