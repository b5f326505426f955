/*
 * What `--record-depth check` adds to a recording: the events of the stream of programs, and the answers to what the
 * checker asks about them, each answer after its event. Requests are recorded with every depth.
 */
import { type ProbeName, probes } from '../../../spec/check/probes.ts'
import { ConsumerRank, type ProgramStream } from '../../events/stream.ts'
import type { SessionWriter } from '../writer.ts'
import { plainValue, probeKey } from './values.ts'

/** Answers that are remembered, so that equal ones are recorded once. */
const MAX_REMEMBERED = 2 ** 16

/** Starts to record the events of a stream; returns a function that stops. */
export const recordProgramEvents = (stream: ProgramStream, writer: SessionWriter): (() => void) => {
  const remembered = new Map<string, string>()
  /** Whether an answer is worth a record: of a stack there may be many, each is asked for once. */
  const isNew = (probe: ProbeName, key: string, answer: string): boolean => {
    if (probe === 'readLog' && answer.startsWith('{"entries":[],"lost":[]')) return false
    if (!probes[probe].lasts || probe === 'postStack') return true
    const name = `${probe} ${key}`
    if (remembered.get(name) === answer) return false
    if (remembered.size === MAX_REMEMBERED) remembered.clear()
    remembered.set(name, answer)
    return true
  }
  const ends = [
    stream.add(ConsumerRank.RECORD, {
      event: event => writer.program(stream.time, JSON.stringify(plainValue(event))),
      accessed: (...numbers) => writer.accessed(stream.time, ...numbers),
    }),
    stream.listen((probe, args, answer) => {
      const key = probeKey(args)
      const text = JSON.stringify(plainValue(answer)) ?? 'null'
      if (isNew(probe, key, text))
        writer.answer(stream.time, `{"probe":"${probe}","key":${JSON.stringify(key)},"answer":${text}}`)
    }),
  ]
  return () => {
    for (const end of ends) end()
  }
}
