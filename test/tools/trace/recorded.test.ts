/*
 * The calls of recorded programs (test/fixtures/abi) as the tracer prints them, without outputs. UPDATE_GOLDEN=1
 * rewrites the golden file.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { InvokeWrite, RDMA_VERBS_IOCTL } from '../../../src/spec/linux/ioctl.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'
import { callLine } from '../../../src/tools/trace/calls.ts'
import { type Decoded, isAnswer } from '../../../src/uapi/call.ts'
import { decodeVerbsIoctl } from '../../../src/uapi/linux/ioctl.ts'
import { decodeWrite } from '../../../src/uapi/linux/write.ts'
import { encodeCall } from '../../../src/uapi/object/client.ts'
import { repoRoot } from '../../paths.ts'
import {
  type LoggedIoctl,
  type LoggedWrite,
  MESSAGE_AT,
  memoryBefore,
  onUverbs,
  readAbilog,
} from '../../uapi/abilog.ts'
import { fakeView } from '../../uapi/fake-view.ts'

const golden = join(repoRoot, 'test', 'tools', 'trace', 'call-lines.golden')
/**
 * The handle that a recorded create returned: an ioctl's object, or the first word of an embedded command's response.
 */
const handleOf = (call: LoggedIoctl): number | undefined => {
  // In all create methods, attribute 0 is the handle.
  const object = call.attributes.find(({ id, dataAfter }) => id === 0 && dataAfter !== undefined)
  if (object !== undefined) return Number(object.dataAfter)
  const answer = call.attributes.find(({ id }) => id === InvokeWrite.CORE_OUT)
  const response = answer?.after ?? answer?.before
  return response === undefined ? undefined : new DataView(response.buffer, response.byteOffset).getUint32(0, true)
}

const recordOf = (call: LoggedIoctl | LoggedWrite, handles: Map<number, string>): TraceRecord => {
  const view = fakeView(memoryBefore(call), handles)
  const decoded =
    call.kind === 'ioctl'
      ? decodeVerbsIoctl(view, RDMA_VERBS_IOCTL, MESSAGE_AT)
      : decodeWrite(view, MESSAGE_AT, call.data.length)
  const base = {
    time: 0,
    duration: 0,
    pid: 1,
    tid: 1,
    fd: call.fd,
    command: 'recorded',
    device: 'rxe0',
    dialect: call.kind,
    ret: call.errno > 0 ? -call.errno : call.ret,
  }
  if (isAnswer(decoded as Decoded)) return base
  const { call: found } = decoded as Decoded
  const handle = call.kind === 'ioctl' && found.methodName === 'create' ? handleOf(call) : undefined
  if (handle !== undefined && found.class.identity === 'handle') handles.set(handle, found.class.name)
  const message = Buffer.from(encodeCall(found)).toString('base64')
  return { ...base, call: { classId: found.class.id, call: found.method.call, message, answer: '' } }
}

const linesOf = (log: string): string[] => {
  const handles = new Map<number, string>()
  return readAbilog(log)
    .filter(call => (call.kind === 'ioctl' || call.kind === 'write') && onUverbs(call))
    .map(call => callLine(recordOf(call as LoggedIoctl | LoggedWrite, handles)))
}

describe('recorded calls', () => {
  it('of ibv_rc_pingpong equal the golden file', () => {
    const lines = linesOf('ibv_rc_pingpong_events.client.abilog')
    if (process.env.UPDATE_GOLDEN) writeFileSync(golden, `${lines.join('\n')}\n`)
    assert.deepEqual(lines, readFileSync(golden, 'utf8').trimEnd().split('\n'))
  })

  it('of ibv_devinfo and ibv_rc_pingpong have class and method, refused ones an errno', () => {
    for (const log of ['ibv_devinfo.abilog.gz', 'ibv_rc_pingpong.client.abilog', 'ibv_rc_pingpong.server.abilog'])
      for (const line of linesOf(log)) {
        assert.match(
          line,
          /^\[pid 1 recorded\] fd \d+ (\w+\.\w+\(.*\)|\w+\(\?\)) = (\d+|-1 E\w+ \(.+\)|-1 E\w+) <0\.000000>$/,
        )
        assert.doesNotMatch(line, /\(\?\) = \d/)
        assert.doesNotMatch(line, /attribute 0x|undecodable|undefined|NaN|\[object/)
      }
  })
})
