/** Reads the files of deploy/. Owns paths and parsing; refuses to know what is right. */

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { parse, parseAllDocuments } from 'yaml';

export const root = fileURLToPath(new URL('../../', import.meta.url));
/** Returns a path in the repository. */
export const at = (...parts) => join(root, ...parts);
export const read = (...parts) => readFileSync(at(...parts), 'utf8');
export const yaml = (...parts) => parse(read(...parts), { merge: true });

export const compose = () => yaml('deploy/compose.yaml');
export const prometheus = () => yaml('deploy/prometheus/prometheus.yml');
export const rules = () => yaml('deploy/prometheus/rules.yml').groups.flatMap((group) => group.rules);
export const alerts = () => rules().filter(({ alert }) => alert);

/** Returns the expression that an alert compares with its threshold. */
export const measured = ({ expr }) => /^(.*?)\s*(<|>)\s*[\d.]+$/s.exec(expr.trim())?.[1];

/** Returns all expressions of all dashboards: `{dashboard, panel, expr}`. */
export const panels = () =>
  readdirSync(at('deploy/grafana/dashboards')).flatMap((file) => {
    const dashboard = JSON.parse(read('deploy/grafana/dashboards', file));
    return dashboard.panels.flatMap(({ title, targets = [] }) => targets.map(({ expr, legendFormat }) => ({ dashboard: file, panel: title, expr, legend: legendFormat })));
  });

/** Returns every manifest for Kubernetes. */
export const manifests = () =>
  readdirSync(at('deploy/kubernetes')).flatMap((file) => parseAllDocuments(read('deploy/kubernetes', file)).map((document) => ({ file, object: document.toJS() })));

/**
 * Returns every option of ooblex.toml with its default as written there: `{'serve.listen':
 * '"127.0.0.1:8000"'}`.
 */
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

/**
 * Returns the names and types of all metrics of the program, from docs/metrics.md, which a test
 * compares with the program.
 */
export function metrics() {
  const names = new Map();
  for (const [, name, type] of read('docs/metrics.md').matchAll(/^\| `(ooblex_\w+)` \| (\w+) \|/gm)) names.set(name, type);
  return names;
}

/** Returns the names of series in a Prometheus expression. */
export const series = (expr) => [...expr.replaceAll(/"[^"]*"/g, '').matchAll(/\b(ooblex[_:][\w:]+)/g)].map(([name]) => name);

/**
 * Returns a text of the compose file with its variables replaced by those of `given`, which stands
 * for .env.
 */
export const interpolated = (value, given = {}) => String(value).replaceAll(/\$\{(\w+)(?::([-?])([^}]*))?\}/g, (_, name, kind, rest) => given[name] ?? (kind === '-' ? rest : `<${name}>`));

/** Returns the environment of a service, with the variables of `given`, which stands for .env. */
export const environment = (service, given) => Object.fromEntries(Object.entries(compose().services[service].environment).map(([name, value]) => [name, interpolated(value, given)]));
