/*
 * `userdma demo`, also `npm start`: unmodified Debian programs find a device and exchange data; the demo shows their
 * calls and packets.
 *
 * They run under a private daemon, which ends with the demo. If a prerequisite is missing, the demo connects two queue
 * pairs in this process instead (demo-in-process.ts), and says what is missing.
 */
import { spawn } from 'node:child_process'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { hasNative } from '../../host/native.ts'
import type { TraceRecord } from '../../spec/records.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { demoOptions } from '../command-line/options.ts'
import { blank, heading, line, output, paragraph, prompt } from '../demo-format.ts'
import { beforeEndBySignal } from '../end-signals.ts'
import { type Joined, joinDaemon } from '../join.ts'
import { freePort, untilListening } from '../listening.ts'
import { privateFolder, removeFolder, shimLibrary } from '../paths.ts'
import { programEnvironment, requireProgram } from '../program/program.ts'
import { firstMessages, timeline } from '../timeline.ts'
import { newTag } from './trace.ts'

/** Number of messages whose calls and packets are shown. */
const MESSAGES = 2

type DemoOptions = OptionsOf<typeof demoOptions>

/** Prerequisites of the full demo that this machine lacks, with the remedy. */
const missingPrerequisites = (): string[] => {
  const problems: string[] = []
  const programs = ['ibv_devinfo', 'ibv_rc_pingpong'].filter(name => {
    try {
      requireProgram(name)
      return false
    } catch {
      return true
    }
  })
  if (programs.length > 0)
    problems.push(`${programs.join(' and ')} (Debian: apt-get install ibverbs-utils ibverbs-providers)`)
  try {
    shimLibrary()
  } catch {
    problems.push('the preload library (Debian: apt-get install gcc libc6-dev libibverbs-dev, then npm run build)')
  }
  if (!hasNative()) problems.push('the npm package koffi (npm ci --include=optional, on 64-bit Linux)')
  return problems
}

/** A program that has ended. `output`: standard output and standard error. */
interface Finished {
  readonly pid: number
  readonly status: number | null
  readonly output: string
}

interface Started {
  readonly ended: Promise<Finished>
  kill(): void
}

/** Starts a program under the daemon. `tag`: its calls are traced. */
const start = (joined: Joined, tag: string | undefined, program: string, args: readonly string[]): Started => {
  const env = programEnvironment(joined.client.socket, { tag })
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
    })
  const ended = new Promise<Finished>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', status => resolve({ pid: child.pid ?? 0, status, output: text }))
  })
  return { ended, kill: () => child.kill('SIGKILL') }
}

const requireSuccess = (program: string, { status, output: text }: Finished): void => {
  if (status !== 0) throw new Error(`${program} failed (status ${status}):\n${text}`)
}

const showDevice = async (joined: Joined): Promise<void> => {
  heading('1. A device')
  paragraph(
    'A daemon was started for this demo only. It has one RDMA device, rxe0, with the address 127.0.0.1. ibv_devinfo is the program of Debian, unmodified:',
  )
  blank()
  prompt('ibv_devinfo')
  const finished = await start(joined, undefined, 'ibv_devinfo', []).ended
  output(finished.output)
  requireSuccess('ibv_devinfo', finished)
}

/** The two programs that exchange data. */
interface Exchange {
  readonly server: Finished
  readonly client: Finished
}

const exchangeData = async (joined: Joined, tag: string, link: string): Promise<Exchange> => {
  heading('2. Two programs exchange data')
  paragraph(
    `ibv_rc_pingpong, unmodified too, is started twice: a server, and a client that sends it 2000 bytes and gets as many back, four times. The data moves from memory to memory, as RoCEv2 packets ${link === 'memory' ? 'inside the daemon' : 'through UDP sockets'}.`,
  )
  blank()
  const port = await freePort()
  const args = ['-g', '1', '-s', '2000', '-n', '4', '-p', String(port)]
  // The signal may be for this process alone. A server without a client waits forever, and the daemon for the server.
  const restoreSignals = beforeEndBySignal(() => server.kill())
  const server = start(joined, tag, 'ibv_rc_pingpong', args)
  try {
    await untilListening(port, server.ended)
    const client = await start(joined, tag, 'ibv_rc_pingpong', [...args, '127.0.0.1']).ended
    if (client.status !== 0) server.kill()
    const exchange = { server: await server.ended, client }
    for (const [name, words, finished] of [
      ['server', args, exchange.server],
      ['client', [...args, '127.0.0.1'], client],
    ] as const) {
      prompt(`ibv_rc_pingpong ${words.join(' ')}    (${name})`)
      output(finished.output)
      blank()
    }
    requireSuccess('the client', client)
    requireSuccess('the server', exchange.server)
    return exchange
  } finally {
    restoreSignals()
    server.kill()
  }
}

