/*
 * The stream of program events of a core: its producer (check-client.ts) and its consumers find it here.
 */
import type { Core } from '../../../core/model.ts'
import { ProgramStream } from '../../events/stream.ts'

const streams = new WeakMap<Core, ProgramStream>()

export const streamOf = (core: Core): ProgramStream => {
  let stream = streams.get(core)
  if (stream === undefined) {
    stream = new ProgramStream(core.now)
    streams.set(core, stream)
  }
  return stream
}
