/*
 * A routed net: 2 spines, 4 leaves, 8 hosts. Paths, TTL and MTU are the kernel's; a spine and one of its links go away
 * and return in a scenario.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { assertValid } from '../project/docs/json-schema.ts'
import { canMakeNets, newNet, untilListeningAt } from './nets.ts'
import { assertGood, lacking, userdma } from './programs.ts'

const LEAVES = [1, 2, 3, 4].map(i => `leaf${i}`)
const SPINES = ['spine1', 'spine2']
const HOSTS = [1, 2, 3, 4, 5, 6, 7, 8].map(i => `h${i}`)
const FABRIC = `
hosts: 8
routers: [${[...LEAVES, ...SPINES].join(', ')}]
links:
${HOSTS.map((host, i) => `  - { between: [${host}, ${LEAVES[i >> 1]}], mtu: 4200 }`).join('\n')}
${LEAVES.flatMap(leaf => SPINES.map(spine => `  - { between: [${leaf}, ${spine}], mtu: 4200 }`)).join('\n')}
`
/** Prints who says that the TTL of a datagram to a host has ended. */
const ENDED = `import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, int(sys.argv[2]))
s.setsockopt(socket.IPPROTO_IP, 11, 1)
s.sendto(b'x', (sys.argv[1], 9))
s.settimeout(10)
try: s.recv(10)
except OSError: pass
_, parts, _, _ = s.recvmsg(100, 500, socket.MSG_ERRQUEUE)
error = parts[0][2]
print(error[5], socket.inet_ntoa(error[20:24]))
`

