/*
 * Row "idle": the processor time of a daemon with idle clients. The clients are servers of ibv_rc_pingpong, half of
 * them with completion events, which wait for a peer that never connects.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../src/cli/listening.ts'
import type { Bench, Row } from './harness/harness.ts'
import { needProgram, type Running, startDaemon } from './harness/processes.ts'

/** Seconds of a measurement. */
const SECONDS = 10
const CLIENTS = 4
/** Nanoseconds of a clock tick in /proc/PID/stat: USER_HZ is 100 on every Linux that runs Node. */
const TICK_NS = 1e7

/** Total processor time of a process and its threads, in nanoseconds. */
const cpuTime = (pid: number): number => {
  const tasks = `/proc/${pid}/task`
  const schedstat = readdirSync(tasks)
    .map(task => `${tasks}/${task}/schedstat`)
    .filter(path => existsSync(path))
  if (schedstat.length > 0) {
    return schedstat.reduce((sum, path) => sum + Number(readFileSync(path, 'utf8').split(' ')[0]), 0)
  }
  // Index 0 is field 3 of proc(5), after the name in parentheses: fields 14 and 15 are utime and stime.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_NS
}

const prepare = async (): Promise<Bench> => {
  needProgram('ibv_rc_pingpong', 'ibverbs-utils')
  const daemon = await startDaemon()
  const clients: Running[] = []
  const close = async (): Promise<void> => {
    for (const client of clients) await client.stop()
    await daemon.stop()
  }
  try {
    for (let i = 0; i < CLIENTS; i++) {
      const port = await freePort()
      const events = i % 2 ? ['-e'] : []
      clients.push(await daemon.runServer(port, 'ibv_rc_pingpong', '-g', 1, '-p', port, ...events))
    }
  } catch (error) {
    await close()
    throw error
  }
  const ours = async (): Promise<number> => {
    const start = performance.now()
    const cpu = cpuTime(daemon.pid)
    await sleep(SECONDS * 1000)
    return ((cpuTime(daemon.pid) - cpu) / ((performance.now() - start) * 1e6)) * 100
  }
  return { ours, close, note: `${CLIENTS} clients, ${SECONDS} s` }
}

export const idleRows: readonly Row[] = [
  {
    name: 'idle',
    quantity: 'CPU of an idle daemon with clients',
    unit: '%',
    better: 'lower',
    cores: 0,
    reference: 'none',
    floor: 0.1,
    aim: 0.05,
    rounds: 3,
    prepare,
  },
]
