/*
 * Recordings of the daemon: session files (record/) with the calls, requests and packets of all its programs, for
 * `userdma run --record` and `userdma daemon --record`.
 */

import type { Context, Core } from '../core/model.ts'
import { nowMicroseconds, realClock } from '../host/event-loop/clock.ts'
import type { Program } from '../spec/check/finding.ts'
import type { RecordingEnd } from '../spec/session-file.ts'
import { objectsOfWait, recordWaits } from '../tools/clients/record/recorded-waits.ts'
import { startRecorder } from '../tools/clients/record/recorder.ts'
import { type RecordingOptions, startRecording } from '../tools/clients/record/recording.ts'
import type { Decisions } from '../transport/phy/faults/torment-decisions.ts'
import type { FrameSymbol, ProgramEnd } from '../uapi/tool.ts'
import type { DaemonChecker } from './check/checker.ts'
import type { Containment } from './containment.ts'
import type { Devices } from './devices/devices.ts'
import type { Network } from './devices/network.ts'
import type { FailureReports } from './failures.ts'
import type { DaemonStat, FoundWait } from './stat.ts'
import type { TraceHub } from './trace/trace-hub.ts'

/** Frames whose symbols a tool is asked for, at most. */
const MAX_FRAMES = 4096

export interface DaemonRecording {
  /** The frames of the stacks that programs have sent, each once. */
  frames(): readonly string[]
  /** Notes what a frame is. False: the recording has too many symbols. */
  addSymbol(symbol: FrameSymbol): boolean
  /**
   * Ends the recording. Resolves when the file is written and closed. `program`: how the program of the tool has ended.
   */
  end(reason: string, program?: ProgramEnd): Promise<RecordingEnd>
}

/** What a recording reads. */
export interface RecordedParts {
  readonly core: Core
  readonly network: Network
  readonly devices: Devices
  readonly stat: DaemonStat
  readonly containment: Containment
  readonly trace: TraceHub
  readonly failures: FailureReports
  /** Undefined without `userdma check`. */
  readonly check: DaemonChecker | undefined
  /** The decisions of `--torment`; undefined without the option. */
  readonly torment: Decisions | undefined
}

/** How much is recorded (`--record-depth`). */
export interface DepthOption {
  /** Also what the checker needs; only of a daemon that checks programs. */
  readonly depth?: 'check'
}

/** Starts to record into `fd`, an empty regular file that is closed at the end. Throws a RangeError: wrong options. */
export const recordDaemon = (
  { core, network, trace, failures, check, torment, devices, stat, containment }: RecordedParts,
  fd: number,
  { depth, ...options }: Omit<RecordingOptions, 'check'> & DepthOption,
): DaemonRecording => {
  if (depth === 'check' && check === undefined)
    throw new RangeError('this daemon does not check programs, so it cannot record what the checker needs')
  const now = nowMicroseconds
  /** The last recorded values of counters, by device and name. */
  const recorded = new Map<string, number>()

  const sample = (): void => {
    for (const { device, spec } of devices.all) {
      const { hw_counters, counters, port, transport, faults } = stat.device(spec)
      const values: Record<string, number> = {}
      for (const [group, table] of Object.entries({ hw_counters, counters, port, transport, faults }))
        for (const [name, value] of Object.entries(table)) {
          const key = `${group}.${name}`
          const ofDevice = `${device.index} ${key}`
          if ((recorded.get(ofDevice) ?? 0) === value) continue
          recorded.set(ofDevice, value)
          values[key] = value
        }
      if (Object.keys(values).length > 0) writer.counters(now(), device.index, 0, values)
    }
  }

  const isForCheck = depth === 'check'
  const recording = startRecording(
    fd,
    now,
    { ...options, ...(isForCheck && { check: check?.door.recorded() }) },
    sample,
  )
  const { writer } = recording
  const program = (context: Context): Program | undefined => {
    const owner = failures.ownerOf(context)
    return owner && { pid: owner.pid, command: owner.command }
  }
  const recorder = startRecorder(core, writer, {
    now,
    program,
    isForCheck,
    addTap: (device, tap) => network.tap(device.name, tap),
    ...(check && {
      callStack() {
        const stack = check.call.stack ?? []
        return () => stack
      },
      postStack: (...post) => check.posts.requestStackOf(...post),
    }),
  })
  const ends = [
    trace.subscribe({
      tag: '',
      post(call) {
        const of = call.call && recorder.lastCall(call.call.classId, call.call.call)
        writer.call(now(), { object: of?.object ?? 0, stack: of?.stack ?? [], call })
      },
    }),
    check?.subscribe(finding => writer.finding(now(), finding)),
    torment?.listen((decision, device) =>
      writer.torment(now(), { time: performance.timeOrigin + now() / 1000, device, torment: decision }),
    ),
  ]

  /** Ids of the objects that a wait names. */
  const objectsOf = ({ context, wait, object }: FoundWait): number[] => {
    if (object !== undefined) return [object.id]
    return context === undefined ? [] : objectsOfWait(recorder, context, wait)
  }
  const waits = recordWaits(
    () => {
      const looking = stat.foundWaits()
      for (;;) {
        const { done, value } = looking.next()
        if (!done) continue
        return value.map(found => {
          const { device, pid, command, id, text, context } = found
          return { device, pid, command, id, text, context, objects: objectsOf(found) }
        })
      }
    },
    realClock,
    event => writer.wait(now(), event),
    containment.guard,
  )

  return {
    frames: () => check?.frames(MAX_FRAMES) ?? [],
    addSymbol: symbol => writer.symbol(symbol),
    end(reason, program) {
      waits.end()
      if (program !== undefined) writer.programEnd(now(), program)
      trace.settle()
      recorder.stop()
      for (const end of ends) end?.()
      return recording.end(reason)
    },
  }
}
