/*
 * Scenarios of `userdma net play`, as files.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseRule } from '../../../src/spec/faults/rules.ts'
import { readScenario, ruleOf } from '../../../src/tools/topology/play-file.ts'
import { scratchFolder } from '../../tools.ts'

const folder = scratchFolder()

const read = (text: string) => {
  const file = join(folder, 'play.yaml')
  writeFileSync(file, text)
  return readScenario(file, () => ['a', 'b'])
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
    ['net: lab.yaml', /play\.yaml: programs: undefined: give a map/],
    [`net: lab.yaml\nprograms: {}`, /programs: give 1 to 256 programs/],
    [`net: lab.yaml\nprograms: { one: { host: a, run: x } }`, /programs: give one of them `expect`/],
    [`net: lab.yaml\nprograms: { one: { host: c, run: x } }`, /programs\.one\.host: the net has no host "c"/],
    [
      `net: lab.yaml\nprograms: { one: { host: a, run: x, restart: no } }`,
      /restart: "?\w+"?: give never, on-failure, al/,
    ],
    [withEvent('kill: three'), /events\[0\]\.kill: there is no program "three"; there are one, two/],
    [withEvent('after: 2s'), /events\[0\]: give one of link, gid, fault, device, daemon, kill, stop/],
    [withEvent('kill: one, stop: { program: one, for: 1s }'), /events\[0\]: give one of link, gid/],
    [withEvent('link: { host: a, down: 1h }'), /events\[0\]\.link\.down: "1h": give a time with a unit/],
    [withEvent('link: { host: a }'), /events\[0\]\.link\.down: is missing: give a time/],
    [withEvent('gid: { host: a, move: 99 }'), /gid\.move: 99: give an integer from 1 to 8/],
    [withEvent('fault: { host: a, rules: drop=7 }'), /fault\.rules: fault drop: "7" is not a probability/],
    [withEvent('when: { line: { program: one, matches: "(" } }, kill: one'), /line\.matches: "\(": Invalid regular/],
    [withEvent('when: { completions: { program: one, nth: 0 } }, kill: one'), /nth: 0: give an integer from 1 to/],
    [withEvent('when: { completions: { program: one, nth: 1, of: NO } }, kill: one'), /completion: "NO" is not/],
    [withEvent('when: { packets: { host: a, nth: 1, program: one } }, kill: one'), /there is no such setting/],
    ['[]', /give a map with net, seed, programs, events/],
    [`net: &a [*a]`, /play\.yaml: /],
    ['['.repeat(10_000), /there are more than 32 levels of lists and maps/],
  ] as const)
    assert.throws(() => read(text), message, text.slice(0, 200))
})
