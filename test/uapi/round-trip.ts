/*
 * The round trip of a call from Linux's bytes to the object dialect and back (R41).
 */
import assert from 'node:assert/strict'
import { RDMA_VERBS_IOCTL } from '../../src/spec/linux/ioctl.ts'
import type { Answer, Decoded } from '../../src/uapi/call.ts'
import { encodeLinux, type LinuxImage } from '../../src/uapi/linux/encode.ts'
import { decodeVerbsIoctl } from '../../src/uapi/linux/ioctl.ts'
import { EntryPoint } from '../../src/uapi/linux/legacy.ts'
import { decodeWrite } from '../../src/uapi/linux/write.ts'
import { encodeCall } from '../../src/uapi/object/client.ts'
import { decodeMessage } from '../../src/uapi/object/dialect.ts'
import { AT, type FakeView } from './fake-view.ts'

/** Decodes an image at the address AT. */
export const decode = (view: FakeView, image: LinuxImage): Decoded | Answer =>
  image.entryPoint === EntryPoint.WRITE
    ? decodeWrite(view, AT, image.bytes.length)
    : decodeVerbsIoctl(view, RDMA_VERBS_IOCTL, AT)

/** Asserts that a round trip through the object dialect keeps the call and the bytes of `image`. */
export const assertSurvives = (view: FakeView, decoded: Decoded, image: LinuxImage): void => {
  const { call } = decoded
  const there = decodeMessage(view, call.method.call, encodeCall(call, { legacy: decoded.legacy() }))
  assert.deepEqual(there.call, call)
  const again = encodeLinux(there.call, there.legacy!)
  assert.equal(again.entryPoint, image.entryPoint)
  assert.deepEqual(again.bytes, image.bytes)
  for (const { address, bytes } of again.memory) assert.deepEqual(bytes, view.copyIn(address, bytes.length))
}
