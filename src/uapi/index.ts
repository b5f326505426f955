/*
 * Entry point of `userdma/uapi`: bytes ⇄ typed calls, in the dialects of uverbs files (R1–R6, R41, R42). `decodeIoctl`
 * and `decodeWrite` decode the two system calls.
 */
import type { Answer, CallerView, Decoded } from './call.ts'
import { decodeVerbsIoctl } from './linux/ioctl.ts'
import { callOfRequest, decodeObject } from './object/dialect.ts'

/** The request selects the dialect: Linux's RDMA_VERBS_IOCTL, or a call number of the object dialect. */
export const decodeIoctl = (view: CallerView, request: number, argument: bigint): Decoded | Answer => {
  const call = callOfRequest(request)
  return call === undefined ? decodeVerbsIoctl(view, request, argument) : decodeObject(view, call, argument)
}

export * from './call.ts'
export { encodeLinux, type LinuxImage } from './linux/encode.ts'
export { type Encoding, encodings, expressibleArguments } from './linux/envelope.ts'
export { decodeVerbsIoctl } from './linux/ioctl.ts'
export { EntryPoint } from './linux/legacy.ts'
export { decodeWrite, decodeWriteBytes } from './linux/write.ts'
export { decodeResult, type EncodeOptions, encodeCall, type OutputBuffer } from './object/client.ts'
export { callOfRequest, decodeMessage, decodeObject, ioctlRequest } from './object/dialect.ts'
export { encodeRecords, readRecord, viewOf } from './scalar.ts'
