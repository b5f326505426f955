/*
 * A recording to a file: the writer, its file, and the regular writes of both the daemon and the library.
 */
import { close } from 'node:fs'
import os from 'node:os'
import { type Clock, realClock } from '../../../host/event-loop/clock.ts'
import { createFileSink } from '../../../host/file-sink.ts'
import { emptyOutputFile } from '../../../host/output-file.ts'
import type { RecordedCheck } from '../../../spec/session-events.ts'
import type { RecordingEnd } from '../../../spec/session-file.ts'
import { SessionWriter } from '../../record/writer.ts'

/** Milliseconds after which an event is in the file at the latest, unless the disk is slower. */
const FLUSH_INTERVAL = 100
/** Flushes between samples of counters. */
const FLUSHES_PER_SAMPLE = 10

export interface RecordingOptions {
  /** The program that records, with its version. */
  readonly application: string
  /** Recorded bytes of each packet's payload. */
  readonly payload: number
  /** Maximum bytes of the file; undefined: no limit. */
  readonly limit?: number | undefined
  /** The file has what the checker needs, with these facts about its producer. */
  readonly check?: RecordedCheck | undefined
}

interface Recording {
  readonly writer: SessionWriter
  /** Ends the file and closes it. Resolves when everything is written. */
  end(reason: string): Promise<RecordingEnd>
  /** Ends the file at the exit of the process. */
  endNow(reason: string): void
}

/**
 * Starts a session file in `fd`, a regular file that is emptied now and closed at the end. `now`: microseconds.
 * `sample` records counters: once per second, and at the end. `clock`: for regular writes. With a virtual clock nothing
 * is written in the background, and the file does not name the machine. Throws a RangeError if the limit is too small.
 */
export const startRecording = (
  fd: number,
  now: () => number,
  options: RecordingOptions,
  sample: () => void,
  clock: Clock = realClock,
): Recording => {
  emptyOutputFile(fd)
  const sink = createFileSink(fd)
  if (clock.isVirtual) sink.finish()
  const writer = new SessionWriter(sink, {
    ...options,
    origin: clock.origin,
    machine: clock.isVirtual
      ? 'virtual time'
      : `${process.platform} ${process.arch}, kernel ${os.release()}, node ${process.version}`,
  })
  let flushes = 0
  const timer = clock.every(FLUSH_INTERVAL, 'passive', () => {
    if (++flushes % FLUSHES_PER_SAMPLE === 0) sample()
    writer.flush()
  })
  let ending: Promise<RecordingEnd> | undefined
  const finish = async (reason: string): Promise<RecordingEnd> => {
    clock.clear(timer)
    sample()
    await writer.end(now(), reason)
    await new Promise<void>(resolve => {
      close(fd, () => resolve())
    })
    const { lost, error } = writer
    return { lost, error: error === undefined ? null : ((error as NodeJS.ErrnoException).code ?? error.message) }
  }
  return {
    writer,
    end(reason) {
      ending ??= finish(reason)
      return ending
    },
    endNow(reason) {
      sample()
      sink.finish()
      void writer.end(now(), reason)
    },
  }
}
