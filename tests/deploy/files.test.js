/**
 * Checks the files of deploy/: against the schemas of the programs that read them, against one
 * another, and against the program.
 */

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import Ajv from 'ajv/dist/2020.js';
import { DockerfileParser } from 'dockerfile-ast';

import { dashboards, text } from '../../deploy/grafana/dashboards.mjs';
import { alerts, at, compose, interpolated, manifests, measured, metrics, options, panels, prometheus, read, root, rules, series, yaml } from './deployment.js';

const OPTION = /^OOBLEX_([A-Z]+)__([A-Z_]+)$/;
const optionOf = (variable) => variable.replace(OPTION, (_, section, name) => `${section}.${name}`.toLowerCase());
const listens = (option) => Number(/:(\d+)"$/.exec(options()[option])[1]);

test('the compose file is one by the schema of the Compose Specification', () => {
  const validate = new Ajv({ strict: false, validateFormats: false }).compile(JSON.parse(read('tests/deploy/schema/compose-spec.json')));
  assert.ok(validate(compose()), JSON.stringify(validate.errors, null, 1));
  assert.equal(validate({ ...compose(), services: { webrtc: { imagee: 'x' } } }), false, 'the schema can tell');
});

test('every variable of the compose file is explained in .env.example, and none that is not used', () => {
  const used = new Map([...read('deploy/compose.yaml').matchAll(/\$\{(\w+)(?::([-?])[^}]*)?\}/g)].map(([, name, kind]) => [name, kind]));
  const explained = new Map([...read('deploy/.env.example').matchAll(/^(#?)(\w+)=(.*)$/gm)].map(([, off, name, value]) => [name, { off, value }]));
  assert.deepEqual([...explained.keys()].sort(), [...used.keys()].sort());
  for (const [name, kind] of used) {
    if (kind === '?') assert.deepEqual(explained.get(name), { off: '', value: '' }, `${name} must be given, and has no value that could be forgotten`);
    else assert.equal(explained.get(name).off, '#', `${name} has a default`);
  }
  for (const password of [...used.keys()].filter((name) => name.endsWith('PASSWORD'))) assert.equal(used.get(password), '?', `${password} has no default`);
});

test('docs/deploy.md and .env.example name the lines that must be filled in, the services and the open ports', () => {
  const required = [...read('deploy/.env.example').matchAll(/^\w+=$/gm)].length;
  const count = ['no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven'][required];
  assert.ok(read('deploy/.env.example').includes(`without the first ${count} lines`));
  const page = read('docs/deploy.md');
  for (const words of [`fill in ${count} lines`, `the\n${count} lines`]) assert.ok(page.includes(words), words);
  const rows = page.split('\n').filter((line) => line.startsWith('| `')).map((line) => line.split('|')[1]);
  for (const [name, { ports = [] }] of Object.entries(compose().services)) {
    assert.ok(rows.some((row) => row.includes(`\`${name}\``)), name);
    for (const port of ports.map((port) => interpolated(port))) assert.match(/\* \*\*Ports\.\*\*(.*?)\n\*/s.exec(page)[1], new RegExp(`\\b${port.split(':')[0]}\\b`), port);
  }
});

test('only HTTPS, its redirect and the media port are open to the world', () => {
  const always = Object.entries(compose().services).filter(([, { profiles }]) => !profiles);
  const published = always.flatMap(([name, { ports = [] }]) => ports.map((port) => `${name} ${interpolated(port)}`));
  assert.deepEqual(published.sort(), ['nginx 443:443', 'nginx 80:80', 'webrtc 8000:8000/udp']);
  assert.deepEqual(compose().networks.inside, { internal: true });
  const { profiles, ports, networks } = compose().services.turn;
  assert.deepEqual([profiles, ports, networks], [['turn'], ['3478:3478/udp', '3478:3478/tcp'], ['outside']], 'a relay only where it is wanted');
  const outside = always.filter(([, { networks }]) => networks.includes('outside'));
  assert.deepEqual(outside.map(([name]) => name).sort(), ['nginx', 'webrtc']);
});

test('every service is confined, limited, watched and pinned', () => {
  for (const [name, service] of Object.entries(compose().services)) {
    assert.equal(service.read_only, true, `${name}: read-only`);
    assert.deepEqual(service.cap_drop, ['ALL'], `${name}: no capabilities`);
    assert.deepEqual(service.security_opt, ['no-new-privileges:true'], name);
    assert.ok(service.deploy.resources.limits.memory && service.deploy.resources.limits.cpus, `${name}: limits`);
    assert.ok(service.healthcheck?.test, `${name}: health check`);
    assert.equal(service.restart, 'unless-stopped', name);
    assert.match(interpolated(service.image), /:[\w.-]+$/, `${name}: an image with a tag`);
    assert.doesNotMatch(service.image, /latest/, name);
    assert.equal(service.container_name, undefined, `${name} can be scaled`);
  }
  assert.equal(compose().services['ml-worker'].deploy.replicas, 3);
});

test('every path that the compose file mounts exists, and scripts can be run', () => {
  const declared = Object.keys(compose().volumes);
  for (const { volumes = [] } of Object.values(compose().services)) {
    for (const volume of volumes.map((volume) => interpolated(volume))) {
      const [source, target] = volume.split(':');
      if (!source.startsWith('.')) assert.ok(declared.includes(source), volume);
      else assert.ok(existsSync(at('deploy', source)), volume);
      if (source.startsWith('.') && target.endsWith('.sh')) accessSync(at('deploy', source), constants.X_OK);
    }
  }
  // `dockerfile` is relative to the context, according to the Compose Specification.
  const { build } = compose().services.webrtc;
  assert.ok(existsSync(join(at('deploy', build.context), build.dockerfile)), 'the Dockerfile');
});

test('every option that containers are given exists, and every port agrees with the program’s own', () => {
  const known = Object.keys(options());
  const given = [
    ...Object.values(compose().services).flatMap(({ environment = {} }) => Object.keys(environment)),
    ...manifests().flatMap(({ object }) => object.spec?.template?.spec?.containers?.flatMap(({ env = [] }) => env.map(({ name }) => name)) ?? []),
    ...[...read('deploy/Dockerfile').matchAll(/(OOBLEX_\w+)=/g)].map(([, name]) => name),
  ].filter((name) => name.startsWith('OOBLEX_') && name.includes('__'));
  assert.ok(given.length > 10);
  for (const variable of given) assert.ok(known.includes(optionOf(variable)), `${variable} is no option of ooblex.toml`);

  const [gateway, admin, worker, media] = ['serve.listen', 'serve.admin_listen', 'worker.listen', 'media.listen'].map(listens);
  const dockerfile = read('deploy/Dockerfile');
  assert.match(dockerfile, new RegExp(`OOBLEX_SERVE__LISTEN=0.0.0.0:${gateway}\\b`));
  assert.match(dockerfile, new RegExp(`OOBLEX_WORKER__LISTEN=0.0.0.0:${worker}\\b`));
  assert.match(dockerfile, new RegExp(`^EXPOSE ${gateway}/tcp ${media}/udp ${worker}/tcp$`, 'm'));
  const { webrtc, 'ml-worker': workers } = compose().services;
  assert.equal(interpolated(webrtc.environment.OOBLEX_MEDIA__LISTEN), `0.0.0.0:${media}`);
  assert.equal(webrtc.environment.OOBLEX_SERVE__ADMIN_LISTEN, `0.0.0.0:${admin}`);
  assert.ok(webrtc.healthcheck.test.at(-1).includes(`:${gateway}/healthz`) && workers.healthcheck.test.at(-1).includes(`:${worker}/healthz`));
  const jobs = Object.fromEntries(prometheus().scrape_configs.map((job) => [job.job_name, job]));
  assert.deepEqual(jobs['ooblex-gateway'].static_configs[0].targets, [`webrtc:${admin}`]);
  assert.deepEqual([jobs['ooblex-worker'].dns_sd_configs[0].names, jobs['ooblex-worker'].dns_sd_configs[0].port], [['ml-worker'], worker]);
  assert.ok(read('deploy/nginx/ooblex.conf').includes(`http://webrtc:${gateway};`));
  assert.equal(/client_max_body_size (\d+)k;/.exec(read('deploy/nginx/ooblex.conf'))[1], options()['limits.body_kib']);
  assert.equal(/limit_conn clients (\d+);/.exec(read('deploy/nginx/ooblex.conf'))[1], options()['limits.connections_per_address']);
  for (const { object } of manifests().filter(({ object }) => object.kind === 'Deployment')) {
    const [{ ports }] = object.spec.template.spec.containers;
    const expected = { gateway: [gateway, admin, media], worker: [worker], redis: [6379] }[object.metadata.name];
    assert.deepEqual(ports.map(({ containerPort }) => containerPort), expected, object.metadata.name);
  }
});

test('the gateway answers to every name that nginx is asked by, and nginx passes the name on', () => {
  const given = { OOBLEX_ADVERTISE: '203.0.113.7', OOBLEX_DOMAIN: 'video.example.com' };
  const hosts = (given) => interpolated(compose().services.webrtc.environment.OOBLEX_SERVE__HOSTS, given).split(',').filter(Boolean);
  assert.deepEqual(hosts(given), ['localhost', '127.0.0.1', '203.0.113.7', 'video.example.com']);
  assert.deepEqual(hosts({ OOBLEX_ADVERTISE: '203.0.113.7' }), ['localhost', '127.0.0.1', '203.0.113.7']);
  assert.match(read('deploy/nginx/ooblex.conf'), /proxy_set_header Host +\$http_host;/);
});

test('the routes of operators are reached by Prometheus only', () => {
  const gateway = manifests().find(({ object }) => object.kind === 'Deployment' && object.metadata.name === 'gateway').object.spec.template;
  const [{ env, ports }] = gateway.spec.containers;
  const admin = ports.find(({ name }) => name === 'admin').containerPort;
  assert.equal(env.find(({ name }) => name === 'OOBLEX_SERVE__ADMIN_LISTEN').value, `0.0.0.0:${admin}`);
  assert.equal(gateway.metadata.annotations['prometheus.io/port'], `${admin}`);
  const services = manifests().filter(({ object }) => object.kind === 'Service').flatMap(({ object }) => object.spec.ports);
  assert.ok(services.every(({ targetPort }) => targetPort !== 'admin' && targetPort !== admin), 'no service leads there');
  const policies = Object.fromEntries(manifests().filter(({ object }) => object.kind === 'NetworkPolicy').map(({ object }) => [object.metadata.name, object.spec]));
  const of = (rules, side) => rules.map((rule) => [rule[side]?.flatMap((peer) => Object.values(peer).flatMap(({ matchLabels }) => Object.values(matchLabels))), rule.ports.map(({ port }) => port)]);
  assert.deepEqual(of(policies.gateway.ingress, 'from'), [[undefined, ['media']], [['ingress-nginx'], ['http']], [['monitoring'], ['admin']]]);
  assert.deepEqual(of(policies.worker.ingress, 'from'), [[['monitoring'], ['http']]]);
  assert.deepEqual(of(policies.worker.egress, 'to'), [[['redis'], [6379]], [['kube-system'], [53, 53]]]);
  const proxies = env.find(({ name }) => name === 'OOBLEX_SERVE__TRUSTED_PROXIES').value;
  assert.doesNotMatch(proxies, /^(10|172|192\.168)\.|,(10|172|192\.168)\.|^0\.|\/0/, 'no networks that contain more than the ingress');
  for (const path of ['/metrics', '/api/sessions', '/api/effects/reload']) assert.match(read('deploy/nginx/ooblex.conf'), new RegExp(`location = ${path} \\{\\s+return 404;`));
  for (const path of ['/api/rooms/', '/api/pulls', '/api/pushes']) assert.match(read('deploy/nginx/ooblex.conf'), new RegExp(`location ${path} \\{\\s+return 404;`));
});

test('every host that the configuration files name is a service', () => {
  const services = Object.keys(compose().services);
  const named = [
    ...[...read('deploy/nginx/ooblex.conf').matchAll(/http:\/\/([\w-]+):\d+/g)],
    ...[...read('deploy/grafana/provisioning/datasources/prometheus.yml').matchAll(/http:\/\/([\w-]+):\d+/g)],
    ...[...read('deploy/compose.yaml').matchAll(/@([\w-]+):\d+/g)],
  ].map(([, host]) => host);
  assert.ok(named.length >= 4);
  for (const host of named) assert.ok(services.includes(host), host);
  for (const { depends_on = {} } of Object.values(compose().services)) for (const host of Object.keys(depends_on)) assert.ok(services.includes(host), host);
});

test('the Dockerfile builds from what there is, and ends as an unprivileged user with what the program links to', (t) => {
  const dockerfile = DockerfileParser.parse(read('deploy/Dockerfile'));
  const stages = dockerfile.getFROMs();
  for (const from of stages) assert.match(from.getImage(), /:[\w.-]+$/, 'a base with a tag');
  const names = stages.map((from) => from.getBuildStage()).filter(Boolean);
  for (const copy of dockerfile.getCOPYs()) {
    const stage = copy.getFromFlag()?.getValue();
    if (stage) assert.ok(names.includes(stage), `COPY --from=${stage}`);
    else for (const source of copy.getArguments().slice(0, -1)) assert.ok(existsSync(at(source.getValue())), `COPY ${source.getValue()}`);
  }
  const last = dockerfile.getInstructions().filter((one) => one.getRange().start.line > stages.at(-1).getRange().start.line);
  const of = (keyword) => last.filter((one) => one.getKeyword() === keyword).at(-1)?.getArgumentsContent();
  assert.match(of('USER'), /^[1-9]\d*:[1-9]\d*$/);
  assert.equal(of('ENTRYPOINT'), '["ooblex"]');
  assert.ok(of('HEALTHCHECK').includes('"ooblex", "check", "--health"'));
  for (const line of read('deploy/Dockerfile').matchAll(/tools\/[\w-]+\.sh/g)) accessSync(at(line[0]), constants.X_OK);
  assert.equal(/rust:([\d.]+)-/.exec(stages[0].getImage())[1], /rust-version = "([\d.]+)"/.exec(read('Cargo.toml'))[1]);

  const program = process.env.OOBLEX ?? at('target/release/ooblex');
  const system = existsSync('/etc/os-release') ? execFileSync('cat', ['/etc/os-release'], { encoding: 'utf8' }) : '';
  if (!/VERSION_CODENAME=bookworm/.test(system) || !existsSync(program)) return t.diagnostic('what the program links to is looked at on Debian 12, as in the image');
  const installed = /install --yes --no-install-recommends (.*) &&/.exec(of('RUN'))[1].split(' ');
  const libraries = [...execFileSync('ldd', [program], { encoding: 'utf8' }).matchAll(/=> (\S+)/g)].map(([, path]) => path);
  // Packages that every Debian image contains.
  const packages = new Set(['libc6', 'libgcc-s1', ...installed]);
  for (const library of libraries) {
    const real = execFileSync('readlink', ['--canonicalize', library], { encoding: 'utf8' }).trim();
    const owner = [real, library, real.replace(/^\/usr/, '')].map((path) => spawnSync('dpkg', ['--search', path], { encoding: 'utf8' }).stdout.split(':')[0]).find(Boolean);
    assert.ok(packages.has(owner), `${library} is of ${owner}, which the image does not install`);
  }
});

test('dashboards are what dashboards.mjs makes, and ask for series that there are', () => {
  assert.deepEqual(readdirSync(at('deploy/grafana/dashboards')).sort(), Object.keys(dashboards).map((uid) => `${uid}.json`).sort());
  for (const uid of Object.keys(dashboards)) {
    assert.equal(read(`deploy/grafana/dashboards/${uid}.json`), text(uid), `run: node deploy/grafana/dashboards.mjs`);
    const { panels } = JSON.parse(text(uid));
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    for (const { title, gridPos, targets } of panels) {
      assert.ok(gridPos.x + gridPos.w <= 24, title);
      if (targets) assert.ok(targets.length > 0 && targets.every(({ datasource }) => datasource.uid === yaml('deploy/grafana/provisioning/datasources/prometheus.yml').datasources[0].uid), title);
    }
  }
  const [provider] = yaml('deploy/grafana/provisioning/dashboards/ooblex.yml').providers;
  const { volumes, environment } = compose().services.grafana;
  assert.ok(volumes.includes(`./grafana/dashboards:${provider.options.path}:ro`));
  const home = environment.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH;
  assert.ok(home.startsWith(provider.options.path) && existsSync(at('deploy/grafana/dashboards', home.split('/').at(-1))));
});

test('every series that a dashboard, a rule or the autoscaler asks for is told by the program or recorded by a rule', () => {
  const recorded = rules().flatMap(({ record }) => record ?? []);
  const known = new Set(recorded);
  for (const [name, type] of metrics()) for (const suffix of type === 'histogram' ? ['_bucket', '_sum', '_count'] : ['']) known.add(name + suffix);
  const asked = [...panels().map(({ expr }) => expr), ...rules().map(({ expr }) => expr), ...manifests().flatMap(({ object }) => object.spec?.triggers?.map(({ metadata }) => metadata.query) ?? [])];
  assert.ok(asked.length > 70);
  for (const expr of asked) for (const name of series(expr)) assert.ok(known.has(name), `${name} in: ${expr}`);
  for (const name of recorded) assert.ok(asked.some((expr) => series(expr).includes(name)), `${name} is recorded and not used`);
});

test('every alert names its severity and a section of docs/metrics.md, and there is none without an alert', () => {
  const sections = [...read('docs/metrics.md').matchAll(/^### (Ooblex\w+)$/gm)].map(([, name]) => name);
  assert.deepEqual(alerts().map(({ alert }) => alert).sort(), sections.sort());
  for (const { alert, labels, annotations, expr } of alerts()) {
    assert.ok(['warning', 'critical'].includes(labels.severity), alert);
    assert.equal(annotations.runbook, `docs/metrics.md#${alert.toLowerCase()}`);
    assert.ok(annotations.summary.length > 10 && measured({ expr }), `${alert} compares something with a number`);
  }
});

test('promtool accepts configuration and rules, and alerts come and go when they should', () => {
  for (const command of [['check', 'config', 'deploy/prometheus/prometheus.yml'], ['check', 'rules', 'deploy/prometheus/rules.yml'], ['test', 'rules', 'tests/deploy/rules.test.yml']]) {
    const { status, stdout, stderr } = spawnSync('promtool', command, { cwd: root, encoding: 'utf8' });
    assert.equal(status, 0, `promtool ${command.join(' ')}: ${stdout}${stderr}`);
  }
  const tested = new Set([...read('tests/deploy/rules.test.yml').matchAll(/alertname: (\w+)/g)].map(([, name]) => name));
  for (const { alert } of alerts()) assert.ok(tested.has(alert), `${alert} has no unit test`);
});

test('the manifests are ones by the schemas of Kubernetes, and fit together', () => {
  const schema = JSON.parse(read('tests/deploy/schema/kubernetes-1.34.json'));
  const ajv = new Ajv({ strict: false, validateFormats: false });
  ajv.addSchema(schema);
  const validator = (kind) => ajv.compile({ $ref: `${schema.$id}#/$defs/${schema.kinds[kind]}` });
  const all = manifests();
  const foreign = ['ScaledObject', 'Kustomization'];
  for (const { file, object } of all.filter(({ object }) => !foreign.includes(object.kind))) {
    assert.ok(schema.kinds[object.kind], `${file}: there is no schema for ${object.kind}`);
    const validate = validator(object.kind);
    assert.ok(validate(object), `${file}: ${JSON.stringify(validate.errors?.slice(0, 3), null, 1)}`);
    if (object.kind !== 'Namespace') assert.equal(object.metadata.namespace, 'ooblex', file);
  }
  assert.equal(validator('Service')({ apiVersion: 'v1', kind: 'Service', spec: { port: [] } }), false, 'the schema can tell');

  const kustomization = all.find(({ object }) => object.kind === 'Kustomization').object;
  assert.deepEqual([...kustomization.resources, 'kustomization.yaml'].sort(), readdirSync(at('deploy/kubernetes')).sort());
  for (const { files } of kustomization.configMapGenerator) for (const file of files) assert.ok(existsSync(at('deploy/kubernetes', file)), file);

  const deployments = all.map(({ object }) => object).filter(({ kind }) => kind === 'Deployment');
  const names = deployments.map(({ metadata }) => metadata.name);
  for (const { metadata, spec } of deployments) {
    assert.deepEqual(spec.selector.matchLabels, spec.template.metadata.labels, metadata.name);
    for (const container of spec.template.spec.containers) {
      assert.deepEqual(container.securityContext, { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } }, metadata.name);
      assert.ok(container.resources.requests.cpu && container.resources.limits.memory, metadata.name);
    }
  }
  for (const { object } of all.filter(({ object }) => object.kind === 'Service')) assert.ok(names.includes(object.spec.selector.app), object.metadata.name);
  const scaled = all.find(({ object }) => object.kind === 'ScaledObject').object;
  assert.equal(scaled.apiVersion, 'keda.sh/v1alpha1');
  assert.ok(names.includes(scaled.spec.scaleTargetRef.name) && scaled.spec.minReplicaCount < scaled.spec.maxReplicaCount);
  for (const { type, metadata } of scaled.spec.triggers) {
    assert.equal(type, 'prometheus');
    assert.deepEqual(Object.keys(metadata).sort(), ['query', 'serverAddress', 'threshold']);
    assert.ok(Number(metadata.threshold) > 0, 'a number, in quotes');
  }
});

test('the units are ones by systemd', (t) => {
  if (spawnSync('systemd-analyze', ['--version']).error) return t.skip('systemd-analyze is not here');
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-units-'));
  try {
    for (const unit of readdirSync(at('deploy/systemd'))) {
      const content = read('deploy/systemd', unit);
      assert.match(content, /^ExecStart=\/usr\/local\/bin\/ooblex (serve|worker) --config \/etc\/ooblex\/ooblex\.toml$/m);
      // The program need not be installed on the machine that runs the tests.
      writeFileSync(join(folder, unit), content.replaceAll('/usr/local/bin/ooblex', '/bin/true'));
      const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', join(folder, unit)], { encoding: 'utf8' });
      const complaints = stderr.split('\n').filter((line) => line.includes(unit));
      assert.equal(`${status} ${complaints.join('\n')}`, '0 ', unit);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('the units leave the program the calls by which it restricts itself', () => {
  for (const unit of readdirSync(at('deploy/systemd'))) {
    const lists = [...read('deploy/systemd', unit).matchAll(/^SystemCallFilter=(.*)$/gm)].map(([, list]) => list);
    assert.ok(lists.every((list) => !list.startsWith('~')), `${unit}: a list of what is allowed`);
    const allowed = lists.flatMap((list) => list.split(' '));
    // Landlock and seccomp; seccomp is also set by prctl, which @system-service contains.
    for (const call of ['@system-service', 'landlock_create_ruleset', 'landlock_add_rule', 'landlock_restrict_self', 'seccomp']) assert.ok(allowed.includes(call), `${unit}: ${call}`);
    assert.match(read('deploy/systemd', unit), /^SystemCallErrorNumber=EPERM$/m, unit);
  }
});

test('a certificate is made when there is none, and anew when ours ends; one of somebody else’s is left alone', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-certificate-'));
  const [certificate, key, mark] = ['fullchain.pem', 'privkey.pem', 'self-signed'].map((name) => join(folder, name));
  const make = () => spawnSync('sh', [at('deploy/nginx/make-certificate.sh')], { env: { PATH: process.env.PATH, TLS_FOLDER: folder, OOBLEX_ADVERTISE: '203.0.113.7,2001:db8::7', OOBLEX_DOMAIN: 'video.example.com' }, encoding: 'utf8' });
  const openssl = (...options) => spawnSync('openssl', options, { cwd: folder, encoding: 'utf8' });
  const about = () => openssl('x509', '-in', certificate, '-noout', '-serial', '-ext', 'subjectAltName').stdout;
  const issue = (days) => openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', `${days}`, '-subj', '/CN=somebody', '-keyout', key, '-out', certificate);
  try {
    assert.equal(make().status, 0);
    const first = about();
    assert.match(first, /DNS:localhost, IP Address:203\.0\.113\.7, IP Address:2001:DB8:0:0:0:0:0:7, DNS:video\.example\.com/);
    assert.equal(statSync(key).mode & 0o077, 0, 'nobody else reads the key');
    assert.equal(make().status, 0);
    assert.equal(about(), first, 'one that is good is kept');
    issue(5);
    const ending = about();
    assert.match(make().stdout, /made anew/);
    assert.notEqual(about(), ending);

    issue(5);
    rmSync(mark);
    const own = about();
    assert.equal(make().status, 0);
    assert.equal(about(), own, 'without our mark it is somebody’s own');

    writeFileSync(mark, '');
    openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '5', '-subj', '/CN=authority', '-keyout', 'ca.key', '-out', 'ca.pem');
    openssl('req', '-new', '-key', key, '-subj', '/CN=video.example.com', '-out', 'request.pem');
    openssl('x509', '-req', '-in', 'request.pem', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-days', '5', '-out', certificate);
    const issued = about();
    assert.equal(make().status, 0);
    assert.equal(about(), issued, 'one that an authority has put in the place of ours is left alone');

    rmSync(key);
    assert.notEqual(make().status, 0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('every file of deploy/ is looked at by a test or named by another', () => {
  const known = new Set(['.env.example', 'Dockerfile', 'auth', 'compose.yaml', 'nginx', 'redis', 'turn', 'prometheus', 'grafana', 'kubernetes', 'systemd']);
  for (const name of readdirSync(at('deploy'))) assert.ok(known.has(name) || name === '.env', name);
  for (const script of ['redis', 'turn']) assert.ok(statSync(at(`deploy/${script}/start.sh`)).mode & 0o100, script);
});
