/*
 * Scenarios of `userdma net play`, as files.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseRule } from '../../../src/faults/rules.ts'
import { UnreadableFile } from '../../../src/tools/topology/input-error.ts'
import { outageEventOf, readScenario, ruleOf, type ScenarioHost } from '../../../src/tools/topology/play-file.ts'
import { scratchFolder } from '../../tools.ts'

const folder = scratchFolder()

const host = (name: string, hasFabric = false): ScenarioHost => ({
  ...{ name, hasDaemon: true, devices: ['rxe0'], interfaces: ['eth0'], hasFabric },
})
const HOSTS = [host('a'), host('b'), { ...host('bare'), hasDaemon: false, devices: [] }, host('ib', true)]
const CABLES = [['leaf', 'spine']] as const
const ROUTED = { routers: ['core', 'edge'], paths: [['core', 'edge']] as const }

const read = (text: string) => {
  const file = join(folder, 'play.yaml')
  writeFileSync(file, text)
  return readScenario(file, () => ({ hosts: HOSTS, cables: CABLES, ...ROUTED }))
}
const PROGRAMS = 'programs: { one: { host: a, run: "/usr/bin/rping -s" }, two: { host: b, run: "true", expect: {} } }'
const withEvent = (event: string): string => `net: lab.yaml\n${PROGRAMS}\nevents: [{ ${event} }]`

test('a scenario has programs, moments and actions with their defaults', () => {
  const { net, seed, programs, events } = read(
    withEvent('after: 2s, when: { completions: { program: one, nth: 7, of: WRITE } }, link: { host: a, down: 3s }'),
  )
  assert.deepEqual([net, seed], ['lab.yaml', 1])
  assert.deepEqual(programs[1], {
    name: 'two',
    host: 'b',
    run: 'true',
    restart: 'never',
    start: { after: 0 },
    expect: { exit: 0, within: 60_000 },
  })
  const [{ moment, action, text }] = events
  assert.deepEqual(action, { kind: 'link', host: 'a', device: '', down: 3000 })
  assert.equal(text, 'the link of the devices of a goes down for 3s')
  assert.equal(moment.after, 2000)
  assert.ok(moment.when?.kind === 'count')
  assert.equal(ruleOf(moment.when, 3000), 'completion=WRITE,nth=7,link=3000ms')
})

test('a link between InfiniBand switches goes down', () => {
  const [event] = read(withEvent('after: 2s, link: { between: [spine, leaf], down: 1s }')).events
  assert.deepEqual(event?.action, { kind: 'cable', between: ['leaf', 'spine'], down: 1000 })
  assert.equal(event?.text, 'the link between leaf and spine goes down for 1s')
})

test('routers and their links go down', () => {
  const actionOf = (event: string) => read(withEvent(event)).events[0]!
  assert.deepEqual(actionOf('link: { between: [edge, core], down: 1s }').action, {
    ...{ kind: 'path', between: ['core', 'edge'], down: 1000 },
  })
  const { action, text } = actionOf('router: { name: core, down: 3s }')
  assert.deepEqual(action, { kind: 'router', name: 'core', down: 3000 })
  assert.equal(text, 'the router core goes down for 3s')
})

test('a rule of a host takes a router or its links down at its moment; others are of its daemon', () => {
  const host = { name: 'a', hasDaemon: true, devices: ['rxe0'], interfaces: ['eth0'], hasFabric: false }
  const eventOf = (rule: string) => outageEventOf(rule, host, ROUTED)
  const { action, text, moment } = eventOf('completion=WRITE,nth=7,site=0000001f,router=core:3s')!
  assert.deepEqual(action, { kind: 'router', name: 'core', down: 3000 })
  assert.equal(text, 'the router core goes down for 3s')
  assert.ok(moment.when?.kind === 'count')
  assert.deepEqual([moment.when.host, moment.when.nth], ['a', 7])
  const counting = parseRule(ruleOf(moment.when))
  assert.deepEqual(
    [counting.nth, counting.completion, counting.site, counting.router],
    [1e9, ['WRITE'], ['0000001f'], ''],
  )
  const path = eventOf('call=mr.create,cable=edge:core:50ms')!
  assert.deepEqual(path.action, { kind: 'path', between: ['core', 'edge'], down: 50 })
  for (const rule of [
    'drop=1%',
    'completion=*,nth=1,link=3s',
    'completion=*,nth=1,cable=leaf:spine:3s',
    'drop=1;dup=1',
  ])
    assert.equal(eventOf(rule), undefined, rule)
  assert.throws(() => eventOf('completion=*,router=cor:3s'), /the net has no router "cor", did you mean "core"/)
  for (const rule of ['router=core,drop=1', 'completion=*,cable=core:edge'])
    assert.throws(() => eventOf(rule), /takes a router or its links down for a time, at a call or completion: /, rule)
})

test('a link between InfiniBand switches has a rate, a delay and a loss, for a time', () => {
  const [event] = read(withEvent('link: { between: [spine, leaf], rate: 1gbit, delay: 5ms, loss: 1%, for: 2s }')).events
  const conditions = { rate: 1e9, delay: 5, loss: 0.01 }
  assert.deepEqual(event?.action, { kind: 'conditions', between: ['leaf', 'spine'], conditions, for: 2000 })
  assert.equal(event?.text, 'the link between leaf and spine has a rate of 1gbit, a delay of 5ms, a loss of 1% for 2s')
  const [none] = read(withEvent('link: { between: [spine, leaf], delay: 0ms }')).events
  assert.deepEqual(none?.action, { kind: 'conditions', between: ['leaf', 'spine'], conditions: {}, for: 0 })
})

test('programs that share a host are counted by the names of their processes', () => {
  const programs = (more: string): string =>
    `net: x\nprograms: { one: { host: a, run: "/usr/bin/rping -s"${more} }, two: { host: a, run: "true", expect: {} } }\nevents: [{ when: { calls: { program: one, nth: 7 } }, kill: two }]`
  const selectorsOf = (text: string): string | undefined => {
    const when = read(text).events[0]?.moment.when
    return when?.kind === 'count' ? when.selectors : undefined
  }
  assert.equal(selectorsOf(programs('')), 'call=*.*,program=rping')
  assert.equal(selectorsOf(programs(', command: python3')), 'call=*.*,program=python3')
})

test('every count is a rule that never acts', () => {
  for (const when of [
    'completions: { program: one, nth: 7 }',
    'calls: { program: one, nth: 7 }',
    'calls: { program: one, nth: 7, of: mr.create }',
    'posts: { program: one, nth: 7 }',
    'posts: { program: one, nth: 7, of: SEND }',
    'packets: { host: b, nth: 7 }',
    'packets: { host: b, nth: 7, of: RC_ACKNOWLEDGE }',
  ]) {
    const trigger = read(withEvent(`when: { ${when} }, kill: one`)).events[0]?.moment.when
    assert.ok(trigger?.kind === 'count')
    assert.equal(parseRule(ruleOf(trigger)).nth, 1e9, when)
  }
})

test('mistakes are named with their place, the value, and what is allowed', () => {
  for (const [text, message] of [
    ['net: lab.yaml', /play\.yaml:1:1: programs: undefined: give a map/],
    [`net: lab.yaml\nprograms: {}`, /programs: give 1 to 256 programs/],
    [`net: lab.yaml\nprograms: { one: { host: a, run: x } }`, /programs: give one of them `expect`/],
    [`net: lab.yaml\nprograms: { one: { host: c, run: x } }`, /programs\.one\.host: the net has no host "c"/],
    [
      `net: lab.yaml\nprograms: { one: { host: a, run: x, restart: no } }`,
      /restart: "?\w+"?: give never, on-failure, al/,
    ],
    [withEvent('kill: three'), /events\[0\]\.kill: there is no program "three".*; there are one, two/],
    [withEvent('after: 2s'), /events\[0\]: give one of link, router, gid, fault, device, daemon, kill, stop/],
    [withEvent('kill: one, stop: { program: one, for: 1s }'), /events\[0\]: give one of link, router, gid/],
    [withEvent('link: { host: a, down: 1h }'), /events\[0\]\.link\.down: "1h": give a time with a unit/],
    [withEvent('link: { host: a }'), /events\[0\]\.link\.down: is missing: give a time/],
    [
      withEvent('link: { between: [leaf, a], down: 1s }'),
      /between: \["leaf","a"\] is no link between InfiniBand switches or of routers; there are \[leaf, spine\], \[core, edge\]/,
    ],
    [
      withEvent('link: { between: [spine, leaf], host: a, down: 1s }'),
      /link\.host: a link between switches has no host; leave one/,
    ],
    [
      withEvent('link: { between: [spine, leaf], down: 1s, loss: 1% }'),
      /link\.down: a link that is down has no rate, delay or loss/,
    ],
    [withEvent('router: { name: cor, down: 1s }'), /router\.name: the net has no router "cor", did you mean "core"/],
    [withEvent('link: { between: [core, edge], delay: 1ms }'), /link\.between: the link of a router can go down/],
    [withEvent('link: { between: [spine, leaf], for: 1s }'), /link\.for: give one of rate, delay, loss too/],
    [withEvent('link: { between: [spine, leaf], delay: 1s }'), /link: delay="1s": a link between .* at most 100ms/],
    [withEvent('link: { host: a, delay: 5ms }'), /link\.delay: a link between InfiniBand switches can have it; of the/],
    [
      withEvent('gid: { host: ib, move: 1 }'),
      /gid\.host: the GIDs of host "ib", which has InfiniBand ports, do not come from/,
    ],
    [withEvent('gid: { host: a, move: 99 }'), /gid\.move: 99: give an integer from 1 to 8/],
    [withEvent('fault: { host: a, rules: drop=7 }'), /fault\.rules: fault drop: "7" is not a probability/],
    [withEvent('when: { line: { program: one, matches: "(" } }, kill: one'), /line\.matches: "\(": Invalid regular/],
    [withEvent('when: { completions: { program: one, nth: 0 } }, kill: one'), /nth: 0: give an integer from 1 to/],
    [withEvent('when: { completions: { program: one, nth: 1, of: NO } }, kill: one'), /completion: "NO" is not/],
    [withEvent('when: { packets: { host: a, nth: 1, program: one } }, kill: one'), /there is no such setting/],
    ['[]', /give a map with net, seed, programs, events/],
    [`net: &a [*a]`, /play\.yaml:1:10: \*a: an alias is not allowed/],
    ['net: lab.yaml\nprograms: [', /play\.yaml:2:12: Flow sequence/],
    [`net: lab.yaml\nseed: 1\nevents: 7\n${PROGRAMS}`, /play\.yaml:3:1: events: give a list of at most 256/],
    ['['.repeat(10_000), /there are more than 32 levels of lists and maps/],
  ] as const)
    assert.throws(() => read(text), message, text.slice(0, 200))
})

// Each kind of event and each kind of moment, with every name that it has.
for (const [what, event, message] of [
  ['kill, program', 'kill: three', 'there is no program "three"'],
  ['stop, program', 'stop: { program: three, for: 1s }', 'there is no program "three"'],
  ['link, host', 'link: { host: c, down: 1s }', 'the net has no host "c"'],
  ['link, device', 'link: { host: a, device: rxe7, down: 1s }', 'host "a" has no device "rxe7", did you mean "rxe0"?'],
  ['link, empty device', 'link: { host: a, device: "", down: 1s }', 'host "a" has no device ""'],
  ['link, host without daemon', 'link: { host: bare, down: 1s }', 'host "bare" has no daemon (driver: none)'],
  ['gid, host', 'gid: { host: c, move: 1 }', 'the net has no host "c"'],
  ['gid, interface', 'gid: { host: a, interface: eth7, move: 1 }', 'host "a" has no interface "eth7"'],
  ['gid, interface that is gone', 'gid: { host: a, interface: e, gone: 1s }', 'host "a" has no interface "e"'],
  ['gid, host without device', 'gid: { host: bare, move: 1 }', 'host "bare" has no daemon (driver: none)'],
  ['device, host', 'device: { host: c, gone: 1s }', 'the net has no host "c"'],
  ['device, device', 'device: { host: a, device: mlx5_0, gone: 1s }', 'host "a" has no device "mlx5_0"; there is rxe0'],
  ['device, host without daemon', 'device: { host: bare, gone: 1s }', 'host "bare" has no daemon'],
  ['daemon, host', 'daemon: { host: c, gone: 1s }', 'the net has no host "c"'],
  ['daemon, host without one', 'daemon: { host: bare, gone: 1s }', 'host "bare" has no daemon'],
  ['fault, host', 'fault: { host: c, rules: drop=1 }', 'the net has no host "c"'],
  ['fault, host without daemon', 'fault: { host: bare, rules: drop=1 }', 'host "bare" has no daemon'],
  ['fault, device of packets', 'fault: { host: a, rules: "drop=1;device=rxe7,drop=1" }', 'has no device "rxe7"'],
  ['fault, device of calls', 'fault: { host: a, rules: "device=x,call=mr.create,errno=EIO" }', 'has no device "x"'],
  ['fault, setting', 'fault: { host: a, rules: "port=1,drop=1" }', 'there is no "port"'],
  ['fault, method', 'fault: { host: a, rules: "call=mr.make,errno=EIO" }', '"mr.make" is not a method'],
  [
    'fault, process',
    'fault: { host: a, rules: "process=one,call=mr.*,errno=EIO" }',
    '"one" is not the number of a process',
  ],
  ['an event', 'lnik: { host: a, down: 1s }', 'there is no such setting, did you mean "link"?'],
  ['line, program', 'when: { line: { program: three, matches: x } }, kill: one', 'there is no program "three"'],
  ['calls, program', 'when: { calls: { program: three, nth: 1 } }, kill: one', 'there is no program "three"'],
  [
    'calls, program of a host without daemon',
    'when: { calls: { program: idle, nth: 1 } }, kill: one',
    '"bare" has no daemon',
  ],
  ['calls, method', 'when: { calls: { program: one, nth: 1, of: mr.make } }, kill: one', '"mr.make" is not a method'],
  ['posts, request', 'when: { posts: { program: one, nth: 1, of: SNED } }, kill: one', '"SNED" is not WRITE'],
  [
    'events, event',
    'when: { events: { program: one, nth: 1, of: GONE } }, kill: one',
    '"GONE" is not the name of an event',
  ],
  ['packets, host', 'when: { packets: { host: c, nth: 1 } }, kill: one', 'the net has no host "c"'],
  ['packets, host without daemon', 'when: { packets: { host: bare, nth: 1 } }, kill: one', '"bare" has no daemon'],
  ['packets, opcode', 'when: { packets: { host: a, nth: 1, of: RC_SNED } }, kill: one', '"RC_SNED" is not an opcode'],
] as const)
  test(`a wrong name is refused with file and line: ${what}`, () => {
    const programs = `${PROGRAMS.slice(0, -2)}, idle: { host: bare, run: "true" } }`
    const text = `net: lab.yaml\n${programs}\nevents:\n  - { kill: one }\n  - { ${event} }\n`
    assert.throws(
      () => read(text),
      ({ message: told }: Error) => {
        assert.match(told, /play\.yaml:5:\d+: events\[1\]/)
        assert.ok(told.includes(message), told)
        return true
      },
    )
  })

test('a topology that cannot be read is a mistake of the scenario', () => {
  const file = join(folder, 'play.yaml')
  writeFileSync(file, `seed: 1\nnet: lab.yaml\n${PROGRAMS}\n`)
  const unreadable = (): never => {
    throw new UnreadableFile('cannot read the topology lab.yaml: ENOENT')
  }
  assert.throws(
    () => readScenario(file, unreadable),
    /play\.yaml:2:1: net: cannot read the topology lab\.yaml: ENOENT$/,
  )
})

test('events may have 256 fault rules, and no more', () => {
  const events = (count: number): string =>
    `net: x\n${PROGRAMS}\nevents:\n${`  - { fault: { host: a, rules: "${'drop=1;'.repeat(64)}" } }\n`.repeat(count)}`
  read(events(4))
  assert.throws(
    () => read(events(5)),
    /play\.yaml:8:\d+: events\[4\]\.fault\.rules: the events have 320 fault rules; 256/,
  )
})
