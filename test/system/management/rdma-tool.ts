/*
 * iproute2's `rdma` compared with its output on Linux (test/fixtures/netlink/ORIGIN.md).
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fixture } from '../../paths.ts'
import { freePort, run, type Scope, start, startDaemon, type TestDaemon, untilListening } from '../programs.ts'

interface Transcript {
  readonly command: string
  readonly output: string
  readonly status: number
}

/** `name`: of a file of test/fixtures/netlink. */
const readTranscripts = (name: string): Transcript[] =>
  [...readFileSync(fixture('netlink', name), 'utf8').matchAll(/^\$ (.*)\n([\s\S]*?)^= (\d+)\n/gm)].map(
    ([, command, output, status]) => ({
      command,
      output,
      status: Number(status),
    }),
  )

/** Sorted lines, without numbers that differ, and without objects of Linux's own clients except queue pair 1. */
const comparable = (output: string): string[] =>
  output
    .replace(/\{[^{}]*"comm": "ib_core"[^{}]*\},?/g, object => (object.includes('"GSI"') ? object : ''))
    // Maxima, which `rdma` shows since iproute2 7.3 and Linux 7.3.
    .replace(/\b(pd|cq|qp|mr|srq) (\d+)\/\d+/g, '$1 $2')
    .replace(/,\s*"(?:pd|cq|qp|mr|srq)-max": ?\d+/g, '')
    // Counters of congestion, which Linux has for mlx5.
    .replace(/ [nr]p_\w+ 0|,\s*"[nr]p_\w+": ?0/g, '')
    .replace(/[0-9a-f]{4}(?::[0-9a-f]{4}){3}/g, 'GUID')
    .replace(/\b(lqpn|pid|pdn|cqn|mrn|ctxn|srqn|cm-idn|netdev_index|pd|cq|qp)("?:?) \d+/g, '$1$2 N')
    .replace(/\b(?:10\.77\.0\.\d|127\.0\.0\.1):\d+/g, 'ADDRESS')
    .replace(/"netdev_index":\d+/g, '"netdev_index":N')
    .replace(/\b\d+-\d+\b/g, 'RANGE')
    // The first number of a range may have been replaced above.
    .replace(/N-\d+/g, 'RANGE')
    .replace(/0x[0-9a-f]+/g, 'HEX')
    .replace(/"([rl]key|local_dma_lkey)": ".*"/g, '"$1": "HEX"')
    .replace(/\b(netdev"?:? ?"?)(?:eth0|lo)\b/g, '$1IF')
    // Linux's rxe lacks XRC, and in 6.1 FLUSH and ATOMIC_WRITE, which `rdma` prints as UNKNOWN.
    .replaceAll('MEM_WINDOW, XRC,', 'MEM_WINDOW,')
    .replaceAll('"MEM_WINDOW","XRC",', '"MEM_WINDOW",')
    .replace(/(?:, UNKNOWN)+/g, '')
    .replace(/(?:,"UNKNOWN")+/g, '')
    .split('\n')
    .filter(line => !line.includes('comm [ib_core]') || line.includes(' type GSI '))
    // Texts of extended ACKs, which most errors of Linux lack.
    .filter(line => !line.startsWith('Error: '))
    .filter(line => !/^\s*[[\]{}, ]*$/.test(line))
    .sort()

/** Replaces 17, the recorded queue pair number. */
const withQpn = (command: string, qpn: string): string => command.replace('lqpn 17', `lqpn ${qpn}`)

/** Runs a shell line under a daemon. `path`: a folder searched first for programs. */
export const shell = async (t: Scope, { env }: Pick<TestDaemon, 'env'>, command: string, path?: string) => {
  const environment = path === undefined ? env : { ...env, PATH: `${path}:${env.PATH}` }
  const { status, stdout, stderr } = await run(t, 'sh', ['-c', command], { env: environment })
  return { status, output: stdout + stderr }
}

/** Starts two servers, one after the other, so that numbers increase as on Linux. Returns their PIDs. */
export const startServers = async (t: Scope, daemon: TestDaemon): Promise<number[]> => {
  const pids: number[] = []
  for (const [program, ...args] of [['ibv_rc_pingpong'], ['ibv_srq_pingpong', '-q', '3']]) {
    const port = await freePort()
    const server = start(t, program, ['-d', 'rxe0', '-g', '1', '-p', String(port), ...args], { env: daemon.env })
    await untilListening(port, server.ended)
    pids.push(server.child.pid ?? 0)
  }
  return pids
}

/** Asserts that each command has the recorded exit status and output. */
const assertRecorded = async (
  t: Scope,
  daemon: TestDaemon,
  recording: readonly Transcript[],
  path?: string,
): Promise<void> => {
  const { output: list } = await shell(t, daemon, 'rdma res show qp', path)
  const qpn = /lqpn (\d+) /.exec(list)?.[1] ?? ''
  for (const { command, output, status } of recording) {
    const actual = await shell(t, daemon, withQpn(command, qpn), path)
    assert.deepEqual([comparable(actual.output), actual.status], [comparable(output), status], command)
  }
}

/**
 * `recordings`: part of the file name, such as `6.1` or `6.15-on-6.12` (`rdma`, kernel). `path`: folder of that `rdma`.
 */
export const assertShowsObjects = async (t: Scope, recordings: string, path?: string): Promise<void> => {
  const daemon = await startDaemon(t)
  const pids = await startServers(t, daemon)
  const recording = readTranscripts(`rdma-${recordings}.out`)
  const firstChange = recording.findIndex(({ command }) => command.startsWith('rdma link add'))
  // Linux accepts `set netns exclusive`. Version 6.1 prints a stale errno after `statistic set`.
  const different = recordings === '6.1' ? /^rdma (?:system set netns|statistic set)/ : /^rdma system set netns/
  const sameOutput = recording.slice(0, firstChange).filter(({ command }) => !different.test(command))
  assert.ok(sameOutput.length > 50)
  await assertRecorded(t, daemon, sameOutput, path)
  const { output: list } = await shell(t, daemon, 'rdma res show qp', path)
  for (const pid of pids) assert.match(list, new RegExp(` pid ${pid} comm ibv_`))
  const { output: sums } = await shell(t, daemon, 'rdma res', path)
  // qp: one of ibv_rc_pingpong, three of ibv_srq_pingpong, and queue pair 1.
  assert.match(sums.replace(/\/\d+/g, ''), /^0: rxe0: pd 2 cq 2 qp 5 cm_id 0 mr 2 ctx 2 srq 1 $/m)
  const { devices } = await daemon.stat()
  const { output: counters } = await shell(t, daemon, 'rdma -j statistic show', path)
  const [{ ifname, port, ...values }] = JSON.parse(counters) as Record<string, unknown>[]
  assert.deepEqual({ ifname, port, values }, { ifname: 'rxe0', port: 1, values: devices[0].hw_counters })
}

/** The arguments are those of `assertShowsObjects`. */
export const assertShowsIdentifiers = async (t: Scope, recordings: string, path?: string): Promise<void> => {
  const daemon = await startDaemon(t)
  const { env } = daemon
  start(t, 'rping', ['-s', '-P', '-a', '0.0.0.0', '-p', '7471'], { env })
  start(t, 'rping', ['-s', '-P', '-a', '127.0.0.1', '-p', '7472'], { env })
  start(t, 'ucmatose', ['-C', '1', '-p', '7475'], { env })
  await daemon.settled(({ connections }) => connections.listeners === 3)
  start(t, 'rping', ['-c', '-a', '127.0.0.1', '-p', '7472', '-C', '100000000'], { env })
  await daemon.settled(({ devices }) => devices[0].objects.rc_qp === 2 && devices[0].hw_counters.sent_pkts > 1000)
  await assertRecorded(t, daemon, readTranscripts(`rdma-cm_id-${recordings}.out`), path)
  // Three listeners, and both ends of a connection.
  assert.match((await shell(t, daemon, 'rdma res', path)).output, / cm_id 5 /)
}
