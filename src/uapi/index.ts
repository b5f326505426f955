/*
 * Bytes ⇄ typed calls: all dialects by which a program talks to an RDMA device (R1–R6, R41, R42). Entry point of `userdma/uapi`.
 *
 * `ioctlDialect` and `writeDialect` are what core's dispatch takes for the two system calls that carry messages.
 */
import type { Answer, CallerView, Decoded } from './call.ts'
import { decodeVerbsIoctl } from './linux-ioctl.ts'
import { decodeWrite } from './linux-write.ts'
import { callOfRequest, decodeObject } from './object.ts'

/** ioctl(fd, request, argument). The request tells the dialect: Linux's RDMA_VERBS_IOCTL, or a call number of the object dialect. */
export interface IoctlMessage {
  readonly request: number
  readonly argument: bigint
}

/** write(fd, address, length) */
export interface WriteMessage {
  readonly address: bigint
  readonly length: number
}

export const ioctlDialect = {
  decode: (view: CallerView, { request, argument }: IoctlMessage): Decoded | Answer => {
    const call = callOfRequest(request)
    return call === undefined ? decodeVerbsIoctl(view, request, argument) : decodeObject(view, call, argument)
  },
}

export const writeDialect = {
  decode: (view: CallerView, { address, length }: WriteMessage): Decoded | Answer => decodeWrite(view, address, length),
}

export * from './call.ts'
export { encodeLinux, envelope, type LinuxImage } from './linux-encode.ts'
export { decodeVerbsIoctl } from './linux-ioctl.ts'
export { decodeWrite, decodeWriteBytes } from './linux-write.ts'
export {
  callOfRequest,
  decodeMessage,
  decodeObject,
  decodeResult,
  type EncodeOptions,
  encodeCall,
  ioctlRequest,
  type OutputRoom,
} from './object.ts'
