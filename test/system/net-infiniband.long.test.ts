/*
 * Nets with InfiniBand hosts while things fail: links between switches, a host's daemon, the subnet manager.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { until } from '../limits.ts'
import { canMakeNets, newNet } from './nets.ts'
import { assertGood, lacking, run, userdma } from './programs.ts'

type Net = ReturnType<typeof newNet>

const play = async (net: Net, scenario: string, ...options: readonly string[]): Promise<string> => {
  const file = join(net.folder, 'play.yaml')
  writeFileSync(file, `net: ${net.name}.yaml\n${scenario}`)
  const played = await net.net('play', file, ...options)
  assertGood(played)
  return played.stdout
}

const isActive = async (net: Net, host: string): Promise<boolean> =>
  /PORT_ACTIVE/.test((await net.exec(host, 'ibv_devinfo')).stdout)

const skip = lacking('ib_write_bw', 'ibv_rc_pingpong', 'opensm', 'saquery', 'ip')

describe('a net with InfiniBand hosts', { skip }, () => {
  it('has another way when links between switches fail during ib_write_bw, and RC goes on', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'fat-tree: { leaves: 2, spines: 2, hosts: 2 }\ncheck: true')
    const output = await play(
      net,
      `programs:
  server: { host: h1, run: ib_write_bw -F -D 12 }
  client: { host: h2, run: 'until ib_write_bw -F -D 12 h1; do sleep 0.1; done', expect: { exit: 0, within: 120s } }
events:
  - { when: { packets: { host: h2, nth: 100 } }, after: 4s, link: { between: [leaf1, spine1], down: 2s } }
  - { when: { packets: { host: h2, nth: 100 } }, after: 8s, link: { between: [leaf1, spine2], down: 2s } }
`,
    )
    assert.match(output, /the link between leaf1 and spine1 goes down for 2s/)
    assert.doesNotMatch(output, /Completion with error/)
  })

  it('has the delay and the loss of links between switches, with a clock that skips too', async t => {
    if (!canMakeNets(t)) return
    const links = '{ between: [h1, s1] }, { between: [h2, s2] }, { between: [s1, s2], delay: 20ms }'
    const net = newNet(
      t,
      `hosts: { h1: { layer: infiniband }, h2: { layer: infiniband } }\nswitches: [s1, s2]\nlinks: [${links}]`,
    )
    const output = await play(
      net,
      `programs:
  server: { host: h1, run: 'while true; do ibv_rc_pingpong -e -n 50; done' }
  client: { host: h2, run: 'until ibv_rc_pingpong -e -n 50 h1; do sleep 0.1; done', expect: { exit: 0, within: 120s } }
  later: { host: h2, after: 60s, run: 'until ibv_rc_pingpong -e -n 50 h1; do sleep 0.1; done', expect: { exit: 0, within: 120s } }
events:
  - { after: 50s, link: { between: [s1, s2], loss: 5% } }
`,
      ...['--clock', 'skip'],
    )
    assert.match(output, /the link between s1 and s2 has a loss of 5%/)
    const times = [...output.matchAll(/(client|later): .* = ([\d.]+) usec\/iter/g)].map(([, , time]) => Number(time))
    assert.equal(times.length, 2, output)
    // There and back.
    assert.ok(times[0]! >= 40_000, `${times[0]} µs with the delay`)
  })

  it("lets a host's daemon die and come back, that of the manager's port too", async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'ring: { switches: 3, hosts: 2 }\nsubnet-manager: h1')
    await play(
      net,
      `programs:
  server: { host: h1, run: 'while true; do ibv_rc_pingpong -n 50 -e; done' }
  client: { host: h2, run: 'sleep 8; until ibv_rc_pingpong -n 50 -e h1; do sleep 0.2; done', expect: { exit: 0, within: 120s } }
events:
  - { after: 2s, daemon: { host: h2, gone: 1s } }
  - { after: 5s, daemon: { host: h1, gone: 1s } }
`,
    )
  })

  it("has findings that know the other host's queue pairs", async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: { a: { layer: infiniband }, b: { layer: infiniband } }\ncheck: true')
    await net.up()
    const server = net.startExec('a', 'timeout', '-s', 'KILL', '5', 'ib_send_bw', '-F', '-D', '30')
    let checked = await net.exec('b', userdma, 'check', '--', 'ib_send_bw', '-F', '-D', '30', 'a')
    while (/Couldn't connect/.test(checked.stderr))
      checked = await net.exec('b', userdma, 'check', '--', 'ib_send_bw', '-F', '-D', '30', 'a')
    await server.ended
    assert.match(checked.stderr, /error no-peer-qp: .* there is no QP 0x[\da-f]+ at LID \d+/)
  })

  it('is walked: links to hosts and between switches, LIDs and the manager fail once each', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'fat-tree: { leaves: 2, spines: 2, hosts: 2 }')
    const [file, report] = [join(net.folder, 'play.yaml'), join(net.folder, 'report')]
    writeFileSync(
      file,
      `net: ${net.name}.yaml
programs:
  server: { host: h1, run: ibv_rc_pingpong -n 20, restart: always }
  client: { host: h2, run: 'until ibv_rc_pingpong -n 20 h1; do sleep 0.1; done', expect: { exit: 0, within: 60s } }
`,
    )
    const options = ['--kinds', 'links', '--points', '6', '--json', '-o', report]
    const walked = await run(t, userdma, ['net', 'walk', file, ...options], net.options)
    assert.ok(walked.status === 0 || walked.status === 65, walked.stderr)
    const results = readFileSync(report, 'utf8')
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line) as { kind: string; host?: string; text: string })
    assert.equal(results.length, 6)
    for (const { kind, host } of results) assert.match(`${kind} ${host}`, /^links h[12]$/)
    const texts = results.map(({ text }) => text).join('\n')
    assert.match(texts, /a link between switches goes down|the subnet manager is gone|the LID changes/)
    assert.doesNotMatch(walked.stderr, /undefined|GID|::fffe/)
    net.assertGone()
  })

  it('has no manager until OpenSM comes on a host', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'fat-tree: { leaves: 2, spines: 1, hosts: 3 }\nsubnet-manager: none')
    await net.up()
    assert.equal(await isActive(net, 'h1'), false)
    const folder = net.folder
    const opensm = ['env', `OSM_CACHE_DIR=${folder}`, `OSM_TMP_DIR=${folder}`, 'opensm', '-f', join(folder, 'log')]
    net.startExec('h2', ...opensm)
    for (const host of ['h1', 'h2', 'h3']) await until(() => isActive(net, host))
    const records = await net.exec('h3', 'saquery', 'NR')
    assert.equal(records.stdout.match(/NodeRecord dump/g)?.length, 6)
    assertGood(await net.net('down', net.name))
    net.assertGone()
  })
})
