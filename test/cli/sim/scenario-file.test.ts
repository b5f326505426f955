/*
 * Files of `userdma sim`: settings and their defaults, mistakes, and the examples.
 */
import assert from 'node:assert/strict'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { csvText, jsonText, tableText } from '../../../src/cli/sim/output.ts'
import { plotHtml } from '../../../src/cli/sim/plot.ts'
import { parseScenario, readScenario } from '../../../src/cli/sim/scenario-file.ts'
import { type Result, simulate } from '../../../src/tools/sim/scenario.ts'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'

const SMALL = 'topology: { star: 3 }\ntraffic: { pattern: incast }\n'

test('settings have defaults, and units', () => {
  const { scenario, controls } = parseScenario(SMALL, 'lab.yaml')
  assert.equal(scenario.name, 'lab')
  assert.deepEqual(controls, ['dcqcn', 'go-back-n', 'none'])
  assert.equal(scenario.flows.length, 2)
  assert.deepEqual([scenario.time, scenario.warmUp, scenario.mtu, scenario.seed], [10_000, 5000, 1024, 1])
  const { topology, flows } = parseScenario(
    `topology: { leaf-spine: { leaves: 2, spines: 2, hosts: 2 } }
link: { rate: 25gbit, delay: 500ns, queue: 1mib, mark: 10kb-1mb-5%, loss: 1%, mtu: 4200 }
trunk: { rate: 100gbit, mark: none }
traffic: { pattern: permutation, peers: 2, message: 8kib, messages: 7, depth: 3, stagger: 1ms }
mtu: 4096`,
    'lab.yaml',
  ).scenario
  const marking = { min: 10_000, max: 1e6, probability: 0.05 }
  const link = { rate: 25e9, delay: 0.5, queue: 2 ** 20, marking, loss: 0.01, mtu: 4200 }
  assert.deepEqual(topology.links[0], { ...link, ends: [0, 4] })
  assert.deepEqual(topology.links.at(-1), { ...link, rate: 100e9, marking: undefined, ends: [5, 7] })
  assert.deepEqual(flows[1], { from: 1, to: 2, bytes: 8192, messages: 7, depth: 3, start: 1000 })
})

test('a topology of `userdma net` can be used', () => {
  const folder = scratchFolder()
  const net =
    'hosts: 2\nswitches: [tor]\nlinks:\n  - { between: [h1, tor], rate: 1gbit, delay: 1ms, mtu: 1500 }\n  - { between: [tor, h2] }\n'
  writeFileSync(join(folder, 'net.yaml'), net)
  writeFileSync(join(folder, 'sim.yaml'), 'topology: { file: net.yaml }\ntraffic: { pattern: incast }\n')
  const { topology } = readScenario(join(folder, 'sim.yaml')).scenario
  assert.deepEqual([topology.hosts, topology.switches], [2, 1])
  assert.deepEqual(
    topology.links.map(({ rate, delay, mtu, ends }) => [rate, delay, mtu, ends]),
    [
      [1e9, 1000, 1500, [0, 2]],
      [40e9, 1, 1500, [2, 1]],
    ],
  )
})