describe('a routed net', { skip: lacking('ibv_rc_pingpong', 'stdbuf', 'python3', 'ip') }, () => {
  it('carries RC over both spines; TTL ends at routers; a spine and a link go away and return', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, FABRIC)
    await net.up()
    const { hosts } = await net.show()
    const pidOf = (name: string): number => hosts.find(host => host.name === name)!.daemon.pid
    const addressesOf = (name: string): string[] =>
      hosts.find(host => host.name === name)!.interfaces.map(({ address }) => address)

    await t.test('each host with one of each other leaf', async () => {
      for (const round of [2, 4, 6])
        await Promise.all(
          HOSTS.map(async (host, i) => {
            const port = `${18_600 + i}`
            const options = ['-g', '1', '-n', '10', '-m', '4096', '-p', port]
            const server = net.startExec(host, 'ibv_rc_pingpong', ...options)
            await untilListeningAt(pidOf(host), Number(port), server)
            assertGood(await net.exec(HOSTS[(i + round) % 8]!, 'ibv_rc_pingpong', ...options, host))
            assertGood(await server.ended)
          }),
        )
      for (const spine of SPINES) {
        const { stdout } = await net.exec(spine, 'sh', '-c', 'cat /sys/class/net/eth*/statistics/rx_packets')
        assert.ok(
          stdout
            .trim()
            .split('\n')
            .some(count => Number(count) > 50),
          `${spine}: ${stdout}`,
        )
      }
    })

    await t.test('TTL', async () => {
      const ICMP_TIME_EXCEEDED = '11'
      for (const [ttl, routers] of [
        ['1', ['leaf1']],
        ['2', SPINES],
        ['3', ['leaf4']],
      ] as const) {
        const [type, from] = (await net.exec('h1', 'python3', '-c', ENDED, 'h8', ttl)).stdout.trim().split(' ')
        assert.equal(type, ICMP_TIME_EXCEEDED)
        assert.ok(routers.flatMap(addressesOf).includes(from!), `${ttl}: ${from}`)
      }
    })
    await t.test('which path a queue pair takes', async () => {
      const sentBy = async (spine: string): Promise<number> => {
        const { stdout } = await net.exec(spine, 'sh', '-c', 'cat /sys/class/net/eth*/statistics/tx_packets')
        return stdout
          .trim()
          .split('\n')
          .reduce((sum, count) => sum + Number(count), 0)
      }
      const options = ['-g', '1', '-n', '10000']
      const server = net.startExec('h8', 'ibv_rc_pingpong', ...options)
      await untilListeningAt(pidOf('h8'), 18_515, server)
      const before = await Promise.all(SPINES.map(sentBy))
      const client = net.startExec('h1', 'stdbuf', '-oL', 'ibv_rc_pingpong', ...options, 'h8')
      await client.printed(/remote address/)
      const shown = await net.net('show', net.name, '--flows', '--json')
      assertGood(shown)
      const flows = JSON.parse(shown.stdout) as { host: string; isCut: boolean; through: string[] }[]
      assertValid('net show --flows', flows)
      const paths = ['h1', 'h8'].map(host => flows.find(flow => flow.host === host)!.through)
      assert.deepEqual(
        paths.map(([first, , last, ...more]) => [first, last, ...more]),
        [
          ['leaf1', 'leaf4'],
          ['leaf4', 'leaf1'],
        ],
      )
      assertGood(await client.ended)
      assertGood(await server.ended)
      const after = await Promise.all(SPINES.map(sentBy))
      // a packet of each end for each of 10000 iterations, and some of TCP
      for (const [i, spine] of SPINES.entries()) {
        const ends = paths.filter(([, used]) => used === spine).length
        const sent = after[i]! - before[i]!
        assert.ok(ends === 0 ? sent < 3000 : sent > 10_000 * ends, `${spine}: ${ends} ends, ${sent} packets`)
      }
    })
    await t.test('a link-local GID', async () => {
      const server = net.startExec('h8', 'ibv_rc_pingpong', '-g', '0')
      await untilListeningAt(pidOf('h8'), 18_515, server)
      const checked = await net.exec('h1', userdma, 'check', '--', 'ibv_rc_pingpong', '-g', '0', 'h8')
      assert.match(
        checked.stderr,
        /error no-answer: .*\n(?:.*\n)*? {2}advice: dgid fe80:.* is a link-local address, which no router forwards: if the/,
      )
      // The signal reaches the program on the host, which would wait for ever.
      server.child.kill('SIGTERM')
      await server.ended
    })
    assertGood(await net.net('down', net.name))

    const file = join(net.folder, 'play.yaml')
    const options = '-g 1 -n 3000'
    writeFileSync(
      file,
      `net: ${net.file}
programs:
  server: { host: h8, run: "stdbuf -oL ibv_rc_pingpong ${options}" }
  client: { host: h1, run: "ibv_rc_pingpong ${options} h8", when: { line: { program: server, matches: "local address" } }, expect: { output: 3000 iters } }
events:
  - { when: { completions: { program: client, nth: 500 } }, router: { name: spine1, down: 200ms } }
  - { when: { completions: { program: client, nth: 2000 } }, router: { name: spine2, down: 200ms } }
  - { when: { completions: { program: client, nth: 4000 } }, link: { between: [spine1, leaf1], down: 200ms } }
  - { when: { completions: { program: client, nth: 5000 } }, link: { between: [leaf4, spine2], down: 200ms } }
`,
    )
    const played = await net.net('play', file)
    assertGood(played)
    assert.match(played.stdout, /the router spine2 goes down for 200ms\n(?:.*\n)*.*between leaf4 and spine2 goes down/)
    net.assertGone()
  })

  it('is walked: a path and a router go down at each step, and nothing fails that has another way', async t => {
    if (!canMakeNets(t)) return
    const links = ['[a, e]', '[b, f]', '[e, s1]', '[e, s2]', '[f, s1]', '[f, s2]'].map(ends => `{ between: ${ends} }`)
    const net = newNet(t, `hosts: [a, b]\nrouters: [e, f, s1, s2]\nlinks: [${links.join(', ')}]\n`)
    const file = join(net.folder, 'walk.yaml')
    const run = 'stdbuf -oL ibv_rc_pingpong -g 1 -n 100'
    writeFileSync(
      file,
      `net: ${net.file}
programs:
  server: { host: b, run: "${run}" }
  client: { host: a, run: "${run} b", when: { line: { program: server, matches: "local address" } }, expect: { output: 100 iters } }
`,
    )
    const walked = await net.net('walk', file, '--kinds', 'links', '--points', '20')
    const text = walked.stdout + walked.stderr
    const lines = text.split('\n').filter(line => /^ *links +the (?:router s\d|link between e and s\d)/.test(line))
    assert.ok(lines.length > 2, text)
    for (const line of lines) assert.match(line, /recovered/)
    net.assertGone()
  })
})
