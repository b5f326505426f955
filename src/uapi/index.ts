/*
 * Bytes ⇄ typed calls: all dialects by which a program talks to an RDMA device (R1–R6, R41, R42). Entry point of
 * `userdma/uapi`.
 *
 * `decodeIoctl` and `decodeWrite` are what core's dispatch takes for the two system calls that carry messages.
 */
import type { Answer, CallerView, Decoded } from './call.ts'
import { decodeVerbsIoctl } from './linux-ioctl.ts'
import { callOfRequest, decodeObject } from './object.ts'

/**
 * ioctl(fd, request, argument). The request tells the dialect: Linux's RDMA_VERBS_IOCTL, or a call number of the object
 * dialect.
 */
export const decodeIoctl = (view: CallerView, request: number, argument: bigint): Decoded | Answer => {
  const call = callOfRequest(request)
  return call === undefined ? decodeVerbsIoctl(view, request, argument) : decodeObject(view, call, argument)
}

export * from './call.ts'
export { EntryPoint } from './legacy.ts'
export { encodeLinux, type LinuxImage } from './linux-encode.ts'
export { expressibleArguments, type Encoding, encodings } from './linux-envelope.ts'
export { decodeVerbsIoctl } from './linux-ioctl.ts'
export { decodeWrite, decodeWriteBytes } from './linux-write.ts'
export { callOfRequest, decodeMessage, decodeObject, ioctlRequest } from './object.ts'
export { decodeResult, type EncodeOptions, encodeCall, type OutputRoom } from './object-client.ts'
export { encodeRecords, readRecord, viewOf } from './scalar.ts'