test('mistakes name the setting, the value and what is allowed', () => {
  for (const [source, message] of [
    ['', /^lab\.yaml:\d+:\d+: null: give a map with name, topology/],
    ['topology: { star: 3 }', /^lab\.yaml:\d+:\d+: traffic: undefined: give a map with pattern/],
    [
      'topology: { ring: 3 }\ntraffic: { pattern: incast }',
      /^lab\.yaml:\d+:\d+: topology\.ring: there is no such setting.*star, chain, leaf-spine, file/,
    ],
    ['topology: { star: 3, chain: {} }', /^lab\.yaml:\d+:\d+: topology: give one of star/],
    ['topology: { star: 1 }', /^lab\.yaml:\d+:\d+: topology\.star: 1: give an integer from 2 to 4096/],
    [`${SMALL}link: { rate: fast }`, /^lab\.yaml:\d+:\d+: link\.rate: "fast": give a rate from 1mbit to 800gbit/],
    [`${SMALL}link: { delay: 3 }`, /^lab\.yaml:\d+:\d+: link\.delay: 3: give a time with a unit/],
    [
      `${SMALL}link: { mark: 200kb-5kb-1% }`,
      /^lab\.yaml:\d+:\d+: link\.mark: "200kb-5kb-1%": give MIN-MAX-PROBABILITY/,
    ],
    [
      `${SMALL}link: { mtu: 900 }`,
      /^lab\.yaml:\d+:\d+: mtu: 1024: packets with headers have 1084 bytes, and a link has an MTU of 900/,
    ],
    [`${SMALL}mtu: 1000`, /^lab\.yaml:\d+:\d+: mtu: 1000: give one of 256, 512/],
    [
      `${SMALL}control: [dcqcn, timely]`,
      /^lab\.yaml:\d+:\d+: control: \["dcqcn","timely"\]: give one or several of dcqcn, go-back-n, none/,
    ],
    [`${SMALL}tiem: 1ms`, /^lab\.yaml:\d+:\d+: tiem: there is no such setting, did you mean "time"\?/],
    [
      'topology: { star: 2 }\ntraffic: { pattern: parking-lot, message: 5b }',
      /^lab\.yaml:\d+:\d+: traffic\.message: 5 bytes are not a multiple of 4/,
    ],
    [
      'topology: { star: 2000 }\ntraffic: { pattern: all-to-all }',
      /^lab\.yaml:\d+:\d+: traffic\.pattern: all-to-all of 2000 hosts has 3998000 flows; at most 100000/,
    ],
    ['a: [', /^lab\.yaml:\d+:\d+: /],
    ['a: &x [1]\nb: *x', /alias/i],
    [`${'['.repeat(100_000)}`, /^lab\.yaml:\d+:\d+: there are more than 32 levels/],
  ] as const)
    assert.throws(() => parseScenario(source, 'lab.yaml'), { message }, source.slice(0, 80))
  assert.throws(() => readScenario('/nonexistent.yaml'), /cannot read the scenario \/nonexistent\.yaml: ENOENT/)
})

test('the examples are scenarios', () => {
  const folder = join(repoRoot, 'examples', 'sim')
  const files = readdirSync(folder)
  assert.deepEqual(files.sort(), ['all-to-all.yaml', 'incast.yaml', 'large.yaml', 'lossy-wan.yaml', 'parking-lot.yaml'])
  const [all, , large] = files.map(file => readScenario(join(folder, file)).scenario)
  assert.deepEqual([all.topology.hosts, all.flows.length], [128, 128 * 127])
  assert.deepEqual([large.topology.hosts, large.flows.length], [1000, 10_000])
})

test('results are a table, CSV, JSON and a page', () => {
  const { scenario } = parseScenario(`name: a,"<b>"\n${SMALL}time: 200us`, 'lab.yaml')
  const results = (['dcqcn', 'none'] as const).map((control): Result => {
    let time = 0
    const run = simulate(scenario, control, () => (time += 500))
    for (;;) {
      const step = run.next()
      if (step.done) return step.value
    }
  })
  assert.equal(results[0].seconds, 0.5)
  assert.equal(results[0].packetsPerSecond, 2 * results[0].packets)
  const lines = tableText(results).split('\n')
  assert.match(lines[0], /^a,"<b>": 3 hosts, 2 flows, 200 µs measured$/)
  assert.match(lines[1], /^control +goodput +fairness +messages +p50 +p99 /)
  assert.match(lines[3], /^none +\d+\.?\d*gbit +[01]\.\d{3} /)
  const [names, first] = csvText(results).split('\n')
  assert.ok(names.startsWith('scenario,control,hosts,flows,time,goodput,fairness,'))
  assert.ok(first.startsWith('"a,""<b>""",dcqcn,3,2,200,'))
  assert.deepEqual(JSON.parse(jsonText(results)), results)
  const page = plotHtml(results)
  assert.ok(page.includes('a,&quot;&lt;b&gt;&quot;') && !page.includes('<b>'))
  assert.equal(page.match(/<polyline/g)?.length, 6)
  assert.ok(!/NaN|undefined|Infinity/.test(page))
})
