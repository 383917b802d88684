/**
 * Simulates other machines by network namespaces, connected to this one and to one another by veth
 * pairs. That needs root.
 *
 * Owns namespaces, veth pairs and addresses. Refuses to know what runs there.
 */

import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Maximum number of processes that have machines at the same time. */
const NUMBERS = 250;
const ip = (...options) => spawnSync('ip', options, { encoding: 'utf8' });
const within = (space) => (space ? ['-n', space] : []);

/**
 * Adds a namespace, and returns the `number` in its name, of which no other process has one: the names and addresses of all machines
 * follow from it. Returns `missing`, the reason, if none can be added.
 */
function claim() {
  if (process.getuid() !== 0) return { missing: 'network namespaces need root' };
  for (let tries = 0; tries < NUMBERS; tries++) {
    const number = 1 + ((process.pid + tries) % NUMBERS);
    const { status, stderr, error } = ip('netns', 'add', `ooblex${number}`);
    if (status === 0) return { number };
    if (!/File exists/.test(stderr)) return { missing: `ip netns add: ${error?.message ?? stderr.trim()}` };
  }
  return { missing: `${NUMBERS} namespaces are there already` };
}

/**
 * Makes one machine and a veth pair to it. Returns the addresses of both ends (`here`, `there`),
 * `run`, `program` and `end`; or `missing`, the reason for which it cannot be made.
 */
export function anotherMachine() {
  const { number, missing: nothing } = claim();
  if (nothing) return { missing: nothing };
  const there = { space: `ooblex${number}`, device: 'eth0', address: `10.213.${number}.2` };
  const here = { device: `oob${number}`, address: `10.213.${number}.1` };
  const { missing, end, machines } = build([there.space], here.device, lay(here, there));
  return missing ? { missing } : { here: here.address, there: there.address, end, ...machines[there.space] };
}

/**
 * Makes an office behind a firewall: two machines in a row. All traffic between the office and this
 * machine passes the firewall, which forwards TCP and silently drops UDP. UDP from the office to
 * the firewall itself arrives, unless `udp` is false.
 *
 * Returns `here` (the address of this machine), `relay` (the address of the firewall as seen from
 * the office), `office` and `firewall` (`run`, `program`), and `end`; or `missing`, the reason for
 * which it cannot be made.
 */
export function officeBehindFirewall({ udp = true } = {}) {
  const { number, missing: nothing } = claim();
  if (nothing) return { missing: nothing };
  const [firewall, office] = [`ooblex${number}`, `ooblex${number}-office`];
  const here = { device: `oob${number}`, address: `10.213.${number}.1` };
  const outside = { space: firewall, device: 'outside', address: `10.213.${number}.2` };
  const inside = { space: firewall, device: 'inside', address: `10.214.${number}.1` };
  const desk = { space: office, device: 'eth0', address: `10.214.${number}.2` };
  const drop = (device, ...more) => [...within(firewall), 'rule', 'add', 'iif', device, 'ipproto', 'udp', ...more, 'blackhole'];
  const { missing, end, machines } = build([firewall, office], here.device, [
    ...lay(here, outside),
    ...lay(inside, desk),
    ['route', 'add', `10.214.${number}.0/24`, 'via', outside.address],
    [...within(office), 'route', 'add', 'default', 'via', inside.address],
    ['netns', 'exec', firewall, 'sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward'],
    // These routing rules come after the table of the firewall's own addresses, so they apply to
    // forwarded packets.
    drop(outside.device),
    drop(inside.device),
    // Moves that table, so that a rule can come before it.
    ...(udp ? [] : [drop(inside.device, 'priority', '10'), [...within(firewall), 'rule', 'add', 'priority', '20', 'lookup', 'local'], [...within(firewall), 'rule', 'delete', 'priority', '0']]),
  ]);
  return missing ? { missing } : { here: here.address, relay: inside.address, office: machines[office], firewall: machines[firewall], end };
}

/**
 * Returns the arguments of `ip` that make a veth pair between two ends, each `{space, device,
 * address}`; an end without a space is on this machine.
 */
function lay(one, other) {
  const up = ({ space, device, address }) => [
    [...within(space), 'address', 'add', `${address}/24`, 'dev', device],
    // Disables IPv6, because its address would be added seconds later, and browsers drop pending
    // requests when an address is added.
    [...within(space), 'link', 'set', device, 'addrgenmode', 'none'],
    [...within(space), 'link', 'set', device, 'up'],
  ];
  const cable = [...within(one.space), 'link', 'add', one.device, 'type', 'veth', 'peer', 'name', other.device, 'netns', other.space];
  return [cable, ...up(one), ...up(other)];
}

/**
 * Adds the namespaces besides the first one, which is there, and runs the commands. Returns the `machines` by namespace, and `end()`,
 * which removes all of them; or `missing`.
 */
function build(spaces, cable, steps) {
  const folder = mkdtempSync(join(tmpdir(), 'ooblex-machines-'));
  const end = () => {
    process.removeListener('exit', end);
    // Without this, a veth device disappears only some time after its namespace.
    ip('link', 'delete', cable);
    for (const space of spaces) ip('netns', 'delete', space);
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', end);
  const start = spaces.flatMap((space, index) => [...(index ? [['netns', 'add', space]] : []), [...within(space), 'link', 'set', 'lo', 'up']]);
  for (const step of [...start, ...steps]) {
    const { status, stderr, error } = ip(...step);
    if (status !== 0) {
      end();
      return { missing: `ip ${step.join(' ')}: ${error?.message ?? stderr.trim()}` };
    }
  }
  const machine = (space) => ({
    /** Runs a program there until it ends. */
    run: (...command) => spawnSync('ip', ['netns', 'exec', space, ...command], { encoding: 'utf8' }),
    /** Writes a script that starts the program at `path` there. Returns the path of the script. */
    program: (path) => {
      const starts = join(folder, `${space}-${path.replaceAll('/', '-')}`);
      writeFileSync(starts, `#!/bin/sh\nexec ip netns exec ${space} ${path} "$@"\n`);
      chmodSync(starts, 0o755);
      return starts;
    },
  });
  return { machines: Object.fromEntries(spaces.map((space) => [space, machine(space)])), end };
}