const showTimeline = (records: readonly TraceRecord[], capture: Uint8Array, { server, client }: Exchange): void => {
  heading('3. What happened')
  paragraph(
    'Each line is a call of a program to its device, or a packet. The first calls make the objects (protection domain, memory region, completion queue, queue pair), modify connects the queue pairs; then postSend rings the doorbell and packets go: requests and completions themselves pass through shared memory. (The refused QUERY_DEVICE is a test by libibverbs: the error tells it that ioctls can carry write commands.) Shown up to the end of the first exchange, cut to one line; times are in milliseconds.',
  )
  blank()
  const names = new Map([
    [server.pid, 'server'],
    [client.pid, 'client'],
  ])
  const entries = timeline(records, capture, names)
  const shown = firstMessages(entries, MESSAGES)
  const firstTime = entries[0]?.time ?? 0
  for (const { kind, time, program: name, text } of shown) {
    const milliseconds = ((time - firstTime) / 1000).toFixed(3).padStart(9)
    line(`${milliseconds}  ${name.padEnd(15)}  ${kind === 'packet' ? '▪ ' : ''}${text}`)
  }
  const notShown = entries.slice(shown.length)
  const packets = notShown.filter(({ kind }) => kind === 'packet').length
  blank()
  paragraph(
    `After that: ${packets} more packets, and ${notShown.length - packets} more calls; the last calls destroy the objects.`,
  )
}

/** Maximum number of repeated queries of `statAfterCleanup`, and milliseconds between them. */
const MAX_QUERIES = 100
const QUERY_MS = 20

/**
 * Queries the stat until the daemon has no contexts, or MAX_QUERIES times: the daemon notices the end of programs with
 * a short delay.
 */
const statAfterCleanup = async ({ client }: Joined) => {
  let stat = await client.stat()
  for (let queries = 0; stat.contexts > 0 && queries < MAX_QUERIES; queries++) {
    await new Promise(resolve => setTimeout(resolve, QUERY_MS))
    stat = await client.stat()
  }
  return stat
}

/** Opens a file for the packets. It has no name, so that nothing is left behind if a signal ends the demo. */
const openCapture = (): number => {
  const folder = privateFolder()
  try {
    return openSync(join(folder, 'packets.pcapng'), 'w+')
  } finally {
    removeFolder(folder)
  }
}

/** The bytes of the file, from its start: the daemon has moved the offset of the descriptor, which it shares. */
const captureBytes = (capture: number): Uint8Array => {
  const bytes = new Uint8Array(fstatSync(capture).size)
  return bytes.subarray(0, readSync(capture, bytes, 0, bytes.length, 0))
}

/** The full demo, with programs of Debian. */
const demoWithPrograms = async (options: DemoOptions): Promise<void> => {
  const capture = openCapture()
  const records: TraceRecord[] = []
  try {
    const joined = await joinDaemon(
      { ...options, link: options.link ?? 'memory', private: true },
      {
        onTrace: event => {
          if (!('failure' in event)) records.push(event)
        },
      },
    )
    try {
      await showDevice(joined)
      const tag = newTag()
      await joined.client.trace(tag, capture)
      const exchange = await exchangeData(joined, tag, options.link ?? 'memory')
      // All calls and packets precede this reply.
      const { contexts, devices } = await statAfterCleanup(joined)
      showTimeline(records, captureBytes(capture), exchange)
      heading('4. Cleaned up')
      const objects = devices.flatMap(device => Object.values(device.objects)).reduce((sum, count) => sum + count, 0)
      paragraph(
        `The daemon has ${contexts} open contexts and ${objects} objects; it ends now, and its files are removed.`,
      )
    } finally {
      await joined.leave()
    }
  } finally {
    closeSync(capture)
  }
  blank()
  paragraph('Try it yourself, in two terminals:')
  blank()
  prompt('bin/userdma run -- ibv_rc_pingpong -g 1')
  prompt('bin/userdma run -- ibv_rc_pingpong -g 1 localhost')
  blank()
  paragraph('`bin/userdma trace -- PROGRAM` shows the calls of any program; `bin/userdma --help` has the rest.')
}

/** The command. */
export const demo = async (options: DemoOptions = {}): Promise<void> => {
  heading('userdma: RDMA without hardware')
  const problems = missingPrerequisites()
  if (problems.length === 0) return demoWithPrograms(options)
  await (await import('./demo-in-process.ts')).demoInProcess()
  heading('What was left out')
  paragraph('The full demo runs unmodified programs of Debian in processes of their own. For it, this machine lacks:')
  blank()
  for (const problem of problems) output(`- ${problem}`)
}
